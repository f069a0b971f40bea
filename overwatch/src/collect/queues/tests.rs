//! What a look tells, whole, damaged and twice, and what is made of it.

use super::*;
use crate::{collect::record::bytes, kernel::netstat::Overflows, model::fixtures, random::Random};

const SECOND_NS: u64 = 1_000_000_000;
const SOCK: u64 = 0xffff_8880_0000_1000;
const NETNS: u32 = 7;

fn listener(sock: u64) -> ListenerRecord {
    ListenerRecord {
        kind: LISTENER,
        accept_queue: 3,
        sock,
        time_ns: 50 * SECOND_NS,
        jiffies: (1 << 32) + 500,
        inode: 4711,
        backlog_limit: 2,
        drops: 17,
        syn_queue: 5,
        syn_queue_young: 4,
        defer_accept: 0,
        pad: 0,
        listener: fixtures::listener(9, "0.0.0.0"),
    }
}

fn client(listener: u64, sock: u64) -> WaitingRecord {
    WaitingRecord {
        kind: WAITING,
        state: 8,
        listener,
        sock,
        created_ns: 44 * SECOND_NS,
        established_ns: 45 * SECOND_NS,
        remote_addr_v6: [0x20; 16],
        remote_addr_v4: [10, 0, 0, 2],
        last_sent_jiffies: 0,
        unread_bytes: 12,
        queued_behind: 2,
        remote_port: 50_000,
        family: libc::AF_INET as u16,
        pad: 0,
    }
}

/// What was found, by addresses.
fn addresses(bytes: &[u8]) -> Vec<(u64, Vec<u64>)> {
    let found = parse(bytes).into_iter();
    found.map(|(listener, waiting)| (listener.sock, waiting.iter().map(|client| client.sock).collect())).collect()
}

#[test]
fn each_listener_is_found_once_with_its_own_clients() {
    let (l, w) = (|sock| bytes(listener(sock)), |listener, sock| bytes(client(listener, sock)));
    for (look, expected) in [
        (vec![], vec![]),
        (vec![l(1)], vec![(1, vec![])]),
        (vec![l(1), w(1, 10), w(1, 11), l(2), l(3), w(3, 12)], vec![(1, vec![10, 11]), (2, vec![]), (3, vec![12])]),
        // The map changed between two pieces of the look: the later word counts.
        (vec![l(1), w(1, 10), w(1, 11), l(2), l(1), w(1, 11)], vec![(1, vec![11]), (2, vec![])]),
        // A client of nobody, or of another.
        (vec![w(1, 10), l(1), w(2, 11), w(1, 12)], vec![(1, vec![12])]),
        // What is no record has no length either.
        (vec![l(1), vec![0; 8], l(2)], vec![(1, vec![])]),
        (vec![l(1), 3u32.to_ne_bytes().to_vec(), l(2)], vec![(1, vec![])]),
    ] {
        assert_eq!(addresses(&look.concat()), expected);
    }
}

#[test]
fn records_are_read_as_they_were_written() {
    let look = [bytes(listener(SOCK)), bytes(client(SOCK, 5))].concat();
    assert_eq!(parse(&look), [(listener(SOCK), vec![client(SOCK, 5)])]);
    for length in 0..look.len() {
        let expected = if length < size_of::<ListenerRecord>() { vec![] } else { vec![(SOCK, vec![])] };
        assert_eq!(addresses(&look[..length]), expected, "{length} of {}", look.len());
    }
}

#[test]
fn damaged_looks_give_what_stands_in_them_or_less() {
    let mut random = Random::new(5);
    let mut found = 0;
    for _ in 0..20_000 {
        let mut look = Vec::new();
        for sock in 0..random.below(4) as u64 {
            look.extend(bytes(listener(sock)));
            for number in 0..random.below(3) as u64 {
                look.extend(bytes(client(sock, 10 * sock + number)));
            }
        }
        let records = look.len() / size_of::<WaitingRecord>();
        for _ in 0..random.below(4) {
            if look.is_empty() {
                break;
            }
            let place = random.below(look.len());
            match random.below(3) {
                0 => look[place] = random.next() as u8,
                1 => drop(look.remove(place)),
                _ => look.truncate(place + 1),
            }
        }
        let listeners = parse(&look);
        assert!(listeners.len() + listeners.iter().map(|(_, waiting)| waiting.len()).sum::<usize>() <= records);
        for (listener, waiting) in &listeners {
            assert!(waiting.iter().all(|client| client.listener == listener.sock && client.kind == WAITING));
            // Whatever it says, nothing that is made of it panics.
            let reading = reading(listener, waiting, Some(250));
            assert_eq!(reading.waiting.len(), waiting.len());
        }
        found += listeners.len();
    }
    assert!(found > 10_000, "{found}");
}

#[test]
fn a_reading_says_what_the_records_say() {
    let reading = reading(&listener(SOCK), &[client(SOCK, 5)], None);
    let expected = ListenerReading {
        sock: SOCK,
        listener: fixtures::listener(9, "0.0.0.0"),
        time_ns: 50 * SECOND_NS,
        inode: Some(4711),
        accept_queue: 3,
        backlog_limit: 2,
        drops: 17,
        syn_queue: 5,
        syn_queue_young: 4,
        defers_accept: false,
        waiting: vec![WaitingReading {
            sock: 5,
            established_ns: 45 * SECOND_NS,
            remote_addr: fixtures::bytes("10.0.0.2"),
            remote_port: 50_000,
            state: 8,
            unread_bytes: 12,
            queued_behind: 2,
            waited: Some(Duration::from_secs(5)),
        }],
    };
    assert_eq!(reading, expected);
    let other = ListenerRecord { inode: 0, defer_accept: 3, ..listener(SOCK) };
    let over_v6 = WaitingRecord { family: libc::AF_INET6 as u16, ..client(SOCK, 5) };
    let reading = super::reading(&other, &[over_v6], None);
    assert_eq!((reading.inode, reading.defers_accept), (None, true));
    assert_eq!(reading.waiting[0].remote_addr, [0x20; 16]);
}

#[test]
fn who_comes_while_the_queue_is_looked_at_is_in_the_next_look() {
    let clients: Vec<_> = (1..=4).map(|sock| client(1, sock)).collect();
    for (accept_queue, listed) in [(0, 0), (3, 3), (4, 4), (9, 4)] {
        let reading = reading(&ListenerRecord { accept_queue, ..listener(1) }, &clients, None);
        assert_eq!(reading.waiting.len(), listed, "{accept_queue}");
    }
}

#[test]
fn a_client_has_waited_since_we_saw_it_come_or_since_the_kernel_made_it() {
    const NOW: u64 = 50 * SECOND_NS;
    let milliseconds = Duration::from_millis;
    // When it was established by our word, ticks since the kernel made it, ticks per second.
    for (established_ns, ticks, per_second, waited) in [
        (NOW - 5_003_000, 1, Some(250), Some(Duration::from_nanos(5_003_000))),
        (NOW - 5_003_000, 1, None, Some(Duration::from_nanos(5_003_000))),
        (0, 500, Some(250), Some(milliseconds(2_000))),
        (0, 500, Some(100), Some(milliseconds(5_000))),
        (0, 500, Some(1000), Some(milliseconds(500))),
        (0, 500, None, None),
        // The entry is of an earlier connection at the address, or the client was queued before its handshake was over.
        (NOW - 9 * SECOND_NS, 500, Some(250), Some(milliseconds(2_000))),
        (NOW - SECOND_NS / 2, 500, Some(250), Some(milliseconds(2_000))),
        (NOW - 9 * SECOND_NS, 500, None, Some(milliseconds(9_000))),
        // It came after the listener was read.
        (NOW + 1000, 0, Some(250), Some(Duration::ZERO)),
        (0, -1, Some(250), Some(Duration::ZERO)),
        // The lower half of the ticks runs over every 50 days or less.
        (0, 1_000, Some(250), Some(milliseconds(4_000))),
    ] {
        let at = listener(SOCK);
        let last_sent_jiffies = (at.jiffies as u32).wrapping_sub(ticks as u32);
        let client = WaitingRecord { established_ns, last_sent_jiffies, ..client(SOCK, 5) };
        let reading = &reading(&at, &[client], per_second).waiting[0];
        assert_eq!(reading.waited, waited, "{established_ns} {ticks} {per_second:?}");
        // The model counts from our own record, so that one which is not believed must not be there.
        let by_us = Duration::from_nanos(NOW.saturating_sub(established_ns));
        let believed = if waited == Some(by_us) { established_ns } else { 0 };
        assert_eq!(reading.established_ns, believed, "{established_ns} {ticks} {per_second:?}");
    }
}

#[test]
fn ticks_are_measured_between_the_first_look_and_the_last() {
    // Ticks and milliseconds between the two, and how many ticks a second has.
    for (ticks, milliseconds, per_second) in [
        (0, 0, None),
        (25, 100, None),
        (20, 200, Some(100)),
        (19, 200, Some(100)),
        (21, 200, Some(100)),
        (49, 200, Some(250)),
        (51, 200, Some(250)),
        (59, 200, Some(300)),
        (61, 200, Some(300)),
        (199, 200, Some(1000)),
        (1_000, 1_000, Some(1000)),
        (999, 1_000, Some(1000)),
        (90_000, 360_000, Some(250)),
        // What nobody builds kernels with is believed after a second.
        (256, 500, None),
        (512, 1_000, Some(512)),
        (60_000, 100_000, Some(600)),
        // A clock that stands.
        (0, 2_000, None),
    ] {
        let (first_jiffies, first_ns) = ((1 << 32) - 10, 77 * SECOND_NS);
        let mut measured = Ticks::default();
        assert_eq!(measured.per_second(), None);
        measured.note(first_jiffies, first_ns);
        measured.note(first_jiffies + ticks / 2, first_ns + milliseconds / 2 * 1_000_000);
        measured.note(first_jiffies + ticks, first_ns + milliseconds * 1_000_000);
        assert_eq!(measured.per_second(), per_second, "{ticks} in {milliseconds} ms");
    }
}

#[test]
fn a_namespace_is_read_at_first_and_when_one_of_its_sockets_drops_sends_cookies_or_goes() {
    let of = |sock, drops, syn_queue, backlog_limit, netns| {
        let record = ListenerRecord { drops, syn_queue, backlog_limit, accept_queue: 0, ..listener(sock) };
        let mut reading = reading(&record, &[], None);
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
        let record = ListenerRecord { accept_queue, syn_queue, time_ns, backlog_limit: 511, ..listener(SOCK) };
        let listeners = [reading(&record, &[], None)];
        let before = listeners.iter().map(|listener| (name(listener), turned_away(listener))).collect();
        let read_ns = time_ns - seconds * SECOND_NS;
        let known = BTreeMap::from([(NETNS, Known { limits: Limits::default(), read_ns })]);
        let due = !due(&listeners, &before, &known).is_empty();
        assert_eq!(due, is_due, "{accept_queue} {syn_queue} {seconds}");
    }
}
