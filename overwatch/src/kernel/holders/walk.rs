//! A walk over the descriptors of every process, on a thread of its own: where the host has very many it takes its time, and nobody waits.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::kernel::processes;

/// So many descriptors are read without a rest, in about 5 ms: most hosts have fewer.
const SPELL: usize = 1_024;
/// So long is the rest: a walk takes about 1.5 % of a CPU, however many descriptors there are, and half a minute for 100,000.
const REST: Duration = Duration::from_millis(300);

/// A walk that was started. When this goes away, the walk ends before its next process.
#[derive(Debug)]
pub(super) struct Walk {
    /// The sockets, by inode, that were looked for and not found so far.
    pub(super) unfound: HashSet<u64>,
    told: Receiver<Told>,
}

/// What a walk tells as it goes.
#[derive(Debug)]
pub(super) enum Told {
    /// What a process holds of what is looked for.
    Process(Vec<Held>),
    /// All were asked.
    Through,
}

/// A socket in the hands of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) pid: u32,
    /// A descriptor of the process that is this socket.
    pub(super) descriptor: u32,
    pub(super) inode: u64,
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More will follow.
    UnderWay,
    /// All were asked.
    Through,
    /// It has ended before all were asked.
    Failed,
}

impl Walk {
    /// Starts to ask these processes, in this order, for these sockets; an error when the system has no thread for it.
    pub(super) fn start(root: &Path, pids: Vec<u32>, inodes: HashSet<u64>) -> io::Result<Self> {
        let (tell, told) = channel();
        let work = Work { root: root.to_owned(), pids, inodes: inodes.clone() };
        // Not joined: it waits for nothing but the clock, and ends by itself.
        thread::Builder::new().name("holders".to_owned()).spawn(move || work.run(&tell))?;
        Ok(Self { unfound: inodes, told })
    }

    /// One that tells what the other end is given.
    #[cfg(test)]
    pub(super) fn telling(inodes: &[u64]) -> (Sender<Told>, Self) {
        let (tell, told) = channel();
        (tell, Self { unfound: inodes.iter().copied().collect(), told })
    }

    /// Takes what was found since the last time, and waits so long for the rest.
    pub(super) fn take(&mut self, patience: Duration, mut found: impl FnMut(Held)) -> Progress {
        let until = Instant::now() + patience;
        loop {
            match self.told.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Told::Process(all)) => {
                    for held in all {
                        self.unfound.remove(&held.inode);
                        found(held);
                    }
                }
                Ok(Told::Through) => return Progress::Through,
                Err(RecvTimeoutError::Timeout) => return Progress::UnderWay,
                Err(RecvTimeoutError::Disconnected) => return Progress::Failed,
            }
        }
    }
}

/// What the thread has to do.
struct Work {
    root: PathBuf,
    pids: Vec<u32>,
    inodes: HashSet<u64>,
}

impl Work {
    fn run(&self, tell: &Sender<Told>) {
        let mut read = 0;
        for pid in &self.pids {
            let mut held = Vec::new();
            for (descriptor, inode) in processes::descriptors(&self.root, *pid) {
                let wanted = inode.filter(|inode| self.inodes.contains(inode));
                held.extend(wanted.map(|inode| Held { pid: *pid, descriptor, inode }));
                read += 1;
                if read % SPELL == 0 {
                    thread::sleep(REST);
                }
            }
            if tell.send(Told::Process(held)).is_err() {
                return;
            }
        }
        // Nobody listens any more: then nobody needs to know.
        let _unheard = tell.send(Told::Through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fixtures::Host;

    const LONG: Duration = Duration::from_secs(60);

    fn taken(walk: &mut Walk) -> (Vec<Held>, Progress) {
        let mut all = Vec::new();
        let progress = walk.take(LONG, |held| all.push(held));
        all.sort_by_key(|held| (held.pid, held.descriptor));
        (all, progress)
    }

    #[test]
    fn it_rests_where_there_is_much_to_read() {
        let host = Host::new();
        host.process(10, 1, &[]);
        for descriptor in 0..SPELL as u32 {
            host.open(10, descriptor, "socket:[50]");
        }
        for (pids, found, rests) in [(vec![10], SPELL, 1), (vec![10, 10], 2 * SPELL, 2)] {
            let began = Instant::now();
            let mut walk = Walk::start(host.root(), pids, HashSet::from([50])).unwrap();
            let (held, progress) = taken(&mut walk);
            assert_eq!((held.len(), progress), (found, Progress::Through));
            assert!(began.elapsed() >= rests * REST, "{:?}", began.elapsed());
        }
    }

    #[test]
    fn it_finds_what_it_was_asked_for() {
        let host = Host::new();
        host.process(10, 1, &[(0, "/dev/null"), (3, "socket:[50]"), (4, "socket:[50]"), (5, "socket:[51]")]);
        host.process(11, 1, &[(7, "socket:[52]")]);
        // Not asked.
        host.process(12, 1, &[(3, "socket:[50]")]);
        let mut walk = Walk::start(host.root(), vec![10, 11, 999], HashSet::from([50, 52, 60])).unwrap();
        let held = |pid, descriptor, inode| Held { pid, descriptor, inode };
        assert_eq!(taken(&mut walk), (vec![held(10, 3, 50), held(10, 4, 50), held(11, 7, 52)], Progress::Through));
        assert_eq!(walk.unfound, HashSet::from([60]));
        // It tells all of it once.
        assert_eq!(taken(&mut walk), (Vec::new(), Progress::Failed));
    }

    #[test]
    fn a_walk_that_ends_early_has_failed() {
        let (tell, mut walk) = Walk::telling(&[]);
        assert_eq!(walk.take(Duration::ZERO, |_| ()), Progress::UnderWay);
        drop(tell);
        assert_eq!(walk.take(LONG, |_| ()), Progress::Failed);
    }

    #[test]
    fn it_ends_when_nobody_listens() {
        let (tell, told) = channel();
        drop(told);
        let work = Work { root: "/nonexistent".into(), pids: vec![1, 2], inodes: HashSet::new() };
        work.run(&tell);
    }
}
