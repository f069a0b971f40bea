//! Which listener a connection is said to come from.

use overwatch_common::connection::Listener;

use super::*;
use crate::model::fixtures::{bytes, listener, listening, sample};

const BEGINS: (u8, u8) = (7, 10);
const ENDS: (u8, u8) = (10, 7);
const FIRST: u64 = 0xffff_8880_0000_1000;

fn of_pid(tgid: u32, since_ns: u64, local_addr: &str) -> Listener {
    Listener { tgid, ..listener(since_ns, local_addr) }
}

fn begin(listeners: &mut Listeners, sock: u64, listener: &Listener) {
    let change = listening(sock, listener, listener.since_ns, BEGINS);
    listeners.update(&Sample { changes: vec![change], ..sample() });
}

fn end(listeners: &mut Listeners, sock: u64, listener: &Listener, time_ns: u64) {
    listeners.update(&Sample { changes: vec![listening(sock, listener, time_ns, ENDS)], ..sample() });
}

/// Pid of the listener of 10.0.0.1:80 in network namespace 7 at that time.
fn pid_at(listeners: &Listeners, at_ns: u64) -> Option<u32> {
    pid_of(listeners, 7, "10.0.0.1", 80, at_ns)
}

fn pid_of(listeners: &Listeners, netns: u32, local_addr: &str, local_port: u16, at_ns: u64) -> Option<u32> {
    let listening = listeners.of(netns, local_addr.parse().unwrap(), local_port, at_ns)?;
    Some(listening.process.as_ref().map_or(0, |process| process.pid))
}

fn open_pids(listeners: &Listeners) -> Vec<u32> {
    let pid = |listening: &Listening| listening.process.as_ref().map_or(0, |process| process.pid);
    let mut pids: Vec<u32> = listeners.open().map(pid).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn the_exact_address_goes_before_the_wildcard_and_that_of_ipv4_before_that_of_ipv6() {
    const ALL: &[&str] = &["10.0.0.1", "0.0.0.0", "::", "fd00::1"];
    // Bound addresses (the pids are 1, 2 ...), the connection's address, whose it is.
    for (bound, local_addr, expected) in [
        (ALL, "10.0.0.1", Some(1)),
        (ALL, "10.0.0.2", Some(2)),
        (ALL, "fd00::1", Some(4)),
        (ALL, "fd00::2", Some(3)),
        (&["::"], "10.0.0.1", Some(1)),
        (&["::"], "fd00::1", Some(1)),
        (&["0.0.0.0"], "fd00::1", None),
        (&["0.0.0.0"], "10.0.0.1", Some(1)),
        (&["10.0.0.1"], "10.0.0.2", None),
        (&["::ffff:10.0.0.1"], "10.0.0.1", Some(1)),
        // The birth of a child on an older Linux: it still has its listener's address.
        (ALL, "0.0.0.0", Some(2)),
        (ALL, "::", Some(3)),
        (&["::"], "0.0.0.0", Some(1)),
        (&[], "10.0.0.1", None),
    ] {
        let mut listeners = Listeners::default();
        for (local_addr, tgid) in bound.iter().zip(1..) {
            begin(&mut listeners, u64::from(tgid), &of_pid(tgid, 5, local_addr));
        }
        assert_eq!(pid_of(&listeners, 7, local_addr, 80, 10), expected, "{local_addr} of {bound:?}");
        assert_eq!(pid_of(&listeners, 7, local_addr, 81, 10), None, "no other port: {local_addr} of {bound:?}");
        assert_eq!(pid_of(&listeners, 8, local_addr, 80, 10), None, "no other namespace: {local_addr} of {bound:?}");
    }
}

#[test]
fn namespaces_and_ports_are_told_apart() {
    let mut listeners = Listeners::default();
    for (tgid, netns, local_port) in [(1, 7, 80), (2, 8, 80), (3, 7, 81), (4, 8, 81)] {
        let listener = Listener { netns, local_port, ..of_pid(tgid, 5, "0.0.0.0") };
        begin(&mut listeners, u64::from(tgid), &listener);
    }
    for (netns, local_port, expected) in [(7, 80, 1), (8, 80, 2), (7, 81, 3), (8, 81, 4)] {
        assert_eq!(pid_of(&listeners, netns, "10.0.0.1", local_port, 10), Some(expected), "{netns}, {local_port}");
    }
}

#[test]
fn the_time_decides_who_listened_at_a_port_that_was_used_again() {
    let mut listeners = Listeners::default();
    let (first, second) = (of_pid(1, 100, "10.0.0.1"), of_pid(2, 300, "10.0.0.1"));
    begin(&mut listeners, FIRST, &first);
    end(&mut listeners, FIRST, &first, 200);
    begin(&mut listeners, FIRST, &second);
    let wildcard = of_pid(3, 400, "0.0.0.0");
    begin(&mut listeners, FIRST + 64, &wildcard);
    for (at_ns, expected) in [
        (99, None),
        (100, Some(1)),
        (200, Some(1)),
        // Nobody listened: the one that had.
        (250, Some(1)),
        (300, Some(2)),
        (500, Some(2)),
        (0, Some(2)),
    ] {
        assert_eq!(pid_at(&listeners, at_ns), expected, "at {at_ns}");
    }
    end(&mut listeners, FIRST, &second, 600);
    // One that listens goes before an exact one that has ended.
    for (at_ns, expected) in [(500, Some(2)), (601, Some(3)), (0, Some(3))] {
        assert_eq!(pid_at(&listeners, at_ns), expected, "at {at_ns}");
    }
    end(&mut listeners, FIRST + 64, &wildcard, 700);
    for (at_ns, expected) in [(250, Some(1)), (500, Some(2)), (650, Some(3)), (800, Some(3)), (0, Some(3))] {
        assert_eq!(pid_at(&listeners, at_ns), expected, "at {at_ns}, all have ended");
    }
    assert_eq!(listeners.open().count(), 0);
}

#[test]
fn siblings_listen_until_the_last_of_them_ends() {
    let mut listeners = Listeners::default();
    let siblings: Vec<_> = (1..=3).map(|tgid| of_pid(tgid, 100, "0.0.0.0")).collect();
    for sibling in &siblings {
        begin(&mut listeners, u64::from(sibling.tgid), sibling);
    }
    assert_eq!(open_pids(&listeners), [1, 2, 3]);
    for (ended, sibling) in siblings.iter().enumerate() {
        let pid = pid_at(&listeners, 1000).unwrap();
        assert!(pid > ended as u32, "{pid} has ended");
        end(&mut listeners, u64::from(sibling.tgid), sibling, 200 + u64::from(sibling.tgid));
    }
    assert_eq!(pid_at(&listeners, 203), Some(3));
    assert_eq!(pid_at(&listeners, 1000), Some(3), "the last one");
}

#[test]
fn what_has_ended_is_forgotten_when_there_is_too_much_of_it() {
    let mut listeners = Listeners::default();
    for number in 0..MAX_ENDED as u64 + 10 {
        let listener = of_pid(1 + number as u32, 10 * number, "0.0.0.0");
        begin(&mut listeners, FIRST, &listener);
        end(&mut listeners, FIRST, &listener, 10 * number + 9);
    }
    assert_eq!((listeners.known.len(), listeners.ended.len(), listeners.open.len()), (MAX_ENDED, MAX_ENDED, 0));
    for (number, expected) in [(0, None), (9, None), (10, Some(11)), (4105, Some(4106))] {
        assert_eq!(pid_at(&listeners, 10 * number + 5), expected, "number {number}");
    }
}

#[test]
fn a_table_says_who_listens_when_changes_were_lost() {
    let mut listeners = Listeners::default();
    let table = |monotonic_ns, entries: &[(u64, Listener)]| Sample {
        monotonic_ns,
        listeners: Some(entries.to_vec()),
        ..sample()
    };
    let (old, kept, new) = (of_pid(1, 0, "0.0.0.0"), of_pid(2, 0, "fd00::1"), of_pid(3, 150, "10.0.0.1"));
    // From before overwatch.
    listeners.update(&table(100, &[(1, old), (2, kept)]));
    assert_eq!(open_pids(&listeners), [1, 2]);
    assert_eq!(pid_at(&listeners, 50), Some(1));
    // Lost: the end of the first and the beginning of the third. An entry may be there twice.
    listeners.update(&table(200, &[(2, kept), (3, new), (2, kept)]));
    assert_eq!(open_pids(&listeners), [2, 3]);
    for (at_ns, expected) in [(149, 1), (150, 3), (200, 3), (300, 3)] {
        assert_eq!(pid_at(&listeners, at_ns), Some(expected), "at {at_ns}");
    }
    // What comes late and began before the table had ended by then; its connections may come later still.
    let late = [listening(1, &old, 140, ENDS), listening(4, &of_pid(4, 160, "0.0.0.0"), 160, BEGINS)];
    listeners.update(&Sample { changes: late.to_vec(), ..sample() });
    assert_eq!(open_pids(&listeners), [2, 3]);
    assert_eq!(pid_of(&listeners, 7, "10.0.0.9", 80, 165), Some(4));
    // The kernel has used an address again, and neither the end nor the beginning was seen.
    let again = of_pid(5, 250, "10.0.0.1");
    listeners.update(&table(300, &[(2, kept), (3, again)]));
    assert_eq!(open_pids(&listeners), [2, 5]);
    for (at_ns, expected) in [(200, 3), (249, 3), (251, 5)] {
        assert_eq!(pid_at(&listeners, at_ns), Some(expected), "at {at_ns}");
    }
    // The end of the earlier one, older than the table and later in coming.
    end(&mut listeners, 3, &new, 240);
    assert_eq!(open_pids(&listeners), [2, 5]);
    // One that a table had not shown by mistake.
    listeners.update(&table(400, &[(3, again)]));
    assert_eq!(open_pids(&listeners), [5]);
    listeners.update(&table(500, &[(2, kept), (3, again)]));
    assert_eq!(open_pids(&listeners), [2, 5]);
    assert_eq!(listeners.known.len(), listeners.open.len() + listeners.ended.len());
}

#[test]
fn what_becomes_known_of_a_listener_later_is_taken_in() {
    let mut listeners = Listeners::default();
    // The kernel chooses the port after the transition when nothing was bound.
    begin(&mut listeners, FIRST, &Listener { local_port: 0, ..of_pid(0, 100, "0.0.0.0") });
    assert_eq!(pid_at(&listeners, 200), None);
    begin(&mut listeners, FIRST, &of_pid(1, 100, "0.0.0.0"));
    assert_eq!(pid_at(&listeners, 200), Some(1));
    // A process that is known stays known.
    begin(&mut listeners, FIRST, &of_pid(0, 100, "0.0.0.0"));
    assert_eq!(pid_at(&listeners, 200), Some(1));
    assert_eq!((listeners.known.len(), listeners.open.len()), (1, 1));
}

#[test]
fn a_later_life_at_a_kernel_address_stays_when_an_earlier_one_is_told_of() {
    let mut listeners = Listeners::default();
    let (earlier, later) = (of_pid(1, 200, "0.0.0.0"), of_pid(2, 300, "0.0.0.0"));
    begin(&mut listeners, FIRST, &later);
    begin(&mut listeners, FIRST, &earlier);
    assert_eq!(open_pids(&listeners), [2]);
    end(&mut listeners, FIRST, &earlier, 250);
    assert_eq!(open_pids(&listeners), [2]);
    assert_eq!(pid_at(&listeners, 400), Some(2));
    assert_eq!(pid_at(&listeners, 220), Some(1));
    assert_eq!(listeners.known.len(), listeners.open.len() + listeners.ended.len());
}

#[test]
fn the_birth_of_a_child_does_not_end_its_listener() {
    let mut listeners = Listeners::default();
    let parent = of_pid(1, 100, "0.0.0.0");
    begin(&mut listeners, FIRST, &parent);
    let mut child = listening(FIRST, &parent, 200, (10, 3));
    child.local_addr = bytes("10.0.0.1");
    listeners.update(&Sample { changes: vec![child], ..sample() });
    assert_eq!(open_pids(&listeners), [1]);
}
