//! A small host: clients that connect and try again, a kernel with an accept queue, a server with a habit. By the millisecond.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::OccupiedEntry},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use super::super::{Judge, Thresholds, Verdict};
use crate::model::{
    queue::{Count, Holder, MOST_WAITING, Queue, Threads, WaitTotals, Waiting, Waits, fixtures::half_open},
    state::ESTABLISHED,
};

/// The time at which all of these tests begin.
pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(super) fn holder(pid: u32, comm: &str) -> Holder {
    Holder {
        pid,
        comm: comm.to_owned(),
        cgroup_id: 1,
        threads: None,
        on_cpu: Some(Duration::from_micros(50)),
        open_files: None,
        open_files_limit: None,
        throttling: None,
    }
}

/// A listening socket at which nothing happens.
pub(super) fn idle(listener: u64) -> Queue {
    Queue {
        listener,
        netns: 1,
        local_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        local_port: 80,
        inode: Some(listener),
        listening_since: None,
        holders: vec![holder(100, "server")],
        siblings: 0,
        accept_queue: 0,
        accept_queue_peak: 0,
        backlog_limit: 511,
        somaxconn: Some(4096),
        syncookies: Some(1),
        syn_queue: half_open(0, 0, false),
        accepts_seen: true,
        accepts_lost: false,
        arrivals: Count::default(),
        accepts: Count::default(),
        overflows_syn: Count::default(),
        overflows_ack: Count::default(),
        overflows_told_apart: true,
        overflows_exact: true,
        other_drops: Count::default(),
        syn_cookies: Some(Count::default()),
        syn_queue_overflows: Some(Count::default()),
        serving: Some(0),
        served: 0,
        waiting: Vec::new(),
        waiting_total: 0,
        accept_waits: None,
        accept_wait_totals: WaitTotals::default(),
    }
}

/// How long a connection is served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hold {
    /// Until then.
    For(u64),
    /// For ever.
    Keep,
}

/// What the server does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    /// Accepts whatever comes.
    Prompt(Hold),
    /// Accepts while it serves fewer than that.
    Workers(usize, Hold),
    /// Accepts one each so many milliseconds.
    Serial(u64, Hold),
    /// Listens, and accepts nobody.
    Never,
}

/// One listening socket and its clients.
pub(super) struct Host {
    pub(super) now_ms: u64,
    pub(super) habit: Habit,
    pub(super) stopped: bool,
    /// What does not change with the traffic.
    pub(super) base: Queue,
    /// SYNs to come: when, and how often that client has tried before.
    syns: BTreeMap<u64, Vec<u32>>,
    /// Of clients that come one after the other: how far apart, when the next one does, and until when.
    steady_ms: Option<(u64, u64, u64)>,
    queue: VecDeque<u64>,
    /// Ends of those that are served for a time, the first one first; and how many are kept for ever.
    ends: VecDeque<u64>,
    kept: usize,
    next_accept_ms: u64,
    waits_ms: Vec<u64>,
    peak: usize,
    arrivals: Count,
    accepts: Count,
    overflows: Count,
    served: u64,
}

impl Host {
    pub(super) fn new(habit: Habit, base: Queue) -> Self {
        Self {
            now_ms: 0,
            habit,
            stopped: false,
            base,
            syns: BTreeMap::new(),
            steady_ms: None,
            queue: VecDeque::new(),
            ends: VecDeque::new(),
            kept: 0,
            next_accept_ms: 0,
            waits_ms: Vec::new(),
            peak: 0,
            arrivals: Count::default(),
            accepts: Count::default(),
            overflows: Count::default(),
            served: 0,
        }
    }

    /// So many clients at once.
    pub(super) fn connect(&mut self, at_ms: u64, clients: usize) {
        self.syns.entry(at_ms).or_default().extend(std::iter::repeat_n(0, clients));
    }

    /// One client each so many milliseconds.
    pub(super) fn connect_each(&mut self, every_ms: u64, from_ms: u64, to_ms: u64) {
        assert!(self.steady_ms.replace((every_ms, from_ms, to_ms)).is_none());
    }

    fn next_steady_ms(&self) -> Option<u64> {
        self.steady_ms.and_then(|(_, next_ms, to_ms)| (next_ms < to_ms).then_some(next_ms))
    }

    fn add(count: &mut Count) {
        count.interval += 1;
        count.total += 1;
    }

    fn tick(&mut self) {
        let now_ms = self.now_ms;
        if self.next_steady_ms() == Some(now_ms) {
            self.connect(now_ms, 1);
            self.steady_ms = self.steady_ms.map(|(every_ms, next_ms, to_ms)| (every_ms, next_ms + every_ms, to_ms));
        }
        let due = self.syns.first_entry().filter(|first| *first.key() == now_ms).map(OccupiedEntry::remove);
        for tries in due.unwrap_or_default() {
            if self.queue.len() > self.base.backlog_limit as usize {
                Self::add(&mut self.overflows);
                // 1, 3, 7, 15 s ...
                self.syns.entry(now_ms + (1000 << tries)).or_default().push((tries + 1).min(6));
            } else {
                self.queue.push_back(now_ms);
                Self::add(&mut self.arrivals);
                self.peak = self.peak.max(self.queue.len());
            }
        }
        if !self.stopped {
            while self.ends.front().is_some_and(|end| *end <= now_ms) {
                self.ends.pop_front();
                self.served += 1;
            }
            self.accept_all();
        }
        self.now_ms += 1;
    }

    fn serving(&self) -> usize {
        self.ends.len() + self.kept
    }

    fn accept_all(&mut self) {
        while !self.queue.is_empty() {
            let Some(hold) = self.next_hold() else { break };
            let Some(queued_ms) = self.queue.pop_front() else { break };
            self.waits_ms.push(self.now_ms - queued_ms);
            Self::add(&mut self.accepts);
            match hold {
                Hold::For(0) => self.served += 1,
                Hold::For(length_ms) => self.ends.push_back(self.now_ms + length_ms),
                Hold::Keep => self.kept += 1,
            }
            if let Habit::Serial(every_ms, _) = self.habit {
                self.next_accept_ms = self.now_ms + every_ms;
            }
        }
    }

    /// When it accepts now: how long it serves.
    fn next_hold(&self) -> Option<Hold> {
        match self.habit {
            Habit::Prompt(hold) => Some(hold),
            Habit::Workers(limit, hold) => (self.serving() < limit).then_some(hold),
            Habit::Serial(_, hold) => (self.now_ms >= self.next_accept_ms).then_some(hold),
            Habit::Never => None,
        }
    }

    /// Lets time pass, and says what was seen of it.
    pub(super) fn pass(&mut self, interval_ms: u64) -> Queue {
        self.begin();
        self.run(interval_ms);
        self.look()
    }

    /// Begins an interval.
    pub(super) fn begin(&mut self) {
        self.peak = self.queue.len();
        for count in [&mut self.arrivals, &mut self.accepts, &mut self.overflows] {
            count.interval = 0;
        }
        self.served = 0;
        self.waits_ms.clear();
    }

    /// Lets time pass. Milliseconds in which nothing can happen are left out.
    pub(super) fn run(&mut self, length_ms: u64) {
        let end_ms = self.now_ms + length_ms;
        while self.now_ms < end_ms {
            self.tick();
            self.now_ms = self.next_event_ms().clamp(self.now_ms, end_ms);
        }
    }

    /// The next millisecond in which something can happen.
    fn next_event_ms(&self) -> u64 {
        let syn = self.syns.first_key_value().map(|(at_ms, _)| *at_ms);
        let end = self.ends.front().copied();
        let accept = matches!(self.habit, Habit::Serial(..) if !self.queue.is_empty()).then_some(self.next_accept_ms);
        let running = [end, accept].into_iter().flatten().filter(|_| !self.stopped);
        running.chain(syn).chain(self.next_steady_ms()).min().unwrap_or(u64::MAX)
    }

    /// Ends the interval: what was seen of it.
    pub(super) fn look(&mut self) -> Queue {
        let mut queue = self.base.clone();
        let milliseconds = |number: u64| Duration::from_millis(number);
        queue.accept_queue = self.queue.len() as u32;
        queue.accept_queue_peak = self.peak as u32;
        queue.arrivals = self.arrivals;
        queue.accepts = self.accepts;
        queue.overflows_syn = self.overflows;
        queue.serving = queue.serving.map(|_| self.serving() as u64);
        queue.served = self.served;
        queue.waiting_total = self.queue.len() as u64;
        queue.waiting = self.queue.iter().take(MOST_WAITING).map(|queued_ms| client(self.now_ms - queued_ms)).collect();
        self.waits_ms.sort_unstable();
        let waits = &self.waits_ms;
        let part = |percent: usize| milliseconds(waits[(waits.len() * percent / 100).min(waits.len() - 1)]);
        queue.accept_waits =
            (!waits.is_empty()).then(|| Waits { p50: part(50), p90: part(90), p99: part(99), max: part(100) });
        let threads = if self.stopped {
            Threads { total: 2, stopped: 2, ..Threads::default() }
        } else {
            Threads { total: 2, sleeping: 2, ..Threads::default() }
        };
        for holder in &mut queue.holders {
            holder.threads = (!self.queue.is_empty()).then_some(threads);
            if self.stopped {
                holder.on_cpu = Some(Duration::ZERO);
            }
        }
        queue
    }
}

/// A client that has waited for so long.
pub(super) fn client(waited_ms: u64) -> Waiting {
    Waiting {
        remote_addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
        remote_port: 40_000,
        waiting: Some(Duration::from_millis(waited_ms)),
        unread_bytes: 78,
        state: ESTABLISHED,
    }
}

/// A judge with its clock.
pub(super) struct Watch {
    pub(super) judge: Judge,
    pub(super) time: SystemTime,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { judge: Judge::new(Thresholds::default()), time: start() }
    }

    pub(super) fn all(&mut self, interval_ms: u64, queues: &[Queue]) -> Vec<Verdict> {
        let interval = Duration::from_millis(interval_ms);
        self.time += interval;
        self.judge.judge(self.time, interval, queues)
    }

    pub(super) fn one(&mut self, interval_ms: u64, queue: &Queue) -> Verdict {
        self.all(interval_ms, std::slice::from_ref(queue)).pop().unwrap()
    }
}
