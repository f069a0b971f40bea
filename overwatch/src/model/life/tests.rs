//! What lines say, sample by sample.

use overwatch_common::connection::{COMM_LEN, Listener, Share, role};

use super::*;
use crate::model::fixtures::{connection, sample};

const SOCK: u64 = 0xffff_8880_0000_1000;
const NETNS: u32 = 7;
const OPENED: u32 = flag::CLOSED | flag::ESTABLISHED | flag::ACCEPTED;
/// What the samples' clocks show: the wall is half a second ahead.
const NOW_MS: u64 = 100_000;
const AHEAD_MS: u64 = 500;

fn ms(milliseconds: u64) -> u64 {
    milliseconds * 1_000_000
}

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds + AHEAD_MS)
}

fn mapped(last: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last]
}

fn closed(sock: u64, connection: Connection) -> ClosedConnection {
    ClosedConnection { sock, connection, shares: Vec::new() }
}

fn moment(closed: Vec<ClosedConnection>) -> Sample {
    Sample { time: at(NOW_MS), monotonic_ns: ms(NOW_MS), closed, ..sample() }
}

/// The only line that comes of a connection.
fn line_of(connection: Connection) -> Line {
    line_beside(connection, None, Vec::new())
}

fn line_beside(connection: Connection, listeners: Option<Vec<(u64, Listener)>>, shares: Vec<ProcessShare>) -> Line {
    let mut life = Life::default();
    let closed = ClosedConnection { shares, ..closed(SOCK, connection) };
    let first = life.update(&Sample { listeners, ..moment(vec![closed]) });
    assert_eq!(first, Lives::default(), "the line is held");
    let mut lines = life.finish().lines;
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

fn server() -> Connection {
    Connection {
        role: role::SERVER,
        flags: OPENED,
        created_ns: ms(2000),
        established_ns: ms(2000),
        accepted_ns: ms(2030),
        closed_ns: ms(5000),
        handshake_us: 8_000,
        local_addr: mapped(1),
        remote_addr: mapped(2),
        ..connection(42, 1000, 20)
    }
}

fn client() -> Connection {
    Connection { role: role::CLIENT, accepted_ns: 0, handshake_us: 0, established_ns: ms(2015), ..server() }
}

fn listener(addr: [u8; 16], tgid: u32) -> Listener {
    let mut comm = [0; COMM_LEN];
    comm[..6].copy_from_slice(b"master");
    Listener {
        since_ns: ms(1000),
        cgroup_id: 4,
        inode: 0,
        overflows_syn: 0,
        overflows_ack: 0,
        syn_queue_overflows: 0,
        syn_queue_at_limit: 0,
        syn_cookies: 0,
        local_addr: addr,
        comm,
        tgid,
        netns: NETNS,
        local_port: 80,
        audit: 0,
        seen: 0,
        pad: [0; 3],
    }
}

#[test]
fn a_line_says_what_its_connection_was() {
    let connection = Connection {
        kernel_sent: 1500,
        kernel_received: 20,
        unread: 3,
        segments_sent: 4,
        segments_received: 5,
        retransmits: 6,
        lost_segments: 7,
        smoothed_rtt_us: 250,
        error: 104,
        closed_from: 1,
        ..server()
    };
    let expected = Line {
        time: at(5000),
        process: Some(Process { pid: 42, comm: "nginx".into(), cgroup_id: 9 }),
        netns: NETNS,
        local_addr: [10, 0, 0, 1].into(),
        local_port: 80,
        remote_addr: Some([10, 0, 0, 2].into()),
        remote_port: Some(50_000),
        role: Some(Role::Server),
        listener: None,
        syn_time: Some(at(1992)),
        established_time: Some(at(2000)),
        accepted_time: Some(at(2030)),
        duration: Some(Duration::from_millis(3008)),
        connect: None,
        handshake: Some(Duration::from_millis(8)),
        accept_wait: Some(Duration::from_millis(30)),
        sent_bytes: 1500,
        received_bytes: 20,
        reconciled_sent_bytes: 500,
        reconciled_received_bytes: 0,
        at_close: Some(AtClose {
            totals: KernelTotals { sent_bytes: 1500, received_bytes: 20 },
            unread_bytes: 3,
            segments_sent: 4,
            segments_received: 5,
            retransmits: 6,
            lost_segments: 7,
            smoothed_rtt: Some(Duration::from_micros(250)),
        }),
        ended: Some(Ending::ResetByPeer),
        error: Some("ECONNRESET".into()),
        partial: false,
    };
    assert_eq!(line_of(connection), expected);
}

#[test]
fn durations_are_known_as_far_as_their_ends_are() {
    let partial = |connection: Connection| Connection { flags: connection.flags | flag::PARTIAL, ..connection };
    let without = |connection: Connection, bit: u32| Connection { flags: connection.flags & !bit, ..connection };
    let refused = Connection { established_ns: 0, closed_ns: ms(2001), ..without(client(), flag::ESTABLISHED) };
    let not_accepted = Connection { accepted_ns: 0, tgid: 0, ..without(server(), flag::ACCEPTED) };
    let half_open = Connection { established_ns: 0, handshake_us: 0, ..without(not_accepted, flag::ESTABLISHED) };
    // With TCP Fast Open: born at the SYN and accepted before the final ACK.
    let fast = Connection { created_ns: ms(1990), accepted_ns: ms(1995), ..server() };
    let unknown = Connection { role: role::UNKNOWN, ..server() };
    // Milliseconds: SYN, duration, connect, handshake, wait to be accepted.
    type Case = (&'static str, Connection, [Option<u64>; 5]);
    let cases: [Case; 19] = [
        ("client", client(), [Some(2000), Some(3000), Some(15), None, None]),
        ("partial client", partial(client()), [None, None, None, None, None]),
        ("refused", refused, [Some(2000), Some(1), Some(1), None, None]),
        ("partial refused", partial(refused), [None, None, None, None, None]),
        (
            "client, establishing not seen",
            Connection { established_ns: 0, ..client() },
            [Some(2000), Some(3000), None, None, None],
        ),
        ("client, close not seen", Connection { closed_ns: 0, ..client() }, [Some(2000), None, Some(15), None, None]),
        ("server", server(), [Some(1992), Some(3008), None, Some(8), Some(30)]),
        (
            "server, handshake not known",
            Connection { handshake_us: 0, ..server() },
            [None, Some(3000), None, None, Some(30)],
        ),
        ("partial server", partial(server()), [Some(1992), Some(3008), None, Some(8), Some(30)]),
        (
            "partial server, handshake not known",
            partial(Connection { handshake_us: 0, ..server() }),
            [None, None, None, None, Some(30)],
        ),
        (
            "partial server, establishing not seen",
            partial(Connection { established_ns: 0, handshake_us: 0, ..server() }),
            [None, None, None, None, None],
        ),
        (
            "server, accept not seen",
            Connection { accepted_ns: 0, ..server() },
            [Some(1992), Some(3008), None, Some(8), None],
        ),
        (
            "server, close not seen",
            Connection { closed_ns: 0, ..server() },
            [Some(1992), None, None, Some(8), Some(30)],
        ),
        ("accepted before established", fast, [Some(1992), Some(3008), None, Some(8), Some(5)]),
        ("partial, accepted before established", partial(fast), [Some(1992), Some(3008), None, Some(8), None]),
        (
            "accepted, never established",
            Connection { established_ns: 0, handshake_us: 0, ..fast },
            [None, Some(3010), None, None, Some(5)],
        ),
        ("never accepted", not_accepted, [Some(1992), Some(3008), None, Some(8), Some(3000)]),
        ("never accepted nor established", half_open, [None, Some(3000), None, None, Some(3000)]),
        ("role not known", unknown, [None, Some(3000), None, None, None]),
    ];
    for (what, connection, [syn, duration, connect, handshake, accept_wait]) in cases {
        let line = line_of(connection);
        let millis = |milliseconds: Option<u64>| milliseconds.map(Duration::from_millis);
        assert_eq!(line.syn_time, syn.map(at), "{what}");
        assert_eq!(line.duration, millis(duration), "{what}");
        assert_eq!(line.connect, millis(connect), "{what}");
        assert_eq!(line.handshake, millis(handshake), "{what}");
        assert_eq!(line.accept_wait, millis(accept_wait), "{what}");
        assert_eq!(line.partial, connection.flags & flag::PARTIAL != 0, "{what}");
    }
}

#[test]
fn bytes_are_everybodys_and_made_good_to_the_kernels_count() {
    let share = |tgid, sent, received| ProcessShare {
        tgid,
        share: Share { sent, received, cgroup_id: 8, comm: [0; COMM_LEN], epoch: 1, pad: 0 },
    };
    let full = Connection { unattributed_sent: 30, unattributed_received: 5, ..server() };
    // The owner has moved 1000 and 20. What the kernel says, what the line says, and what of it was made good.
    let cases = [
        ("equal", server(), vec![], (1000, 20), (1000, 20), (0, 0)),
        ("larger", server(), vec![], (1001, 50), (1001, 50), (1, 30)),
        ("smaller", server(), vec![], (999, 0), (1000, 20), (0, 0)),
        ("larger and smaller", server(), vec![], (0, 21), (1000, 21), (0, 1)),
        ("shares", server(), vec![share(43, 5, 6), share(44, 7, 0)], (1012, 26), (1012, 26), (0, 0)),
        ("shares and unseen", server(), vec![share(43, 5, 6)], (1010, 30), (1010, 30), (5, 4)),
        ("unattributed", full, vec![], (1030, 25), (1030, 25), (0, 0)),
        ("all", full, vec![share(43, 1, 1)], (2000, 26), (2000, 26), (969, 0)),
    ];
    for (what, connection, shares, (kernel_sent, kernel_received), moved, reconciled) in cases {
        let line = line_beside(Connection { kernel_sent, kernel_received, ..connection }, None, shares);
        assert_eq!((line.sent_bytes, line.received_bytes), moved, "{what}");
        assert_eq!((line.reconciled_sent_bytes, line.reconciled_received_bytes), reconciled, "{what}");
        let totals = line.at_close.map(|at_close| at_close.totals);
        assert_eq!(totals, Some(KernelTotals { sent_bytes: kernel_sent, received_bytes: kernel_received }), "{what}");
    }
}

#[test]
fn what_is_not_known_is_none() {
    let unknown = Connection {
        role: role::UNKNOWN,
        flags: flag::PARTIAL,
        established_ns: 0,
        accepted_ns: 0,
        closed_ns: 0,
        tgid: 0,
        remote_port: 0,
        ..server()
    };
    let line = line_of(unknown);
    assert_eq!(line.time, at(NOW_MS), "when we heard of it");
    assert_eq!((line.process, line.role, line.listener), (None, None, None));
    assert_eq!((line.remote_addr, line.remote_port), (None, None));
    assert_eq!((line.syn_time, line.established_time, line.accepted_time), (None, None, None));
    assert_eq!((line.at_close, line.ended, line.error), (None, None, None));
    assert!(line.partial);
    // No round-trip time was ever measured.
    assert_eq!(line_of(server()).at_close.unwrap().smoothed_rtt, None);
}

#[test]
fn the_listener_is_named_and_answers_for_what_nobody_accepted() {
    let any = [0; 16];
    let not_accepted = Connection { tgid: 0, flags: flag::CLOSED | flag::ESTABLISHED, accepted_ns: 0, ..server() };
    let nobodys = Connection { tgid: 0, ..server() };
    for (what, connection, listening, listener_text, pid) in [
        ("accepted", server(), listener(mapped(1), 30), Some("10.0.0.1:80"), Some(42)),
        ("accepted, any address", server(), listener(any, 30), Some("[::]:80"), Some(42)),
        ("accepted by nobody knows whom", nobodys, listener(any, 30), Some("[::]:80"), None),
        ("never accepted", not_accepted, listener(mapped(1), 30), Some("10.0.0.1:80"), Some(30)),
        ("never accepted, unknown listener", not_accepted, listener(mapped(1), 0), Some("10.0.0.1:80"), None),
        ("a client", client(), listener(any, 30), None, Some(42)),
        ("another port", Connection { local_port: 81, ..server() }, listener(any, 30), None, Some(42)),
        ("another namespace", Connection { netns: 8, ..server() }, listener(any, 30), None, Some(42)),
    ] {
        let line = line_beside(connection, Some(vec![(SOCK + 4096, listening)]), Vec::new());
        assert_eq!(line.listener.map(|at| at.to_string()).as_deref(), listener_text, "{what}");
        assert_eq!(line.process.map(|process| process.pid), pid, "{what}");
    }
    let line = line_beside(not_accepted, Some(vec![(SOCK + 4096, listener(any, 30))]), Vec::new());
    assert_eq!(line.process, Some(Process { pid: 30, comm: "master".into(), cgroup_id: 4 }));
    assert_eq!(line.ended, Some(Ending::NeverAccepted));
}

#[test]
fn a_reset_counts_for_the_last_connection_that_had_the_address() {
    // What Linux does when data comes for a socket that nobody holds: it ends as if the peer had reset it.
    let reset = |port| Connection { remote_port: port, closed_from: 5, error: 104, ..server() };
    const BY_PEER: Option<Ending> = Some(Ending::ResetByPeer);
    const BY_US: Option<Ending> = Some(Ending::ResetByUs);
    // Sockets and ports of two samples, resets in each, and the endings of all, sample by sample.
    type Sockets = &'static [(u64, u16)];
    type Case = ([Sockets; 2], [&'static [u64]; 2], &'static [Option<Ending>]);
    let cases: [Case; 5] = [
        ([&[(1, 1)], &[]], [&[], &[]], &[BY_PEER]),
        ([&[(1, 1)], &[]], [&[], &[1]], &[BY_US]),
        ([&[(1, 1), (2, 2)], &[(3, 3)]], [&[], &[2]], &[BY_PEER, BY_US, BY_PEER]),
        ([&[(1, 1), (1, 2)], &[]], [&[], &[1]], &[BY_PEER, BY_US]),
        // Of two samples it is the earlier one's.
        ([&[(1, 1)], &[(1, 2)]], [&[], &[1]], &[BY_US, BY_PEER]),
    ];
    for (sockets, resets, expected) in cases {
        let mut life = Life::default();
        let mut lines = Vec::new();
        for (sockets, resets) in sockets.iter().zip(resets) {
            let closed = sockets.iter().map(|(sock, port)| closed(*sock, reset(*port))).collect();
            let held = lines.len() + life.held.len();
            lines.extend(life.update(&Sample { resets: resets.to_vec(), ..moment(closed) }).lines);
            assert_eq!(lines.len(), held, "all that was held, and nothing of this sample");
        }
        lines.extend(life.finish().lines);
        assert_eq!(lines.iter().map(|line| line.ended).collect::<Vec<_>>(), expected, "{sockets:?} {resets:?}");
        assert_eq!(life.finish(), Lives::default(), "nothing comes twice");
    }
}

#[test]
fn what_was_lost_is_told_once() {
    let mut comm = [0; COMM_LEN];
    comm[..3].copy_from_slice(b"wrk");
    let key = |tgid, role| LostKey { comm, tgid, netns: NETNS, role, pad: [0; 7] };
    let sum = |connections, sent, received| LostSum { connections, sent, received };
    let mut life = Life::default();
    // Sums since the start, and what is new of them: process, role, connections and bytes.
    type New = (Option<u32>, Option<Role>, u64, u64, u64);
    type Sums = Vec<(LostKey, LostSum)>;
    let story: [(Sums, &[New]); 4] = [
        (vec![], &[]),
        (vec![(key(5, role::CLIENT), sum(2, 10, 1))], &[(Some(5), Some(Role::Client), 2, 10, 1)]),
        (
            vec![(key(5, role::CLIENT), sum(5, 40, 1)), (key(0, role::UNKNOWN), sum(1, 0, 0))],
            &[(Some(5), Some(Role::Client), 3, 30, 0), (None, None, 1, 0, 0)],
        ),
        (vec![(key(5, role::CLIENT), sum(5, 40, 1)), (key(0, role::UNKNOWN), sum(1, 0, 0))], &[]),
    ];
    for (lost, expected) in story {
        let lives = life.update(&Sample { lost, ..moment(Vec::new()) });
        let found: Vec<New> = lives
            .lost
            .iter()
            .map(|lost| {
                assert_eq!((lost.time, lost.netns), (at(NOW_MS), NETNS));
                let pid = lost.process.as_ref().map(|process| {
                    assert_eq!(process.comm, "wrk");
                    process.pid
                });
                (pid, lost.role, lost.lost_events, lost.sent_bytes, lost.received_bytes)
            })
            .collect();
        assert_eq!(found, expected);
        assert_eq!(lives.lines, []);
    }
}

#[test]
fn a_child_that_lost_the_race_for_its_handshake_has_no_line() {
    let twin =
        Connection { closed_from: 3, flags: flag::CLOSED, tgid: 0, accepted_ns: 0, kernel_received: 0, ..server() };
    let mut life = Life::default();
    life.update(&Sample { closed: vec![closed(1, twin), closed(2, server())], ..sample() });
    assert_eq!(life.finish().lines.len(), 1);
}
