//! What a process does: its threads, its time on CPUs, its descriptors. From `/proc`, at the moment of reading.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::processes::{self, Stat};

/// No more threads of one process are looked at.
pub const MOST_THREADS: usize = 256;

/// Length of the ticks in which `/proc` gives times (USER_HZ, 100 on x86-64 and ARM64 whatever the kernel's own).
const TICK: Duration = Duration::from_millis(10);
/// User and kernel time are cut off to whole ticks each, so that a difference may be wrong by this much.
const TICKS_UNSURE: u64 = 2;

/// What may be read yet, so that a host with many threads and descriptors does not cost more than one can pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Threads. The process with which it runs out is looked at as a whole.
    pub threads: usize,
    /// Descriptors, where the kernel does not say how many there are and they have to be counted (before Linux 6.2).
    pub descriptors: usize,
}

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// When it began, in ticks since the host did: with the pid it tells processes apart.
    pub started_ticks: u64,
    /// Its threads.
    pub threads: Threads,
    /// Its time on CPUs.
    pub cpu: CpuTime,
    /// Descriptors that it has open; `None` when they may not be read, or there were more than could be counted.
    pub open_files: Option<u64>,
    /// How many it may have (RLIMIT_NOFILE, soft); `None` when it is not known.
    pub open_files_limit: Option<u64>,
}

/// Threads by what they do. Beyond [`MOST_THREADS`], and of those that are just ending, nothing is known: they are only in the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// All.
    pub total: u32,
    /// On a CPU, or waiting for one (R).
    pub running: u32,
    /// Waiting for something (S, I).
    pub sleeping: u32,
    /// Waiting for a disk or the like, not to be interrupted (D).
    pub uninterruptible: u32,
    /// Stopped by a signal or a debugger (T, t).
    pub stopped: u32,
}

impl Threads {
    fn count(&mut self, state: u8) {
        match state {
            b'R' => self.running += 1,
            b'S' | b'I' => self.sleeping += 1,
            b'D' => self.uninterruptible += 1,
            b'T' | b't' => self.stopped += 1,
            _ => {}
        }
    }
}

/// Time on CPUs, told in two ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Of all threads, also those that have ended, in ticks.
    ticks: u64,
    /// Of each thread, nanoseconds; `None` when the kernel does not tell (CONFIG_SCHED_INFO), or there are too many.
    threads: Option<HashMap<u32, u64>>,
}

impl CpuTime {
    /// Time on CPUs since an earlier moment. Threads tell it to the nanosecond, but those that ended in between take their last with them;
    /// the ticks have it, as far as they tell it.
    pub fn since(&self, before: &Self) -> Duration {
        let ticks = self.ticks.saturating_sub(before.ticks);
        let (Some(now), Some(before)) = (&self.threads, &before.threads) else {
            return whole_ticks(ticks);
        };
        let of_thread = |(thread, now): (&u32, &u64)| match before.get(thread) {
            Some(before) if before <= now => now - before,
            // Began since, or another one has its number.
            _ => *now,
        };
        let nanoseconds = now.iter().map(of_thread).fold(0, u64::saturating_add);
        Duration::from_nanos(nanoseconds).max(whole_ticks(ticks.saturating_sub(TICKS_UNSURE)))
    }
}

/// Looks at a process; `None` when it has gone.
pub fn look(root: &Path, pid: u32, budget: &mut Budget) -> Option<Activity> {
    let directory = processes::directory(root, pid);
    let stat = Stat::read(&directory)?;
    let limits = fs::read_to_string(directory.join("limits")).unwrap_or_default();
    let mut threads = Threads { total: stat.threads, ..Threads::default() };
    let is_whole = stat.threads as usize <= MOST_THREADS;
    let mut of_threads = Some(HashMap::new()).filter(|_| is_whole);
    let mut looked_at = 0;
    for (thread, _) in processes::numbered(&directory.join("task")).take(MOST_THREADS) {
        looked_at += 1;
        let directory = directory.join("task").join(thread.to_string());
        let Some(stat) = Stat::read(&directory) else {
            continue;
        };
        threads.count(stat.state);
        if let Some(known) = &mut of_threads {
            let spent = fs::read_to_string(directory.join("schedstat")).ok().as_deref().and_then(time_on_cpu);
            match spent {
                Some(spent) => drop(known.insert(thread, spent)),
                // Ended just now, or the kernel tells it of none.
                None => of_threads = of_threads.filter(|_| !directory.exists()),
            }
        }
    }
    budget.threads = budget.threads.saturating_sub(looked_at);
    Some(Activity {
        started_ticks: stat.started_ticks,
        threads,
        cpu: CpuTime { ticks: stat.cpu_ticks, threads: of_threads },
        open_files: open_files(&directory.join("fd"), &mut budget.descriptors),
        open_files_limit: open_files_limit(&limits),
    })
}

/// Linux says how many there are in the directory's size since 6.2 (`proc_fd_getattr`, fs/proc/fd.c); before, they are counted.
fn open_files(descriptors: &Path, budget: &mut usize) -> Option<u64> {
    let size = fs::metadata(descriptors).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let counted = fs::read_dir(descriptors).ok()?.take(*budget).count();
    *budget -= counted;
    (*budget > 0).then_some(counted as u64)
}

/// The first number of schedstat: nanoseconds on a CPU.
fn time_on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn whole_ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.saturating_mul(TICK.as_nanos() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fixtures::{Host, mutated};

    const BUDGET: Budget = Budget { threads: 1_000, descriptors: 1_000 };
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max processes             96365                96365                processes \n\
        Max open files            1024                 524288               files     \n\
        Max locked memory         8388608              8388608              bytes     \n";

    #[test]
    fn the_soft_limit_of_open_files_counts() {
        for (limits, limit) in [
            (LIMITS.to_owned(), Some(1_024)),
            (LIMITS.replace("1024 ", "unlimited "), None),
            (LIMITS.replace("Max open files", "Max files"), None),
            ("Max open files".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(open_files_limit(&limits), limit, "{limits}");
        }
    }

    #[test]
    fn the_first_number_of_schedstat_is_the_time_on_a_cpu() {
        for (text, time) in [
            ("123456789 55 7\n", Some(123_456_789)),
            ("0 0 0\n", Some(0)),
            ("18446744073709551616 0 0\n", None),
            ("-1 0 0", None),
            ("", None),
        ] {
            assert_eq!(time_on_cpu(text), time, "{text}");
        }
    }

    #[test]
    fn damaged_text_is_never_a_panic() {
        for text in mutated(LIMITS.as_bytes(), 21) {
            let _ = open_files_limit(&String::from_utf8_lossy(&text));
        }
        for text in mutated(b"123456789 55 7\n", 22) {
            let _ = time_on_cpu(&String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn time_on_cpus_never_goes_backwards() {
        let time = |ticks, threads: Option<&[(u32, u64)]>| CpuTime {
            ticks,
            threads: threads.map(|threads| threads.iter().copied().collect()),
        };
        for (before, now, nanoseconds) in [
            (time(5, Some(&[(1, 100), (2, 50)])), time(5, Some(&[(1, 130), (2, 50)])), 30),
            // A thread began, and another one has the number of one that has ended.
            (time(0, Some(&[(1, 100), (2, 50)])), time(0, Some(&[(1, 100), (2, 7), (3, 4)])), 11),
            // A thread ended; what it did since is in the ticks.
            (time(10, Some(&[(1, 100), (2, 50_000_000)])), time(60, Some(&[(1, 100)])), 480_000_000),
            (time(10, Some(&[(1, 100), (2, 50_000_000)])), time(12, Some(&[(1, 105)])), 5),
            // Ticks alone.
            (time(10, None), time(60, None), 500_000_000),
            (time(10, Some(&[(1, 5)])), time(11, None), 10_000_000),
            (time(10, None), time(11, Some(&[(1, 5)])), 10_000_000),
            (time(11, None), time(10, None), 0),
            (time(0, Some(&[])), time(0, Some(&[(1, u64::MAX), (2, u64::MAX)])), u64::MAX),
        ] {
            assert_eq!(now.since(&before), Duration::from_nanos(nanoseconds), "{before:?} {now:?}");
        }
    }

    #[test]
    fn threads_are_counted_by_their_state() {
        let host = Host::new();
        host.process(10, 77, &[(0, "/dev/null"), (1, "socket:[5]"), (2, "socket:[6]")]);
        host.file("proc/10/limits", LIMITS);
        for (thread, state) in (10..).zip(["R", "S", "I", "D", "T", "t", "Z", "X", "P", ""]) {
            host.file(&format!("proc/10/task/{thread}/schedstat"), "40 1 1\n");
            let stat = format!("{thread} (x) {state} 1 1 1 0 -1 0 0 0 0 0 9 9 0 0 20 0 10 0 77 0\n");
            host.file(&format!("proc/10/task/{thread}/stat"), &stat);
        }
        host.file("proc/10/stat", "10 (x) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20 0 10 0 77 0\n");
        let mut budget = BUDGET;
        let activity = look(host.root(), 10, &mut budget).unwrap();
        let threads = Threads { total: 10, running: 1, sleeping: 2, uninterruptible: 1, stopped: 2 };
        assert_eq!(activity.threads, threads);
        assert_eq!((activity.started_ticks, activity.cpu.ticks), (77, 42));
        assert_eq!(activity.cpu.threads.as_ref().unwrap().values().sum::<u64>(), 400);
        assert_eq!(activity.open_files_limit, Some(1_024));
        assert_eq!(budget.threads, 990);
        // A kernel that does not tell it of threads.
        fs::remove_file(host.root().join("proc/10/task/11/schedstat")).unwrap();
        assert_eq!(look(host.root(), 10, &mut budget).unwrap().cpu.threads, None);
    }

    #[test]
    fn more_threads_than_are_looked_at_are_in_the_total() {
        let host = Host::new();
        host.process(10, 77, &[]);
        for thread in 10..310 {
            let stat = format!("{thread} (x) S 1 1 1 0 -1 0 0 0 0 0 9 9 0 0 20 0 300 0 77 0\n");
            host.file(&format!("proc/10/task/{thread}/stat"), &stat);
            host.file(&format!("proc/10/task/{thread}/schedstat"), "40 1 1\n");
        }
        host.file("proc/10/stat", "10 (x) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20 0 300 0 77 0\n");
        let activity = look(host.root(), 10, &mut Budget { ..BUDGET }).unwrap();
        assert_eq!(activity.threads, Threads { total: 300, sleeping: 256, ..Threads::default() });
        assert_eq!(activity.cpu, CpuTime { ticks: 42, threads: None });
    }

    #[test]
    fn open_files_are_counted_as_far_as_the_budget_goes() {
        // A directory without a size, as /proc has them before Linux 6.2; this one always is.
        let directory = Path::new("/proc/self/task");
        assert_eq!(fs::metadata(directory).unwrap().len(), 0);
        let threads = fs::read_dir(directory).unwrap().count();
        assert!(open_files(directory, &mut 1_000).unwrap() >= 1);
        assert_eq!(open_files(directory, &mut threads.min(1)), None);
        assert_eq!(open_files(directory, &mut 0), None);
        assert_eq!(open_files(Path::new("/nonexistent"), &mut 10), None);
    }

    #[test]
    fn this_process_is_seen_at_work() {
        let root = Path::new("/");
        let pid = std::process::id();
        let before = look(root, pid, &mut Budget { ..BUDGET }).unwrap();
        let began = std::time::Instant::now();
        // The kernel counts up what runs from tick to tick.
        let now = loop {
            let now = look(root, pid, &mut Budget { ..BUDGET }).unwrap();
            if now.cpu.since(&before.cpu) > Duration::ZERO || began.elapsed() > Duration::from_secs(60) {
                break now;
            }
        };
        assert!(now.cpu.since(&before.cpu) > Duration::ZERO);
        assert!(now.threads.running >= 1 && now.threads.total >= now.threads.running, "{now:?}");
        assert!(now.open_files.unwrap() >= 3 && now.open_files_limit.unwrap() >= now.open_files.unwrap(), "{now:?}");
        assert_eq!(now.started_ticks, before.started_ticks);
        assert_eq!(look(root, 0, &mut Budget { ..BUDGET }), None);
    }
}
