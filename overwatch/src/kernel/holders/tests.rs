use super::*;
use crate::kernel::fixtures::Host;

const SECOND: Duration = Duration::from_secs(1);

fn wanted(inode: u64) -> Wanted {
    Wanted { inode, listener_pid: None, waiting: false }
}

fn waiting(inode: u64) -> Wanted {
    Wanted { waiting: true, ..wanted(inode) }
}

fn pids(holders: &Holders, inode: u64) -> Vec<u32> {
    holders.of(inode).map(|process| process.pid).collect()
}

#[test]
fn all_are_asked_when_there_is_reason_to_and_not_too_often() {
    let milliseconds = Duration::from_millis;
    // Since the last walk, what it took, an unknown socket, somebody waits, and whether to walk.
    for (since_walk, walk_took, unknown, waiting, due) in [
        (None, 0, false, false, true),
        (Some(0), 0, false, false, false),
        (Some(0), 0, true, false, true),
        (Some(9_999), 0, false, true, false),
        (Some(10_000), 0, false, true, true),
        (Some(59_999), 0, false, false, false),
        (Some(60_000), 0, false, false, true),
        // What a walk costs keeps the next away.
        (Some(3_999), 100, true, false, false),
        (Some(4_000), 100, true, false, true),
        (Some(19_999), 500, false, true, false),
        (Some(20_000), 500, false, true, true),
        (Some(79_999), 2_000, false, false, false),
        (Some(80_000), 2_000, true, true, true),
    ] {
        let (since_walk, walk_took) = (since_walk.map(milliseconds), milliseconds(walk_took));
        let situation = Situation { since_walk, walk_took, unknown, waiting };
        assert_eq!(situation.walk_is_due(), due, "{situation:?}");
    }
}

#[test]
fn all_holders_are_found_the_lowest_pid_first_with_their_names() {
    let host = Host::new();
    host.process(300, 1, &[(7, "socket:[50]"), (8, "socket:[50]"), (9, "socket:[51]")]);
    host.process(20, 2, &[(3, "/dev/null"), (4, "socket:[50]")]);
    host.process(1, 3, &[(0, "pipe:[50]")]);
    host.file("proc/uptime", "1 1");
    let mut holders = Holders::default();
    holders.refresh(host.root(), Instant::now(), &[wanted(50), wanted(52)]);
    assert_eq!(pids(&holders, 50), [20, 300]);
    assert_eq!(holders.of(50).map(|process| process.comm.as_str()).collect::<Vec<_>>(), ["server20", "server300"]);
    // Not asked for, and nobody's.
    assert_eq!(pids(&holders, 51), [0_u32; 0]);
    assert_eq!(pids(&holders, 52), [0_u32; 0]);
}

#[test]
fn new_processes_and_those_that_took_a_number_over_are_asked_at_once() {
    let host = Host::new();
    let start = Instant::now();
    let mut holders = Holders::default();
    host.process(10, 1, &[(3, "socket:[50]")]);
    host.process(11, 1, &[(3, "/dev/null")]);
    holders.refresh(host.root(), start, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10]);

    host.process(12, 5, &[(3, "socket:[50]")]);
    holders.refresh(host.root(), start + SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10, 12]);

    // Another process with the number of one that held the socket, and with the number of one that did not.
    host.process(12, 6, &[]);
    host.process(11, 7, &[(4, "socket:[50]")]);
    holders.refresh(host.root(), start + 2 * SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10, 11]);

    // What a new process is handed in its first moments.
    host.open(12, 8, "socket:[50]");
    holders.refresh(host.root(), start + 3 * SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10, 11, 12]);

    host.end(10);
    holders.refresh(host.root(), start + 4 * SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [11, 12]);
}

#[test]
fn a_process_that_was_handed_a_socket_later_is_found_sooner_while_somebody_waits() {
    for (wanted, before, after) in [(waiting(50), 9, 11), (wanted(50), 59, 61)] {
        let host = Host::new();
        let start = Instant::now();
        let mut holders = Holders::default();
        host.process(10, 1, &[(3, "socket:[50]")]);
        host.process(11, 1, &[]);
        holders.refresh(host.root(), start, &[wanted]);
        holders.refresh(host.root(), start + SECOND, &[wanted]);
        host.open(11, 3, "socket:[50]");
        holders.refresh(host.root(), start + before * SECOND, &[wanted]);
        assert_eq!(pids(&holders, 50), [10], "{wanted:?}");
        holders.refresh(host.root(), start + after * SECOND, &[wanted]);
        assert_eq!(pids(&holders, 50), [10, 11], "{wanted:?}");
    }
}

#[test]
fn who_has_closed_the_socket_holds_it_no_longer_but_may_have_it_twice() {
    for (wanted, seconds) in [(waiting(50), 1), (wanted(50), 10)] {
        let host = Host::new();
        let start = Instant::now();
        let mut holders = Holders::default();
        host.process(10, 1, &[(3, "socket:[50]")]);
        host.process(11, 1, &[(3, "socket:[50]")]);
        host.process(12, 1, &[(3, "socket:[50]")]);
        holders.refresh(host.root(), start, &[wanted]);
        host.close(11, 3);
        host.open(11, 3, "socket:[99]");
        host.close(12, 3);
        host.open(12, 4, "socket:[50]");
        holders.refresh(host.root(), start + seconds * SECOND, &[wanted]);
        assert_eq!(pids(&holders, 50), [10, 12], "{wanted:?}");
    }
}

#[test]
fn an_unknown_socket_is_looked_for_once_where_it_began_and_then_everywhere() {
    let host = Host::new();
    let start = Instant::now();
    let mut holders = Holders::default();
    host.process(10, 1, &[]);
    host.process(11, 1, &[]);
    holders.refresh(host.root(), start, &[]);
    holders.refresh(host.root(), start + SECOND, &[]);
    let walk = |holders: &Holders| holders.walked.unwrap().ended;
    let first = walk(&holders);

    // The process that called listen(2) is asked first.
    host.open(10, 3, "socket:[50]");
    let listener = Wanted { listener_pid: Some(10), ..wanted(50) };
    holders.refresh(host.root(), start + 2 * SECOND, &[listener]);
    assert_eq!(pids(&holders, 50), [10]);
    assert_eq!(walk(&holders), first);

    // It has the socket no longer, or never had a number that is known.
    host.open(11, 3, "socket:[60]");
    let listener = Wanted { listener_pid: Some(999), ..wanted(60) };
    holders.refresh(host.root(), start + 3 * SECOND, &[listener]);
    assert_eq!(pids(&holders, 60), [11]);
    let second = walk(&holders);
    assert_ne!(second, first);

    // Nobody has this one. All are asked for it once.
    holders.refresh(host.root(), start + 4 * SECOND, &[wanted(70)]);
    let third = walk(&holders);
    assert_ne!(third, second);
    holders.refresh(host.root(), start + 5 * SECOND, &[wanted(70)]);
    assert_eq!(walk(&holders), third);
}

#[test]
fn a_host_without_processes_has_no_holders() {
    let mut holders = Holders::default();
    holders.refresh(Path::new("/nonexistent"), Instant::now(), &[waiting(1)]);
    assert_eq!(pids(&holders, 1), [0_u32; 0]);
}

#[test]
fn this_process_holds_its_own_listener() {
    use std::os::{fd::AsRawFd as _, unix::fs::MetadataExt as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap().ino();
    let mut holders = Holders::default();
    let now = Instant::now();
    holders.refresh(Path::new("/"), now, &[wanted(inode)]);
    assert_eq!(pids(&holders, inode), [std::process::id()]);
    drop(listener);
    holders.refresh(Path::new("/"), now + 10 * SECOND, &[wanted(inode)]);
    assert_eq!(pids(&holders, inode), [0_u32; 0]);
}
