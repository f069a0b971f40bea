use super::{walk::Told, *};
use crate::kernel::fixtures::Host;

const SECOND: Duration = Duration::from_secs(1);

fn wanted(inode: u64) -> Wanted {
    Wanted { inode, listener_pid: None, waiting: false }
}

fn waiting(inode: u64) -> Wanted {
    Wanted { waiting: true, ..wanted(inode) }
}

/// Looks, and again as long as a walk is under way, which on a busy host may take longer than is waited for.
fn refresh(holders: &mut Holders, root: &Path, now: Instant, wanted: &[Wanted]) {
    holders.refresh(root, now, wanted);
    while holders.under_way.is_some() {
        std::thread::sleep(Duration::from_millis(1));
        holders.refresh(root, now, wanted);
    }
}

fn pids(holders: &Holders, inode: u64) -> Vec<u32> {
    holders.of(inode).map(|process| process.pid).collect()
}

#[test]
fn all_are_asked_when_there_is_reason_to_and_not_too_often() {
    let milliseconds = Duration::from_millis;
    // Since the last walk, one is under way, an unknown socket, somebody waits, and whether to walk.
    for (since_walk, is_walking, unknown, waiting, due) in [
        (None, false, false, false, true),
        (Some(0), false, false, false, false),
        (Some(0), false, true, false, true),
        (Some(9_999), false, false, true, false),
        (Some(10_000), false, false, true, true),
        (Some(59_999), false, false, false, false),
        (Some(60_000), false, false, false, true),
        // One at a time.
        (Some(60_000), true, false, false, false),
        (Some(60_000), true, true, true, false),
    ] {
        let since_walk = since_walk.map(milliseconds);
        let situation = Situation { since_walk, is_walking, unknown, waiting };
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
    refresh(&mut holders, host.root(), Instant::now(), &[wanted(50), wanted(52)]);
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
    refresh(&mut holders, host.root(), start, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10]);

    host.process(12, 5, &[(3, "socket:[50]")]);
    refresh(&mut holders, host.root(), start + SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10, 12]);

    // Another process with the number of one that held the socket, and with the number of one that did not.
    host.process(12, 6, &[]);
    host.process(11, 7, &[(4, "socket:[50]")]);
    refresh(&mut holders, host.root(), start + 2 * SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10, 11]);

    // What a new process is handed in its first moments.
    host.open(12, 8, "socket:[50]");
    refresh(&mut holders, host.root(), start + 3 * SECOND, &[wanted(50)]);
    assert_eq!(pids(&holders, 50), [10, 11, 12]);

    host.end(10);
    refresh(&mut holders, host.root(), start + 4 * SECOND, &[wanted(50)]);
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
        refresh(&mut holders, host.root(), start, &[wanted]);
        refresh(&mut holders, host.root(), start + SECOND, &[wanted]);
        host.open(11, 3, "socket:[50]");
        refresh(&mut holders, host.root(), start + before * SECOND, &[wanted]);
        assert_eq!(pids(&holders, 50), [10], "{wanted:?}");
        refresh(&mut holders, host.root(), start + after * SECOND, &[wanted]);
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
        refresh(&mut holders, host.root(), start, &[wanted]);
        host.close(11, 3);
        host.open(11, 3, "socket:[99]");
        host.close(12, 3);
        host.open(12, 4, "socket:[50]");
        refresh(&mut holders, host.root(), start + seconds * SECOND, &[wanted]);
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
    refresh(&mut holders, host.root(), start, &[]);
    refresh(&mut holders, host.root(), start + SECOND, &[]);
    let walk = |holders: &Holders| holders.walked.unwrap();
    let first = walk(&holders);

    // The process that called listen(2) is asked first.
    host.open(10, 3, "socket:[50]");
    let listener = Wanted { listener_pid: Some(10), ..wanted(50) };
    refresh(&mut holders, host.root(), start + 2 * SECOND, &[listener]);
    assert_eq!(pids(&holders, 50), [10]);
    assert_eq!(walk(&holders), first);

    // It has the socket no longer, or never had a number that is known.
    host.open(11, 3, "socket:[60]");
    let listener = Wanted { listener_pid: Some(999), ..wanted(60) };
    refresh(&mut holders, host.root(), start + 3 * SECOND, &[listener]);
    assert_eq!(pids(&holders, 60), [11]);
    let second = walk(&holders);
    assert_ne!(second, first);

    // Nobody has this one. All are asked for it once.
    refresh(&mut holders, host.root(), start + 4 * SECOND, &[wanted(70)]);
    let third = walk(&holders);
    assert_ne!(third, second);
    refresh(&mut holders, host.root(), start + 5 * SECOND, &[wanted(70)]);
    assert_eq!(walk(&holders), third);
}

#[test]
fn what_is_read_at_once_is_bounded() {
    let host = Host::new();
    host.process(10, 1, &[(3, "/dev/null"), (4, "/dev/null"), (5, "socket:[50]"), (6, "/dev/null")]);
    host.process(11, 1, &[(3, "socket:[50]")]);
    // Leave for so many descriptors, how many processes are found with it, and what is left of it.
    for (leave, found, left) in [(0, 0, 0), (4, 1, 0), (5, 2, 0), (9, 2, 4)] {
        let mut holders = Holders::default();
        let mut used = leave;
        holders.ask(host.root(), vec![11, 10, 11], &HashSet::from([50]), &mut used);
        assert_eq!((holders.held.get(&50).map_or(0, BTreeMap::len), used), (found, left), "{leave}");
    }
}

#[test]
fn what_has_changed_since_a_walk_saw_it_is_not_told() {
    let host = Host::new();
    let start = Instant::now();
    let all = [50, 51, 52, 53, 54];
    let mut holders = Holders::default();
    for (pid, target) in [(10, "socket:[50]"), (11, "/dev/null"), (13, "socket:[53]")] {
        host.process(pid, 1, &[(3, target)]);
    }
    refresh(&mut holders, host.root(), start, &[]);
    refresh(&mut holders, host.root(), start + SECOND, &[]);
    let (tell, walk) = Walk::telling(&all);
    holders.under_way = Some(walk);
    // By now 11 has closed its socket, 12 has gone, and nobody asks for socket 53 any more. Nobody had 54.
    for (pid, inode) in [(10, 50), (11, 51), (12, 52), (13, 53)] {
        tell.send(Told::Process(vec![Held { pid, descriptor: 3, inode }])).unwrap();
    }
    tell.send(Told::Through).unwrap();
    holders.take_found(host.root(), start + 2 * SECOND, &HashSet::from([50, 51, 52, 54]), SECOND);
    holders.name_holders(host.root());
    assert_eq!(all.map(|inode| pids(&holders, inode).len()), [1, 0, 0, 0, 0]);
    assert_eq!(all.map(|inode| holders.is_unknown(inode)), [false, true, true, true, false]);
    assert_eq!(holders.walked, Some(start + 2 * SECOND));
}

#[test]
fn what_a_walk_finds_is_told_before_it_is_through() {
    let host = Host::new();
    let start = Instant::now();
    let mut holders = Holders::default();
    host.process(10, 1, &[]);
    refresh(&mut holders, host.root(), start, &[]);
    refresh(&mut holders, host.root(), start + SECOND, &[]);
    let (tell, walk) = Walk::telling(&[50, 51]);
    holders.under_way = Some(walk);
    host.open(10, 3, "socket:[50]");
    tell.send(Told::Process(vec![Held { pid: 10, descriptor: 3, inode: 50 }])).unwrap();
    holders.refresh(host.root(), start + 2 * SECOND, &[wanted(50), wanted(51)]);
    assert_eq!([50, 51].map(|inode| pids(&holders, inode).len()), [1, 0]);
    // Nothing is said of the other one until all were asked.
    assert_eq!([50, 51].map(|inode| holders.is_unknown(inode)), [false, true]);
    assert!(holders.under_way.is_some());
}

#[test]
fn a_walk_that_fails_leaves_what_is_known_and_the_next_comes_when_it_is_due() {
    let host = Host::new();
    let start = Instant::now();
    let mut holders = Holders::default();
    host.process(10, 1, &[(3, "socket:[50]")]);
    refresh(&mut holders, host.root(), start, &[wanted(50)]);
    let (tell, walk) = Walk::telling(&[50]);
    drop(tell);
    holders.under_way = Some(walk);
    for (second, walked) in [(30, 30), (89, 30), (90, 90)] {
        refresh(&mut holders, host.root(), start + second * SECOND, &[wanted(50)]);
        assert_eq!(pids(&holders, 50), [10]);
        assert_eq!(holders.walked, Some(start + walked * SECOND), "{second}");
    }
}

#[test]
fn a_socket_that_changes_hands_during_a_walk_is_looked_for_again() {
    let host = Host::new();
    let start = Instant::now();
    let mut holders = Holders::default();
    host.process(10, 1, &[(3, "socket:[50]")]);
    host.process(11, 1, &[]);
    refresh(&mut holders, host.root(), start, &[waiting(50)]);
    refresh(&mut holders, host.root(), start + SECOND, &[waiting(50)]);
    let (tell, walk) = Walk::telling(&[50]);
    holders.under_way = Some(walk);
    host.close(10, 3);
    host.open(11, 3, "socket:[50]");
    holders.refresh(host.root(), start + 2 * SECOND, &[waiting(50)]);
    assert_eq!(pids(&holders, 50), [0_u32; 0]);
    // It finds nobody: when it came to each of them, the other one had it.
    tell.send(Told::Through).unwrap();
    refresh(&mut holders, host.root(), start + 3 * SECOND, &[waiting(50)]);
    assert_eq!(pids(&holders, 50), [11]);
}

#[test]
fn a_host_without_processes_has_no_holders() {
    let mut holders = Holders::default();
    refresh(&mut holders, Path::new("/nonexistent"), Instant::now(), &[waiting(1)]);
    assert_eq!(pids(&holders, 1), [0_u32; 0]);
}

#[test]
fn this_process_holds_its_own_listener() {
    use std::os::{fd::AsRawFd as _, unix::fs::MetadataExt as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap().ino();
    let mut holders = Holders::default();
    let now = Instant::now();
    refresh(&mut holders, Path::new("/"), now, &[wanted(inode)]);
    assert_eq!(pids(&holders, inode), [std::process::id()]);
    drop(listener);
    refresh(&mut holders, Path::new("/"), now + 10 * SECOND, &[wanted(inode)]);
    assert_eq!(pids(&holders, inode), [0_u32; 0]);
}
