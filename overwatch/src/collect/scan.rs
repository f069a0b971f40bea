//! Listener scan: the state of every listening socket at the end of an interval. By our own program, or as a last resort by sock_diag.

use std::{io, path::Path};

use aya::{Ebpf, maps::MapError};

use self::{program::ProgramScan, sock_diag::DiagScan};
use super::{queues::ListenerReading, table::Maps};
use crate::probes::{
    attach::{self, Degradation},
    capabilities::{Capability, Level},
    refuse::{Forced, Refuse},
    scan as probe,
};

mod program;
pub(super) mod sock_diag;

/// The name of the second way in output, and in the switch for forced refusals.
pub(super) const SOCK_DIAG: &str = sock_diag::NAME;

/// Why listening sockets cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// By the program.
    #[error(transparent)]
    Program(#[from] probe::ScanError),
    /// The map of listening sockets could not be read.
    #[error("cannot read the map of listening sockets: {0}")]
    Map(#[from] MapError),
    /// The kernel did not list its sockets.
    #[error("the kernel does not list its TCP sockets (netlink, sock_diag): {0}")]
    SockDiag(#[from] io::Error),
    /// The file system of processes is missing, in which network namespaces and privileges are looked up.
    #[error("cannot read /proc: {0}")]
    Proc(String),
    /// Our own program scans the sockets in the map, and the initial dump that fills it was refused.
    #[error("it needs the initial dump of the sockets from before the start, which is refused")]
    NoDump,
    /// A test asked for this failure.
    #[error(transparent)]
    Forced(#[from] Forced),
}

/// A way to scan that works on this host.
#[derive(Debug)]
pub(super) enum Scan {
    Program(Box<ProgramScan>),
    SockDiag(DiagScan),
}

/// The result of trying the ways in order.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The first way that works.
    pub(super) scan: Option<Scan>,
    /// Why those before it do not: the way, and its error.
    pub(super) refused: Vec<(&'static str, ScanError)>,
}

impl Prepared {
    /// The same where the map of listening sockets is not complete.
    pub(super) fn without_map(self, refuse: &Refuse) -> Self {
        if !matches!(self.scan, Some(Scan::Program(_))) {
            return self;
        }
        match DiagScan::prepare(refuse) {
            Ok(scan) => Self { scan: Some(Scan::SockDiag(scan)), ..self },
            Err(error) => {
                Self { scan: None, refused: vec![(probe::PROGRAM, ScanError::NoDump), (sock_diag::NAME, error)] }
            }
        }
    }

    /// The ways that do not work here.
    pub(super) fn degradations(&self) -> impl Iterator<Item = Degradation> {
        let loss = Scan::loss(self.scan.as_ref());
        let leaves = if self.scan.is_some() { Level::Partial } else { Level::None };
        self.refused.iter().map(move |(way, error)| Degradation {
            what: (*way).to_owned(),
            why: attach::cause(error).line,
            loss,
            concerns: &[Capability::Listeners],
            leaves,
        })
    }
}

impl Scan {
    /// Tries our program, then sock_diag. To be called before the maps are taken out of `ebpf`.
    pub(super) fn prepare(ebpf: &mut Ebpf, refuse: &Refuse) -> Prepared {
        let mut refused = Vec::new();
        match probe::ScanProgram::prepare(ebpf, refuse) {
            Ok(program) => {
                let scan = Self::Program(Box::new(ProgramScan::new(program)));
                return Prepared { scan: Some(scan), refused };
            }
            Err(error) => refused.push((probe::PROGRAM, error.into())),
        }
        match DiagScan::prepare(refuse) {
            Ok(scan) => Prepared { scan: Some(Self::SockDiag(scan)), refused },
            Err(error) => {
                refused.push((sock_diag::NAME, error));
                Prepared { scan: None, refused }
            }
        }
    }

    /// What is lost by the way that is left.
    fn loss(scan: Option<&Self>) -> &'static str {
        match scan {
            Some(Self::Program(_)) => "nothing",
            Some(Self::SockDiag(_)) => {
                "listening sockets are read as ss reads them: without the SYN queue, without clients that have reset their connection, \
                 and of several sockets at one address without the clients of each"
            }
            None => "listening sockets cannot be read: no queues, no waiting clients, no verdicts",
        }
    }

    /// Reads every listening socket.
    pub(super) fn read(&mut self, root: &Path, ebpf: &Ebpf, maps: &Maps) -> Result<Vec<ListenerReading>, ScanError> {
        match self {
            Self::Program(scan) => scan.read(ebpf, maps),
            Self::SockDiag(scan) => {
                let known = maps.listeners.iter().collect::<Result<Vec<_>, _>>()?;
                Ok(scan.read(root, &known))
            }
        }
    }
}
