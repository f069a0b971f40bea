//! The BPF objects that the kernel has, by number, asked with the system call itself.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem::size_of;

use anyhow::{Context as _, Result};

/// What there is of BPF objects.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

const PROG_GET_NEXT_ID: libc::c_int = 11;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const LINK_GET_NEXT_ID: libc::c_int = 31;

/// The part of `union bpf_attr` that these commands use.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

fn ids(command: libc::c_int) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut request = NextId::default();
    loop {
        // SAFETY: the kernel reads and writes exactly the structure given, whose size it is told.
        let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut request, size_of::<NextId>()) };
        if outcome != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(found) } else { Err(error) };
        }
        found.insert(request.next_id);
        request = NextId { start_id: request.next_id, ..NextId::default() };
    }
}

/// How often the kernel left out a run of a program that the process holds, because another run of the same program
/// had been preempted on the same CPU. For messages: it explains bytes that are missing.
pub fn runs_left_out(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let counts = text.lines().filter_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse::<u64>().ok());
        sum += counts.sum::<u64>();
    }
    Ok(sum)
}

impl Objects {
    /// All that the kernel has now.
    pub fn now() -> Result<Self> {
        Ok(Self {
            programs: ids(PROG_GET_NEXT_ID).context("listing BPF programs")?,
            maps: ids(MAP_GET_NEXT_ID).context("listing BPF maps")?,
            links: ids(LINK_GET_NEXT_ID).context("listing BPF links")?,
        })
    }

    /// Those that a process holds by its descriptors.
    pub fn held_by(pid: u32) -> Result<Self> {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // Descriptors come and go while the list is read.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            // A program's descriptor and a link's both have a prog_id; only a link's has a link_id.
            for (key, into) in
                [("prog_id:", &mut held.programs), ("map_id:", &mut held.maps), ("link_id:", &mut held.links)]
            {
                into.extend(text.lines().filter_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok()));
            }
        }
        Ok(held)
    }

    /// Those that any process holds.
    pub fn held_by_anyone() -> Result<Self> {
        let mut held = Self::default();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Processes come and go while the list is read.
            let Ok(own) = Self::held_by(pid) else {
                continue;
            };
            held.programs.extend(own.programs);
            held.maps.extend(own.maps);
            held.links.extend(own.links);
        }
        Ok(held)
    }

    /// Those that are here and not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs - &other.programs,
            maps: &self.maps - &other.maps,
            links: &self.links - &other.links,
        }
    }

    /// Those that are here and in `other`.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs & &other.programs,
            maps: &self.maps & &other.maps,
            links: &self.links & &other.links,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }
}
