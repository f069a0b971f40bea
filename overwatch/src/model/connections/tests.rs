use super::*;
use crate::{
    collect::{ClosedConnection, OpenConnection},
    model::{
        fixtures::{change, connection, sample},
        traffic::Traffic,
    },
};

const SECOND: u64 = 1_000_000_000;

/// The models that work together.
#[derive(Default)]
struct Models {
    traffic: Traffic,
    open: Open,
    connections: Connections,
}

impl Models {
    fn take(&mut self, sample: &Sample) {
        let snapshot = self.traffic.update(sample);
        self.open.update(sample);
        self.connections.update(sample, &snapshot, &self.open);
    }

    /// What there is at the end of an interval, by kernel address.
    fn end(&mut self, sample: &Sample) -> Vec<Live> {
        self.take(sample);
        let mut rows = self.connections.rows(&self.open, &Clock::of(sample));
        rows.sort_by_key(|live| live.key);
        self.connections.begin_interval(|_| true);
        rows
    }
}

fn at(seconds: u64) -> Sample {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + seconds);
    Sample { time, monotonic_ns: seconds * SECOND, ..sample() }
}

fn time(seconds: u64) -> Option<SystemTime> {
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + seconds))
}

/// The entry of a connection of nginx's that `change` tells of.
fn entry(created_ns: u64, sent: u64) -> Connection {
    let told = change(0, created_ns, 0, (1, 1));
    Connection {
        created_ns,
        sent,
        role: told.role,
        state: ESTABLISHED,
        tgid: told.tgid,
        comm: told.comm,
        netns: told.netns,
        local_addr: told.local_addr,
        remote_addr: told.remote_addr,
        local_port: told.local_port,
        remote_port: told.remote_port,
        ..connection(0, 0, 0)
    }
}

fn moves(sock: u64, created_ns: u64, sent: u64) -> OpenConnection {
    OpenConnection { sock, connection: entry(created_ns, sent), shares: Vec::new() }
}

#[test]
fn a_connection_is_there_from_its_first_change_to_the_interval_of_its_end() {
    let mut models = Models::default();
    let born = [change(1, SECOND, SECOND, (10, 3)), change(1, SECOND, 2 * SECOND, (3, 1))];
    let accepted = Change { established_ns: 2 * SECOND, ..change(1, SECOND, 3 * SECOND, (1, 1)) };
    let changes = born.into_iter().chain([accepted]).collect();
    let rows = models.end(&Sample { changes, open: vec![moves(1, SECOND, 100)], ..at(4) });
    let [live] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((live.opened, live.established, live.accepted), (time(1), time(2), time(3)));
    assert_eq!((live.moved.sent, live.moved_total.sent, live.has_ended()), (100, 100, false));
    assert_eq!(live.process.as_ref().map(|process| process.pid), Some(42));
    // It is quiet.
    let rows = models.end(&at(5));
    assert_eq!((rows[0].moved.sent, rows[0].moved_total.sent), (0, 100));
    // It moves more, in two parts of an interval, and ends.
    models.take(&Sample { open: vec![moves(1, SECOND, 150)], ..at(5) });
    let closed = vec![ClosedConnection { sock: 1, connection: entry(SECOND, 170), shares: Vec::new() }];
    let rows = models.end(&Sample { closed, changes: vec![change(1, SECOND, 6 * SECOND, (1, 7))], ..at(6) });
    let [live] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((live.moved.sent, live.moved_total.sent, live.has_ended()), (70, 170, true));
    assert_eq!(models.end(&at(7)), []);
    assert!(models.connections.details.is_empty());
}

#[test]
fn a_connection_that_lived_within_one_interval_is_shown_once() {
    let mut models = Models::default();
    let changes = vec![change(1, SECOND, SECOND, (10, 3)), change(1, SECOND, SECOND + 1, (1, 7))];
    let closed = vec![ClosedConnection { sock: 1, connection: entry(SECOND, 30), shares: Vec::new() }];
    let rows = models.end(&Sample { changes, closed, ..at(2) });
    assert_eq!(rows.iter().map(|live| (live.moved.sent, live.has_ended())).collect::<Vec<_>>(), [(30, true)]);
    assert_eq!(models.end(&at(3)), []);
    assert!(models.connections.details.is_empty() && models.connections.unlisted.is_empty());
}

#[test]
fn what_was_open_before_has_no_beginning_and_the_table_corrects_what_was_lost() {
    let mut models = Models::default();
    let old = Connection { flags: flag::PARTIAL | flag::ESTABLISHED | flag::ACCEPTED, ..entry(SECOND, 0) };
    let rows = models.end(&Sample { table: Some(vec![(1, old), (2, entry(SECOND, 0))]), ..at(2) });
    assert_eq!(rows.iter().map(|live| live.opened).collect::<Vec<_>>(), [None, time(1)]);
    // The end of one was lost: the next table does not have it. The other keeps what it has moved.
    models.end(&Sample { open: vec![moves(2, SECOND, 9)], ..at(3) });
    let rows = models.end(&Sample { table: Some(vec![(2, entry(SECOND, 9))]), ..at(4) });
    let shown: Vec<_> = rows.iter().map(|live| (live.key.0, live.moved_total.sent, live.has_ended())).collect();
    assert_eq!(shown, [(1, 0, true), (2, 9, false)]);
    assert_eq!(models.connections.details.len(), 1);
}

#[test]
fn processes_are_forgotten_when_they_have_no_socket_and_move_nothing() {
    let mut models = Models::default();
    models.take(&Sample { open: vec![moves(1, SECOND, 9)], ..at(2) });
    let moved = |connections: &Connections| -> Vec<(u64, u64)> {
        connections.movers().map(|mover| (mover.moved.sent, mover.moved_total.sent)).collect()
    };
    assert_eq!(moved(&models.connections), [(9, 9)]);
    models.connections.begin_interval(|_| false);
    assert_eq!(moved(&models.connections), [(0, 9)]);
    models.connections.begin_interval(|pid| pid == 42);
    assert_eq!(moved(&models.connections), [(0, 9)]);
    models.connections.begin_interval(|_| false);
    assert_eq!(moved(&models.connections), []);
}

#[test]
fn an_end_without_bytes_is_shown_and_bytes_of_an_earlier_part_are_its() {
    let mut models = Models::default();
    let born = vec![change(1, SECOND, SECOND, (10, 3)), change(1, SECOND, SECOND + 1, (3, 1))];
    models.end(&Sample { changes: born, ..at(2) });
    // The bytes come with one part of the interval, the end with the next, and the last bytes later still.
    models.take(&Sample { open: vec![moves(1, SECOND, 10)], ..at(3) });
    models.take(&Sample { changes: vec![change(1, SECOND, 3 * SECOND, (1, 7))], ..at(3) });
    let closed = vec![ClosedConnection { sock: 1, connection: entry(SECOND, 14), shares: Vec::new() }];
    models.take(&Sample { closed, ..at(4) });
    assert_eq!(models.connections.moved_by_all().sent, 14);
    let rows = models.end(&at(4));
    let [live] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((live.moved.sent, live.moved_total.sent, live.has_ended(), live.opened), (14, 14, true, time(1)));
    assert!(models.connections.moved.is_empty() && models.connections.details.is_empty());
    // Quiet to the end.
    models.end(&Sample { changes: vec![change(2, SECOND, SECOND, (10, 3))], ..at(5) });
    let rows = models.end(&Sample { changes: vec![change(2, SECOND, 5 * SECOND, (3, 7))], ..at(6) });
    assert_eq!(rows.iter().map(Live::has_ended).collect::<Vec<_>>(), [true]);
    // Refused before anything could be seen of it.
    let refused = vec![change(3, 6 * SECOND, 6 * SECOND, (7, 2)), change(3, 6 * SECOND, 6 * SECOND, (2, 7))];
    let rows = models.end(&Sample { changes: refused, ..at(7) });
    assert_eq!(rows.iter().map(|live| (live.key.0, live.has_ended())).collect::<Vec<_>>(), [(3, true)]);
    assert_eq!(models.end(&at(8)), []);
    assert!(models.connections.details.is_empty());
}

#[test]
fn one_that_only_bytes_tell_of_is_open_as_long_as_they_say_so() {
    let mut models = Models::default();
    let rows = models.end(&Sample { open: vec![moves(1, SECOND, 10)], ..at(2) });
    assert_eq!(rows.iter().map(|live| (live.state, live.moved.sent)).collect::<Vec<_>>(), [(ESTABLISHED, 10)]);
    assert_eq!((rows[0].opened, rows[0].has_ended()), (None, false));
    // In two parts of an interval it has one total.
    models.take(&Sample { open: vec![moves(1, SECOND, 20)], ..at(3) });
    let rows = models.end(&Sample { open: vec![moves(1, SECOND, 30)], ..at(3) });
    assert_eq!(rows.iter().map(|live| (live.moved.sent, live.moved_total.sent)).collect::<Vec<_>>(), [(20, 30)]);
    let closed = vec![ClosedConnection { sock: 1, connection: entry(SECOND, 32), shares: Vec::new() }];
    let rows = models.end(&Sample { closed, ..at(3) });
    assert_eq!(rows.iter().map(|live| (live.has_ended(), live.moved.sent)).collect::<Vec<_>>(), [(true, 2)]);
}

#[test]
fn a_long_interval_keeps_no_more_than_its_share_and_counts_the_rest() {
    let mut models = Models::default();
    for round in 0..3 {
        let sock = |number: u64| round * 10_000 + number;
        let end = |number| ClosedConnection { sock: sock(number), connection: entry(SECOND, 3), shares: Vec::new() };
        models.take(&Sample { closed: (1..=10_000).map(end).collect(), ..at(2) });
    }
    assert_eq!((models.connections.moved_by_all().sent, models.connections.left_out()), (90_000, 10_000));
    assert_eq!(models.end(&at(3)).len(), MOST_UNLISTED);
    assert_eq!((models.connections.moved_by_all().sent, models.connections.left_out()), (0, 0));
}

#[test]
fn who_has_the_number_of_another_process_now_has_nothing_of_its_totals() {
    let mut connections = Connections::default();
    let row = |comm: &str, cgroup_id| {
        let process = Process { pid: 42, comm: comm.to_owned(), cgroup_id };
        Row { process: Some(process), ..crate::model::fixtures::row() }
    };
    let one = row("sh", 1);
    for (comm, cgroup_id, times) in [("sh", 1, 1), ("curl", 1, 2), ("nginx", 2, 1)] {
        connections.moved(&row(comm, cgroup_id), ESTABLISHED, &Open::default(), &Clock::of(&sample()));
        let totals: Vec<_> =
            connections.movers().map(|mover| (mover.process.comm.as_str(), mover.moved_total.sent)).collect();
        assert_eq!(totals, [(comm, times * one.sent_bytes)]);
    }
}
