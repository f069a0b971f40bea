//! Processes and the sockets that they hold, from `/proc`.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use overwatch_common::connection::{COMM_LEN, Owner};

/// What names a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its name, of its main thread; empty when it has gone.
    pub comm: String,
    /// Control group number (version 2); 0 when not known.
    pub cgroup_id: u64,
}

impl Process {
    /// Reads the name and the control group.
    pub fn read(root: &Path, pid: u32) -> Self {
        let directory = directory(root, pid);
        let comm = String::from_utf8_lossy(&comm(&directory)).into_owned();
        Self { pid, comm, cgroup_id: cgroup_id(root, &directory).unwrap_or(0) }
    }
}

/// Of `/proc/PID/stat` or `/proc/PID/task/TID/stat` what is needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// State of the process's main thread, or of the thread, as the letter that the kernel shows.
    pub state: u8,
    /// Time on CPUs, user and kernel, in ticks; of a process that of all its threads, also those that have ended.
    pub cpu_ticks: u64,
    /// Threads of the process.
    pub threads: u32,
    /// When it began, in ticks since the host did: with the number it tells processes apart.
    pub started_ticks: u64,
}

impl Stat {
    /// Of a process; `None` when it has gone.
    pub fn of_process(root: &Path, pid: u32) -> Option<Self> {
        Self::read(&directory(root, pid))
    }

    /// Of the process or thread whose directory this is.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        Self::parse(&fs::read(directory.join("stat")).ok()?)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name before it may contain anything, also parentheses.
        let rest = &line[line.iter().rposition(|byte| *byte == b')')? + 1..];
        let fields: Vec<&str> = std::str::from_utf8(rest).ok()?.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the state is its third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            threads: u32::try_from(number(20)?).ok()?,
            started_ticks: number(22)?,
        })
    }
}

/// Owner of every socket that some process has open, by inode. Of several holders the one with the lowest pid is
/// named; what the others move is put on them when they move it.
pub fn socket_owners(root: &Path) -> HashMap<u64, Owner> {
    let mut owners = HashMap::new();
    for (pid, _) in list(root) {
        let mut owner = None;
        sockets(root, pid, |_, inode| {
            let owner = *owner.get_or_insert_with(|| owner_of(root, pid));
            owners.entry(inode).or_insert(owner);
        });
    }
    owners
}

/// How many files this process has open; `None` where none can be opened to count them.
pub fn open_files(root: &Path) -> Option<u64> {
    let descriptors = fs::read_dir(root.join("proc/self/fd")).ok()?;
    // One of them is the directory.
    Some((descriptors.count() as u64).saturating_sub(1))
}

/// Every process, the lowest pid first, with the inode number of its directory. That number is another one for another
/// process with the same pid; it may also change while the process lives, when the kernel is short of memory.
pub(super) fn list(root: &Path) -> Vec<(u32, u64)> {
    let mut found: Vec<_> = numbered(&root.join("proc")).collect();
    found.sort_unstable();
    found
}

/// Calls `found` with the number of each descriptor of the process that is a socket and the socket's inode. Processes end
/// while we look, and others' descriptors may be closed to us: neither is an error.
pub(super) fn sockets(root: &Path, pid: u32, mut found: impl FnMut(u32, u64)) {
    for (descriptor, inode) in descriptors(root, pid) {
        if let Some(inode) = inode {
            found(descriptor, inode);
        }
    }
}

/// The number of each descriptor of the process, with the socket's inode where it is one. Each costs a system call, some 3 microseconds,
/// when it is asked for.
pub(super) fn descriptors(root: &Path, pid: u32) -> impl Iterator<Item = (u32, Option<u64>)> + use<> {
    let path = directory(root, pid).join("fd");
    // Held open, so that the way to it is gone once and not for each of them.
    let opened = File::open(&path).ok();
    numbered(&path).map(move |(descriptor, _)| {
        let name = descriptor.to_string();
        let target = opened.as_ref().and_then(|opened| nix::fcntl::readlinkat(opened, name.as_str()).ok());
        (descriptor, target.and_then(|target| socket_inode(&target)))
    })
}

/// The inode of the socket that this descriptor of the process is.
pub(super) fn socket(root: &Path, pid: u32, descriptor: u32) -> Option<u64> {
    socket_behind(&directory(root, pid).join("fd").join(descriptor.to_string()))
}

/// Entries of a directory that have a number for their name, with their inodes.
pub(super) fn numbered(directory: &Path) -> impl Iterator<Item = (u32, u64)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.ino())))
}

/// Where `/proc` has the process.
pub(super) fn directory(root: &Path, pid: u32) -> PathBuf {
    root.join("proc").join(pid.to_string())
}

/// Physical memory that this process has.
pub fn resident_memory_bytes(root: &Path) -> Option<u64> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let kibibytes: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn socket_behind(link: &Path) -> Option<u64> {
    socket_inode(fs::read_link(link).ok()?.as_os_str())
}

/// Of `socket:[12345]`.
fn socket_inode(target: &OsStr) -> Option<u64> {
    let number = target.as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn owner_of(root: &Path, pid: u32) -> Owner {
    let directory = directory(root, pid);
    let name = comm(&directory);
    let mut comm = [0; COMM_LEN];
    let len = name.len().min(COMM_LEN - 1);
    comm[..len].copy_from_slice(&name[..len]);
    Owner { comm, tgid: pid, pad: 0, cgroup_id: cgroup_id(root, &directory).unwrap_or(0) }
}

fn comm(process: &Path) -> Vec<u8> {
    let mut name = fs::read(process.join("comm")).unwrap_or_default();
    if name.last() == Some(&b'\n') {
        name.pop();
    }
    name
}

/// The number of the process's control group (version 2), which is its directory's inode.
fn cgroup_id(root: &Path, process: &Path) -> Option<u64> {
    let membership = fs::read_to_string(process.join("cgroup")).ok()?;
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = super::cgroups::mount_point(root)?.join(path.trim_start_matches('/'));
    fs::metadata(directory).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fixtures::mutated;

    const STAT: &str = "6338 (cat) R 6330 6330 30100 0 -1 4194304 102 0 0 0 7 5 0 0 20 0 3 0 2605680 3133440 390";

    #[test]
    fn stat_is_read_behind_the_last_parenthesis() {
        let expected = Stat { state: b'R', cpu_ticks: 12, threads: 3, started_ticks: 2_605_680 };
        for (line, stat) in [
            (STAT.as_bytes().to_vec(), Some(expected)),
            (STAT.replace("(cat)", "(a) S 1 (b)").into_bytes(), Some(expected)),
            (STAT.replace("(cat)", "()").into_bytes(), Some(expected)),
            ([b"1 (\xff\xfe)", STAT.strip_prefix("6338 (cat)").unwrap().as_bytes()].concat(), Some(expected)),
            (STAT.replace(" R ", " Z ").into_bytes(), Some(Stat { state: b'Z', ..expected })),
            (STAT.replace(" 7 5 ", " 18446744073709551615 5 ").into_bytes(), None),
            (STAT.split(" 2605680").next().unwrap().as_bytes().to_vec(), None),
            (b"".to_vec(), None),
            (b")".to_vec(), None),
        ] {
            assert_eq!(Stat::parse(&line), stat, "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn only_sockets_have_an_inode() {
        for (target, inode) in [
            ("socket:[12345]", Some(12_345)),
            ("socket:[18446744073709551615]", Some(u64::MAX)),
            ("socket:[18446744073709551616]", None),
            ("socket:[]", None),
            ("socket:[12", None),
            ("pipe:[12345]", None),
            ("/tmp/socket:[1]", None),
            ("", None),
        ] {
            assert_eq!(socket_inode(OsStr::new(target)), inode, "{target}");
        }
    }

    #[test]
    fn damaged_text_is_never_a_panic() {
        for text in mutated(STAT.as_bytes(), 11) {
            let _ = Stat::parse(&text);
        }
        for text in mutated(b"socket:[12345]", 12) {
            let _ = socket_inode(OsStr::from_bytes(&text));
        }
    }

    #[test]
    fn a_process_that_is_not_there_has_nothing() {
        let root = Path::new("/nonexistent");
        assert_eq!(Process::read(root, 7), Process { pid: 7, ..Process::default() });
        assert_eq!(Stat::of_process(root, 7), None);
        assert_eq!(list(root), []);
        assert!(socket_owners(root).is_empty());
    }

    #[test]
    fn the_own_process_is_found_with_its_socket() {
        use std::os::fd::AsRawFd as _;

        let root = Path::new("/");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let descriptor = listener.as_raw_fd().unsigned_abs();
        let pid = std::process::id();
        let inode = socket(root, pid, descriptor).unwrap();
        let mut found = Vec::new();
        sockets(root, pid, |descriptor, inode| found.push((descriptor, inode)));
        assert!(found.contains(&(descriptor, inode)), "{found:?}");
        assert!(list(root).iter().any(|(listed, _)| *listed == pid));
        assert_eq!(socket_owners(root)[&inode].tgid, pid);
    }
}
