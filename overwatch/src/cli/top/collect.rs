//! From the kernel side to what the screen shows.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    cli::watch::ROOT,
    collect::{ProgramReading, Sample, Session, SessionError},
    kernel::{cgroups::Cgroups, processes::resident_memory_bytes},
    model::{
        bytes::Bytes,
        clock::Clock,
        connections::{Connections, Live},
        judged::Judged,
        losses::LOSSES,
        open::Open,
        queue,
        states::{States, Transition},
        traffic::Traffic,
        verdict::Thresholds,
        workers::{Worker, workers},
    },
    show::{
        screen::board::{Board, Interval, Itself, TRANSITIONS},
        text::{count, duration},
    },
};

/// To count the entries of a full map takes a system call for each: it is not done more often than this,
const COUNTING_RESTS: Duration = Duration::from_secs(10);
/// and takes no more than this part of the time.
const COUNTING_SHARE: u32 = 100;

/// How full the maps are, and when they were counted.
struct Counted {
    maps: Vec<(String, u64, u32)>,
    at: Instant,
    took: Duration,
}

impl Counted {
    fn count(session: &Session) -> Result<Self, SessionError> {
        let at = Instant::now();
        let maps = session.map_readings()?.iter().map(|map| (map.name.to_owned(), map.entries, map.capacity)).collect();
        Ok(Self { maps, at, took: at.elapsed() })
    }

    fn is_old(&self) -> bool {
        self.at.elapsed() >= COUNTING_RESTS.max(self.took * COUNTING_SHARE)
    }
}

/// The models.
pub(super) struct Collector {
    traffic: Traffic,
    open: Open,
    judged: Judged,
    states: States,
    connections: Connections,
    cgroups: Cgroups,
    unattributed: Bytes,
    /// Of this interval, as many as the log keeps.
    transitions: VecDeque<Transition>,
    took: Duration,
    on_cpu: Option<Duration>,
    counted: Counted,
}

impl Collector {
    pub(super) fn new(session: &mut Session) -> Result<Self, SessionError> {
        let first = session.sample()?;
        let mut collector = Self {
            traffic: Traffic::default(),
            open: Open::default(),
            judged: Judged::new(Thresholds::default(), &first),
            states: States::default(),
            connections: Connections::default(),
            cgroups: Cgroups::default(),
            unattributed: Bytes::default(),
            transitions: VecDeque::new(),
            took: Duration::ZERO,
            on_cpu: on_cpu(),
            counted: Counted::count(session)?,
        };
        collector.take(&first);
        // What was moved while everything was being set up is of no interval.
        collector.connections.begin_interval(|_| true);
        Ok(collector)
    }

    /// Takes what has happened, so that the kernel side has room again.
    pub(super) fn keep_up(&mut self, session: &mut Session) -> Result<(), SessionError> {
        session.drain()?;
        if session.is_laden() {
            let part = session.part()?;
            self.judged.take_in(&part);
            self.take(&part);
        }
        Ok(())
    }

    fn take(&mut self, sample: &Sample) {
        let snapshot = self.traffic.update(sample);
        self.unattributed = self.unattributed.plus(snapshot.unattributed());
        self.open.update(sample);
        self.connections.update(sample, &snapshot, &self.open);
        self.transitions.extend(self.states.update(sample).lines);
        let over = self.transitions.len().saturating_sub(TRANSITIONS);
        self.transitions.drain(..over);
    }

    pub(super) fn end_interval(&mut self, session: &mut Session, board: &mut Board) -> Result<(), SessionError> {
        let start = Instant::now();
        let sample = session.sample()?;
        let listeners = self.judged.end(&sample);
        self.take(&sample);
        let connections = self.connections.rows(&self.open, &Clock::of(&sample));
        let (moved, left_out) = (self.connections.moved_by_all(), self.connections.left_out());
        let looks = session.scans().then_some(listeners.rows.as_slice());
        let workers = workers(self.connections.movers(), &connections, looks);
        let with_socket = workers.iter().filter(|worker| worker.has_socket());
        let with_socket: HashSet<u32> = with_socket.map(|worker| worker.process.pid).collect();
        self.connections.begin_interval(|pid| with_socket.contains(&pid));
        let cgroups = self.name_cgroups(&workers, &listeners, &connections, board);
        let itself = self.itself(session, &sample)?;
        let transitions = std::mem::take(&mut self.transitions).into();
        board.end_interval(Interval { listeners, connections, moved, left_out, workers, transitions, cgroups, itself });
        self.took = start.elapsed();
        Ok(())
    }

    fn name_cgroups(
        &mut self,
        workers: &[Worker],
        listeners: &queue::Snapshot,
        connections: &[Live],
        board: &Board,
    ) -> HashMap<u64, String> {
        let of_workers = workers.iter().map(|worker| worker.process.cgroup_id);
        let holders = listeners.rows.iter().flat_map(|row| &row.queue.holders).map(|holder| holder.cgroup_id);
        let of_live = connections.iter().filter_map(|live| live.process.as_ref()).map(|process| process.cgroup_id);
        let logged = board.transitions.iter().map(|logged| &logged.transition).chain(&self.transitions);
        let of_logged = logged.filter_map(|of| of.process.as_ref()).map(|process| process.cgroup_id);
        let numbers = of_workers.chain(holders).chain(of_live).chain(of_logged);
        let numbers: HashSet<u64> = numbers.filter(|number| *number != 0).collect();
        self.cgroups.keep(&numbers);
        self.cgroups.resolve(Path::new(ROOT), numbers.iter().copied());
        let path = |number: u64| Some((number, self.cgroups.path(number)?.to_owned()));
        numbers.into_iter().filter_map(path).collect()
    }

    fn itself(&mut self, session: &Session, sample: &Sample) -> Result<Itself, SessionError> {
        let attached = session.attached();
        let told = |missing: &crate::probes::attach::Degradation| {
            [missing.what.clone(), missing.why.clone(), missing.loss.to_owned()]
        };
        if self.counted.is_old() {
            self.counted = Counted::count(session)?;
        }
        let now = on_cpu();
        let before = std::mem::replace(&mut self.on_cpu, now);
        Ok(Itself {
            tier: attached.tier.name().to_owned(),
            looks: session.scans(),
            capabilities: attached.capabilities().to_string(),
            blind: attached.capabilities().missing().next().is_some(),
            degradations: attached.degradations.iter().map(told).collect(),
            programs: session.programs().iter().map(|program| (program.name.clone(), described(program))).collect(),
            maps: self.counted.maps.clone(),
            maps_age: self.counted.at.elapsed(),
            lost: LOSSES.iter().map(|loss| (loss.what.to_owned(), sample.counters.get(loss.counter))).collect(),
            unattributed: self.unattributed,
            skipped_runs: sample.skipped_runs,
            memory_bytes: resident_memory_bytes(Path::new(ROOT)),
            on_cpu: now.zip(before).map(|(now, before)| now.saturating_sub(before)),
            took: self.took,
        })
    }
}

/// What is known of a program.
fn described(program: &ProgramReading) -> String {
    let runs = program.runs.map(|(runs, time)| format!(", {} runs, {}", count(runs), duration(time)));
    let skipped = program.skipped_runs.filter(|skipped| *skipped > 0).map(|skipped| format!(", {skipped} skipped"));
    format!("{}{}{}", program.kind, runs.unwrap_or_default(), skipped.unwrap_or_default())
}

/// Processor time of this process so far.
fn on_cpu() -> Option<Duration> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Some(of(usage.user_time()) + of(usage.system_time()))
}
