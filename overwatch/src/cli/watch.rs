//! What every verb that watches does alike: start, be told to end, choose.

use std::{future::Future, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::time::{Interval, MissedTickBehavior};

use super::{
    Failure,
    args::{FilterArguments, Global},
    output::Output,
    say::say,
    startup::{self, Announce, EndSignals, Hangup},
};
use crate::{
    collect::{DiagSession, Session},
    kernel::{host::HostFacts, namespaces},
    model::filter::{Family, Filter},
    privileges,
    probes::{
        attach::Degradation,
        object::{Capacity, Interest},
        plan::{Attach, Refusal},
    },
};

/// The root of the file system that facts are read from.
pub(super) const ROOT: &str = "/";
/// How often a verb that follows what happens takes it from the kernel side.
pub(super) const EVERY: Duration = Duration::from_millis(100);
/// How long a reader may stand still before the last output is given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs a verb to its end.
pub(super) fn run(verb: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = startup::runtime().context("cannot start the runtime");
    runtime.map_err(Failure::Running)?.block_on(verb)
}

/// A session, and the signals that end it.
pub(super) struct Watch<S = Session> {
    pub(super) session: S,
    /// Name of this host.
    pub(super) host: String,
    signals: EndSignals,
}

impl Watch {
    /// Attaches and seeds, and says so if it was asked to.
    pub(super) fn start(global: &Global, interest: Interest) -> Result<Self, Failure> {
        let watch = Self::start_as(global, global.attach(), &global.capacity(), interest, Hangup::Ends)?;
        if global.verbose {
            watch.say_ready()?;
        }
        Ok(watch)
    }

    /// The same, as it was said elsewhere.
    pub(super) fn start_as(
        global: &Global,
        attach: Attach,
        capacity: &Capacity,
        interest: Interest,
        hangup: Hangup,
    ) -> Result<Self, Failure> {
        let root = Path::new(ROOT);
        // Before attaching, so that a signal between start-up and the first wait is not lost.
        let signals = EndSignals::new(hangup)?;
        let (host, session) = startup::guarded(Announce::new(global.verbose), hangup, |kretprobes| {
            let host = HostFacts::read(root);
            let session = Session::start(&host, root, attach, capacity, interest, kretprobes);
            (host.host, session)
        })?;
        let session = session?;
        privileges::keep_to_collect().context("it needs fewer from here on").map_err(Failure::Running)?;
        Ok(Self { session, host, signals })
    }

    /// Says how it sees what it sees.
    pub(super) fn say_ready(&self) -> Result<(), Failure> {
        let session = &self.session;
        let (attached, seeded) = (session.attached(), session.seeded());
        say(format_args!(
            "ready: {} tier; {} connections were open already{}",
            attached.tier,
            session.seeded_connections()?,
            seeded.namespaces.map_or(String::new(), |count| format!(" in {count} network namespaces"))
        ));
        for degradation in &attached.degradations {
            say_without(degradation);
        }
        Ok(())
    }
}

impl Watch<DiagSession> {
    /// Reads listening sockets without any program, where there can be none for the reason given.
    pub(super) fn without_programs(refusal: &Refusal) -> Result<Self, Failure> {
        let root = Path::new(ROOT);
        let signals = EndSignals::new(Hangup::Ends)?;
        let host = HostFacts::read(root);
        let session = DiagSession::start(&host, root).map_err(|error| {
            Failure::Host(Refusal { reason: format!("{}; {error}", refusal.reason), help: refusal.help.clone() })
        })?;
        privileges::keep_to_collect().context("it needs fewer from here on").map_err(Failure::Running)?;
        say(format_args!("without BPF programs: {} ({refusal})", DiagSession::LOSS));
        Ok(Self { session, host: host.host, signals })
    }
}

impl<S> Watch<S> {
    /// Waits for a signal to end.
    pub(super) async fn told_to_end(&mut self) {
        self.signals.received().await;
    }
}

/// Says what is missing, what is lost by it, and why it is missing.
pub(super) fn say_without(degradation: &Degradation) {
    say(format_args!("without {}: {} ({})", degradation.what, degradation.loss, degradation.why));
}

/// Waits for the last output to be through, though not for ever: whoever does not read now will not read later.
pub(super) async fn written_in_time(output: &mut Output) -> Result<(), Failure> {
    while output.is_waiting() {
        let before = output.pieces();
        match tokio::time::timeout(PATIENCE, output.written()).await {
            Ok(result) => result.context("cannot write to standard output").map_err(Failure::Running)?,
            Err(_) if output.pieces() == before => break,
            Err(_) => {}
        }
    }
    Ok(())
}

/// Ticks of which none comes sooner after one that was late.
pub(super) fn every(mut interval: Interval) -> Interval {
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// From what was typed to what is chosen by it.
pub(super) fn filter(arguments: &FilterArguments) -> Result<Filter, Failure> {
    let netns = match &arguments.netns {
        None => None,
        Some(text) => {
            let inode = text.parse().ok().or_else(|| namespaces::inode_of_name(Path::new(ROOT), text));
            let inode = inode.and_then(|inode| u32::try_from(inode).ok());
            Some(inode.ok_or_else(|| {
                Failure::Arguments(format!(
                    "no network namespace '{text}': give a name that `ip netns` lists, or an inode number"
                ))
            })?)
        }
    };
    Ok(Filter {
        pid: arguments.pid,
        comm: arguments.comm.clone(),
        port: arguments.port,
        local_port: arguments.lport,
        remote_port: arguments.rport,
        network: arguments.addr,
        cgroup: arguments.cgroup.clone(),
        netns,
        family: match (arguments.ipv4, arguments.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        },
    })
}
