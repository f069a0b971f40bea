//! What the screen shows of an interval, and of those before it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::facts::{Fact, facts};
use crate::model::{
    bytes::Bytes,
    connections::Live,
    queue::{self, Snapshot},
    states::Transition,
    workers::Worker,
};

/// The last two minutes at an interval of a second.
pub const HISTORY: usize = 120;
/// So many transitions are kept.
pub const TRANSITIONS: usize = 2_000;

/// A transition with its number, by which it is known while others come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// From 1.
    pub number: u64,
    /// What happened.
    pub transition: Transition,
}

/// What overwatch says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Itself {
    /// How it is attached.
    pub tier: String,
    /// This kernel lets it look at listening sockets.
    pub looks: bool,
    /// What it can do on this host: each capability with its level.
    pub capabilities: String,
    /// One of the capabilities is missing.
    pub blind: bool,
    /// What it does without: what, why, and what is lost by it.
    pub degradations: Vec<[String; 3]>,
    /// The programs: name, and what is known of it.
    pub programs: Vec<(String, String)>,
    /// The maps: name, entries, room.
    pub maps: Vec<(String, u64, u32)>,
    /// How long ago these were counted.
    pub maps_age: Duration,
    /// What was lost since the start, by what it was.
    pub lost: Vec<(String, u64)>,
    /// Bytes that could be put on no connection since the start.
    pub unattributed: Bytes,
    /// Runs of the programs that the kernel has skipped since the start; `None` when it does not tell.
    pub skipped_runs: Option<u64>,
    /// Resident memory of this process, in bytes; `None` when it is not known.
    pub memory_bytes: Option<u64>,
    /// Processor time of this process in this interval.
    pub on_cpu: Option<Duration>,
    /// How long it took to end the interval before.
    pub took: Duration,
}

/// A number of each of the last intervals, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series(VecDeque<u64>);

impl Series {
    /// Adds that of the newest.
    pub fn push(&mut self, number: u64) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(number);
    }

    /// The last so many, fewer where there are fewer.
    pub fn last(&self, count: usize) -> Vec<u64> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied().collect()
    }
}

/// The last two minutes of a listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerHistory {
    /// Connections in the accept queue.
    pub accept_queue: Series,
    /// Connections that were accepted.
    pub accepts: Series,
    /// Milliseconds that the oldest client has waited.
    pub oldest_wait_milliseconds: Series,
}

/// The last two minutes of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Bytes sent per second.
    pub sent: Series,
    /// Bytes received per second.
    pub received: Series,
    /// Clients that nobody has accepted.
    pub waiting: Series,
    /// By the number of the socket.
    pub listeners: HashMap<u64, ListenerHistory>,
}

/// What is new in an interval.
#[derive(Debug)]
pub struct Interval {
    /// Listening sockets, the worst first.
    pub listeners: Snapshot,
    /// Connections, in no order.
    pub connections: Vec<Live>,
    /// What everybody has moved.
    pub moved: Bytes,
    /// Connections that have ended, and processes, that have no row.
    pub left_out: u64,
    /// Processes, in no order.
    pub workers: Vec<Worker>,
    /// What has happened, the newest last.
    pub transitions: Vec<Transition>,
    /// Paths of control groups.
    pub cgroups: HashMap<u64, String>,
    /// What overwatch says of itself.
    pub itself: Itself,
}

/// Everything that the screen can show.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Board {
    /// Name of this host.
    pub host: String,
    /// When the interval ended.
    pub time: SystemTime,
    /// How long it was.
    pub interval: Duration,
    /// Listening sockets, the worst first.
    pub listeners: Vec<queue::Row>,
    /// Changes that were lost in this interval.
    pub lost_events: u64,
    /// Connections, in no order.
    pub connections: Vec<Live>,
    /// How many of them are open.
    pub open: u64,
    /// What everybody has moved in the interval.
    pub moved: Bytes,
    /// Connections that have ended in the interval, and processes, that have no row.
    pub left_out: u64,
    /// Processes, in no order.
    pub workers: Vec<Worker>,
    /// The newest last.
    pub transitions: Vec<Logged>,
    logged: u64,
    /// Paths of control groups.
    pub cgroups: HashMap<u64, String>,
    /// What overwatch says of itself.
    pub itself: Itself,
    /// The same in lines.
    #[serde(skip)]
    pub facts: Vec<Fact>,
    /// The last two minutes.
    pub history: History,
    /// How many intervals there have been.
    pub intervals: u64,
}

impl Board {
    /// Before the first interval has ended.
    pub fn new(host: String, time: SystemTime) -> Self {
        Self {
            host,
            time,
            interval: Duration::from_secs(1),
            listeners: Vec::new(),
            lost_events: 0,
            connections: Vec::new(),
            open: 0,
            moved: Bytes::default(),
            left_out: 0,
            workers: Vec::new(),
            transitions: Vec::new(),
            logged: 0,
            cgroups: HashMap::new(),
            itself: Itself::default(),
            facts: Vec::new(),
            history: History::default(),
            intervals: 0,
        }
    }

    /// As text, to be shown again somewhere else.
    pub fn record(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// What was recorded.
    pub fn replay(text: &str) -> serde_json::Result<Self> {
        let mut board: Self = serde_json::from_str(text)?;
        board.facts = facts(&board.itself);
        Ok(board)
    }

    /// Adds to the log of transitions, of which the oldest go.
    pub(super) fn log(&mut self, transitions: Vec<Transition>) {
        for transition in transitions {
            self.logged += 1;
            self.transitions.push(Logged { number: self.logged, transition });
        }
        let over = self.transitions.len().saturating_sub(TRANSITIONS);
        self.transitions.drain(..over);
    }

    /// Takes what is new.
    pub fn end_interval(&mut self, interval: Interval) {
        let Snapshot { time, interval: length, rows, lost_events } = interval.listeners;
        (self.time, self.interval, self.listeners, self.lost_events) = (time, length, rows, lost_events);
        (self.connections, self.workers) = (interval.connections, interval.workers);
        self.open = self.connections.iter().filter(|live| !live.has_ended()).count() as u64;
        (self.moved, self.left_out) = (interval.moved, interval.left_out);
        self.log(interval.transitions);
        self.facts = facts(&interval.itself);
        (self.cgroups, self.itself) = (interval.cgroups, interval.itself);
        self.intervals += 1;
        self.remember();
    }

    fn remember(&mut self) {
        let seconds = self.seconds();
        let per_second = |bytes: u64| (bytes as f64 / seconds) as u64;
        let (moved, history) = (self.moved, &mut self.history);
        history.sent.push(per_second(moved.sent));
        history.received.push(per_second(moved.received));
        if self.itself.looks {
            history.waiting.push(self.listeners.iter().map(|row| row.queue.waiting_total).sum());
        }
        let present: HashSet<u64> = self.listeners.iter().map(|row| row.queue.listener).collect();
        history.listeners.retain(|number, _| present.contains(number));
        for queue in self.listeners.iter().map(|row| &row.queue) {
            let of = history.listeners.entry(queue.listener).or_default();
            of.accept_queue.push(queue.accept_queue.into());
            of.accepts.push(queue.accepts.interval);
            let oldest = queue.oldest_wait().unwrap_or_default();
            of.oldest_wait_milliseconds.push(u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Length of the interval in seconds, never 0.
    pub fn seconds(&self) -> f64 {
        self.interval.as_secs_f64().max(1e-3)
    }

    /// The path of a control group, where it is known.
    pub fn cgroup(&self, number: u64) -> Option<&str> {
        self.cgroups.get(&number).map(String::as_str)
    }
}
