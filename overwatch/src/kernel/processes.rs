//! Which process holds which socket, from `/proc`.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use overwatch_common::connection::{COMM_LEN, Owner};
use procfs::process::{FDTarget, all_processes_with_root};

/// Owner of every socket that some process has open, by inode. Of several holders the one with the lowest pid is
/// named; what the others move is put on them when they move it.
pub fn socket_owners(root: &Path) -> HashMap<u64, Owner> {
    let mut owners = HashMap::new();
    let Ok(processes) = all_processes_with_root(root.join("proc")) else {
        return owners;
    };
    let mut processes: Vec<_> = processes.flatten().collect();
    processes.sort_by_key(|process| process.pid);
    for process in processes {
        // Processes end while we look, and others' descriptors may be closed to us: neither is an error.
        let Ok(descriptors) = process.fd() else {
            continue;
        };
        let mut owner = None;
        for descriptor in descriptors.flatten() {
            if let FDTarget::Socket(inode) = descriptor.target {
                let owner = *owner.get_or_insert_with(|| owner_of(root, process.pid));
                owners.entry(inode).or_insert(owner);
            }
        }
    }
    owners
}

/// Physical memory that this process has.
pub fn resident_memory_bytes(root: &Path) -> Option<u64> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let kibibytes: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn owner_of(root: &Path, pid: i32) -> Owner {
    let directory = root.join("proc").join(pid.to_string());
    let name = fs::read(directory.join("comm")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let mut comm = [0; COMM_LEN];
    let len = name.len().min(COMM_LEN - 1);
    comm[..len].copy_from_slice(&name[..len]);
    Owner { comm, tgid: pid.unsigned_abs(), pad: 0, cgroup_id: cgroup_id(root, &directory).unwrap_or(0) }
}

/// The number of the process's control group (version 2), which is its directory's inode.
fn cgroup_id(root: &Path, process: &Path) -> Option<u64> {
    let membership = fs::read_to_string(process.join("cgroup")).ok()?;
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = super::cgroups::mount_point(root)?.join(path.trim_start_matches('/'));
    fs::metadata(directory).ok().map(|metadata| metadata.ino())
}
