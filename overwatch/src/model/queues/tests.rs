use std::time::Duration;

use overwatch_common::connection::{Connection, Listener, state};

use super::*;
use crate::{
    collect::{ClosedConnection, Counters, SynQueueReading, WaitingReading},
    kernel::netstat::{Limits, Overflows},
    model::{
        fixtures::{bytes, change, connection, listener, sample},
        queue::{Count, WaitTotals},
    },
};

mod splits;

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// From the end of an interval to the look.
const LOOK_IS_LATER: u64 = 300 * MILLISECOND;
/// Addresses of listening sockets.
const FIRST: u64 = 0x1000;
const SECOND_SOCKET: u64 = 0x2000;

/// 10.0.0.1:80 in namespace 7, which listened before overwatch.
fn reading(sock: u64) -> ListenerReading {
    ListenerReading {
        sock,
        listener: listener(0, "10.0.0.1"),
        time_ns: 0,
        inode: Some(sock + 1),
        accept_queue: 0,
        backlog_limit: 511,
        drops: 0,
        syn_queue: Some(SynQueueReading { length: 0, young: 0, defers_accept: false }),
        waiting: Vec::new(),
    }
}

/// The end of a second.
fn at(seconds: u64, queues: Vec<ListenerReading>) -> Sample {
    let monotonic_ns = seconds * SECOND;
    let look = |queue| ListenerReading { time_ns: monotonic_ns + LOOK_IS_LATER, ..queue };
    Sample { monotonic_ns, queues: Some(queues.into_iter().map(look).collect()), ..sample() }
}

/// Connection `sock` was put into the queue and is now accepted.
fn accept(sock: u64, listener: u64, established_ns: u64, time_ns: u64) -> Change {
    Change { listener, established_ns, ..change(sock, established_ns, time_ns, (1, 1)) }
}

fn entry(listener: u64, established_ns: u64, accepted_ns: u64) -> Connection {
    Connection {
        created_ns: established_ns,
        established_ns,
        accepted_ns,
        listener,
        role: role::SERVER,
        state: state::ESTABLISHED,
        tgid: if accepted_ns == 0 { 0 } else { 42 },
        netns: 7,
        local_addr: bytes("10.0.0.1"),
        local_port: 80,
        ..connection(0, 0, 0)
    }
}

#[test]
fn a_connection_is_served_from_accept_until_its_process_lets_go() {
    let mut queues = Queues::default();
    let changes =
        vec![accept(1, FIRST, SECOND / 2, SECOND / 2 + 40 * MILLISECOND), accept(2, FIRST, SECOND / 2, SECOND / 2)];
    let told = queues.update(&Sample { changes, ..at(1, vec![reading(FIRST)]) });
    let row = &told.queues[0];
    assert_eq!((row.accepts.interval, row.serving, row.served), (2, Some(2), 0));
    let waits = row.accept_waits.unwrap();
    assert_eq!((waits.max, waits.p50), (Duration::from_millis(40), Duration::from_micros(1).min(waits.p50)));

    // shutdown(SHUT_WR): the process goes on reading.
    let half = change(1, SECOND / 2, SECOND + 1, (1, 4));
    let told = queues.update(&Sample { changes: vec![half], ..at(2, vec![reading(FIRST)]) });
    assert_eq!(
        (told.queues[0].serving, told.queues[0].accepts.interval, told.queues[0].accept_waits),
        (Some(2), 0, None)
    );

    let closed = Change { let_go: 1, ..change(1, SECOND / 2, 2 * SECOND + 1, (1, 4)) };
    let told = queues.update(&Sample { changes: vec![closed], ..at(3, vec![reading(FIRST)]) });
    assert_eq!((told.queues[0].serving, told.queues[0].served), (Some(1), 1));

    // The last records count nothing twice.
    let ended = |sock| ClosedConnection { sock, connection: entry(FIRST, SECOND / 2, SECOND / 2), shares: Vec::new() };
    let told = queues.update(&Sample { closed: vec![ended(1), ended(2)], ..at(4, vec![reading(FIRST)]) });
    assert_eq!((told.queues[0].serving, told.queues[0].served), (Some(0), 1));
    assert_eq!(told.queues[0].accepts, Count { interval: 0, total: 2 });
    // Nor does a change that comes after them.
    let late = accept(1, FIRST, SECOND / 2, SECOND / 2);
    let told = queues.update(&Sample { changes: vec![late], ..at(5, vec![reading(FIRST)]) });
    assert_eq!((told.queues[0].serving, told.queues[0].accepts.total), (Some(0), 2));
}

#[test]
fn what_an_old_listener_serves_is_unknown_where_old_sockets_were_not_looked_up() {
    let old = ListenerReading { listener: Listener { since_ns: 0, ..listener(0, "10.0.0.1") }, ..reading(FIRST) };
    let new = ListenerReading { listener: listener(SECOND / 2, "10.0.0.2"), ..reading(SECOND_SOCKET) };
    for (old_sockets_known, accepts_seen, expected) in [
        (true, true, [(true, Some(0)), (true, Some(0))]),
        (false, true, [(false, None), (true, Some(0))]),
        (false, false, [(false, None), (false, None)]),
    ] {
        let mut queues = Queues::default();
        let sample = Sample { old_sockets_known, accepts_seen, ..at(1, vec![old.clone(), new.clone()]) };
        let told = queues.update(&sample).queues;
        let found: Vec<_> = told.iter().map(|queue| (queue.accepts_seen, queue.serving)).collect();
        assert_eq!(found, expected, "{old_sockets_known} {accepts_seen}");
    }
}

#[test]
fn an_accept_that_was_lost_is_known_from_the_last_record_or_the_table() {
    let mut queues = Queues::default();
    queues.update(&Sample { table: Some(Vec::new()), ..at(1, vec![reading(FIRST)]) });
    let short = ClosedConnection { sock: 1, connection: entry(FIRST, SECOND + 1, SECOND + 2), shares: Vec::new() };
    let told = queues.update(&Sample { closed: vec![short], ..at(2, vec![reading(FIRST)]) });
    assert_eq!((told.queues[0].accepts.interval, told.queues[0].served, told.queues[0].serving), (1, 1, Some(0)));
    let table = vec![(2, entry(FIRST, SECOND + 1, SECOND + 2)), (3, entry(FIRST, 0, 0))];
    let told = queues.update(&Sample { table: Some(table), ..at(3, vec![reading(FIRST)]) });
    // The other one waits: it has no owner.
    assert_eq!((told.queues[0].accepts.interval, told.queues[0].serving), (1, Some(1)));
}

#[test]
fn an_accept_that_no_hook_saw_counts_once_and_nobody_knows_how_long_it_waited() {
    let unseen = |created_ns| Connection {
        accepted_ns: 0,
        flags: flag::ESTABLISHED | flag::ACCEPTED | flag::ACCEPT_MISSED,
        ..entry(0, created_ns, created_ns)
    };
    let ended = |connection| vec![ClosedConnection { sock: 1, connection, shares: Vec::new() }];
    let table = |connection| Some(vec![(1, connection)]);
    let before = Connection { flags: flag::ESTABLISHED | flag::ACCEPTED | flag::PARTIAL, ..unseen(1) };
    let waits = || Some(vec![(1, entry(0, 1, 0))]);
    type Case = (&'static str, Option<Vec<(u64, Connection)>>, [Sample; 2], [u64; 2]);
    let none = |seconds| at(seconds, vec![reading(FIRST)]);
    let cases: [Case; 5] = [
        ("it ended", None, [Sample { closed: ended(unseen(SECOND + 1)), ..none(2) }, none(3)], [1, 1]),
        (
            "the table has it, and it ended",
            None,
            [
                Sample { table: table(unseen(SECOND + 1)), ..none(2) },
                Sample { closed: ended(unseen(SECOND + 1)), ..none(3) },
            ],
            [1, 1],
        ),
        (
            "it waited when the table was read",
            waits(),
            [none(2), Sample { closed: ended(unseen(1)), ..none(3) }],
            [0, 1],
        ),
        (
            "a hook was late",
            None,
            [
                Sample { table: table(unseen(SECOND + 1)), ..none(2) },
                Sample { changes: vec![accept(1, FIRST, SECOND + 1, 2 * SECOND + 1)], ..none(3) },
            ],
            [1, 1],
        ),
        ("it was open before", table(before), [none(2), Sample { closed: ended(before), ..none(3) }], [0, 0]),
    ];
    for (name, first, samples, expected) in cases {
        let mut queues = Queues::default();
        queues.update(&Sample { table: Some(first.unwrap_or_default()), ..none(1) });
        let told = samples.map(|sample| {
            let told = queues.update(&sample);
            assert_eq!(told.queues[0].accept_waits, None, "{name}");
            told.queues[0].accepts.total
        });
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn a_connection_that_the_peer_has_reset_is_served_until_its_process_lets_go() {
    let reset = |old| change(1, 1, 2 * SECOND, (old, 7));
    let accepted = entry(FIRST, 1, 2);
    let closed = Connection { state: CLOSE, ..accepted };
    let table = || Some(vec![(1, closed)]);
    let ended = || vec![ClosedConnection { sock: 1, connection: accepted, shares: Vec::new() }];
    type Case = (&'static str, Vec<Change>, Option<Vec<(u64, Connection)>>, Vec<ClosedConnection>, (u64, u64));
    let cases: [Case; 7] = [
        ("reset", vec![reset(1)], None, vec![], (1, 0)),
        ("reset after the peer's FIN", vec![reset(8)], None, vec![], (1, 0)),
        ("reset, as the table has it", vec![], table(), vec![], (1, 0)),
        ("reset by close(2)", vec![Change { let_go: 1, ..reset(1) }], None, vec![], (0, 1)),
        ("closed after that", vec![reset(1)], None, ended(), (0, 1)),
        ("closed after that, and the table is late", vec![reset(1)], table(), ended(), (0, 1)),
        ("closed", vec![Change { let_go: 1, ..change(1, 1, 2 * SECOND, (1, 4)) }], None, vec![], (0, 1)),
    ];
    for (name, changes, table, closed, expected) in cases {
        let mut queues = Queues::default();
        queues.update(&Sample { changes: vec![accept(1, FIRST, 1, 2)], ..at(1, vec![reading(FIRST)]) });
        let told = queues.update(&Sample { changes, table, closed, ..at(2, vec![reading(FIRST)]) });
        assert_eq!((told.queues[0].serving, told.queues[0].served), (Some(expected.0), expected.1), "{name}");
    }
}

#[test]
fn what_was_open_before_is_served_but_was_not_accepted_now() {
    let before = Connection { tgid: 42, ..entry(0, 0, 0) };
    for (state, closed_from, serving) in [
        (state::ESTABLISHED, 0, 1),
        (state::CLOSE_WAIT, 0, 1),
        (state::FIN_WAIT2, 0, 0),
        (LAST_ACK, 0, 0),
        // Reset while its process is busy.
        (CLOSE, 0, 1),
        (CLOSE, state::ESTABLISHED, 1),
        (CLOSE, state::CLOSE_WAIT, 1),
        (CLOSE, state::FIN_WAIT2, 0),
    ] {
        let mut queues = Queues::default();
        let table = vec![(1, Connection { state, closed_from: closed_from as u8, ..before })];
        let told = queues.update(&Sample { table: Some(table), ..at(1, vec![reading(FIRST)]) });
        let numbers = (told.queues[0].accepts.total, told.queues[0].serving);
        assert_eq!(numbers, (0, Some(serving)), "{state} from {closed_from}");
    }
}

#[test]
fn sockets_that_share_a_port_are_told_apart_by_the_hook_or_not_at_all() {
    let mut queues = Queues::default();
    let both = || vec![reading(FIRST), reading(SECOND_SOCKET)];
    let changes = vec![accept(1, FIRST, 1, 2), accept(2, SECOND_SOCKET, 1, 2), accept(3, SECOND_SOCKET, 1, 2)];
    let told = queues.update(&Sample { changes, ..at(1, both()) });
    let numbers: Vec<_> = told.queues.iter().map(|row| (row.siblings, row.serving, row.accepts.interval)).collect();
    assert_eq!(numbers, [(1, Some(1), 1), (1, Some(2), 2)]);
    let told = queues.update(&Sample { changes: vec![accept(4, 0, SECOND + 1, SECOND + 2)], ..at(2, both()) });
    assert!(told.queues.iter().all(|row| row.serving.is_none()));
    let ended = ClosedConnection { sock: 4, connection: entry(0, SECOND + 1, SECOND + 2), shares: Vec::new() };
    let told = queues.update(&Sample { closed: vec![ended], ..at(3, both()) });
    assert_eq!(told.queues.iter().map(|row| row.serving).collect::<Vec<_>>(), [Some(1), Some(2)]);
}

#[test]
fn the_peak_is_the_most_that_any_connection_of_the_interval_found() {
    let mut queues = Queues::default();
    queues.update(&at(1, vec![reading(FIRST)]));
    let of_now = Change { queued_behind: 6, ..accept(1, FIRST, SECOND + 1, SECOND + 9) };
    let of_before = Change { queued_behind: 30, ..accept(2, FIRST, 1, SECOND + 9) };
    let told = queues.update(&Sample {
        changes: vec![of_now, of_before],
        ..at(2, vec![ListenerReading { accept_queue: 2, ..reading(FIRST) }])
    });
    let row = &told.queues[0];
    assert_eq!((row.accept_queue, row.accept_queue_peak), (2, 7));
    assert_eq!(row.arrivals, Count { interval: 4, total: 4 });
    let told = queues.update(&at(3, vec![reading(FIRST)]));
    assert_eq!((told.queues[0].accept_queue_peak, told.queues[0].arrivals.interval), (2, 0));
}

#[test]
fn ages_are_by_our_own_sight_else_by_the_kernels() {
    let mut queues = Queues::default();
    let client = |sock, established_ns, waited| WaitingReading {
        sock,
        established_ns,
        remote_addr: bytes("10.0.0.2"),
        remote_port: 50_000,
        state: state::CLOSE_WAIT,
        unread_bytes: 81,
        queued_behind: 0,
        waited,
    };
    let waiting = |age| vec![client(1, 3 * SECOND, None), client(2, 0, age), client(3, 0, None)];
    let sick = |age| vec![ListenerReading { accept_queue: 3, waiting: waiting(age), ..reading(FIRST) }];
    // The kernel's word is of the look.
    let told = queues.update(&at(5, sick(Some(Duration::from_millis(4_300)))));
    let ages: Vec<_> = told.queues[0].waiting.iter().map(|client| client.waiting.map(|age| age.as_secs())).collect();
    assert_eq!(ages, [Some(2), Some(4), None]);
    assert_eq!(told.queues[0].oldest_wait(), Some(Duration::from_secs(4)));
    assert_eq!((told.queues[0].waiting[0].unread_bytes, told.queues[0].waiting[0].state), (81, state::CLOSE_WAIT));
    // An age that was known once goes on evenly, whatever the coarser clock says.
    let told = queues.update(&at(6, sick(Some(Duration::from_millis(5_304)))));
    assert_eq!(told.queues[0].waiting[1].waiting, Some(Duration::from_secs(5)));
    let told = queues.update(&Sample { changes: vec![accept(2, FIRST, 0, 7 * SECOND)], ..at(7, vec![reading(FIRST)]) });
    assert_eq!(told.queues[0].accept_waits.unwrap().max, Duration::from_secs(6));
    assert_eq!(told.queues[0].waiting_total, 0);
}

#[test]
fn drops_before_overwatch_do_not_count_and_those_of_a_new_socket_do() {
    let mut queues = Queues::default();
    let refusals = RefusalsSeen { at_syn: true, at_ack: true };
    let counted = |since_ns, local_port, overflows_syn, overflows_ack| Listener {
        since_ns,
        local_port,
        overflows_syn,
        overflows_ack,
        ..listener(0, "10.0.0.1")
    };
    let old =
        |drops, overflows_syn| ListenerReading { drops, listener: counted(0, 80, overflows_syn, 0), ..reading(FIRST) };
    let new = ListenerReading { drops: 9, listener: counted(5, 81, 4, 2), ..reading(SECOND_SOCKET) };
    queues.update(&Sample { refusals, ..at(1, vec![old(70, 0)]) });
    let told = queues.update(&Sample { refusals, ..at(2, vec![old(73, 3), new.clone()]) });
    let numbers = |row: &Queue| (row.overflows_syn.interval, row.overflows_ack.interval, row.other_drops.interval);
    assert_eq!(told.queues.iter().map(numbers).collect::<Vec<_>>(), [(3, 0, 0), (4, 2, 1)]);
    let told = queues.update(&Sample { refusals, ..at(3, vec![old(73, 3), new]) });
    assert_eq!(told.queues.iter().map(numbers).collect::<Vec<_>>(), [(0, 0, 0), (0, 0, 0)]);
    assert_eq!(told.queues[1].overflows(), Count { interval: 0, total: 6 });
    assert!(told.queues[1].overflows_exact);
}

#[test]
fn a_refusal_that_the_namespace_does_not_count_is_not_believed() {
    let mut queues = Queues::default();
    let refusals = RefusalsSeen { at_syn: true, at_ack: true };
    // Drops, SYNs that the hook has counted, those of the namespace; what is shown.
    for (second, (drops, hook, counted, shown)) in
        [(70, 0, 100, 0), (71, 2, 101, 1), (71, 2, 101, 0), (73, 4, 103, 2), (73, 4, 104, 1)].into_iter().enumerate()
    {
        let limits = Limits {
            overflows: Some(Overflows { listen_overflows: counted, ..Overflows::default() }),
            ..Limits::default()
        };
        let listener = Listener { overflows_syn: hook, ..listener(0, "10.0.0.1") };
        let readings = vec![ListenerReading { drops, listener, ..reading(FIRST) }];
        let namespaces = vec![NamespaceReading { netns: 7, limits }];
        let told = queues.update(&Sample { refusals, namespaces, ..at(second as u64 + 1, readings) });
        assert_eq!(told.queues[0].overflows_syn.interval, shown, "{drops} {hook} {counted}");
    }
}

#[test]
fn without_hooks_the_namespace_says_how_many_were_refused() {
    let mut queues = Queues::default();
    let namespace = |listen_overflows| NamespaceReading {
        netns: 7,
        limits: Limits {
            overflows: Some(Overflows { listen_overflows, ..Overflows::default() }),
            somaxconn: Some(4_096),
            syncookies: None,
        },
    };
    let full = |drops| ListenerReading { drops, accept_queue: 3, backlog_limit: 2, ..reading(FIRST) };
    queues.update(&Sample { namespaces: vec![namespace(100)], ..at(1, vec![full(50)]) });
    let told = queues.update(&Sample { namespaces: vec![namespace(108)], ..at(2, vec![full(56)]) });
    assert_eq!((told.queues[0].overflows().interval, told.queues[0].somaxconn), (6, Some(4_096)));
    assert_eq!(told.queues[0].syn_cookies, None);
    // Two more had been refused after the look.
    let told = queues.update(&Sample { namespaces: vec![namespace(108)], ..at(3, vec![full(58)]) });
    assert_eq!((told.queues[0].overflows().interval, told.queues[0].other_drops.interval), (2, 0));
    let told = queues.update(&at(4, vec![full(58)]));
    assert_eq!((told.queues[0].overflows(), told.queues[0].somaxconn), (Count { interval: 0, total: 8 }, Some(4_096)));
}

#[test]
fn at_which_packet_it_was_refused_is_told_where_a_hook_has_seen_it() {
    // Two of six refusals were at the last ACK: what the hooks have counted, and what is told.
    for (at_syn, at_ack, told_apart) in [(true, true, Some((4, 2))), (false, true, Some((4, 2))), (false, false, None)]
    {
        let refusals = RefusalsSeen { at_syn, at_ack };
        let mut queues = Queues::default();
        let namespace = |listen_overflows| NamespaceReading {
            netns: 7,
            limits: Limits {
                overflows: Some(Overflows { listen_overflows, ..Overflows::default() }),
                ..Limits::default()
            },
        };
        let full = |drops, syn, ack| ListenerReading {
            drops,
            accept_queue: 3,
            backlog_limit: 2,
            listener: Listener {
                overflows_syn: if at_syn { syn } else { 0 },
                overflows_ack: if at_ack { ack } else { 0 },
                ..listener(0, "10.0.0.1")
            },
            ..reading(FIRST)
        };
        queues.update(&Sample { refusals, namespaces: vec![namespace(1)], ..at(1, vec![full(9, 0, 0)]) });
        let told = queues.update(&Sample { refusals, namespaces: vec![namespace(7)], ..at(2, vec![full(17, 4, 2)]) });
        let row = &told.queues[0];
        let by_packet = row.overflows_by_packet().map(|(syn, ack)| (syn.interval, ack.interval));
        assert_eq!((row.overflows().interval, by_packet), (6, told_apart), "{refusals:?}");
    }
}

#[test]
fn syns_at_the_limit_count_where_the_namespace_counts_them() {
    let refusals = RefusalsSeen { at_syn: true, at_ack: true };
    for (by_kernel, cookies, shown) in [(82, 1, (82, 0)), (82, 0, (0, 82)), (0, 1, (0, 0))] {
        let mut queues = Queues::default();
        let namespace = |syn_queue_full_cookies| NamespaceReading {
            netns: 7,
            limits: Limits {
                overflows: Some(Overflows { syn_queue_full_cookies, ..Overflows::default() }),
                somaxconn: None,
                syncookies: Some(cookies),
            },
        };
        let flooded = |syn_queue_at_limit| ListenerReading {
            listener: Listener { syn_queue_at_limit, ..listener(0, "10.0.0.1") },
            ..reading(FIRST)
        };
        queues.update(&Sample { refusals, namespaces: vec![namespace(9)], ..at(1, vec![flooded(0)]) });
        let namespaces = vec![namespace(9 + by_kernel)];
        let told = queues.update(&Sample { refusals, namespaces, ..at(2, vec![flooded(82)]) });
        let row = &told.queues[0];
        let interval = |count: Option<Count>| count.map(|count| count.interval);
        let (answered, refused) = shown;
        assert_eq!((interval(row.syn_cookies), interval(row.syn_queue_overflows)), (Some(answered), Some(refused)));
    }
}

#[test]
fn a_socket_that_listens_anew_at_the_same_address_is_another() {
    let mut queues = Queues::default();
    let first = queues.update(&Sample { changes: vec![accept(1, FIRST, 1, 2)], ..at(1, vec![reading(FIRST)]) });
    let anew = ListenerReading { listener: listener(SECOND + 5, "10.0.0.1"), ..reading(FIRST) };
    let told = queues.update(&at(2, vec![anew]));
    assert_ne!(told.queues[0].listener, first.queues[0].listener);
    assert_eq!(told.queues[0].accepts.total, 0);
    let told = queues.update(&at(3, Vec::new()));
    assert!(told.queues.is_empty() && queues.sockets.is_empty());
}

#[test]
fn waits_are_right_to_a_percent() {
    let mut queues = Queues::default();
    let waited = |index: u64| accept(index, FIRST, SECOND, SECOND + index * MILLISECOND);
    let told = queues.update(&Sample { changes: (1..=1_000).map(waited).collect(), ..at(3, vec![reading(FIRST)]) });
    let waits = told.queues[0].accept_waits.unwrap();
    for (is, milliseconds) in [(waits.p50, 500.0), (waits.p90, 900.0), (waits.p99, 990.0), (waits.max, 1_000.0)] {
        let error = (is.as_secs_f64() * 1_000.0 / milliseconds - 1.0).abs();
        assert!(error < 0.01, "{is:?} instead of {milliseconds} ms");
    }
}

#[test]
fn waits_are_also_counted_since_the_start_where_they_are_known() {
    let mut queues = Queues::default();
    let waited = |sock, millis| accept(sock, FIRST, SECOND, SECOND + millis * MILLISECOND);
    // Accepts of an interval, how many had waited 10 ms at most, one second at most, any time, and for how long together.
    let unknown = || vec![accept(9, FIRST, 0, 3 * SECOND)];
    for (second, changes, expected) in [
        (2, vec![waited(1, 4), waited(2, 40), waited(3, 400)], (1, 3, 3, 444)),
        (3, unknown(), (1, 3, 3, 444)),
        (4, Vec::new(), (1, 3, 3, 444)),
        (5, vec![waited(4, 10), waited(5, 3_500)], (2, 4, 5, 3_954)),
    ] {
        let told = queues.update(&Sample { changes, ..at(second, vec![reading(FIRST)]) });
        let totals = told.queues[0].accept_wait_totals;
        let millis = totals.sum.as_millis() as u64;
        assert_eq!((totals.at_most[3], totals.at_most[9], totals.count, millis), expected, "{second}");
    }
    // Another socket at the same address begins with none.
    let anew = ListenerReading { listener: listener(SECOND + 5, "10.0.0.1"), ..reading(FIRST) };
    let told = queues.update(&at(6, vec![anew]));
    assert_eq!(told.queues[0].accept_wait_totals, WaitTotals::default());
}

#[test]
fn what_happened_after_the_end_of_an_interval_is_in_the_next() {
    let mut queues = Queues::default();
    let early = accept(1, FIRST, SECOND / 2, SECOND);
    let late = accept(2, FIRST, SECOND / 2, SECOND + MILLISECOND);
    let told = queues.update(&Sample { changes: vec![early, late], ..at(1, vec![reading(FIRST)]) });
    assert_eq!(told.queues[0].accepts.interval, 1);
    let told = queues.update(&at(2, vec![reading(FIRST)]));
    assert_eq!((told.queues[0].accepts.interval, told.queues[0].serving), (1, Some(2)));
}

#[test]
fn a_socket_does_not_get_what_an_earlier_one_at_its_address_has_accepted() {
    let mut queues = Queues::default();
    let before = vec![accept(1, FIRST, 1, 2), accept(2, FIRST, 1, 2)];
    let told = queues.update(&Sample { changes: before, ..at(1, vec![reading(FIRST)]) });
    assert_eq!((told.queues[0].serving, told.queues[0].accepts.interval), (Some(2), 2));
    // The kernel gives the address to another service's socket in the same interval; the two connections live on.
    let anew = Listener { local_port: 81, ..listener(SECOND + 5, "10.0.0.1") };
    let anew = || vec![ListenerReading { listener: anew, ..reading(FIRST) }];
    let numbers = |row: &Queue| (row.local_port, row.accepts.interval, row.serving, row.served);
    let own = Change { local_port: 81, ..accept(3, FIRST, SECOND + 6, SECOND + 7) };
    for (seconds, changes, expected) in [
        // The last accept of the earlier one is told late.
        (2, vec![accept(4, FIRST, SECOND + 1, SECOND + 2), own], (81, 1, Some(1), 0)),
        (3, vec![Change { let_go: 1, ..change(1, 1, 2 * SECOND + 1, (1, 4)) }], (81, 0, Some(1), 0)),
        (4, vec![Change { let_go: 1, ..change(3, SECOND + 6, 3 * SECOND + 1, (1, 4)) }], (81, 0, Some(0), 1)),
    ] {
        let told = queues.update(&Sample { changes, ..at(seconds, anew()) });
        assert_eq!(told.queues.iter().map(numbers).collect::<Vec<_>>(), [expected], "{seconds}");
    }
    // Nor does a table that is read anew give it those.
    let table = vec![(2, entry(FIRST, 1, 2)), (5, entry(FIRST, 1, 3))];
    let told = queues.update(&Sample { table: Some(table), ..at(5, anew()) });
    assert_eq!(told.queues.iter().map(numbers).collect::<Vec<_>>(), [(81, 0, Some(0), 0)]);
}

#[test]
fn refusals_of_sockets_that_have_gone_are_on_none_that_drops_later() {
    let namespace = |listen_overflows: Option<u64>| NamespaceReading {
        netns: 7,
        limits: Limits {
            overflows: listen_overflows.map(|listen_overflows| Overflows { listen_overflows, ..Overflows::default() }),
            ..Limits::default()
        },
    };
    // In each interval: overflows of the namespace, and drops of a socket that was never full.
    for (name, intervals, overflows) in [
        ("nobody else", &[(Some(100), 50), (Some(103), 53)][..], 3),
        ("read an interval later", &[(Some(100), 50), (Some(103), 50), (Some(103), 53)], 3),
        ("of one that has gone", &[(Some(100), 50), (Some(900), 50), (Some(900), 50), (Some(900), 53)], 0),
        ("could not be read at first", &[(None, 50), (Some(900), 50), (Some(900), 53)], 0),
    ] {
        let mut queues = Queues::default();
        let mut told = Told::default();
        for (second, (listen_overflows, drops)) in (1..).zip(intervals) {
            let socket = ListenerReading { drops: *drops, ..reading(FIRST) };
            let namespaces = vec![namespace(*listen_overflows)];
            told = queues.update(&Sample { namespaces, ..at(second, vec![socket]) });
        }
        let row = &told.queues[0];
        assert_eq!((row.overflows().total, row.other_drops.total), (overflows, 3 - overflows), "{name}");
    }
}

#[test]
fn namespaces_without_a_listening_socket_are_forgotten() {
    let mut queues = Queues::default();
    for (second, sockets, known) in [(1, vec![reading(FIRST)], 1), (2, Vec::new(), 0)] {
        queues.update(&at(second, sockets));
        assert_eq!(queues.namespaces.len(), known);
    }
}

#[test]
fn what_was_lost_in_an_interval_is_told_once() {
    let mut queues = Queues::default();
    for (second, changes, accepts, listeners, lost) in
        [(1, 0, 0, 0, 0), (2, 3, 0, 0, 3), (3, 3, 5, 0, 5), (4, 4, 6, 2, 4), (5, 4, 6, 2, 0)]
    {
        let mut counters = Counters::default();
        counters.add(Counter::ChangeLost, changes);
        counters.add(Counter::AcceptLost, accepts);
        counters.add(Counter::ListenersFull, listeners);
        let told = queues.update(&Sample { counters, ..at(second, vec![reading(FIRST)]) });
        assert_eq!(told.lost_events, lost, "{second}");
    }
}
