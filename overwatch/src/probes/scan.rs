//! Listener scan by programs of ours: BPF_PROG_TEST_RUN runs one per twelve listening sockets and one per accept queue that is not empty, and
//! they write what they read into a ring buffer (`overwatch_common::scan`).
//!
//! A raw tracepoint program needs no attach point, no trampoline and no writable iterator, so it loads on each kernel on which the programs
//! that count bytes load. Kernels run it since 5.10 (`bpf_prog_test_run_raw_tp`, net/bpf/test_run.c).

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, RingBuf},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use overwatch_common::scan::{BATCH, result};

use super::refuse::{Forced, Refuse};

/// Names of the programs in the object. Both are needed, and the first stands for them in output.
pub const PROGRAM: &str = "scan_listener";
const WAITING_PROGRAM: &str = "scan_waiting";
/// Name of the map in the object.
const MAP: &str = "SCANNED";

/// Why the program cannot scan.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The object lacks a part.
    #[error("the object has no {0}")]
    Missing(&'static str),
    /// A test asked for this failure.
    #[error(transparent)]
    Forced(#[from] Forced),
    /// The program could not be loaded or run.
    // Not transparent: `attach::cause` finds the library's error among the sources.
    #[error("{0}")]
    Program(#[from] ProgramError),
    /// The ring buffer could not be mapped.
    #[error("cannot map the scan's ring buffer: {0}")]
    Map(#[from] MapError),
    /// A run returned what the program cannot return with an empty ring buffer.
    #[error("the scan of a listening socket returned {0}")]
    Result(u32),
}

/// A loaded program with its ring buffer.
pub struct ScanProgram {
    records: RingBuf<MapData>,
}

impl ScanProgram {
    /// Loads the programs, and runs them once, since a kernel may refuse that, too.
    pub fn prepare(ebpf: &mut Ebpf, refuse: &Refuse) -> Result<Self, ScanError> {
        for name in [PROGRAM, WAITING_PROGRAM] {
            refuse.check(name)?;
            let program: &mut RawTracePoint = ebpf.program_mut(name).ok_or(ScanError::Missing(name))?.try_into()?;
            program.load()?;
        }
        let map: Map = ebpf.take_map(MAP).ok_or(ScanError::Missing("map SCANNED"))?;
        let mut scan = Self { records: map.try_into()? };
        scan.listeners(ebpf, &[0], |_| ())?;
        scan.waiting(ebpf, 0, |_| ())?;
        Ok(scan)
    }

    /// Scans at most [`BATCH`] sockets at these kernel addresses; `each` gets a record per socket that listens. Returns a bit for each of
    /// them, in order, that has connections in its accept queue.
    pub fn listeners(&mut self, ebpf: &Ebpf, socks: &[u64], each: impl FnMut(&[u8])) -> Result<u32, ScanError> {
        self.run(ebpf, PROGRAM, socks, each)
    }

    /// Scans the accept queue of the socket at this kernel address; `each` gets a record per waiting client, the oldest first.
    pub fn waiting(&mut self, ebpf: &Ebpf, sock: u64, each: impl FnMut(&[u8])) -> Result<(), ScanError> {
        self.run(ebpf, WAITING_PROGRAM, &[sock], each).map(drop)
    }

    fn run(
        &mut self,
        ebpf: &Ebpf,
        name: &'static str,
        socks: &[u64],
        mut each: impl FnMut(&[u8]),
    ) -> Result<u32, ScanError> {
        let program: &RawTracePoint = ebpf.program(name).ok_or(ScanError::Missing(name))?.try_into()?;
        let mut options = RawTracePointRunOptions::new();
        for (argument, sock) in options.args.iter_mut().zip(socks) {
            *argument = *sock;
        }
        let returned = program.test_run(options)?.return_value;
        while let Some(record) = self.records.next() {
            each(&record);
        }
        bits(returned).ok_or(ScanError::Result(returned))
    }
}

/// The bits of sockets that a run has returned; `None` when it did not run to its end, or a record was lost.
fn bits(returned: u32) -> Option<u32> {
    const SOCKETS: u32 = (1 << BATCH) - 1;
    (returned & !SOCKETS == result::DONE).then_some(returned & SOCKETS)
}

impl std::fmt::Debug for ScanProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanProgram").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_did_not_end_or_lost_a_record_is_no_result() {
        for (returned, expected) in [
            (result::DONE, Some(0)),
            (result::DONE | 0b1000_0000_0101, Some(0b1000_0000_0101)),
            (0, None),
            (1, None),
            (result::DONE | result::NO_ROOM, None),
            (result::DONE | result::NO_ROOM << (BATCH - 1), None),
            (u32::MAX, None),
        ] {
            assert_eq!(bits(returned), expected, "{returned:#x}");
        }
    }
}
