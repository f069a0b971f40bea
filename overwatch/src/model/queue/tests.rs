use super::{
    fixtures::{holder, row, snapshot, unknown_row, waiting},
    *,
};
use crate::model::verdict::Cause;

#[test]
fn the_limit_is_somaxconn_or_what_was_asked_for() {
    for (backlog_limit, somaxconn, origin) in [
        (4096, Some(4096), Some(BacklogOrigin::Somaxconn)),
        (511, Some(4096), Some(BacklogOrigin::Listen)),
        // somaxconn has been lowered since.
        (511, Some(128), Some(BacklogOrigin::Listen)),
        (0, Some(0), Some(BacklogOrigin::Somaxconn)),
        (511, None, None),
    ] {
        let queue = Queue { backlog_limit, somaxconn, ..row().queue };
        assert_eq!(queue.backlog_origin(), origin, "{backlog_limit} of {somaxconn:?}");
    }
}

#[test]
fn a_client_that_has_closed_or_reset_is_gone() {
    for (state, gone) in [(1, false), (3, false), (8, true), (7, true), (99, false)] {
        assert_eq!(waiting(1, 1, state).is_gone(), gone, "{state}");
    }
}

#[test]
fn those_who_wait_too_long_or_are_refused_make_it_sick() {
    for (level, sick) in
        [(Level::Ok, false), (Level::Busy, false), (Level::Saturated, true), (Level::Overflowing, true)]
    {
        let row = Row { verdict: Verdict { level, ..row().verdict }, ..row() };
        assert_eq!(row.is_sick(), sick, "{level:?}");
    }
}

/// What rows are sorted by, in words: port for the identity.
fn of(port: u16, level: Level, wait: Option<u64>, accept_queue: u32, serving: Option<u64>) -> Row {
    let waiting = wait.map(|millis| waiting(1, millis, 1)).into_iter().collect();
    let queue = Queue { local_port: port, accept_queue, serving, waiting, ..row().queue };
    Row { queue, verdict: Verdict { level, cause: Cause::None, ..Verdict::ok() } }
}

#[test]
fn the_worst_comes_first() {
    let sorted = [
        of(1, Level::Overflowing, None, 0, None),
        of(2, Level::Saturated, Some(2_000), 1, None),
        of(3, Level::Saturated, Some(1_000), 9, None),
        of(4, Level::Busy, Some(10), 5, None),
        of(5, Level::Busy, Some(10), 4, Some(9)),
        of(6, Level::Ok, Some(1), 1, None),
        of(7, Level::Ok, None, 2, None),
        of(8, Level::Ok, None, 0, Some(7)),
        of(9, Level::Ok, None, 0, Some(0)),
        // Not known is less than none.
        of(10, Level::Ok, None, 0, None),
        of(11, Level::Ok, None, 0, None),
    ];
    // Begun at each row, forwards and backwards.
    for begin in 0..sorted.len() {
        let mut rows = sorted.to_vec();
        rows.rotate_left(begin);
        if begin % 2 == 1 {
            rows.reverse();
        }
        let mut snapshot = snapshot(rows);
        snapshot.sort();
        let ports: Vec<_> = snapshot.rows.iter().map(|row| row.queue.local_port).collect();
        assert_eq!(ports, (1..=11).collect::<Vec<_>>());
    }
}

#[test]
fn equal_ones_have_an_order_of_their_own() {
    let place = |local_addr: &str, local_port, netns, listener| {
        let queue =
            Queue { local_addr: local_addr.parse().unwrap(), local_port, netns, listener, ..unknown_row().queue };
        Row { queue, ..unknown_row() }
    };
    let sorted = vec![
        place("0.0.0.0", 80, 7, 1),
        place("0.0.0.0", 80, 7, 2),
        place("0.0.0.0", 80, 8, 0),
        place("0.0.0.0", 443, 1, 0),
        place("10.0.0.1", 22, 1, 0),
        place("::", 22, 1, 0),
    ];
    let mut snapshot = snapshot(sorted.iter().rev().cloned().collect());
    snapshot.sort();
    assert_eq!(snapshot.rows, sorted);
}

#[test]
fn filters_know_all_holders_and_the_address_that_it_is_bound_to() {
    let mut queue = row().queue;
    queue.holders = vec![Holder { comm: "systemd".into(), cgroup_id: 1, ..holder(1) }, holder(42)];
    let path = |number: u64| match number {
        1 => Some("/init.scope"),
        9 => Some("/system.slice/apache2.service"),
        _ => None,
    };
    let all = Filter::default;
    for (filter, wanted) in [
        (all(), true),
        (Filter { pid: Some(42), ..all() }, true),
        (Filter { pid: Some(43), ..all() }, false),
        (Filter { comm: Some("systemd".into()), ..all() }, true),
        (Filter { cgroup: Some("/system.slice".into()), ..all() }, true),
        (Filter { cgroup: Some("/system.slice".into()), pid: Some(1), ..all() }, false),
        (Filter { local_port: Some(8080), ..all() }, true),
        (Filter { port: Some(8080), ..all() }, true),
        (Filter { port: Some(50_001), ..all() }, false),
        (Filter { netns: Some(7), ..all() }, true),
        (Filter { netns: Some(8), ..all() }, false),
        (Filter { network: Some("0.0.0.0/32".parse().unwrap()), ..all() }, true),
        (Filter { network: Some("10.0.0.0/8".parse().unwrap()), ..all() }, false),
    ] {
        assert_eq!(queue.is_wanted(&filter, path), wanted, "{filter:?}");
    }
}
