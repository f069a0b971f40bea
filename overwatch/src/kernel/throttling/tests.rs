use super::*;
use crate::kernel::fixtures::{Host, mutated};

const ONE: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
    33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
    34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
    32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
const TOGETHER: &str = "35 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n";
const TWO: &str = "27 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const PART: &str = "700 23 0:26 /box/a\\040b /mnt/c\\134d rw - cgroup2 cgroup rw\n";
const WITHOUT: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n";

fn hierarchy(version: Version, mount_point: &str, top: &str) -> Hierarchy {
    Hierarchy { version, mount_point: mount_point.into(), top: top.into() }
}

#[test]
fn the_hierarchy_is_the_one_that_has_the_controller() {
    let two = hierarchy(Version::Two, "/sys/fs/cgroup", "/");
    let part = hierarchy(Version::Two, "/mnt/c\\d", "/box/a b");
    for (mounts, expected) in [
        (ONE.to_owned(), Some(hierarchy(Version::One, "/sys/fs/cgroup/cpu", "/"))),
        (TOGETHER.to_owned(), Some(hierarchy(Version::One, "/sys/fs/cgroup/cpu,cpuacct", "/"))),
        (TWO.to_owned(), Some(two.clone())),
        (PART.to_owned(), Some(part)),
        (format!("{PART}{TWO}"), Some(two)),
        (WITHOUT.to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(Hierarchy::of_mounts(mounts.as_bytes()), expected, "{mounts}");
    }
}

#[test]
fn groups_are_those_from_the_own_one_up() {
    let (one, two, part) = (
        hierarchy(Version::One, "/c/cpu", "/"),
        hierarchy(Version::Two, "/c", "/"),
        hierarchy(Version::Two, "/mnt", "/box"),
    );
    type Case<'a> = (&'a Hierarchy, &'a str, Option<&'a [&'a str]>);
    let cases: [Case<'_>; 13] = [
        (&one, "3:cpuset:/x\n1:cpu:/a/b\n0::/y\n", Some(&["/c/cpu/a/b", "/c/cpu/a", "/c/cpu"])),
        (&one, "4:cpu,cpuacct:/a:b\n", Some(&["/c/cpu/a:b", "/c/cpu"])),
        (&one, "4:cpuacct:/a\n0::/a\n", None),
        (&one, "1:cpu:/\n", Some(&["/c/cpu"])),
        (&two, "1:cpu:/a/b\n0::/y/z w\n", Some(&["/c/y/z w", "/c/y", "/c"])),
        (&two, "0::/\n", Some(&["/c"])),
        (&two, "0::/gone (deleted)\n", Some(&["/c/gone (deleted)", "/c"])),
        (&two, "0::/../other\n", None),
        (&two, "10:name=systemd:/\n", None),
        (&two, "", None),
        (&part, "0::/box/in\n", Some(&["/mnt/in", "/mnt"])),
        (&part, "0::/boxer\n", None),
        (&part, "0::/\n", None),
    ];
    for (hierarchy, membership, groups) in cases {
        let groups = groups.map(|groups| groups.iter().map(PathBuf::from).collect::<Vec<_>>());
        let found = hierarchy.groups_of(membership.as_bytes());
        assert_eq!(found, groups, "{hierarchy:?} {membership}");
    }
}

#[test]
fn both_versions_of_cpu_stat_are_read() {
    let refused = |periods, throttled_periods, microseconds| {
        Some(Throttling { periods, throttled_periods, throttled: Duration::from_micros(microseconds) })
    };
    for (text, expected) in [
        ("nr_periods 7\nnr_throttled 3\nthrottled_time 5000000\nnr_bursts 0\n", refused(7, 3, 5_000)),
        ("usage_usec 9\nnr_periods 7\nnr_throttled 3\nthrottled_usec 5000\n", refused(7, 3, 5_000)),
        ("usage_usec 9\nuser_usec 4\nsystem_usec 5\n", refused(0, 0, 0)),
        ("", refused(0, 0, 0)),
        ("nr_periods\nnr_throttled 3\n", refused(0, 3, 0)),
        ("nr_periods seven\n", None),
        ("throttled_usec -5\n", None),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
}

#[test]
fn a_group_whose_numbers_went_back_is_another_one() {
    let of = |periods, throttled_periods, seconds| Throttling {
        periods,
        throttled_periods,
        throttled: Duration::from_secs(seconds),
    };
    for (before, now, since) in [
        (of(10, 5, 2), of(20, 9, 3), Some(of(10, 4, 1))),
        (of(10, 5, 2), of(10, 5, 2), Some(of(0, 0, 0))),
        (of(10, 5, 2), of(9, 5, 2), None),
        (of(10, 5, 2), of(10, 4, 2), None),
        (of(10, 5, 2), of(10, 5, 1), None),
    ] {
        assert_eq!(now.since(&before), since, "{before:?} {now:?}");
    }
}

#[test]
fn version_two_counts_only_where_it_has_the_controller() {
    for (controllers, known) in [("cpuset cpu io memory pids\n", true), ("cpuset memory\n", false), ("", false)] {
        let host = Host::new();
        host.file("proc/self/mountinfo", TWO);
        host.file("sys/fs/cgroup/cgroup.controllers", controllers);
        host.file("sys/fs/cgroup/cpu.stat", "usage_usec 1\n");
        host.file("sys/fs/cgroup/a/cpu.stat", "nr_periods 7\nnr_throttled 3\nthrottled_usec 5000\n");
        host.file("proc/10/cgroup", "0::/a\n");
        let hierarchy = Hierarchy::find(host.root());
        assert_eq!(hierarchy.is_some(), known, "{controllers}");
        let Some(hierarchy) = hierarchy else {
            continue;
        };
        let groups = hierarchy.groups(host.root(), 10).unwrap();
        let read: Vec<_> = groups.iter().map(|group| read(group).unwrap().periods).collect();
        assert_eq!(read, [7, 0]);
        assert_eq!(hierarchy.groups(host.root(), 11), None);
    }
}

#[test]
fn damaged_text_is_never_a_panic() {
    let two = hierarchy(Version::Two, "/c", "/");
    for text in mutated(format!("{ONE}{TOGETHER}{PART}").as_bytes(), 31) {
        let _ = Hierarchy::of_mounts(&text);
    }
    for text in mutated(PART.as_bytes(), 32) {
        let _ = Hierarchy::of_mounts(&text);
    }
    for text in mutated(b"3:cpuset:/x\n1:cpu:/a/b\n0::/y/z\n", 33) {
        // Never leaves the place where it is mounted.
        for group in two.groups_of(&text).into_iter().flatten() {
            assert!(group.starts_with("/c") && !group.iter().any(|part| part == ".."), "{}", group.display());
        }
    }
    for text in mutated(b"nr_periods 7\nnr_throttled 3\nthrottled_usec 5000\n", 34) {
        let _ = parse(&String::from_utf8_lossy(&text));
    }
}
