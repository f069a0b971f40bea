//! What there is to say about the programs and maps of a session.

use std::{
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

    /// The maps that can fill up. Costs a system call for each entry.
    pub fn map_readings(&self) -> Result<Vec<MapReading>, SessionError> {
        Ok(self.maps.readings()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
