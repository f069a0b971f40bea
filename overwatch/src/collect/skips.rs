//! How often the kernel skipped a run of ours: a program does not run while it is interrupted on the same CPU, which on a
//! preemptible kernel can take a while (`__bpf_prog_enter_recur`, kernel/bpf/trampoline.c; `trace_call_bpf`, kernel/trace/bpf_trace.c).

use std::time::{Duration, Instant};

use aya::Ebpf;

use super::about::{information, number};

/// Programs that show the beginning and end of connections, each with the program that sees the same events again. What both miss is in no
/// other counter. The first of a pair may be loaded as raw_tp.
const LIFE: [([&str; 2], &str); 2] = [
    (["state_changed", "state_changed_raw"], "state_changed_again"),
    (["destroyed", "destroyed_raw"], "destroyed_again"),
];
/// Looking costs a file for each program.
const EVERY: Duration = Duration::from_secs(1);

/// Runs skipped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skips {
    /// Of all programs but those that only see again what others have seen; `None` when this kernel does not tell.
    pub(super) all: Option<u64>,
    /// Of those that show the beginning and end of connections: as many as may have been missed altogether.
    pub(super) life: u64,
}

/// Looks now and then.
#[derive(Debug, Default)]
pub(super) struct SkipWatch {
    last: Option<Instant>,
    skips: Skips,
}

impl SkipWatch {
    /// What is known; `fresh` to look in any case.
    pub(super) fn look(&mut self, ebpf: &Ebpf, fresh: bool) -> Skips {
        if fresh || self.last.is_none_or(|last| last.elapsed() >= EVERY) {
            self.last = Some(Instant::now());
            self.skips = read(ebpf);
        }
        self.skips
    }
}

fn read(ebpf: &Ebpf) -> Skips {
    let loaded = ebpf.programs().filter(|(_, program)| program.fd().is_ok());
    let loaded = loaded.map(|(name, program)| (name, information(program).and_then(|text| misses(&text))));
    sum(&loaded.collect::<Vec<_>>())
}

fn sum(programs: &[(&str, Option<u64>)]) -> Skips {
    let of = |name: &str| programs.iter().find(|(of, _)| *of == name).map(|(_, missed)| missed.unwrap_or(0));
    let first = |names: &[&str]| names.iter().find_map(|name| of(name));
    let life =
        LIFE.iter().map(|(names, again)| [first(names), of(again)].into_iter().flatten().min().unwrap_or(0)).sum();
    // A program that sees again what another one has seen counts only where it is alone.
    let counts = |name: &str| !LIFE.iter().any(|(names, again)| *again == name && first(names).is_some());
    Skips { all: programs.iter().filter(|(name, _)| counts(name)).map(|(_, missed)| *missed).sum(), life }
}

fn misses(information: &str) -> Option<u64> {
    number(information, "recursion_misses")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_found_where_the_kernel_tells_them() {
        assert_eq!(misses("prog_type:\t26\nrecursion_misses:\t148\nverified_insns:\t10524\n"), Some(148));
        // Before Linux 5.12.
        assert_eq!(misses("prog_type:\t26\nrun_cnt:\t0\n"), None);
    }

    #[test]
    fn what_the_second_program_has_seen_is_not_missed() {
        let (first, again) = ("state_changed", "state_changed_again");
        type Case<'a> = (&'a [(&'a str, Option<u64>)], Option<u64>, u64);
        let cases: [Case<'_>; 7] = [
            (&[("recvmsg_exit", Some(3)), (first, Some(5)), (again, Some(2))], Some(8), 2),
            (&[(first, Some(5)), (again, Some(0))], Some(5), 0),
            (&[(first, Some(0)), (again, Some(7))], Some(0), 0),
            // It could not be attached.
            (&[(first, Some(5))], Some(5), 5),
            (&[(first, None), (again, None)], None, 0),
            // Loaded as raw_tp, and not loaded at all.
            (&[("state_changed_raw", Some(5)), (again, Some(2))], Some(5), 2),
            (&[(again, Some(2))], Some(2), 2),
        ];
        for (programs, all, life) in cases {
            assert_eq!(sum(programs), Skips { all, life }, "{programs:?}");
        }
    }
}
