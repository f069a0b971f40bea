//! Records of the scan, whole and damaged, and the readings made of them.

use super::*;
use crate::{collect::record::bytes, model::fixtures, random::Random};

const SECOND_NS: u64 = 1_000_000_000;
const SOCK: u64 = 0xffff_8880_0000_1000;

fn listener(sock: u64) -> ListenerRecord {
    ListenerRecord {
        kind: LISTENER,
        accept_queue: 3,
        sock,
        time_ns: 50 * SECOND_NS,
        jiffies: (1 << 32) + 500,
        backlog_limit: 2,
        drops: 17,
        syn_queue: 5,
        syn_queue_young: 4,
        defer_accept: 0,
        pad: 0,
        listener: entry(4711),
    }
}

fn entry(inode: u64) -> Listener {
    Listener { inode, ..fixtures::listener(9, "0.0.0.0") }
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

/// What is made of the records of a scan.
fn scanned(listeners: &[Vec<u8>], clients: &[Vec<u8>]) -> Vec<Scanned> {
    let mut scanned = Vec::new();
    listeners.iter().for_each(|record| add_listener(&mut scanned, record));
    for (record, waiting) in &mut scanned {
        clients.iter().for_each(|client| add_waiting(record, waiting, client));
    }
    scanned
}

fn addresses_of(scanned: &[Scanned]) -> Vec<(u64, Vec<u64>)> {
    let clients = |waiting: &[WaitingRecord]| waiting.iter().map(|client| client.sock).collect();
    scanned.iter().map(|(listener, waiting)| (listener.sock, clients(waiting))).collect()
}

#[test]
fn a_listener_has_its_own_clients_and_records_that_are_none_are_left_out() {
    let (l, w) = (|sock| bytes(listener(sock)), |listener, sock| bytes(client(listener, sock)));
    for (listeners, clients, expected) in [
        (vec![], vec![w(1, 10)], vec![]),
        (vec![l(1)], vec![], vec![(1, vec![])]),
        (vec![l(1), l(2)], vec![w(1, 10), w(1, 11), w(2, 12)], vec![(1, vec![10, 11]), (2, vec![12])]),
        // The other kind, neither kind, and records that are cut off.
        (vec![w(1, 10), l(1)], vec![l(1), w(1, 10)], vec![(1, vec![10])]),
        (vec![vec![0; 200], l(1), l(2)[..100].to_vec()], vec![vec![3; 80], w(1, 10)[..79].to_vec()], vec![(1, vec![])]),
    ] {
        assert_eq!(addresses_of(&scanned(&listeners, &clients)), expected);
    }
}

#[test]
fn records_are_read_as_they_were_written() {
    let scanned = scanned(&[bytes(listener(SOCK))], &[bytes(client(SOCK, 5))]);
    assert_eq!(scanned, [(listener(SOCK), vec![client(SOCK, 5)])]);
}

#[test]
fn damaged_records_give_a_reading_or_none_and_no_panic() {
    let mut random = Random::new(5);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut listeners = vec![bytes(listener(1))];
        let mut clients: Vec<_> = (0..1 + random.below(3) as u64).map(|number| bytes(client(1, 10 + number))).collect();
        for _ in 0..random.below(4) {
            let records = if random.once_in(2) { &mut listeners } else { &mut clients };
            let record = random.below(records.len());
            let place = random.below(records[record].len());
            match random.below(2) {
                0 => records[record][place] = random.next() as u8,
                _ => records[record].truncate(place + 1),
            }
        }
        for (listener, waiting) in scanned(&listeners, &clients) {
            assert!(waiting.iter().all(|client| client.listener == listener.sock && client.kind == WAITING));
            let reading = reading(&listener, &waiting, Some(250));
            assert_eq!(reading.waiting.len(), waiting.len().min(listener.accept_queue as usize));
            read += 1;
        }
    }
    assert!(read > 10_000, "{read}");
}

#[test]
fn a_reading_says_what_the_records_say() {
    let reading = reading(&listener(SOCK), &[client(SOCK, 5)], None);
    let expected = ListenerReading {
        sock: SOCK,
        listener: entry(4711),
        time_ns: 50 * SECOND_NS,
        inode: Some(4711),
        accept_queue: 3,
        backlog_limit: 2,
        drops: 17,
        syn_queue: Some(SynQueueReading { length: 5, young: 4, defers_accept: false }),
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
    let other = ListenerRecord { listener: entry(0), defer_accept: 3, ..listener(SOCK) };
    let over_v6 = WaitingRecord { family: libc::AF_INET6 as u16, ..client(SOCK, 5) };
    let reading = super::reading(&other, &[over_v6], None);
    assert_eq!((reading.inode, reading.syn_queue.map(|queue| queue.defers_accept)), (None, Some(true)));
    assert_eq!(reading.waiting[0].remote_addr, [0x20; 16]);
}

#[test]
fn a_client_that_is_queued_during_the_scan_is_in_the_next_one() {
    let clients: Vec<_> = (1..=4).map(|sock| client(1, sock)).collect();
    for (accept_queue, listed) in [(0, 0), (3, 3), (4, 4), (9, 4)] {
        let reading = reading(&ListenerRecord { accept_queue, ..listener(1) }, &clients, None);
        assert_eq!(reading.waiting.len(), listed, "{accept_queue}");
    }
}

#[test]
fn a_client_has_waited_since_our_timestamp_or_since_the_kernel_made_its_socket() {
    const NOW: u64 = 50 * SECOND_NS;
    let milliseconds = Duration::from_millis;
    // Our timestamp of the handshake, jiffies since the kernel made the socket, jiffies per second.
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
fn jiffies_are_measured_between_the_first_scan_and_the_last() {
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
