//! Processor time that control groups are refused (cpu.max, cpu.cfs_quota_us), from `cpu.stat` of either version of control groups.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::processes;

#[cfg(test)]
mod tests;

/// What a control group was refused since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Throttling {
    /// How long it stood still, added up over the CPUs.
    pub throttled: Duration,
    /// Enforcement periods in which it ran out of its share.
    pub throttled_periods: u64,
    /// Enforcement periods in which it had something to run.
    pub periods: u64,
}

impl Throttling {
    /// What came since an earlier moment; `None` when the numbers went back, since then it is another group of the same name.
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            throttled: self.throttled.checked_sub(before.throttled)?,
            throttled_periods: self.throttled_periods.checked_sub(before.throttled_periods)?,
            periods: self.periods.checked_sub(before.periods)?,
        })
    }
}

/// Which version of control groups limits processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The control groups that limit processor time, and where they are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    version: Version,
    /// Where it is mounted, below the host's root.
    mount_point: PathBuf,
    /// The group that is seen there: `/`, but for part of a tree that was mounted, as containers have it.
    top: PathBuf,
}

impl Hierarchy {
    /// `None` when there is none: nothing is mounted, or the groups that are do not limit processor time.
    pub fn find(root: &Path) -> Option<Self> {
        let found = Self::of_mounts(&fs::read(root.join("proc/self/mountinfo")).ok()?)?;
        let found = Self { mount_point: below(root, &found.mount_point), ..found };
        let has_controller = || {
            let controllers = fs::read_to_string(found.mount_point.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_ascii_whitespace().any(|controller| controller == "cpu")
        };
        (found.version == Version::One || has_controller()).then_some(found)
    }

    /// The controller is in one hierarchy only: of version 1 where one is mounted with it, else of version 2. Of several mounts of it, one
    /// that has all groups.
    fn of_mounts(mountinfo: &[u8]) -> Option<Self> {
        let mounts = || mountinfo.split(|byte| *byte == b'\n').filter_map(Self::of_mount);
        let of = |version, all: bool| {
            mounts().find(|mount| mount.version == version && (!all || mount.top == Path::new("/")))
        };
        [(Version::One, true), (Version::One, false), (Version::Two, true), (Version::Two, false)]
            .into_iter()
            .find_map(|(version, all)| of(version, all))
    }

    /// A line of mountinfo, see proc(5): number, parent, device, root, mount point, options, any number of tags, `-`, type, source, options
    /// of the file system.
    fn of_mount(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let version = match *fields.get(dash + 1)? {
            b"cgroup" if fields.get(dash + 3)?.split(|byte| *byte == b',').any(|option| option == b"cpu") => {
                Version::One
            }
            b"cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Self { version, mount_point: unescaped(fields[4]), top: unescaped(fields[3]) })
    }

    /// Directories of the process's group and of all above it, that of its own first. `None` when the process has gone, or its group cannot be
    /// seen from here.
    pub fn groups(&self, root: &Path, pid: u32) -> Option<Vec<PathBuf>> {
        self.groups_of(&fs::read(processes::directory(root, pid).join("cgroup")).ok()?)
    }

    fn groups_of(&self, membership: &[u8]) -> Option<Vec<PathBuf>> {
        let group = membership.split(|byte| *byte == b'\n').find_map(|line| self.group_of(line))?;
        let inside = group.strip_prefix(&self.top).ok()?;
        // Of a group outside of the reader's namespace the kernel says `/../other`.
        if inside.components().any(|component| !matches!(component, Component::Normal(_))) {
            return None;
        }
        Some(inside.ancestors().map(|group| self.mount_point.join(group)).collect())
    }

    /// Of a line of /proc/PID/cgroup, which is number of the hierarchy, controllers, group; with 0 and none in version 2.
    fn group_of(&self, line: &[u8]) -> Option<PathBuf> {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_ours = match self.version {
            Version::One => controllers.split(|byte| *byte == b',').any(|controller| controller == b"cpu"),
            Version::Two => number == b"0" && controllers.is_empty(),
        };
        is_ours.then(|| OsString::from_vec(group.to_vec()).into())
    }
}

/// What the group of this directory was refused; `None` when it has gone.
pub fn read(group: &Path) -> Option<Throttling> {
    parse(&fs::read_to_string(group.join("cpu.stat")).ok()?)
}

/// A group without these lines is limited by nothing of its own: version 2 has them not in the root, nor where the controller is not enabled, and
/// no kernel has them without CONFIG_CFS_BANDWIDTH. Version 1 counts nanoseconds, version 2 microseconds.
fn parse(stat: &str) -> Option<Throttling> {
    let mut read = Throttling::default();
    for line in stat.lines() {
        let Some((name, number)) = line.split_once(' ') else {
            continue;
        };
        let number = || number.trim().parse::<u64>().ok();
        match name {
            "nr_periods" => read.periods = number()?,
            "nr_throttled" => read.throttled_periods = number()?,
            "throttled_usec" => read.throttled = Duration::from_micros(number()?),
            "throttled_time" => read.throttled = Duration::from_nanos(number()?),
            _ => {}
        }
    }
    Some(read)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Blanks and the like are written as `\040` in mountinfo.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|digits| *byte == b'\\' && digits.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        let (byte, after) = match digits {
            Some(digits) => (digits.iter().fold(0, |number: u8, digit| number << 3 | (digit - b'0')), &after[3..]),
            None => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes).into()
}
