//! What snapshots say, sample by sample.

use std::collections::HashSet;

use overwatch_common::connection::{Share, ShareKey};

use super::*;
use crate::model::fixtures::{connection, sample};

const SOCK: u64 = 0xffff_8880_0000_1000;
/// Owner of the connections here, and two more processes.
const OWNER: u32 = 42;
const SECOND: u32 = 43;
const THIRD: u32 = 44;

pub(super) fn share(sent: u64, received: u64) -> Share {
    Share { sent, received, cgroup_id: 8, comm: *b"worker\0\0\0\0\0\0\0\0\0\0", epoch: 1, pad: 0 }
}

fn shares(of: &[Moved]) -> Vec<ProcessShare> {
    of.iter().map(|(tgid, sent, received)| ProcessShare { tgid: *tgid, share: share(*sent, *received) }).collect()
}

fn open(connection: Connection, of: &[Moved]) -> Sample {
    let open = OpenConnection { sock: SOCK, connection, shares: shares(of) };
    Sample { open: vec![open], ..sample() }
}

/// The kernel's own totals are part of a last record.
fn closed(connection: Connection, kernel: (u64, u64), of: &[Moved]) -> Sample {
    let connection = Connection {
        live_sent: kernel.0,
        live_received: kernel.1,
        kernel_sent: kernel.0,
        kernel_received: kernel.1,
        flags: flag::CLOSED,
        shares: of.len() as u64,
        state: 7,
        ..connection
    };
    let closed = ClosedConnection { sock: SOCK, connection, shares: shares(of) };
    Sample { closed: vec![closed], ..sample() }
}

/// Number of the connection, process (0 when unknown), bytes in this interval.
fn rows(snapshot: &Snapshot) -> Vec<(u64, u32, u64, u64)> {
    let pid = |row: &Row| row.process.as_ref().map_or(0, |process| process.pid);
    let mut rows: Vec<_> =
        snapshot.rows.iter().map(|row| (row.connection, pid(row), row.sent_bytes, row.received_bytes)).collect();
    rows.sort_unstable();
    rows
}

fn unattributed(snapshot: &Snapshot) -> (u64, u64) {
    (snapshot.unattributed_sent_bytes, snapshot.unattributed_received_bytes)
}

#[test]
fn each_interval_shows_what_was_moved_in_it() {
    let mut traffic = Traffic::default();
    for ((sent, received), expected) in
        [((100, 0), Some((100, 0))), ((100, 0), None), ((150, 20), Some((50, 20))), ((150, 21), Some((0, 1)))]
    {
        let snapshot = traffic.update(&open(connection(OWNER, sent, received), &[]));
        let expected: Vec<_> = expected.into_iter().map(|(sent, received)| (1, OWNER, sent, received)).collect();
        assert_eq!(rows(&snapshot), expected);
        for row in &snapshot.rows {
            assert_eq!((row.sent_bytes_total, row.received_bytes_total), (sent, received));
            assert_eq!(row.kernel_totals, None);
        }
    }
    let snapshot = traffic.update(&closed(connection(OWNER, 200, 21), (200, 21), &[]));
    assert_eq!(rows(&snapshot), [(1, OWNER, 50, 0)]);
    let kernel = KernelTotals { sent_bytes: 200, received_bytes: 21 };
    assert_eq!(snapshot.rows[0].kernel_totals, Some(kernel));
    assert!(traffic.reported.is_empty(), "a connection that has ended is forgotten");
}

#[test]
fn a_connection_that_ends_without_having_moved_anything_has_no_row() {
    let mut traffic = Traffic::default();
    assert_eq!(rows(&traffic.update(&closed(connection(OWNER, 0, 0), (0, 0), &[]))), []);
    traffic.update(&open(connection(OWNER, 5, 5), &[]));
    assert_eq!(rows(&traffic.update(&closed(connection(OWNER, 5, 5), (5, 5), &[]))), []);
}

#[test]
fn a_row_says_what_its_connection_is() {
    let mapped = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
    let addressed = Connection { local_addr: mapped(1), remote_addr: mapped(2), ..connection(OWNER, 1, 2) };
    let snapshot = Traffic::default().update(&open(addressed, &[(SECOND, 3, 4)]));
    let [second, owner] = &snapshot.rows[..] else { panic!("{:?}", snapshot.rows) };
    assert_eq!(owner.process, Some(Process { pid: OWNER, comm: "nginx".into(), cgroup_id: 9 }));
    assert_eq!(second.process, Some(Process { pid: SECOND, comm: "worker".into(), cgroup_id: 8 }));
    for row in [owner, second] {
        assert_eq!((row.local_addr.to_string(), row.local_port), ("10.0.0.1".into(), 80));
        assert_eq!((row.remote_addr.to_string(), row.remote_port), ("10.0.0.2".into(), 50_000));
        assert_eq!((row.netns, row.state, row.role), (7, 1, Some(Role::Server)));
    }
}

#[test]
fn processes_on_one_connection_have_rows_of_their_own_and_one_number() {
    let mut traffic = Traffic::default();
    let snapshot = traffic.update(&open(connection(OWNER, 10, 0), &[(SECOND, 0, 5), (THIRD, 7, 7)]));
    assert_eq!(rows(&snapshot), [(1, OWNER, 10, 0), (1, SECOND, 0, 5), (1, THIRD, 7, 7)]);
    // Only shares that moved are in a sample.
    let snapshot = traffic.update(&open(connection(OWNER, 10, 0), &[(SECOND, 1, 5)]));
    assert_eq!(rows(&snapshot), [(1, SECOND, 1, 0)]);
    // Another connection in between has another number.
    let other = OpenConnection { sock: SOCK + 4096, connection: connection(OWNER, 3, 0), shares: Vec::new() };
    let snapshot = traffic.update(&Sample { open: vec![other], ..sample() });
    assert_eq!(rows(&snapshot), [(2, OWNER, 3, 0)]);
    let shares = [(SECOND, 1, 6), (THIRD, 7, 7)];
    let snapshot = traffic.update(&closed(connection(OWNER, 12, 0), (20, 13), &shares));
    assert_eq!(rows(&snapshot), [(1, OWNER, 2, 0), (1, SECOND, 0, 1)]);
}

#[test]
fn the_busiest_rows_come_first() {
    let mut traffic = Traffic::default();
    let connections = [(1, 10, 0), (2, 0, 30), (3, 15, 15), (4, 5, 4)];
    let open = connections.map(|(sock, sent, received)| OpenConnection {
        sock,
        connection: connection(OWNER, sent, received),
        shares: Vec::new(),
    });
    let snapshot = traffic.update(&Sample { open: open.to_vec(), ..sample() });
    assert_eq!(snapshot.rows.iter().map(|row| row.connection).collect::<Vec<_>>(), [2, 3, 1, 4]);
}

/// A process, what it sent and received.
type Moved = (u32, u64, u64);
/// A process (0 when unknown), its bytes in the last interval, and what of them was reconciled.
type LastRow = (u32, (u64, u64), (u64, u64));
/// What it is about, the entry, the shares, the kernel's own totals, and the rows that come of it.
type Ending<'a> = (&'a str, Connection, &'a [Moved], (u64, u64), &'a [LastRow]);

#[test]
fn what_no_hook_saw_is_made_good_once_when_the_connection_ends() {
    let owned = |sent, received| connection(OWNER, sent, received);
    let nobodys = connection(0, 0, 0);
    let full =
        |sent, received| Connection { unattributed_sent: sent, unattributed_received: received, ..owned(100, 50) };
    let cases: [Ending<'_>; 17] = [
        ("equal", owned(100, 50), &[], (100, 50), &[(OWNER, (100, 50), (0, 0))]),
        ("larger, one mover", owned(100, 50), &[], (130, 51), &[(OWNER, (130, 51), (30, 1))]),
        ("larger in one direction", owned(100, 50), &[], (100, 70), &[(OWNER, (100, 70), (0, 20))]),
        ("smaller", owned(100, 50), &[], (90, 0), &[(OWNER, (100, 50), (0, 0))]),
        ("larger and smaller", owned(100, 50), &[], (90, 60), &[(OWNER, (100, 60), (0, 10))]),
        ("nobody moved", owned(0, 0), &[], (7, 9), &[(OWNER, (7, 9), (7, 9))]),
        ("nobody moved, shares are there", owned(0, 0), &[(SECOND, 0, 0)], (7, 9), &[(OWNER, (7, 9), (7, 9))]),
        ("nobody moved, nobody's", nobodys, &[], (7, 9), &[(0, (7, 9), (7, 9))]),
        ("the only mover is not the owner", owned(0, 0), &[(SECOND, 10, 0)], (25, 1), &[(SECOND, (25, 1), (15, 1))]),
        ("the only mover of nobody's", nobodys, &[(SECOND, 10, 0)], (25, 1), &[(SECOND, (25, 1), (15, 1))]),
        ("two shares, one moved", owned(0, 0), &[(SECOND, 0, 0), (THIRD, 1, 1)], (2, 2), &[(THIRD, (2, 2), (1, 1))]),
        (
            "several moved, equal",
            owned(100, 50),
            &[(SECOND, 1, 2)],
            (101, 52),
            &[(OWNER, (100, 50), (0, 0)), (SECOND, (1, 2), (0, 0))],
        ),
        (
            "several moved, larger",
            owned(100, 50),
            &[(SECOND, 1, 2)],
            (111, 53),
            &[(0, (10, 1), (10, 1)), (OWNER, (100, 50), (0, 0)), (SECOND, (1, 2), (0, 0))],
        ),
        (
            "several moved nobody's, larger",
            nobodys,
            &[(SECOND, 1, 2), (THIRD, 1, 0)],
            (4, 3),
            &[(0, (2, 1), (2, 1)), (SECOND, (1, 2), (0, 0)), (THIRD, (1, 0), (0, 0))],
        ),
        ("unattributed makes up the difference", full(30, 5), &[], (130, 55), &[(OWNER, (100, 50), (0, 0))]),
        ("unattributed and unseen", full(30, 5), &[], (140, 57), &[(OWNER, (110, 52), (10, 2))]),
        ("unattributed is more than the kernel has", full(30, 5), &[], (100, 50), &[(OWNER, (100, 50), (0, 0))]),
    ];
    for (what, connection, shares, kernel, expected) in cases {
        let snapshot = Traffic::default().update(&closed(connection, kernel, shares));
        let mut found: Vec<LastRow> = snapshot
            .rows
            .iter()
            .map(|row| {
                let pid = row.process.as_ref().map_or(0, |process| process.pid);
                let moved = (row.sent_bytes, row.received_bytes);
                assert_eq!((row.sent_bytes_total, row.received_bytes_total), moved, "{what}: all of it is new");
                let totals = KernelTotals { sent_bytes: kernel.0, received_bytes: kernel.1 };
                assert_eq!(row.kernel_totals, Some(totals), "{what}");
                (pid, moved, (row.reconciled_sent_bytes, row.reconciled_received_bytes))
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn what_was_reported_before_is_not_made_good_again() {
    let mut traffic = Traffic::default();
    traffic.update(&open(connection(OWNER, 100, 0), &[(SECOND, 50, 0)]));
    // 100 + 50 + 20 that were seen, 8 that were not.
    let snapshot = traffic.update(&closed(connection(OWNER, 120, 0), (178, 0), &[(SECOND, 50, 0)]));
    assert_eq!(rows(&snapshot), [(1, 0, 8, 0), (1, OWNER, 20, 0)]);
    let total = |row: &Row| (row.sent_bytes_total, row.reconciled_sent_bytes);
    assert_eq!(snapshot.rows.iter().map(total).collect::<Vec<_>>(), [(120, 0), (8, 8)]);
}

/// An entry as it is announced: with the kernel's own totals of that moment.
fn announced(sent: u64, kernel: u64) -> Connection {
    Connection { live_sent: kernel, kernel_sent: kernel, ..connection(OWNER, sent, 0) }
}

#[test]
fn what_no_hook_saw_of_an_open_connection_is_shown_when_two_samples_agree_on_it() {
    // The owner's bytes and the kernel's, then what the interval shows and what of it is made good.
    let story = [
        ((100, 100), (100, 0)),
        // Perhaps only a call that has not returned.
        ((100, 130), (0, 0)),
        ((110, 140), (40, 30)),
        // It stays at 30 until two samples agree on more.
        ((120, 150), (10, 0)),
        ((130, 200), (10, 0)),
        ((140, 200), (40, 30)),
    ];
    let mut traffic = Traffic::default();
    let mut total = 0;
    for ((sent, kernel), (moved, made_good)) in story {
        let snapshot = traffic.update(&open(announced(sent, kernel), &[]));
        let found: Vec<_> = snapshot.rows.iter().map(|row| (row.sent_bytes, row.reconciled_sent_bytes)).collect();
        let expected: Vec<_> = (moved > 0).then_some((moved, made_good)).into_iter().collect();
        assert_eq!(found, expected, "{sent} seen of {kernel}");
        total += moved;
        assert!(snapshot.rows.iter().all(|row| row.sent_bytes_total == total), "{:?}", snapshot.rows);
    }
    // At the end the kernel is at 210, of which 150 were seen and 60 made good already.
    let snapshot = traffic.update(&closed(connection(OWNER, 150, 0), (210, 0), &[]));
    assert_eq!(rows(&snapshot), [(1, OWNER, 10, 0)]);
    assert_eq!(snapshot.rows[0].reconciled_sent_bytes, 0);
    assert_eq!(snapshot.rows[0].sent_bytes_total, 210);
}

#[test]
fn a_call_that_lasts_for_many_samples_is_counted_once() {
    // The owner's one call sends 1000 bytes while another of its threads receives.
    let mut traffic = Traffic::default();
    let mut total = 0;
    let running = |kernel, received| Connection { received, ..announced(0, kernel) };
    for (index, kernel) in [200, 400, 600, 800].into_iter().enumerate() {
        let snapshot = traffic.update(&open(running(kernel, index as u64), &[]));
        total += snapshot.rows.iter().map(|row| row.sent_bytes).sum::<u64>();
    }
    assert_eq!(total, 600, "what the last two samples agree on");
    let snapshot = traffic.update(&open(Connection { received: 4, ..announced(1000, 1000) }, &[]));
    assert_eq!(rows(&snapshot), [(1, OWNER, 400, 1)]);
    let snapshot = traffic.update(&closed(Connection { received: 4, ..connection(OWNER, 1000, 0) }, (1000, 4), &[]));
    assert_eq!(rows(&snapshot), []);
}

#[test]
fn a_long_call_of_a_process_without_a_share_yet_is_counted_once() {
    // The owner receives, a child of it sends 1000 bytes in one call. Nobody can see whose call that is until it returns,
    // and then 300 of them stand with the owner already.
    let mut traffic = Traffic::default();
    let mut total = 0;
    let parent = |kernel, received| Connection { received, ..announced(0, kernel) };
    let mut sent = |sample: &Sample| {
        let snapshot = traffic.update(sample);
        total += snapshot.rows.iter().map(|row| row.sent_bytes).sum::<u64>();
        (rows(&snapshot), total)
    };
    assert_eq!(sent(&open(parent(300, 1), &[])), (vec![(1, OWNER, 0, 1)], 0));
    assert_eq!(sent(&open(parent(500, 2), &[])), (vec![(1, OWNER, 300, 1)], 300));
    let returned = |sent| open(Connection { shares: 1, ..parent(sent, 2) }, &[(SECOND, sent, 0)]);
    assert_eq!(sent(&returned(1000)), (vec![(1, SECOND, 700, 0)], 1000));
    assert_eq!(sent(&returned(1100)), (vec![(1, SECOND, 100, 0)], 1100));
    let end = closed(Connection { received: 2, ..connection(OWNER, 0, 0) }, (1150, 2), &[(SECOND, 1150, 0)]);
    assert_eq!(sent(&end), (vec![(1, SECOND, 50, 0)], 1150));
}

#[test]
fn bytes_that_were_held_back_come_when_the_end_shows_that_they_are_more() {
    // As above, but nobody was in a call: no hook saw 300 bytes.
    let mut traffic = Traffic::default();
    let parent = |kernel| Connection { received: 1, ..announced(0, kernel) };
    traffic.update(&open(parent(300), &[]));
    traffic.update(&open(parent(300), &[]));
    let shared = open(Connection { shares: 1, ..parent(1300) }, &[(SECOND, 1000, 0)]);
    assert_eq!(rows(&traffic.update(&shared)), [(1, SECOND, 700, 0)]);
    let end = closed(Connection { received: 1, ..connection(OWNER, 0, 0) }, (1300, 1), &[(SECOND, 1000, 0)]);
    assert_eq!(rows(&traffic.update(&end)), [(1, SECOND, 300, 0)]);
}

#[test]
fn nothing_is_made_good_before_the_end_where_several_processes_have_a_part() {
    let mut traffic = Traffic::default();
    for sent in [10, 11, 12] {
        let shared = Connection { shares: 1, ..announced(sent, 100) };
        let snapshot = traffic.update(&open(shared, &[(SECOND, sent, 0)]));
        assert!(snapshot.rows.iter().all(|row| row.reconciled_sent_bytes == 0), "{:?}", snapshot.rows);
    }
    let snapshot = traffic.update(&closed(connection(OWNER, 12, 0), (100, 0), &[(SECOND, 12, 0)]));
    assert_eq!(rows(&snapshot), [(1, 0, 76, 0)]);
}

#[test]
fn a_last_record_of_a_socket_whose_close_was_not_seen_has_no_kernel_totals() {
    let mut sample = closed(connection(OWNER, 5, 0), (0, 0), &[]);
    sample.closed[0].connection.flags = 0;
    let snapshot = Traffic::default().update(&sample);
    assert_eq!(rows(&snapshot), [(1, OWNER, 5, 0)]);
    assert_eq!(snapshot.rows[0].kernel_totals, None);
}

#[test]
fn an_address_that_is_used_again_is_another_connection() {
    let mut traffic = Traffic::default();
    traffic.update(&open(connection(OWNER, 100, 0), &[(SECOND, 60, 0)]));
    let later = |sent| Connection { created_ns: 6, ..connection(OWNER, sent, 0) };
    // The end of the first and the start of the second come in one sample.
    let mut both = closed(connection(OWNER, 101, 0), (161, 0), &[(SECOND, 60, 0)]);
    both.open = open(later(30), &[(SECOND, 7, 0)]).open;
    assert_eq!(rows(&traffic.update(&both)), [(1, OWNER, 1, 0), (2, OWNER, 30, 0), (2, SECOND, 7, 0)]);
    assert_eq!(rows(&traffic.update(&closed(later(31), (38, 0), &[(SECOND, 7, 0)]))), [(2, OWNER, 1, 0)]);
}

#[test]
fn a_connection_that_is_read_while_it_ends_is_counted_once() {
    // Its last record was handed over and its entry was still there when the whole table was read.
    let mut both = closed(connection(OWNER, 100, 0), (110, 0), &[]);
    both.open = open(connection(OWNER, 100, 0), &[]).open;
    both.present = Some(HashSet::from([(SOCK, 5)]));
    let mut traffic = Traffic::default();
    assert_eq!(rows(&traffic.update(&both)), [(1, OWNER, 10, 0), (1, OWNER, 100, 0)]);
    assert!(traffic.reported.is_empty());
}

#[test]
fn a_counter_that_seems_to_go_back_counts_nothing_twice() {
    // An entry that is taken out and used for another socket while it is read can look like anything for a moment.
    let mut traffic = Traffic::default();
    traffic.update(&open(connection(OWNER, 100, 100), &[(SECOND, 10, 10)]));
    assert_eq!(rows(&traffic.update(&open(connection(OWNER, 0, 120), &[(SECOND, 0, 0)]))), [(1, OWNER, 0, 20)]);
    let snapshot = traffic.update(&closed(connection(OWNER, 130, 121), (140, 131), &[(SECOND, 10, 10)]));
    assert_eq!(rows(&snapshot), [(1, OWNER, 30, 1)]);
}

/// The counters of the kernel side after so many lost records and bytes that belong to nobody.
fn counters(lost: u64, sent: u64, received: u64) -> Counters {
    let mut counters = Counters::default();
    counters.add(Counter::ClosedLost, lost);
    counters.add(Counter::UnattributedSent, sent);
    counters.add(Counter::UnattributedReceived, received);
    counters
}

#[test]
fn lost_records_and_bytes_of_nobody_are_shown_by_interval() {
    let mut traffic = Traffic::default();
    for (counters, expected) in [
        (counters(0, 10, 0), (0, (10, 0))),
        (counters(2, 10, 7), (2, (0, 7))),
        (counters(2, 10, 7), (0, (0, 0))),
        (counters(3, 11, 8), (1, (1, 1))),
    ] {
        let snapshot = traffic.update(&Sample { counters, ..sample() });
        assert_eq!((snapshot.lost_events, unattributed(&snapshot)), expected);
        assert_eq!(rows(&snapshot), []);
    }
}

#[test]
fn shares_of_a_lost_record_count_for_what_was_not_reported_of_them() {
    let orphan = |tgid, sent, received| (ShareKey { sock: SOCK, tgid, generation: 5 }, share(sent, received));
    let mut traffic = Traffic::default();
    traffic.update(&open(connection(OWNER, 100, 0), &[(SECOND, 60, 6)]));
    // The record is lost. The whole table is read, in which the connection is no more; its shares come one sample later,
    // since until then the record could have been late.
    let counters = counters(1, 0, 0);
    let snapshot = traffic.update(&Sample { counters, present: Some(HashSet::new()), ..sample() });
    assert_eq!((snapshot.lost_events, unattributed(&snapshot)), (1, (0, 0)));
    let orphans = vec![orphan(SECOND, 80, 7), orphan(THIRD, 5, 0)];
    let snapshot = traffic.update(&Sample { counters, orphans, ..sample() });
    assert_eq!(unattributed(&snapshot), (20 + 5, 1));
    assert_eq!(rows(&snapshot), []);
    // Of another time at the same address nothing was reported.
    let earlier = ShareKey { sock: SOCK, tgid: SECOND, generation: 4 };
    let snapshot = traffic.update(&Sample { counters, orphans: vec![(earlier, share(9, 9))], ..sample() });
    assert_eq!(unattributed(&snapshot), (9, 9));
}

#[test]
fn a_record_that_comes_after_the_whole_table_was_read_goes_on_where_its_connection_was() {
    let mut traffic = Traffic::default();
    traffic.update(&open(connection(OWNER, 100, 0), &[(SECOND, 60, 0)]));
    // It ended after the ring buffer was emptied and before the table was read: it is in neither.
    let snapshot = traffic.update(&Sample { present: Some(HashSet::new()), ..sample() });
    assert_eq!(rows(&snapshot), []);
    let snapshot = traffic.update(&closed(connection(OWNER, 120, 0), (180, 0), &[(SECOND, 60, 0)]));
    assert_eq!(rows(&snapshot), [(1, OWNER, 20, 0)]);
    assert!(traffic.reported.is_empty());
}

#[test]
fn connections_that_are_no_more_are_forgotten_and_those_that_are_stay() {
    let entry = |sock: u64| OpenConnection { sock, connection: connection(OWNER, 10, 0), shares: Vec::new() };
    let mut traffic = Traffic::default();
    traffic.update(&Sample { open: (0..100).map(entry).collect(), ..sample() });
    let present = Some((0..30).map(|sock| (sock, 5)).collect::<HashSet<_>>());
    // Two samples: the first only shows that something is gone, whose last record may still come.
    traffic.update(&Sample { present, ..sample() });
    traffic.update(&sample());
    assert_eq!(traffic.reported.len(), 30);
    let more = OpenConnection { connection: connection(OWNER, 11, 0), ..entry(7) };
    assert_eq!(rows(&traffic.update(&Sample { open: vec![more], ..sample() })), [(8, OWNER, 1, 0)]);
}
