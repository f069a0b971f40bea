//! What the series say, sample by sample.

use overwatch_common::{
    connection::{Listener, role, state},
    event::Change,
};

use super::*;
use crate::{
    collect::ClosedConnection,
    model::{
        fixtures::{bytes, change, connection, listener, row, sample},
        traffic::Traffic,
    },
};

const SOCK: u64 = 0xffff_8880_0000_1000;
const LIMITS: Limits = Limits { services: 16, ports: 16, idle: Duration::from_secs(60) };
const SECOND: u64 = 1_000_000_000;

/// An ending, `None` when it is not known, and how many.
type Count = (Option<&'static str>, u64);

/// All models, fed with one sample after another.
struct Models {
    traffic: Traffic,
    open: Open,
    services: Services,
    seconds: u64,
}

impl Models {
    /// systemd (pid 1) listens at 10.0.0.1:80 for nginx.
    fn new() -> Self {
        let services = Services::new(32_768..=60_999, &LIMITS);
        let mut models = Self { traffic: Traffic::default(), open: Open::default(), services, seconds: 0 };
        let listens =
            Listener { tgid: 1, cgroup_id: 2, comm: *b"systemd\0\0\0\0\0\0\0\0\0", ..listener(0, "10.0.0.1") };
        models.update(Sample { listeners: Some(vec![(1, listens)]), table: Some(Vec::new()), ..sample() });
        models
    }

    fn update(&mut self, sample: Sample) {
        self.seconds += 1;
        let sample = Sample { monotonic_ns: self.seconds * SECOND, ..sample };
        let snapshot = self.traffic.update(&sample);
        self.open.update(&sample);
        self.services.update(&sample, &snapshot, &self.open);
    }

    fn changes(&mut self, changes: &[Change]) {
        self.update(Sample { changes: changes.to_vec(), ..sample() });
    }

    fn closed(&mut self, connection: Connection) {
        self.update(Sample { closed: vec![ended(connection)], ..sample() });
    }

    /// Role, port, process, control group; opened, closed, open. In order.
    fn series(&self) -> Vec<(String, u64, u64, u64)> {
        let text = |service: &Service| {
            let role = service.role.map_or("?", Role::name);
            let cgroup = service.cgroup_id.map_or("?".to_owned(), |number| number.to_string());
            format!("{role} {} {} {cgroup}", service.port, service.process.as_deref().unwrap_or("?"))
        };
        let mut series: Vec<_> = self
            .services
            .services()
            .map(|(service, sums)| (text(service), sums.totals.opened, sums.totals.closed, sums.open))
            .collect();
        series.sort_unstable();
        series
    }

    /// Role and port with the endings that are not 0, and segments sent again. In order.
    fn endings(&self) -> Vec<(String, Vec<Count>, u64)> {
        let mut ports: Vec<_> = self
            .services
            .ports()
            .map(|(port, totals)| {
                let name = format!("{} {}", port.role.map_or("?", Role::name), port.port);
                (name, totals.endings().filter(|(_, count)| *count > 0).collect(), totals.retransmitted_segments)
            })
            .collect();
        ports.sort_unstable();
        ports
    }
}

fn ended(connection: Connection) -> ClosedConnection {
    ClosedConnection { sock: SOCK, connection, shares: Vec::new() }
}

/// A change of the connection that was born at that time and is accepted by nginx some time.
fn told(created_ns: u64, states: (u8, u8)) -> Change {
    change(SOCK, created_ns, 100 * SECOND, states)
}

fn nobodys(change: Change) -> Change {
    Change { tgid: 0, ..change }
}

/// What is left of it: nginx has closed it first.
fn last(created_ns: u64) -> Connection {
    Connection {
        created_ns,
        local_addr: bytes("10.0.0.1"),
        flags: flag::CLOSED | flag::ESTABLISHED | flag::CLOSED_FIRST,
        closed_from: state::FIN_WAIT2 as u8,
        state: state::CLOSE,
        retransmits: 3,
        ..connection(42, 0, 0)
    }
}

fn of(text: &str, opened: u64, closed: u64, open: u64) -> (String, u64, u64, u64) {
    (text.to_owned(), opened, closed, open)
}

const NGINX: &str = "server 80 nginx 9";
const SYSTEMD: &str = "server 80 systemd 2";

#[test]
fn a_connection_is_opened_when_a_process_has_it_and_closed_with_its_last_record() {
    let mut models = Models::new();
    models.changes(&[nobodys(told(5, (10, 3))), nobodys(told(5, (3, 1)))]);
    // It waits for the process that listens.
    assert_eq!(models.series(), [of(SYSTEMD, 0, 0, 1)]);
    models.changes(&[told(5, (1, 1))]);
    assert_eq!(models.series(), [of(NGINX, 1, 0, 1), of(SYSTEMD, 0, 0, 0)]);
    models.changes(&[told(5, (5, 7))]);
    assert_eq!(models.series(), [of(NGINX, 1, 0, 0), of(SYSTEMD, 0, 0, 0)]);
    models.closed(last(5));
    // How it ended is decided one sample later.
    assert_eq!((models.series()[0].2, models.endings()[0].1.len()), (0, 0));
    models.update(sample());
    assert_eq!(models.series(), [of(NGINX, 1, 1, 0), of(SYSTEMD, 0, 0, 0)]);
    assert_eq!(models.endings(), [("server 80".to_owned(), vec![(Some("closed_by_us"), 1)], 3)]);
    assert!(models.services.lives.is_empty());
}

#[test]
fn each_life_is_opened_and_closed_once_however_it_is_told() {
    let birth = || vec![nobodys(told(5, (10, 3))), nobodys(told(5, (3, 1)))];
    let partial = Connection { flags: flag::PARTIAL | last(5).flags, ..last(5) };
    let known = |flags| Connection { state: 1, flags, local_addr: bytes("10.0.0.1"), ..last(5) };
    let changes = |changes| Sample { changes, ..sample() };
    let closed = |connection| Sample { closed: vec![ended(connection)], ..sample() };
    let table = |connection| Sample { table: Some(vec![(SOCK, connection)]), ..sample() };
    let never = Connection { tgid: 0, accepted_ns: 0, flags: flag::CLOSED | flag::ESTABLISHED, ..last(5) };
    for (name, samples, expected) in [
        ("all in one sample", vec![Sample { changes: birth(), ..closed(last(5)) }], vec![of(NGINX, 1, 1, 0)]),
        ("the last record comes first", vec![closed(last(5)), changes(birth())], vec![of(NGINX, 1, 1, 0)]),
        ("only the last record", vec![closed(last(5))], vec![of(NGINX, 1, 1, 0)]),
        (
            "accepted and ended in one sample",
            vec![changes(birth()), Sample { changes: vec![told(5, (1, 1))], ..closed(last(5)) }],
            vec![of(NGINX, 1, 1, 0), of(SYSTEMD, 0, 0, 0)],
        ),
        ("nobody accepts it", vec![changes(birth()), closed(never)], vec![of(SYSTEMD, 1, 1, 0)]),
        (
            "nobody accepts it, in one sample",
            vec![Sample { changes: birth(), ..closed(never) }],
            vec![of(SYSTEMD, 1, 1, 0)],
        ),
        ("found in the table", vec![table(known(0)), closed(last(5))], vec![of(NGINX, 1, 1, 0)]),
        ("open before overwatch", vec![table(known(flag::PARTIAL)), closed(partial)], vec![of(NGINX, 0, 1, 0)]),
        ("open before overwatch, and still", vec![table(known(flag::PARTIAL))], vec![of(NGINX, 0, 0, 1)]),
        ("open before overwatch, unseen", vec![closed(partial)], vec![of(NGINX, 0, 1, 0)]),
    ] {
        let mut models = Models::new();
        for sample in samples {
            models.update(sample);
        }
        models.update(sample());
        models.update(sample());
        assert_eq!(models.series(), expected, "{name}");
    }
}

#[test]
fn a_last_record_that_was_lost_is_an_unknown_ending() {
    let mut models = Models::new();
    models.changes(&[told(5, (3, 1))]);
    let empty = || Sample { table: Some(Vec::new()), ..sample() };
    models.update(empty());
    assert_eq!(models.series(), [of(NGINX, 1, 0, 0)]);
    models.update(sample());
    assert_eq!(models.series(), [of(NGINX, 1, 1, 0)]);
    assert_eq!(models.endings(), [("server 80".to_owned(), vec![(None, 1)], 0)]);
    // One that is only late is in the next sample.
    models.changes(&[told(6, (3, 1))]);
    models.update(empty());
    models.closed(last(6));
    models.update(sample());
    assert_eq!(models.series(), [of(NGINX, 2, 2, 0)]);
    assert_eq!(models.endings()[0].1, [(Some("closed_by_us"), 1), (None, 1)]);
    // One that a process holds in CLOSE is in the table.
    models.changes(&[told(7, (3, 1)), told(8, (3, 1))]);
    for _ in 0..3 {
        models.update(Sample { table: Some(vec![(SOCK, last(7))]), ..sample() });
    }
    assert_eq!(models.series(), [of(NGINX, 4, 3, 0)]);
}

#[test]
fn a_reset_that_is_told_late_decides_the_ending_and_a_twin_has_none() {
    let aborted = Connection { flags: flag::CLOSED | flag::ESTABLISHED, closed_from: 0, retransmits: 0, ..last(5) };
    let twin = Connection { tgid: 0, flags: flag::CLOSED, closed_from: state::SYN_RECV as u8, ..last(5) };
    let twins_birth = vec![nobodys(told(5, (10, 3)))];
    for (name, birth, connection, resets, expected) in [
        ("nothing is known", Vec::new(), aborted, vec![], vec![(None, 1)]),
        ("reset", Vec::new(), aborted, vec![SOCK], vec![(Some("reset_by_us"), 1)]),
        ("another one's reset", Vec::new(), aborted, vec![SOCK + 1], vec![(None, 1)]),
        ("twin", Vec::new(), twin, vec![], vec![]),
        ("twin whose birth was told", twins_birth.clone(), twin, vec![], vec![]),
        ("no twin, since it was reset", twins_birth, twin, vec![SOCK], vec![(Some("never_accepted"), 1)]),
    ] {
        let mut models = Models::new();
        models.changes(&birth);
        models.closed(connection);
        models.update(Sample { resets, ..sample() });
        let endings: Vec<_> = models.endings().into_iter().flat_map(|(_, endings, _)| endings).collect();
        assert_eq!(endings, expected, "{name}");
        let closed: u64 = expected.iter().map(|(_, count)| count).sum();
        let series = models
            .series()
            .into_iter()
            .fold((0, 0, 0), |sum, (_, opened, closed, open)| (sum.0 + opened, sum.1 + closed, sum.2 + open));
        assert_eq!(series, (closed, closed, 0), "{name}");
    }
}

#[test]
fn segments_sent_again_are_known_of_those_that_reached_close() {
    let mut models = Models::new();
    models.closed(Connection { flags: flag::ESTABLISHED, ..last(5) });
    models.closed(last(6));
    models.update(sample());
    assert_eq!(models.endings(), [("server 80".to_owned(), vec![(Some("closed_by_us"), 2)], 3)]);
}

/// An interval with these rows.
fn moved(rows: Vec<Row>) -> Snapshot {
    Snapshot {
        time: std::time::SystemTime::UNIX_EPOCH,
        interval: Duration::from_secs(1),
        rows,
        unattributed_sent_bytes: 0,
        unattributed_received_bytes: 0,
        skipped_runs: None,
        lost_events: 0,
    }
}

#[test]
fn bytes_are_on_the_service_of_their_row() {
    let mut models = Models::new();
    let named = |comm: &str, cgroup_id| Some(Process { pid: 42, comm: comm.to_owned(), cgroup_id });
    let client = |remote_port| Row { role: Some(Role::Client), local_port: 40_000, remote_port, ..row() };
    let rows = vec![
        row(),
        row(),
        Row { process: named("nginx", 0), ..row() },
        Row { process: named("", 9), ..row() },
        Row { process: None, ..row() },
        client(443),
        client(40_001),
        client(40_002),
        Row { role: None, ..row() },
        Row { role: None, ..client(443) },
    ];
    let snapshot = Snapshot { unattributed_sent_bytes: 7, unattributed_received_bytes: 8, ..moved(rows) };
    for times in 1..3 {
        models.services.update(&sample(), &snapshot, &models.open);
        let name = |service: &Service| {
            let cgroup_id = service.cgroup_id.unwrap_or(0);
            format!("{:?} {} {:?} {cgroup_id}", service.role, service.port, service.process.as_deref())
        };
        let mut found: Vec<_> = models
            .services
            .services()
            .map(|(service, sums)| (name(service), sums.totals.sent_bytes, sums.totals.received_bytes))
            .collect();
        found.sort_unstable();
        let expected = [
            ("None 80 Some(\"nginx\") 9", 1),
            ("None unknown Some(\"nginx\") 9", 1),
            ("Some(Client) 443 Some(\"nginx\") 9", 1),
            ("Some(Client) ephemeral Some(\"nginx\") 9", 2),
            ("Some(Server) 80 None 0", 1),
            ("Some(Server) 80 None 9", 1),
            ("Some(Server) 80 Some(\"nginx\") 0", 1),
            ("Some(Server) 80 Some(\"nginx\") 9", 2),
        ];
        let expected = expected.map(|(name, rows)| (name.to_owned(), rows * times * 1_000, rows * times * 10));
        assert_eq!(found, expected);
        let unattributed = Bytes { sent: 7 * times, received: 8 * times };
        assert_eq!(models.services.unattributed_bytes(), unattributed);
    }
}

#[test]
fn a_port_that_somebody_begins_to_listen_at_does_not_change_what_is_open() {
    let mut models = Models::new();
    let client = |created_ns| Change { role: role::CLIENT, remote_port: 40_000, ..told(created_ns, (2, 1)) };
    models.changes(&[client(5)]);
    let listens = Listener { local_port: 40_000, ..listener(0, "10.0.0.2") };
    models.update(Sample { listeners: Some(vec![(2, listens)]), ..sample() });
    models.changes(&[Change { new: 8, old: 1, ..client(5) }, client(6)]);
    assert_eq!(models.series(), [of("client 40000 nginx 9", 1, 0, 1), of("client ephemeral nginx 9", 1, 0, 1)]);
}

#[test]
fn what_is_idle_ends_and_makes_room_and_open_connections_keep_it() {
    let mut models = Models::new();
    models.services.set_limits(&Limits { services: 1, ports: 1, idle: Duration::from_secs(2) });
    let of_port = |created_ns, local_port| Change { local_port, ..told(created_ns, (3, 1)) };
    models.changes(&[of_port(5, 80)]);
    models.changes(&[of_port(6, 81)]);
    for _ in 0..9 {
        models.update(sample());
    }
    assert_eq!(models.series(), [of(NGINX, 1, 0, 1)]);
    assert_eq!((models.services.other_services().totals.opened, models.services.other_services().open), (1, 1));
    models.closed(last(5));
    models.update(sample());
    assert_eq!(models.series(), [of(NGINX, 1, 1, 0)]);
    models.update(sample());
    models.update(sample());
    assert_eq!(models.series(), []);
    assert_eq!(models.services.service_counts(), SeriesCounts { limit: 1, series: 0, folded: 2 });
    // The other one has a series of its own from its next change on.
    models.changes(&[Change { old: 1, new: 8, ..of_port(6, 81) }]);
    assert_eq!(models.series(), [of("server 81 nginx 9", 0, 0, 1)]);
    let others = models.services.other_services();
    assert_eq!((others.totals.opened, others.totals.closed, others.open), (1, 0, 0));
}

#[test]
fn a_group_that_was_made_again_goes_on_as_the_one_before() {
    let mut models = Models::new();
    models.services.set_limits(&Limits { services: 9, ports: 9, idle: Duration::from_secs(3) });
    let path = |number| (number != 8).then_some("/system.slice/nginx.service");
    let of = |cgroup_id| Row { process: Some(Process { pid: 42, comm: "nginx".to_owned(), cgroup_id }), ..row() };
    let mut shown = Vec::new();
    // nginx is started anew, and moves bytes for longer than what is idle stays.
    for cgroup_id in [9, 8, 10, 10, 10, 10] {
        models.seconds += 1;
        let sample = Sample { monotonic_ns: models.seconds * SECOND, ..sample() };
        models.services.update(&sample, &moved(vec![of(cgroup_id)]), &models.open);
        models.services.merge(&path);
        let of_path = models.services.services().filter(|(service, _)| service.cgroup_id.and_then(path).is_some());
        shown.push(of_path.map(|(_, sums)| sums.totals.sent_bytes).collect::<Vec<_>>());
    }
    assert_eq!(shown, [[1_000], [1_000], [2_000], [3_000], [4_000], [5_000]]);
    assert_eq!(models.services.service_counts().series, 1);
}
