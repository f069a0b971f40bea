//! Which network namespaces are read again.

use super::*;
use crate::{kernel::netstat::Overflows, model::fixtures};

const SECOND_NS: u64 = 1_000_000_000;
const NETNS: u32 = 7;

/// A listening socket without clients, read 50 s after the start.
fn reading(sock: u64, drops: u32, half_open: u32, backlog_limit: u32) -> ListenerReading {
    ListenerReading {
        sock,
        listener: fixtures::listener(9, "0.0.0.0"),
        time_ns: 50 * SECOND_NS,
        inode: Some(4711),
        accept_queue: 0,
        backlog_limit,
        drops,
        syn_queue: Some(SynQueueReading { length: half_open, young: half_open, defers_accept: false }),
        waiting: Vec::new(),
    }
}

#[test]
fn a_namespace_is_read_at_first_and_when_one_of_its_sockets_drops_sends_cookies_or_goes() {
    let of = |sock, drops, syn_queue, backlog_limit, netns| {
        let mut reading = reading(sock, drops, syn_queue, backlog_limit);
        reading.listener.netns = netns;
        reading
    };
    let limits = Limits { overflows: Some(Overflows::default()), ..Limits::default() };
    // A second before.
    let known = |limits| Known { limits, read_ns: 49 * SECOND_NS };
    let known = BTreeMap::from([(NETNS, known(limits)), (8, known(Limits::default()))]);
    let syns = |reading: ListenerReading, syn_cookies, syn_queue_at_limit| {
        let listener = Listener { syn_cookies, syn_queue_at_limit, syn_queue_overflows: 0, ..reading.listener };
        ListenerReading { listener, ..reading }
    };
    let before = HashMap::from([((1, 9, NETNS), (4, 0)), ((2, 9, 8), (0, 0))]);
    for (listeners, expected) in [
        (vec![], vec![]),
        (vec![of(1, 4, 0, 511, NETNS), of(2, 0, 0, 0, 8)], vec![]),
        (vec![of(1, 5, 0, 511, NETNS), of(2, 0, 0, 0, 8)], vec![NETNS]),
        (vec![of(1, 4, 0, 511, NETNS), of(2, 1, 0, 0, 8)], vec![8]),
        // A new one, which has dropped and which has not; one in a namespace that was not there before.
        (vec![of(1, 4, 0, 511, NETNS), of(3, 1, 0, 511, NETNS)], vec![NETNS]),
        (vec![of(1, 4, 0, 511, NETNS), of(3, 0, 0, 511, NETNS)], vec![]),
        (vec![of(3, 0, 0, 511, 9)], vec![9]),
        // One has gone, and another listens on in its namespace.
        (vec![of(3, 0, 0, 511, NETNS)], vec![NETNS]),
        // A full SYN queue answers with cookies, which are no drops.
        (vec![of(1, 4, 511, 511, NETNS)], vec![NETNS]),
        (vec![of(1, 4, 510, 511, NETNS)], vec![]),
        (vec![syns(of(1, 4, 0, 511, NETNS), 1, 0)], vec![NETNS]),
        (vec![syns(of(1, 4, 0, 511, NETNS), 0, 1)], vec![NETNS]),
    ] {
        let expected: BTreeSet<u32> = expected.into_iter().collect();
        assert_eq!(due(&listeners, &before, &known), expected, "{listeners:?}");
    }
}

#[test]
fn settings_are_read_again_after_ten_seconds_where_somebody_waits() {
    // The accept queue, the SYN queue, seconds since the namespace was read.
    for (accept_queue, syn_queue, seconds, is_due) in [
        (1, 0, 9, false),
        (1, 0, 10, true),
        (0, 1, 9, false),
        (0, 1, 10, true),
        (0, 0, 10, false),
        (0, 0, 9_999, false),
    ] {
        let time_ns = 20_000 * SECOND_NS;
        let listeners = [ListenerReading { accept_queue, time_ns, ..reading(1, 0, syn_queue, 511) }];
        let before = listeners.iter().map(|listener| (name(listener), turned_away(listener))).collect();
        let read_ns = time_ns - seconds * SECOND_NS;
        let known = BTreeMap::from([(NETNS, Known { limits: Limits::default(), read_ns })]);
        let due = !due(&listeners, &before, &known).is_empty();
        assert_eq!(due, is_due, "{accept_queue} {syn_queue} {seconds}");
    }
}
