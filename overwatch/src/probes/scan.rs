//! Listener scan by a program of ours: BPF_PROG_TEST_RUN runs it once per listening socket, and it writes what it reads into a ring
//! buffer (`overwatch_common::scan`).
//!
//! A raw tracepoint program needs no attach point, no trampoline and no writable iterator, so it loads on each kernel on which the programs
//! that count bytes load. Kernels run it since 5.10 (`bpf_prog_test_run_raw_tp`, net/bpf/test_run.c).

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, RingBuf},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use overwatch_common::scan::result;

use super::refuse::{Forced, Refuse};

/// Name of the program in the object.
pub const PROGRAM: &str = "scan_listener";
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
    /// Loads the program, and runs it once, since a kernel may refuse that, too.
    pub fn prepare(ebpf: &mut Ebpf, refuse: &Refuse) -> Result<Self, ScanError> {
        refuse.check(PROGRAM)?;
        let program: &mut RawTracePoint =
            ebpf.program_mut(PROGRAM).ok_or(ScanError::Missing("program scan_listener"))?.try_into()?;
        program.load()?;
        let map: Map = ebpf.take_map(MAP).ok_or(ScanError::Missing("map SCANNED"))?;
        let mut scan = Self { records: map.try_into()? };
        match scan.run(ebpf, 0, |_| ())? {
            false => Ok(scan),
            true => Err(ScanError::Result(result::SCANNED)),
        }
    }

    /// Scans the listening socket at this kernel address; `each` gets its records in order. False when it does not listen any more.
    pub fn run(&mut self, ebpf: &Ebpf, sock: u64, mut each: impl FnMut(&[u8])) -> Result<bool, ScanError> {
        let program: &RawTracePoint =
            ebpf.program(PROGRAM).ok_or(ScanError::Missing("program scan_listener"))?.try_into()?;
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = sock;
        let returned = program.test_run(options)?.return_value;
        while let Some(record) = self.records.next() {
            each(&record);
        }
        match returned {
            result::NOT_LISTENING => Ok(false),
            result::SCANNED => Ok(true),
            other => Err(ScanError::Result(other)),
        }
    }
}

impl std::fmt::Debug for ScanProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanProgram").finish_non_exhaustive()
    }
}
