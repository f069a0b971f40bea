//! The processes behind the listening sockets in an interval: who they are, and where somebody waits what they did.
//!
//! What is read for naming them is bounded by [`Holders`], what is read of their activity by the limits below: where a whole host is sick, the
//! sockets that come first have their processes looked at and the rest are named only.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::kernel::{
    activity::{self, Activity, Budget, Threads},
    holders::{Holders, Wanted},
    processes::Process,
    throttling::{self, Hierarchy, Throttling},
};

#[cfg(test)]
mod tests;

/// No more processes of one socket are looked at.
const MOST_PER_LISTENER: usize = 64;
/// No more processes are looked at in an interval.
const MOST_PROCESSES: usize = 256;
/// About so many threads, and so many descriptors where they have to be counted, are read in an interval.
const BUDGET: Budget = Budget { threads: 1_024, descriptors: 100_000 };

/// A process that holds a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderReading {
    /// Who it is.
    pub process: Process,
    /// What it does; `None` when it was not looked at, or has gone.
    pub activity: Option<ActivityReading>,
}

/// What a process does. Differences are those since the look before, and `None` when there was none: in the first interval in which somebody
/// waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityReading {
    /// Its threads at the moment of the look.
    pub threads: Threads,
    /// Time on a CPU since the look before, of all its threads.
    pub on_cpu: Option<Duration>,
    /// Descriptors that it has open.
    pub open_files: Option<u64>,
    /// How many it may have.
    pub open_files_limit: Option<u64>,
    /// What its control group, or of those above it the one that was refused most, was refused since the look before; `None` also when the host
    /// does not tell.
    pub throttling: Option<Throttling>,
}

/// Follows the processes from interval to interval.
#[derive(Debug)]
pub struct ProcessWatch {
    root: PathBuf,
    holders: Holders,
    before: HashMap<u32, Activity>,
    throttles: Throttles,
}

impl ProcessWatch {
    /// Nothing is read of processes yet.
    pub fn new(root: &Path) -> Self {
        let throttles = Throttles { hierarchy: Hierarchy::find(root), ..Throttles::default() };
        Self { root: root.to_owned(), holders: Holders::default(), before: HashMap::new(), throttles }
    }

    /// Looks once in an interval. The processes of each socket, by inode, the lowest pid first; a socket of which none is known is not in it. The
    /// order of `listeners` decides whose processes are looked at when there are too many.
    pub fn look(&mut self, now: Instant, listeners: &[Wanted]) -> HashMap<u64, Vec<HolderReading>> {
        self.holders.refresh(&self.root, now, listeners);
        let of_waiting = listeners.iter().filter(|listener| listener.waiting);
        let of_waiting = of_waiting.map(|listener| self.holders.of(listener.inode).map(|process| process.pid));
        let activities = self.activities(&chosen(of_waiting));
        let mut readings: HashMap<u64, Vec<HolderReading>> = HashMap::new();
        for listener in listeners {
            let holders = self.holders.of(listener.inode).map(|process| {
                let activity = activities.get(&process.pid).filter(|_| listener.waiting).cloned();
                HolderReading { process: process.clone(), activity }
            });
            let holders: Vec<_> = holders.collect();
            if !holders.is_empty() {
                readings.insert(listener.inode, holders);
            }
        }
        readings
    }

    fn activities(&mut self, pids: &[u32]) -> HashMap<u32, ActivityReading> {
        let before = std::mem::take(&mut self.before);
        self.throttles.next_interval();
        let mut budget = BUDGET;
        let mut readings = HashMap::new();
        for pid in pids {
            if budget.threads == 0 {
                break;
            }
            let Some(now) = activity::look(&self.root, *pid, &mut budget) else {
                continue;
            };
            let before = before.get(pid).filter(|before| before.started_ticks == now.started_ticks);
            let reading = ActivityReading {
                threads: now.threads,
                on_cpu: before.map(|before| now.cpu.since(&before.cpu)),
                open_files: now.open_files,
                open_files_limit: now.open_files_limit,
                throttling: self.throttles.of(&self.root, *pid),
            };
            readings.insert(*pid, reading);
            self.before.insert(*pid, now);
        }
        readings
    }
}

/// Which processes are looked at: each once, and no more than the limits allow.
fn chosen(of_listeners: impl Iterator<Item = impl Iterator<Item = u32>>) -> Vec<u32> {
    let mut seen = HashSet::new();
    let pids = of_listeners.flat_map(|pids| pids.take(MOST_PER_LISTENER));
    pids.filter(|pid| seen.insert(*pid)).take(MOST_PROCESSES).collect()
}

/// What control groups were refused: each is read once in an interval, however many processes it has.
#[derive(Debug, Default)]
struct Throttles {
    hierarchy: Option<Hierarchy>,
    before: HashMap<PathBuf, Option<Throttling>>,
    now: HashMap<PathBuf, Option<Throttling>>,
}

impl Throttles {
    fn next_interval(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Of the groups that the process is in the one that was refused most. `None` when one of them was not read before, since it might be that.
    fn of(&mut self, root: &Path, pid: u32) -> Option<Throttling> {
        let groups = self.hierarchy.as_ref()?.groups(root, pid)?;
        // All are read, for the next interval.
        let refused: Vec<Option<Throttling>> = groups.into_iter().map(|group| self.since(group)).collect();
        refused.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn since(&mut self, group: PathBuf) -> Option<Throttling> {
        let before = self.before.get(&group).copied().flatten();
        let now = *self.now.entry(group).or_insert_with_key(|group| throttling::read(group));
        now?.since(&before?)
    }
}
