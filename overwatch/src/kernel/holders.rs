//! Which processes hold a listening socket. Only `/proc/PID/fd` tells it, and reading all of it costs a system call for every open
//! descriptor of the host. So what was found is kept, and the whole is read again only when there is reason to: the first time at once, since
//! there must be names from the beginning, and later by a [`Walk`] that nobody waits for longer than a moment.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use self::walk::{Held, Progress, Walk};
use super::processes::{self, Process, Stat};

#[cfg(test)]
mod tests;
mod walk;

/// A process that has lived for a while may be handed a socket by another one (SCM_RIGHTS): so often all are asked while somebody waits.
const WALK_WHILE_WAITING: Duration = Duration::from_secs(10);
/// So often all are asked otherwise.
const WALK: Duration = Duration::from_secs(60);
/// So long a walk that was started is waited for: on most hosts it is through by then, and what it finds belongs to this interval.
const PATIENCE: Duration = Duration::from_millis(20);
/// So many descriptors are read at once in an interval, of the processes that are asked before all others are. What is behind them is left
/// to the walks.
const MOST_AT_ONCE: usize = 8_192;
/// So often it is checked that the known holders still have the sockets at which nobody waits, and what they are called.
const CHECK_ALL: Duration = Duration::from_secs(10);

/// A listening socket whose holders are to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Inode of the socket.
    pub inode: u64,
    /// The process that called listen(2), where that was seen: it is asked before all others are.
    pub listener_pid: Option<u32>,
    /// Somebody waits to be accepted there, or its descriptors matter otherwise.
    pub waiting: bool,
}

/// The holders of listening sockets, as far as known.
#[derive(Debug, Default)]
pub struct Holders {
    /// Every process at the last look.
    seen: HashMap<u32, Seen>,
    /// Processes that were new at the last look. They are walked once more, since what a process is handed when it begins, and a listener
    /// that began in the same moment, may have come after the first walk.
    young: Vec<u32>,
    /// By inode: process, and a descriptor of it that is this socket.
    held: HashMap<u64, BTreeMap<u32, u32>>,
    /// Names of the holders.
    names: HashMap<u32, Process>,
    /// In no process's hands when all were asked, such as sockets of the kernel itself.
    ownerless: HashSet<u64>,
    /// A walk that has not come to its end.
    under_way: Option<Walk>,
    /// When the last walk was over.
    walked: Option<Instant>,
    checked_all: Option<Instant>,
}

/// What tells a process from another one that has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Costs nothing, and is another one for another process.
    directory_inode: u64,
    started_ticks: u64,
}

/// From what it is decided whether all processes are asked.
#[derive(Clone, Copy, Debug)]
struct Situation {
    /// Since the end of the last walk; `None` before the first.
    since_walk: Option<Duration>,
    /// One is under way.
    is_walking: bool,
    /// There is a socket whose holders nobody has looked for.
    unknown: bool,
    /// Somebody waits at a socket.
    waiting: bool,
}

impl Situation {
    fn walk_is_due(self) -> bool {
        let Some(since_walk) = self.since_walk else {
            return true;
        };
        let wanted = match (self.unknown, self.waiting) {
            (true, _) => Duration::ZERO,
            (false, true) => WALK_WHILE_WAITING,
            (false, false) => WALK,
        };
        !self.is_walking && since_walk >= wanted
    }
}

impl Holders {
    /// Looks again. To be called once in an interval, with all listening sockets whose inode is known.
    pub fn refresh(&mut self, root: &Path, now: Instant, wanted: &[Wanted]) {
        let inodes: HashSet<u64> = wanted.iter().map(|wanted| wanted.inode).collect();
        self.held.retain(|inode, _| inodes.contains(inode));
        self.ownerless.retain(|inode| inodes.contains(inode));
        let mut to_ask = std::mem::take(&mut self.young);
        self.young = self.notice_processes(root);
        to_ask.extend(&self.young);
        self.take_found(root, now, &inodes, Duration::ZERO);
        let check_all = self.checked_all.is_none_or(|checked| now.saturating_duration_since(checked) >= CHECK_ALL);
        let waiting: HashSet<u64> = wanted.iter().filter(|wanted| wanted.waiting).map(|wanted| wanted.inode).collect();
        to_ask.extend(self.check(root, |inode| check_all || waiting.contains(&inode)));
        let mut leave = MOST_AT_ONCE;
        if self.walked.is_none() {
            // All are new to us, and are asked below.
            self.young.clear();
            leave = 0;
        }
        self.ask(root, to_ask, &inodes, &mut leave);
        let listeners: HashSet<u32> = wanted
            .iter()
            .filter(|wanted| self.is_unknown(wanted.inode))
            .filter_map(|wanted| wanted.listener_pid)
            .filter(|pid| self.seen.contains_key(pid))
            .collect();
        self.ask(root, listeners.iter().copied().collect(), &inodes, &mut leave);
        let situation = Situation {
            since_walk: self.walked.map(|walked| now.saturating_duration_since(walked)),
            is_walking: self.under_way.is_some(),
            unknown: inodes.iter().any(|inode| self.is_unknown(*inode)),
            waiting: !waiting.is_empty(),
        };
        if situation.walk_is_due() {
            self.walk(root, now, inodes, &listeners);
        }
        if check_all {
            self.checked_all = Some(now);
            self.names.clear();
        }
        self.name_holders(root);
    }

    /// Holders of a socket, the lowest pid first.
    pub fn of(&self, inode: u64) -> impl Iterator<Item = &Process> {
        self.held.get(&inode).into_iter().flat_map(BTreeMap::keys).filter_map(|pid| self.names.get(pid))
    }

    /// Takes out what has ended and gives the processes that are new.
    fn notice_processes(&mut self, root: &Path) -> Vec<u32> {
        let mut new = Vec::new();
        let mut before = std::mem::take(&mut self.seen);
        for (pid, directory_inode) in processes::list(root) {
            let known = before.remove(&pid);
            if let Some(known) = known.filter(|known| known.directory_inode == directory_inode) {
                self.seen.insert(pid, known);
                continue;
            }
            let Some(Stat { started_ticks, .. }) = Stat::of_process(root, pid) else {
                continue;
            };
            self.seen.insert(pid, Seen { directory_inode, started_ticks });
            if known.is_none_or(|known| known.started_ticks != started_ticks) {
                new.push(pid);
            }
        }
        let is_old = |pid: &u32| self.seen.contains_key(pid) && new.binary_search(pid).is_err();
        self.names.retain(|pid, _| is_old(pid));
        for holders in self.held.values_mut() {
            holders.retain(|pid, _| is_old(pid));
        }
        self.forget_empty();
        new
    }

    /// Takes out holders that have closed the socket and gives them: they may have it as another descriptor.
    fn check(&mut self, root: &Path, is_due: impl Fn(u64) -> bool) -> Vec<u32> {
        let mut changed = Vec::new();
        for (inode, holders) in self.held.iter_mut().filter(|(inode, _)| is_due(**inode)) {
            holders.retain(|pid, descriptor| {
                let holds = processes::socket(root, *pid, *descriptor) == Some(*inode);
                changed.extend((!holds).then_some(*pid));
                holds
            });
        }
        self.forget_empty();
        changed
    }

    /// Reads the descriptors of these processes, as many as there is leave for, which is used up.
    fn ask(&mut self, root: &Path, mut pids: Vec<u32>, inodes: &HashSet<u64>, leave: &mut usize) {
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            if *leave == 0 {
                return;
            }
            for (descriptor, inode) in processes::descriptors(root, pid).take(*leave) {
                *leave -= 1;
                if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                    self.hold(Held { pid, descriptor, inode });
                }
            }
        }
    }

    /// Asks all processes, these before the others: the first time here and now, later on the way.
    fn walk(&mut self, root: &Path, now: Instant, inodes: HashSet<u64>, first: &HashSet<u32>) {
        let mut pids: Vec<u32> = self.seen.keys().copied().collect();
        pids.sort_unstable_by_key(|pid| (!first.contains(pid), *pid));
        if self.walked.is_none() {
            let mut leave = usize::MAX;
            self.ask(root, pids, &inodes, &mut leave);
            self.end_walk(now, inodes);
            return;
        }
        match Walk::start(root, pids, inodes.clone()) {
            Ok(walk) => {
                self.under_way = Some(walk);
                self.take_found(root, now, &inodes, PATIENCE);
            }
            // No thread is left for it: what is known stays, and it is tried again when the next one is due.
            Err(_) => self.walked = Some(now),
        }
    }

    /// Takes what the walk that is under way has found by now.
    fn take_found(&mut self, root: &Path, now: Instant, inodes: &HashSet<u64>, patience: Duration) {
        let Some(mut walk) = self.under_way.take() else {
            return;
        };
        let progress = walk.take(patience, |held| {
            // Time has passed since it was found.
            let Held { pid, descriptor, inode } = held;
            let is_wanted = inodes.contains(&inode) && self.seen.contains_key(&pid);
            if is_wanted && processes::socket(root, pid, descriptor) == Some(inode) {
                self.hold(held);
            }
        });
        match progress {
            Progress::UnderWay => self.under_way = Some(walk),
            Progress::Through => self.end_walk(now, walk.unfound),
            Progress::Failed => self.walked = Some(now),
        }
    }

    fn hold(&mut self, Held { pid, descriptor, inode }: Held) {
        self.held.entry(inode).or_default().entry(pid).or_insert(descriptor);
        self.ownerless.remove(&inode);
    }

    /// All were asked, and none had these sockets.
    fn end_walk(&mut self, now: Instant, unfound: HashSet<u64>) {
        self.walked = Some(now);
        self.ownerless = unfound.into_iter().filter(|inode| !self.held.contains_key(inode)).collect();
    }

    fn name_holders(&mut self, root: &Path) {
        let holders: HashSet<u32> = self.held.values().flat_map(BTreeMap::keys).copied().collect();
        self.names.retain(|pid, _| holders.contains(pid));
        for pid in holders {
            self.names.entry(pid).or_insert_with(|| Process::read(root, pid));
        }
    }

    /// A socket that has lost its last holder but listens on is in other hands, also when the walk that is under way finds nobody: it may
    /// have asked those already.
    fn forget_empty(&mut self) {
        self.held.retain(|inode, holders| {
            if let Some(walk) = self.under_way.as_mut().filter(|_| holders.is_empty()) {
                walk.unfound.remove(inode);
            }
            !holders.is_empty()
        });
    }

    fn is_unknown(&self, inode: u64) -> bool {
        !self.held.contains_key(&inode) && !self.ownerless.contains(&inode)
    }
}
