//! Listening sockets without any BPF program: for hosts that load none, or do not let this process load them. What `ss` shows, and no more.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    clocks::{self, monotonic_ns},
    processes::ProcessWatch,
    queues::Namespaces,
    sample::{Counters, RefusalsSeen, Sample},
    scan::{ScanError, sock_diag::DiagScan},
    session::{process_watch, wanted},
};
use crate::{kernel::host::HostFacts, probes::refuse::Refuse};

/// Listening sockets by sock_diag.
#[derive(Debug)]
pub struct DiagSession {
    scan: DiagScan,
    namespaces: Namespaces,
    processes: Option<ProcessWatch>,
    root: PathBuf,
    last_ns: u64,
}

impl DiagSession {
    /// What is lost beside a session with programs.
    pub const LOSS: &str = "listening sockets are read as ss reads them, in the network namespaces that this process may enter: queues, limits and \
        waiting clients, without accepts, served connections, SYN queues and most causes";

    /// An error where the kernel does not list its sockets either.
    pub fn start(host: &HostFacts, root: &Path) -> Result<Self, ScanError> {
        if let Some(error) = &host.proc_error {
            return Err(ScanError::Proc(error.clone()));
        }
        Ok(Self {
            scan: DiagScan::prepare(&Refuse::from_environment())?,
            namespaces: Namespaces::default(),
            processes: process_watch(host, root),
            root: root.to_owned(),
            last_ns: monotonic_ns(),
        })
    }

    /// The listening sockets as they are now.
    pub fn sample(&mut self) -> Sample {
        let now = clocks::now();
        let queues = self.scan.read(&self.root, &[]);
        let namespaces = self.namespaces.read(&self.root, &queues);
        let holders = self.processes.as_mut().map(|processes| processes.look(Instant::now(), &wanted(&queues)));
        let elapsed = Duration::from_nanos(now.monotonic_ns.saturating_sub(self.last_ns));
        self.last_ns = now.monotonic_ns;
        Sample {
            time: now.time,
            monotonic_ns: now.monotonic_ns,
            elapsed,
            closed: Vec::new(),
            changes: Vec::new(),
            resets: Vec::new(),
            listeners: None,
            table: None,
            queues: Some(queues),
            namespaces,
            holders: holders.unwrap_or_default(),
            refusals: RefusalsSeen::default(),
            accepts_seen: false,
            old_sockets_known: false,
            lost: Vec::new(),
            open: Vec::new(),
            orphans: Vec::new(),
            counters: Counters::default(),
            skipped_runs: None,
            present: None,
        }
    }
}
