//! What there is to say about the programs and maps of a session.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Duration,
};

use aya::programs::Program;

use super::session::{Session, SessionError};

/// A program, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramReading {
    /// Its name in the object.
    pub name: String,
    /// What it is attached to: fexit, kprobe, tracepoint, btf_tracepoint, raw_tracepoint or iterator.
    pub kind: &'static str,
    /// How often it has run and for how long; `None` unless the kernel measures that (`kernel.bpf_stats_enabled`).
    pub runs: Option<(u64, Duration)>,
    /// Runs that the kernel has left out; `None` before Linux 5.12.
    pub skipped_runs: Option<u64>,
}

/// A map, as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapReading {
    /// Its name in the object.
    pub name: &'static str,
    /// How many entries it has.
    pub entries: u64,
    /// How many it has room for.
    pub capacity: u32,
}

/// A program or a map in the kernel, as its descriptor describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelObject {
    /// `program` or `map`.
    pub kind: &'static str,
    /// Its name in the object, where that is known.
    pub name: Option<String>,
    /// The kernel's number of it, as `bpftool` lists it.
    pub id: u64,
    /// Kernel memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Instructions that the verifier went through; `None` for maps, and before Linux 5.16.
    pub instructions: Option<u64>,
    /// `None` for programs, and for ring buffers, whose size is in bytes.
    pub max_entries: Option<u64>,
}

/// `BPF_MAP_TYPE_RINGBUF` (linux/bpf.h).
const RING_BUFFER: u64 = 27;

impl KernelObject {
    /// From `/proc/PID/fdinfo/FD`; `None` for links and for what has nothing to do with BPF.
    pub fn read(information: &str) -> Option<Self> {
        let of = |key| number(information, key);
        // That of a link has the number of its program, too.
        let program = of("prog_id").filter(|_| of("link_id").is_none());
        let (kind, id) = program.map(|id| ("program", id)).or_else(|| Some(("map", of("map_id")?)))?;
        let max_entries = of("max_entries").filter(|_| of("map_type") != Some(RING_BUFFER));
        let (memory_bytes, instructions) = (of("memlock"), of("verified_insns"));
        Some(Self { kind, name: None, id, memory_bytes, instructions, max_entries })
    }
}

/// A number by which the kernel describes a program (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c).
pub(super) fn number(information: &str, key: &str) -> Option<u64> {
    information.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?.trim().parse().ok()
}

/// How the kernel describes a program that is loaded.
pub(super) fn information(program: &Program) -> Option<String> {
    let descriptor = program.fd().ok()?.as_fd().as_raw_fd();
    fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()
}

fn kind(program: &Program) -> &'static str {
    match program {
        Program::FExit(_) => "fexit",
        Program::KProbe(_) => "kprobe",
        Program::TracePoint(_) => "tracepoint",
        Program::BtfTracePoint(_) => "btf_tracepoint",
        Program::RawTracePoint(_) => "raw_tracepoint",
        Program::Iter(_) => "iterator",
        _ => "other",
    }
}

fn reading(name: &str, kind: &'static str, information: &str, measured: bool) -> ProgramReading {
    let runs = number(information, "run_cnt").zip(number(information, "run_time_ns").map(Duration::from_nanos));
    ProgramReading {
        name: name.to_owned(),
        kind,
        runs: runs.filter(|(count, _)| measured || *count > 0),
        skipped_runs: number(information, "recursion_misses"),
    }
}

fn is_measured(root: &Path) -> bool {
    let switch = root.join("proc/sys/kernel/bpf_stats_enabled");
    fs::read_to_string(switch).is_ok_and(|text| text.trim() != "0")
}

impl Session {
    /// The programs that are loaded, by name. Costs a file for each.
    pub fn programs(&self) -> Vec<ProgramReading> {
        let measured = is_measured(&self.root);
        let loaded = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| Some(reading(name, kind(program), &information(program)?, measured)));
        let mut programs: Vec<_> = loaded.collect();
        programs.sort_by(|one, two| one.name.cmp(&two.name));
        programs
    }

    /// The programs and maps that this process holds. Costs a file for each descriptor, and a system call for each map of the host.
    pub fn kernel_objects(&self) -> Vec<KernelObject> {
        let descriptors = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
        let texts = descriptors.filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok());
        let mut objects: Vec<_> = texts.filter_map(|text| KernelObject::read(&text)).collect();
        let programs = self.ebpf.programs().filter_map(|(name, program)| {
            Some((("program", number(&information(program)?, "prog_id")?), name.to_owned()))
        });
        let maps = aya::maps::loaded_maps()
            .flatten()
            .filter_map(|map| Some((("map", u64::from(map.id())), map.name_as_str()?.to_owned())));
        let names: HashMap<_, _> = programs.chain(maps).collect();
        for object in &mut objects {
            object.name = names.get(&(object.kind, object.id)).cloned();
        }
        objects.sort_by(|one, other| (other.kind, &one.name, one.id).cmp(&(one.kind, &other.name, other.id)));
        objects.dedup_by_key(|object| (object.kind, object.id));
        objects
    }

    /// The maps that can fill up. Costs a system call for each entry.
    pub fn map_readings(&self) -> Result<Vec<MapReading>, SessionError> {
        Ok(self.maps.readings()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_maps_are_distinguished_from_links_and_other_files() {
        for (information, expected) in [
            ("prog_type:\t26\nmemlock:\t4096\nprog_id:\t7\nverified_insns:\t90\n", Some(("program", 7, None))),
            ("link_type:\ttracing\nlink_id:\t5\nprog_id:\t7\n", None),
            ("map_type:\t1\nmax_entries:\t16\nmemlock:\t8192\nmap_id:\t3\n", Some(("map", 3, Some(16)))),
            ("map_type:\t27\nmax_entries:\t4096\nmap_id:\t4\n", Some(("map", 4, None))),
            ("pos:\t0\nflags:\t02\n", None),
        ] {
            let object = KernelObject::read(information);
            assert_eq!(object.map(|of| (of.kind, of.id, of.max_entries)), expected, "{information}");
        }
    }

    #[test]
    fn a_program_is_described_as_far_as_the_kernel_does() {
        let of = |runs, skipped_runs| ProgramReading { name: "p".to_owned(), kind: "fexit", runs, skipped_runs };
        let new = "prog_type:\t26\nrun_time_ns:\t2500\nrun_cnt:\t3\nrecursion_misses:\t148\nverified_insns:\t9\n";
        let quiet = "run_time_ns:\t0\nrun_cnt:\t0\nrecursion_misses:\t0\n";
        for (information, measured, expected) in [
            (new, true, of(Some((3, Duration::from_nanos(2500))), Some(148))),
            // It was measured once.
            (new, false, of(Some((3, Duration::from_nanos(2500))), Some(148))),
            (quiet, false, of(None, Some(0))),
            (quiet, true, of(Some((0, Duration::ZERO)), Some(0))),
            // Linux 5.10.
            ("run_time_ns:\t0\nrun_cnt:\t0\n", true, of(Some((0, Duration::ZERO)), None)),
            ("nonsense", true, of(None, None)),
        ] {
            assert_eq!(reading("p", "fexit", information, measured), expected, "{information:?} {measured}");
        }
    }
}
