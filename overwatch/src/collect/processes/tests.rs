use super::*;
use crate::kernel::fixtures::Host;

const MOUNTS: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

fn listener(inode: u64, waiting: bool) -> Wanted {
    Wanted { inode, listener_pid: None, waiting }
}

fn worked(host: &Host, pid: u32, started_ticks: u64, ticks: u64) {
    let stat = format!("{pid} (x) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {started_ticks} 0\n");
    host.file(&format!("proc/{pid}/stat"), &stat);
}

fn refused(host: &Host, group: &str, periods: u64, milliseconds: u64) {
    let text = format!("nr_periods {periods}\nnr_throttled {periods}\nthrottled_time {milliseconds}000000\n");
    host.file(&format!("sys/fs/cgroup/cpu{group}/cpu.stat"), &text);
}

#[test]
fn processes_are_looked_at_only_where_somebody_waits_and_told_apart() {
    let host = Host::new();
    let start = Instant::now();
    for pid in [10, 11, 12] {
        let inode = if pid == 12 { "socket:[60]" } else { "socket:[50]" };
        host.process(pid, 5, &[(3, inode)]);
        host.file(&format!("proc/{pid}/limits"), "Max open files   32   64   files\n");
        worked(&host, pid, 5, 100);
    }
    let mut watch = ProcessWatch::new(host.root());
    let listeners = [listener(50, true), listener(60, false), listener(70, true)];
    let first = watch.look(start, &listeners);
    assert_eq!(first[&50].iter().map(|holder| holder.process.pid).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(first[&60].len(), 1);
    assert_eq!(first[&60][0].activity, None);
    assert!(!first.contains_key(&70));
    let of =
        |readings: &HashMap<u64, Vec<HolderReading>>, holder: usize| readings[&50][holder].activity.clone().unwrap();
    assert_eq!(of(&first, 0).on_cpu, None);
    assert_eq!(of(&first, 0).open_files_limit, Some(32));
    assert_eq!(of(&first, 0).threads, Threads { total: 1, sleeping: 1, ..Threads::default() });
    assert_eq!(of(&first, 0).throttling, None);

    worked(&host, 10, 5, 150);
    // Another process with the same number, which is not taken for the one before.
    worked(&host, 11, 9, 300);
    let second = watch.look(start + Duration::from_secs(1), &listeners);
    assert_eq!(of(&second, 0).on_cpu, Some(Duration::from_millis(500)));
    assert_eq!(of(&second, 1).on_cpu, None);

    // Nobody waited for an interval: the next difference would be of two.
    watch.look(start + Duration::from_secs(2), &[listener(50, false)]);
    let fourth = watch.look(start + Duration::from_secs(3), &listeners);
    assert_eq!(of(&fourth, 0).on_cpu, None);
}

#[test]
fn the_group_that_was_refused_most_counts() {
    let host = Host::new();
    let start = Instant::now();
    host.file("proc/self/mountinfo", MOUNTS);
    host.process(10, 5, &[(3, "socket:[50]")]);
    host.file("proc/10/cgroup", "1:cpu:/a/b\n0::/\n");
    let mut watch = ProcessWatch::new(host.root());
    // What the groups a/b, a and / were refused in all, periods and milliseconds, and what that comes to in the interval.
    for (second, of_b, of_a, of_root, expected) in [
        (0, (10, 500), (20, 700), (0, 0), None),
        (1, (11, 510), (30, 790), (0, 0), Some((10, 90))),
        (2, (15, 590), (30, 790), (0, 0), Some((4, 80))),
        (3, (15, 590), (30, 790), (0, 0), Some((0, 0))),
        // Made anew.
        (4, (1, 5), (40, 890), (0, 0), None),
        (5, (1, 5), (40, 890), (3, 7), Some((3, 7))),
    ] {
        for (group, (periods, milliseconds)) in [("/a/b", of_b), ("/a", of_a), ("", of_root)] {
            refused(&host, group, periods, milliseconds);
        }
        let readings = watch.look(start + Duration::from_secs(second), &[listener(50, true)]);
        let throttling = readings[&50][0].activity.as_ref().unwrap().throttling;
        let expected = expected.map(|(periods, milliseconds)| Throttling {
            periods,
            throttled_periods: periods,
            throttled: Duration::from_millis(milliseconds),
        });
        assert_eq!(throttling, expected, "{second}");
    }
}

#[test]
fn each_process_is_looked_at_once_and_not_too_many_are() {
    let many = |first: u32, count: u32| (first..first + count).collect::<Vec<_>>();
    for (of_listeners, count) in [
        (vec![], 0),
        (vec![many(1, 3), many(1, 3)], 3),
        (vec![many(1, 100)], 64),
        (vec![many(1, 100), many(200, 2)], 66),
        ((0..20).map(|listener| many(listener * 100, 100)).collect(), 256),
    ] {
        let pids = chosen(of_listeners.iter().map(|pids| pids.iter().copied()));
        assert_eq!(pids.len(), count, "{of_listeners:?}");
    }
}

#[test]
fn the_threads_of_one_interval_are_bounded() {
    let host = Host::new();
    for pid in 1_000..1_010 {
        host.process(pid, 5, &[(3, "socket:[50]")]);
        for thread in 0..255 {
            let stat = format!("{thread} (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 256 0 5 0\n");
            host.file(&format!("proc/{pid}/task/{}/stat", pid * 1_000 + thread), &stat);
        }
    }
    let mut watch = ProcessWatch::new(host.root());
    let readings = watch.look(Instant::now(), &[listener(50, true)]);
    let looked_at = readings[&50].iter().filter(|holder| holder.activity.is_some()).count();
    assert_eq!((readings[&50].len(), looked_at), (10, 4));
}
