//! One `overwatch listeners` for many scenarios at a time: each looks at its own listener.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::bpf;
use super::host::{Tier, patience};
use super::lines::parse;
use super::listeners::{ListenerRow, ListenersInterval};
use super::netns::NetNs;
use super::proc::Proc;
use super::stream::arguments;
use super::unit;

/// A running `overwatch listeners` with an interval of a second.
#[derive(Debug)]
pub struct Watch {
    process: Proc,
    reader: JoinHandle<()>,
    seen: Arc<Seen>,
}

/// What a [`Watch`] sees, for any thread.
#[derive(Clone, Debug)]
pub struct Views(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    so_far: Mutex<SoFar>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct SoFar {
    intervals: Vec<ListenersInterval>,
    ended: Option<String>,
}

/// A row of a listener, and when it was.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The end of the interval, in seconds since 1970.
    pub time: f64,
    /// How long it was.
    pub seconds: f64,
    /// What was seen.
    pub row: ListenerRow,
}

/// One listener, or several that share an address, as overwatch shows it.
#[derive(Clone, Debug)]
pub struct View {
    seen: Arc<Seen>,
    netns: u64,
    port: u16,
    inode: Option<u64>,
    /// In seconds since 1970. A namespace that is gone leaves its number to the next one, and ports are the same everywhere.
    since: f64,
}

impl Watch {
    /// Starts it, with no more privileges than the daemon's unit has, and waits until it sees everything.
    pub fn start(tier: Tier, extra: &[&str]) -> Result<Self> {
        let mut all = arguments("listeners", Some(tier), extra);
        all.push("1");
        let mut process = Proc::start(unit::command(&all))?;
        process.close_stdin();
        let lines = process.take_lines();
        let seen = Arc::new(Seen::default());
        let to = Arc::clone(&seen);
        let reader = thread::spawn(move || {
            // To the end, also after a line that cannot be read: nobody else empties the pipe.
            for line in lines {
                match parse(&line) {
                    Ok(interval) => to.lock().intervals.push(interval),
                    Err(error) => to.lock().ended = Some(format!("{error:#}")),
                }
                to.more.notify_all();
            }
            to.lock().ended.get_or_insert_with(|| "overwatch has ended".to_owned());
            to.more.notify_all();
        });
        process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
        Ok(Self { process, reader, seen })
    }

    /// What it sees.
    #[must_use]
    pub fn views(&self) -> Views {
        Views(Arc::clone(&self.seen))
    }

    /// Runs of its programs that the kernel has skipped so far (ADR 6).
    #[must_use]
    pub fn skipped_runs(&self) -> u64 {
        bpf::runs_left_out(self.process.id()).unwrap_or_default()
    }

    /// Ends it as a user does. All intervals come back.
    pub fn stop(self) -> Result<Vec<ListenersInterval>> {
        self.process.signal(Signal::SIGINT)?;
        let output = self.process.finish(patience(60))?;
        ensure!(output.code == Some(0), "overwatch listeners ended with {:?}; stderr:\n{}", output.code, output.stderr);
        ensure!(self.reader.join().is_ok(), "the reader panicked");
        Ok(std::mem::take(&mut self.seen.lock().intervals))
    }
}

impl Views {
    /// What is shown of a listener from now on.
    #[must_use]
    pub fn of(&self, netns: &NetNs, port: u16) -> View {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        View { seen: Arc::clone(&self.0), netns: netns.inode(), port, inode: None, since }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Of several that share an address, this one.
    #[must_use]
    pub fn only(&self, inode: u64) -> Self {
        Self { inode: Some(inode), ..self.clone() }
    }

    fn is_mine(&self, row: &ListenerRow) -> bool {
        row.netns == self.netns
            && row.local_port == self.port
            && self.inode.is_none_or(|inode| row.inode == Some(inode))
    }

    fn in_intervals(&self, intervals: &[ListenersInterval]) -> Vec<Sight> {
        let of = |interval: &ListenersInterval| -> Vec<Sight> {
            let rows = interval.listeners.iter().filter(|row| self.is_mine(row));
            rows.map(|row| Sight { time: interval.time, seconds: interval.interval_seconds, row: row.clone() })
                .collect()
        };
        intervals.iter().filter(|interval| interval.time >= self.since).flat_map(of).collect()
    }

    /// All that was seen of it so far.
    #[must_use]
    pub fn sights(&self) -> Vec<Sight> {
        self.in_intervals(&self.seen.lock().intervals)
    }

    /// The first sight from `since` on that is as it is wanted, which must come within that time.
    pub fn find(&self, since: f64, within: Duration, what: &str, wanted: impl Fn(&Sight) -> bool) -> Result<Sight> {
        let deadline = Instant::now() + within;
        let mut at = 0;
        let mut last = None;
        let mut so_far = self.seen.lock();
        loop {
            let sights = self.in_intervals(&so_far.intervals[at..]);
            at = so_far.intervals.len();
            for sight in sights.into_iter().filter(|sight| sight.time >= since) {
                if wanted(&sight) {
                    return Ok(sight);
                }
                last = Some(sight);
            }
            if let Some(why) = &so_far.ended {
                bail!("{what}: {why}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("not {what} within {within:?}; port {}, last seen: {last:#?}", self.port);
            }
            so_far = self.seen.more.wait_timeout(so_far, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next sight, which ends after now.
    pub fn next(&self) -> Result<Sight> {
        let latest = self.seen.lock().intervals.last().map_or(0.0, |interval| interval.time);
        // The next one is at least a tenth of a second away.
        self.find(latest + 0.001, patience(5), "one more interval", |_| true)
    }

    /// Waits for so many more.
    pub fn wait_for(&self, count: usize) -> Result<Vec<Sight>> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Every verdict and cause in that time must be among these.
    pub fn judged_only(&self, from: f64, to: f64, allowed: &[(&str, &str)]) -> Result<()> {
        let sights = self.sights();
        let wrong = sights.iter().filter(|sight| sight.time >= from && sight.time <= to);
        let wrong: Vec<String> = wrong
            .filter(|sight| !allowed.contains(&sight.row.judged()))
            .map(|sight| format!("{:.1} s: {:?}: {:?}", sight.time - from, sight.row.judged(), sight.row.evidence))
            .collect();
        ensure!(wrong.is_empty(), "port {}: only {allowed:?} may be seen, not\n{}", self.port, wrong.join("\n"));
        Ok(())
    }

    /// No row may contradict itself, and what only grows must not shrink and must be the sum of its intervals.
    pub fn adds_up(&self) -> Result<()> {
        type Counter = (&'static str, fn(&ListenerRow) -> (u64, u64));
        const COUNTERS: [Counter; 3] = [
            ("accepts", |row| (row.accepts, row.accepts_total)),
            ("overflows", |row| (row.overflows, row.overflows_total)),
            ("drops", |row| (row.drops, row.drops_total)),
        ];
        let sights = self.sights();
        ensure!(!sights.is_empty(), "port {} was never seen", self.port);
        for sight in &sights {
            let found = sight.row.contradictions();
            ensure!(found.is_empty(), "port {}: {}: {sight:#?}", self.port, found.join("; "));
        }
        for pair in sights.windows(2) {
            let [before, after] = pair else { continue };
            if before.row.inode != after.row.inode || before.row.inode.is_none() {
                continue;
            }
            for (name, of) in COUNTERS {
                let ((_, total), (grown, now)) = (of(&before.row), of(&after.row));
                ensure!(total + grown == now, "port {}: {name}: {total}, then {grown} more make {now}", self.port);
            }
        }
        Ok(())
    }

    /// Looks until a number of the kernel is the same before and after a sight, and compares that sight with it.
    pub fn agrees(
        &self,
        what: &str,
        mut kernel: impl FnMut() -> Result<u64>,
        shown: impl Fn(&ListenerRow) -> Option<u64>,
    ) -> Result<u64> {
        let mut last = None;
        for _ in 0..10 {
            let before = kernel()?;
            // The first may have ended before the kernel was asked.
            self.next()?;
            let sight = self.next()?;
            if kernel()? != before {
                continue;
            }
            let shown = shown(&sight.row).with_context(|| format!("{what} is unknown: {sight:#?}"))?;
            if shown == before {
                return Ok(before);
            }
            last = Some((before, sight));
        }
        bail!("{what}: the kernel's number and what is shown are not the same: {last:#?}")
    }
}
