//! What is open, sample by sample.

use overwatch_common::connection::Listener;

use super::*;
use crate::{
    collect::ClosedConnection,
    model::fixtures::{bytes, change, connection, listener, listening, sample},
};

const SOCK: u64 = 0xffff_8880_0000_1000;
const LISTENER: u64 = 0xffff_8880_0000_2000;

fn of(changes: &[Change]) -> Sample {
    Sample { changes: changes.to_vec(), ..sample() }
}

/// Listening sockets with nothing connected, as in a first sample.
fn with_listeners(listeners: &[Listener]) -> Open {
    let mut open = Open::default();
    let listeners = (LISTENER..).zip(listeners.iter().copied()).collect();
    open.update(&Sample { listeners: Some(listeners), table: Some(Vec::new()), ..sample() });
    open
}

fn of_pid(tgid: u32, local_addr: &str) -> Listener {
    Listener { tgid, ..listener(0, local_addr) }
}

/// A birth: nobody has accepted it.
fn born(sock: u64, created_ns: u64) -> Change {
    Change { tgid: 0, ..change(sock, created_ns, created_ns, (10, 3)) }
}

fn accepted(sock: u64, created_ns: u64) -> Change {
    change(sock, created_ns, created_ns + 1, (1, 1))
}

fn end(sock: u64, created_ns: u64) -> Change {
    change(sock, created_ns, created_ns + 2, (9, 7))
}

fn entry(created_ns: u64, state: u32) -> Connection {
    Connection { created_ns, state, ..connection(42, 0, 0) }
}

fn closed(sock: u64, created_ns: u64) -> ClosedConnection {
    ClosedConnection { sock, connection: entry(created_ns, 7), shares: Vec::new() }
}

/// Per listener: bound address, pid (0 when not known), open, waiting.
fn listeners(open: &Open) -> Vec<(String, u32, u64, u64)> {
    let pid = |process: &Option<Process>| process.as_ref().map_or(0, |process| process.pid);
    let of = |entry: &ListenerOpen| (entry.local_addr.to_string(), pid(&entry.process), entry.open, entry.waiting);
    open.counts().listeners.iter().map(of).collect()
}

/// Pid (0 when not known) and how many.
fn owners(open: &Open) -> Vec<(u32, u64)> {
    let pid = |process: &Option<Process>| process.as_ref().map_or(0, |process| process.pid);
    open.counts().owners.iter().map(|owner| (pid(&owner.process), owner.open)).collect()
}

fn remotes(open: &Open) -> Vec<(String, u64)> {
    open.counts().remotes.iter().map(|remote| (remote.remote_addr.to_string(), remote.open)).collect()
}

#[test]
fn births_and_ends_are_counted_in_whatever_order_and_however_often_they_come() {
    let records = |changes: &[Change], ends: &[ClosedConnection]| Sample { closed: ends.to_vec(), ..of(changes) };
    let (birth, accept, end, last) = (born(SOCK, 5), accepted(SOCK, 5), end(SOCK, 5), closed(SOCK, 5));
    let of_end = std::slice::from_ref(&last);
    // Samples, and how many are open after each.
    for (name, samples, expected) in [
        ("one by one", vec![of(&[birth]), of(&[accept]), of(&[end]), records(&[], of_end)], &[1, 1, 0, 0][..]),
        ("the birth was lost", vec![of(&[accept]), of(&[end])], &[1, 0]),
        ("at once", vec![records(&[birth, accept, end], of_end)], &[0]),
        ("twice", vec![of(&[birth, birth]), of(&[birth, end, end]), of(&[end])], &[1, 0, 0]),
        ("unknown", vec![of(&[end]), records(&[], of_end)], &[0, 0]),
        ("the end was lost, the last record not", vec![of(&[birth]), records(&[], of_end)], &[1, 0]),
        ("the last record overtakes", vec![records(&[], of_end), of(&[birth, accept, end])], &[0, 0]),
        ("it overtakes all but the end", vec![records(&[], of_end), of(&[birth, accept])], &[0, 0]),
        ("the end overtakes", vec![of(&[end]), of(&[birth, accept])], &[0, 0]),
        ("in one sample", vec![records(&[end, birth], of_end)], &[0]),
        (
            "an end of another life",
            vec![of(&[birth]), records(&[change(SOCK, 4, 7, (9, 7))], &[]), of(&[])],
            &[1, 1, 1],
        ),
        ("known again in CLOSE", vec![of(&[birth]), of(&[end, change(SOCK, 5, 9, (7, 7))])], &[1, 0]),
        ("the address is used again", vec![of(&[birth, end, born(SOCK, 8)]), records(&[], of_end)], &[1, 1]),
    ] {
        let mut open = with_listeners(&[of_pid(41, "0.0.0.0")]);
        for (step, (sample, expected)) in samples.iter().zip(expected).enumerate() {
            open.update(sample);
            let counts = open.counts();
            assert_eq!(counts.open_connections, *expected, "{name}, sample {step}");
            assert_eq!(counts.listeners[0].open, *expected, "{name}, sample {step}");
            assert_eq!(counts.owners.iter().map(|owner| owner.open).sum::<u64>(), *expected, "{name}, sample {step}");
        }
    }
}

#[test]
fn what_ended_early_is_remembered_for_one_sample() {
    let mut open = Open::default();
    for sock in 0..10 {
        open.update(&Sample { closed: vec![closed(sock, 5)], ..sample() });
        assert_eq!(open.ended.len(), 1);
    }
    open.update(&sample());
    assert!(open.ended.is_empty());
}

#[test]
fn a_table_is_newer_than_changes_and_older_than_no_end() {
    let table = |entries: &[(u64, Connection)]| Sample { table: Some(entries.to_vec()), ..sample() };
    let there = (SOCK, entry(5, 1));
    // Of the sample before, what the table's sample has, what the next one has; what is open after each of the last two.
    for (name, before, with_table, next, expected) in [
        ("seeded", of(&[]), table(&[there]), of(&[]), [1, 1]),
        ("twice in it", of(&[]), table(&[there, there]), of(&[]), [1, 1]),
        ("its end was lost", of(&[born(SOCK, 5)]), table(&[]), of(&[]), [0, 0]),
        ("birth seen and end lost", of(&[]), Sample { changes: vec![born(SOCK, 5)], ..table(&[]) }, of(&[]), [0, 0]),
        (
            "birth seen and end to come",
            of(&[]),
            Sample { changes: vec![born(SOCK, 5)], ..table(&[]) },
            of(&[end(SOCK, 5)]),
            [0, 0],
        ),
        ("birth and end to come", of(&[]), table(&[there]), of(&[born(SOCK, 5), end(SOCK, 5)]), [1, 0]),
        ("birth to come, again", of(&[]), table(&[there]), of(&[born(SOCK, 5)]), [1, 1]),
        ("ended as it was read", of(&[]), Sample { changes: vec![end(SOCK, 5)], ..table(&[there]) }, of(&[]), [0, 0]),
        (
            "destroyed as it was read",
            of(&[]),
            Sample { closed: vec![closed(SOCK, 5)], ..table(&[there]) },
            of(&[]),
            [0, 0],
        ),
        ("ended before", of(&[end(SOCK, 5)]), table(&[there]), of(&[]), [0, 0]),
        ("in CLOSE", of(&[]), table(&[(SOCK, entry(5, 7))]), of(&[]), [0, 0]),
        ("listens", of(&[]), table(&[(SOCK, entry(5, 10))]), of(&[]), [0, 0]),
        (
            "handed over",
            of(&[]),
            table(&[(SOCK, Connection { flags: flag::HANDED_OVER, ..entry(5, 1) })]),
            of(&[]),
            [0, 0],
        ),
        ("the address was used again", of(&[born(SOCK, 4)]), table(&[there]), of(&[end(SOCK, 4)]), [1, 1]),
    ] {
        let mut open = Open::default();
        open.update(&before);
        let opens = [with_table, next].map(|sample| {
            open.update(&sample);
            open.counts().open_connections
        });
        assert_eq!(opens, expected, "{name}");
    }
}

#[test]
fn changes_older_than_the_last_table_only_end() {
    let mut open = Open::default();
    let there = vec![(SOCK, entry(5, 1)), (SOCK + 64, entry(6, 1))];
    open.update(&Sample { monotonic_ns: 100, table: Some(there), ..sample() });
    // Left behind in the ring buffer: one birth whose end was lost, and one end.
    let end = change(SOCK, 5, 99, (1, 7));
    open.update(&of(&[change(SOCK + 128, 98, 98, (10, 3)), end, change(SOCK + 192, 101, 101, (10, 3))]));
    let mut keys: Vec<_> = open.members.keys().copied().collect();
    keys.sort_unstable();
    assert_eq!(keys, [(SOCK + 64, 6), (SOCK + 192, 101)]);
}

#[test]
fn listening_sockets_are_no_connections() {
    let mut open = Open::default();
    let socket = listener(5, "0.0.0.0");
    for (states, expected) in [((7, 10), vec![("0.0.0.0".into(), 42, 0, 0)]), ((10, 7), vec![])] {
        open.update(&of(&[listening(LISTENER, &socket, 6, states)]));
        assert_eq!(open.counts().open_connections, 0);
        assert_eq!(listeners(&open), expected);
    }
}

#[test]
fn a_connection_waits_until_a_process_accepts_it_and_is_the_listeners_meanwhile() {
    let mut open = with_listeners(&[of_pid(41, "0.0.0.0")]);
    let unaccepted = |time_ns, states| Change { tgid: 0, ..change(SOCK, 5, time_ns, states) };
    // Waiting, owners.
    for (change, waiting, expected) in [
        (born(SOCK, 5), 1, [(41, 1)]),
        (unaccepted(6, (3, 1)), 1, [(41, 1)]),
        (unaccepted(7, (1, 8)), 1, [(41, 1)]),
        (change(SOCK, 5, 8, (8, 8)), 0, [(42, 1)]),
        // What was known stays known.
        (unaccepted(9, (8, 8)), 0, [(42, 1)]),
        (unaccepted(10, (8, 9)), 0, [(42, 1)]),
    ] {
        open.update(&of(&[change]));
        assert_eq!(listeners(&open), [("0.0.0.0".into(), 41, 1, waiting)], "{change:?}");
        assert_eq!(owners(&open), expected, "{change:?}");
    }
}

#[test]
fn a_table_tells_what_waits() {
    let accepted = flag::ESTABLISHED | flag::ACCEPTED;
    // Role, owner, flags, state; waiting, owner.
    for (role, tgid, flags, state, waiting, owner) in [
        (role::SERVER, 0, flag::ESTABLISHED, 1, 1, 41),
        (role::SERVER, 0, 0, 3, 1, 41),
        (role::SERVER, 0, flag::ESTABLISHED, 8, 1, 41),
        (role::SERVER, 42, accepted, 1, 0, 42),
        // A process uses it whose accept was not seen.
        (role::SERVER, 42, flag::ESTABLISHED, 1, 0, 42),
        // Accepted, nobody knows by whom.
        (role::SERVER, 0, accepted, 1, 0, 0),
        (role::SERVER, 0, flag::PARTIAL, 5, 0, 0),
        (role::CLIENT, 0, flag::ESTABLISHED, 1, 0, 0),
        (role::UNKNOWN, 0, flag::ESTABLISHED, 1, 0, 0),
    ] {
        let mut open = Open::default();
        let entry = Connection { role, tgid, flags, ..entry(5, state) };
        let listening = vec![(LISTENER, of_pid(41, "::"))];
        open.update(&Sample { table: Some(vec![(SOCK, entry)]), listeners: Some(listening), ..sample() });
        let from_listener = u64::from(role == role::SERVER);
        assert_eq!(listeners(&open), [("::".into(), 41, from_listener, waiting)], "{entry:?}");
        assert_eq!(owners(&open), [(owner, 1)], "{entry:?}");
        // Whom nobody knows does not begin to wait.
        open.update(&of(&[Change { tgid: 0, role, ..change(SOCK, 5, 6, (1, 8)) }]));
        assert_eq!(listeners(&open)[0].3, waiting, "{entry:?}");
    }
}

#[test]
fn listeners_of_one_address_are_one_entry_and_a_connection_keeps_its_own() {
    let siblings = [of_pid(45, "0.0.0.0"), of_pid(43, "0.0.0.0"), of_pid(0, "0.0.0.0"), of_pid(41, "10.0.0.1")];
    let mut open = with_listeners(&siblings);
    let to = |address: &str, sock| Change { local_addr: bytes(address), ..born(sock, 5) };
    // The second is of an older Linux: until it is complete it has its listener's address.
    open.update(&of(&[to("10.0.0.1", 1), to("0.0.0.0", 2), to("10.0.0.3", 3)]));
    open.update(&of(&[Change { old: 3, new: 1, time_ns: 6, ..to("10.0.0.1", 2) }]));
    assert_eq!(listeners(&open), [("0.0.0.0".into(), 43, 2, 2), ("10.0.0.1".into(), 41, 1, 1)]);
    assert_eq!(owners(&open), [(43, 2), (41, 1)]);
    // Nor does a table, which has its full address, bring it to another one.
    let at = |address, sock| (sock, Connection { local_addr: bytes(address), tgid: 0, ..entry(5, 1) });
    let table = vec![at("10.0.0.1", 1), at("10.0.0.1", 2), at("10.0.0.3", 3)];
    open.update(&Sample { table: Some(table), ..sample() });
    assert_eq!(listeners(&open), [("0.0.0.0".into(), 43, 2, 2), ("10.0.0.1".into(), 41, 1, 1)]);
    // A sibling ends, and one address is left altogether.
    for (sock, listener) in [(LISTENER + 1, siblings[1]), (LISTENER + 3, siblings[3])] {
        open.update(&of(&[listening(sock, &listener, 7, (10, 7))]));
    }
    open.update(&of(&[accepted(1, 5), end(3, 5)]));
    assert_eq!(listeners(&open), [("0.0.0.0".into(), 45, 1, 1), ("10.0.0.1".into(), 0, 1, 0)]);
    open.update(&of(&[end(1, 5), end(2, 5)]));
    assert_eq!(listeners(&open), [("0.0.0.0".into(), 45, 0, 0)]);
}

#[test]
fn remote_addresses_count_when_they_are_known() {
    let mut open = Open::default();
    let from = |address: &str, sock| Change { remote_addr: bytes(address), ..born(sock, 5) };
    let unknown = Change { remote_port: 0, ..from("0.0.0.0", 4) };
    open.update(&of(&[from("10.0.0.3", 1), from("::ffff:10.0.0.2", 2), from("fd00::1", 3), unknown]));
    let expected = [("10.0.0.2", 1), ("10.0.0.3", 1), ("fd00::1", 1)];
    assert_eq!(remotes(&open), expected.map(|(address, open)| (address.to_owned(), open)));
    open.update(&of(&[Change { old: 3, new: 1, time_ns: 6, ..from("10.0.0.3", 4) }]));
    let expected = [("10.0.0.3", 2), ("10.0.0.2", 1), ("fd00::1", 1)];
    assert_eq!(remotes(&open), expected.map(|(address, open)| (address.to_owned(), open)));
    assert_eq!(open.counts().open_connections, 4);
}

#[test]
fn those_with_most_come_first() {
    let mut open = with_listeners(&["10.0.0.3", "10.0.0.2", "10.0.0.1"].map(|address| of_pid(41, address)));
    let of_pid = |tgid, sock, address: &str| Change { tgid, local_addr: bytes(address), ..accepted(sock, 5) };
    let renamed = Change { comm: *b"worker\0\0\0\0\0\0\0\0\0\0", ..of_pid(50, 6, "10.0.0.1") };
    let elsewhere = Change { cgroup_id: 10, ..of_pid(51, 5, "10.0.0.2") };
    open.update(&of(&[
        of_pid(52, 1, "10.0.0.2"),
        of_pid(50, 2, "10.0.0.1"),
        of_pid(51, 3, "10.0.0.2"),
        of_pid(0, 4, "10.0.0.1"),
        elsewhere,
        renamed,
    ]));
    let expected = [("10.0.0.1", 3, 1), ("10.0.0.2", 3, 0), ("10.0.0.3", 0, 0)];
    assert_eq!(listeners(&open), expected.map(|(address, open, waiting)| (address.to_owned(), 41, open, waiting)));
    // One process in two control groups is one process, by two names it is two.
    assert_eq!(owners(&open), [(51, 2), (41, 1), (50, 1), (50, 1), (52, 1)]);
    let names: Vec<_> = open.counts().owners.into_iter().filter_map(|owner| owner.process).collect();
    assert_eq!([&names[2].comm, &names[3].comm], ["nginx", "worker"]);
}
