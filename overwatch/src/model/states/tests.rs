//! Lines, change by change.

use overwatch_common::connection::Listener;

use super::*;
use crate::model::fixtures::{bytes, change, listener, listening, sample};

const SOCK: u64 = 0xffff_8880_0000_1000;
const LISTENER: u64 = 0xffff_8880_0000_2000;

fn of(changes: &[Change]) -> Sample {
    Sample { changes: changes.to_vec(), ..sample() }
}

/// Before 6.18: a child that is born has its listener's address and no peer, and nobody has accepted it.
fn born(created_ns: u64) -> Change {
    let change = change(SOCK, created_ns, created_ns, (10, 3));
    Change { tgid: 0, local_addr: bytes("0.0.0.0"), remote_addr: [0; 16], remote_port: 0, ..change }
}

fn unowned(change: Change) -> Change {
    Change { tgid: 0, ..change }
}

/// A client's, of curl.
fn client(time_ns: u64, states: (u8, u8)) -> Change {
    Change { tgid: 50, role: role::CLIENT, ..change(SOCK, 5, time_ns, states) }
}

/// Number, pid (0 when not known), old and new state.
fn lines(transitions: &Transitions) -> Vec<(u64, u32, u32, u32)> {
    let pid = |line: &Transition| line.process.as_ref().map_or(0, |process| process.pid);
    let of = |line: &Transition| (line.connection, pid(line), line.old_state, line.new_state);
    transitions.lines.iter().map(of).collect()
}

fn with_listener(tgid: u32) -> States {
    let mut states = States::default();
    let listener = Listener { tgid, ..listener(0, "0.0.0.0") };
    states.update(&Sample { listeners: Some(vec![(LISTENER, listener)]), ..sample() });
    states
}

#[test]
fn a_line_says_what_happened_to_which_socket() {
    let transition = Change { since_ns: 2_000_000, ..change(SOCK, 5, 3_500_000, (1, 8)) };
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let sample = Sample { time, monotonic_ns: 4_000_000, ..of(&[transition]) };
    let expected = Transition {
        time: time - Duration::from_nanos(500_000),
        connection: 1,
        process: Some(Process { pid: 42, comm: "nginx".into(), cgroup_id: 9 }),
        netns: 7,
        local_addr: [10, 0, 0, 1].into(),
        local_port: 80,
        remote_addr: Some([10, 0, 0, 2].into()),
        remote_port: Some(50_000),
        role: Some(Role::Server),
        old_state: 1,
        new_state: 8,
        old_state_time: Some(Duration::from_nanos(1_500_000)),
    };
    assert_eq!(States::default().update(&sample), Transitions { lines: vec![expected], lost_events: 0 });
}

#[test]
fn what_is_not_known_is_not_said() {
    let transition = Change { role: role::UNKNOWN, remote_port: 0, ..unowned(change(SOCK, 5, 10, (1, 8))) };
    let transitions = States::default().update(&of(&[transition]));
    let line = &transitions.lines[0];
    assert_eq!((line.remote_addr, line.remote_port, line.old_state_time), (None, None, None));
    assert_eq!((&line.process, line.role), (&None, None));
}

#[test]
fn a_life_has_one_number_whatever_sample_its_lines_are_in() {
    let life = |created_ns: u64| {
        [(7, 2), (2, 1), (1, 4), (4, 5), (5, 7)]
            .into_iter()
            .zip(created_ns..)
            .map(move |(states, time_ns)| change(SOCK, created_ns, time_ns, states))
    };
    let other = change(SOCK + 64, 12, 12, (7, 2));
    let end_lost = change(SOCK, 300, 300, (7, 2));
    let after = change(SOCK, 400, 400, (2, 1));
    // Without a new birth being seen, an old state of CLOSE is one.
    let again = change(SOCK, 400, 500, (7, 2));
    let mut changes: Vec<Change> = life(10).chain(life(100)).chain([other, end_lost, after, again]).collect();
    changes.sort_by_key(|change| change.time_ns);
    let expected = [1, 1, 1, 2, 1, 1, 3, 3, 3, 3, 3, 4, 5, 6];
    for per_sample in [1, 2, 3, 7, changes.len()] {
        let mut states = States::default();
        let updates = changes.chunks(per_sample).map(|changes| states.update(&of(changes)));
        let numbers: Vec<u64> = updates.flat_map(|update| update.lines).map(|line| line.connection).collect();
        assert_eq!(numbers, expected, "{per_sample} in a sample");
        // The two that did not end.
        assert_eq!(states.lives.len(), 2, "{per_sample} in a sample");
    }
}

#[test]
fn only_transitions_are_lines() {
    let mut states = States::default();
    let transitions = states.update(&of(&[change(SOCK, 5, 10, (1, 1)), change(SOCK, 5, 11, (7, 7))]));
    assert_eq!(lines(&transitions), []);
    let transitions = states.update(&of(&[change(SOCK, 5, 12, (1, 8)), change(SOCK, 5, 13, (8, 8))]));
    assert_eq!(lines(&transitions), [(1, 42, 1, 8)]);
}

#[test]
fn lines_come_in_the_order_of_time() {
    let changes = [
        change(SOCK, 5, 30, (1, 8)),
        change(SOCK + 64, 6, 20, (2, 1)),
        // At one instant, in their order.
        change(SOCK, 5, 30, (8, 9)),
        change(SOCK, 5, 30, (9, 7)),
    ];
    let transitions = States::default().update(&of(&changes));
    let states: Vec<_> = transitions.lines.iter().map(|line| (line.old_state, line.new_state)).collect();
    assert_eq!(states, [(2, 1), (1, 8), (8, 9), (9, 7)]);
}

#[test]
fn addresses_that_become_known_are_filled_into_earlier_lines_of_the_life() {
    let none = (None, None);
    let peer = (Some([10, 0, 0, 2].into()), Some(50_000));
    let port_unknown = |change| Change { local_port: 0, ..change };
    let (born, any) = (born(5), IpAddr::from([0, 0, 0, 0]));
    let here = IpAddr::from([10, 0, 0, 1]);
    // Changes of one sample; local address, port and peer of the first line.
    for (changes, expected) in [
        (vec![born], (any, 80, none)),
        (vec![born, change(SOCK, 5, 6, (3, 1))], (here, 80, peer)),
        (vec![born, change(SOCK, 5, 6, (1, 1))], (here, 80, peer)),
        // Of another life at the same address, and of another socket.
        (vec![born, change(SOCK, 6, 6, (3, 1))], (any, 80, none)),
        (vec![born, change(SOCK + 64, 5, 6, (3, 1))], (any, 80, none)),
        // Over one that does not know it either.
        (vec![born, Change { old: 3, new: 1, time_ns: 6, ..born }, change(SOCK, 5, 7, (1, 8))], (here, 80, peer)),
        (vec![port_unknown(client(5, (7, 2)))], (here, 0, peer)),
        (vec![port_unknown(client(5, (7, 2))), client(6, (2, 1))], (here, 80, peer)),
    ] {
        let transitions = States::default().update(&of(&changes));
        let line = &transitions.lines[0];
        let peer = (line.remote_addr, line.remote_port);
        assert_eq!((line.local_addr, line.local_port, peer), expected, "{changes:?}");
    }
}

#[test]
fn what_a_line_knows_is_not_overwritten_by_later_ones() {
    let later = Change {
        tgid: 43,
        local_addr: bytes("10.0.0.8"),
        local_port: 88,
        remote_addr: bytes("10.0.0.9"),
        remote_port: 99,
        ..change(SOCK, 5, 20, (8, 9))
    };
    let transitions = States::default().update(&of(&[change(SOCK, 5, 10, (1, 8)), later]));
    assert_eq!(lines(&transitions), [(1, 42, 1, 8), (1, 43, 8, 9)]);
    let line = &transitions.lines[0];
    assert_eq!((line.local_addr, line.local_port), ([10, 0, 0, 1].into(), 80));
    assert_eq!((line.remote_addr, line.remote_port), (Some([10, 0, 0, 2].into()), Some(50_000)));
}

#[test]
fn before_accept_the_process_is_the_one_that_listens() {
    let established = change(SOCK, 5, 6, (3, 1));
    let peer_closed = change(SOCK, 5, 7, (1, 8));
    let accepted = change(SOCK, 5, 8, (8, 8));
    let reset = change(SOCK, 5, 9, (8, 7));
    let closed_by_us = change(SOCK, 5, 9, (8, 9));
    let unaccepted = [born(5), unowned(established), unowned(peer_closed)];
    let with = |last: &[Change]| [&unaccepted[..], last].concat();
    // The listener's pid, changes of one sample, pids of the lines.
    for (listener, changes, expected) in [
        (41, with(&[]), vec![41, 41, 41]),
        (41, with(&[accepted, closed_by_us]), vec![41, 41, 41, 42]),
        (41, with(&[unowned(reset)]), vec![41, 41, 41, 41]),
        // Where nobody knows who listens, who accepts is the next best.
        (0, with(&[]), vec![0, 0, 0]),
        (0, with(&[accepted, closed_by_us]), vec![42, 42, 42, 42]),
        // This end has closed it, so somebody has accepted it: nobody knows who.
        (41, with(&[unowned(closed_by_us)]), vec![41, 41, 41, 0]),
        // No listener has a part in a client's.
        (41, vec![unowned(client(6, (2, 1)))], vec![0]),
        (41, vec![unowned(client(6, (2, 1))), client(7, (1, 1))], vec![50]),
    ] {
        let transitions = with_listener(listener).update(&of(&changes));
        let pids: Vec<u32> = lines(&transitions).into_iter().map(|(_, pid, ..)| pid).collect();
        assert_eq!(pids, expected, "listener {listener}, {changes:?}");
    }
}

#[test]
fn listening_sockets_have_lines_of_their_own_and_no_role() {
    let mut states = States::default();
    let socket = listener(5, "0.0.0.0");
    let mut transitions = states.update(&of(&[listening(LISTENER, &socket, 5, (7, 10))]));
    // The child's life is not the listener's, though it begins in LISTEN.
    transitions.lines.extend(states.update(&of(&[born(6)])).lines);
    let end = Change { tgid: 0, ..listening(LISTENER, &socket, 7, (10, 7)) };
    transitions.lines.extend(states.update(&of(&[end])).lines);
    assert_eq!(lines(&transitions), [(1, 42, 7, 10), (2, 42, 10, 3), (1, 42, 10, 7)]);
    let roles: Vec<_> = transitions.lines.iter().map(|line| line.role).collect();
    assert_eq!(roles, [None, Some(Role::Server), None]);
    assert_eq!(transitions.lines[0].remote_port, None);
}

#[test]
fn lost_transitions_are_counted_once() {
    let mut states = States::default();
    for (lost, expected) in [(0, 0), (3, 3), (3, 0), (10, 7)] {
        let mut sample = sample();
        sample.counters.add(Counter::ChangeLost, lost);
        assert_eq!(states.update(&sample).lost_events, expected, "{lost} in all");
    }
}
