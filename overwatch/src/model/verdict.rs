//! What the numbers of a listening socket mean: how bad it is, why, and what to do.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

mod advice;
mod evidence;
mod facts;
mod history;
mod judge;
mod servers;
mod thresholds;

#[cfg(test)]
mod tests;

pub use judge::Judge;
pub use thresholds::Thresholds;

/// How bad it is. The order is that of the output, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Nobody waits, or not noticeably.
    Ok,
    /// There is a queue, and waits are short.
    Busy,
    /// Clients wait longer than the threshold, and the queue does not drain.
    Saturated,
    /// Connections are being refused.
    Overflowing,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Nothing is wrong.
    None,
    /// A constant number is served, work goes on, nobody accepts.
    WorkerLimit,
    /// Nothing is accepted, and the processes do nothing or are stopped.
    NotAccepting,
    /// It is accepted, but slower than connections arrive.
    SlowAccept,
    /// Bursts overflow a short queue that is drained promptly.
    BacklogTooSmall,
    /// One of several sockets of a port (SO_REUSEPORT) is not served; the others are.
    OneWorkerStuck,
    /// Half-open connections that do not complete.
    SynFlood,
    /// The process has no descriptor left.
    FdLimit,
    /// The control group has used up its processor time.
    CpuThrottled,
}

/// What is to be said about a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How bad it is.
    pub level: Level,
    /// Why.
    pub cause: Cause,
    /// Since when this level and cause hold; `None` when all is well.
    pub since: Option<SystemTime>,
    /// The number of served connections that the server does not get beyond while clients wait; `None` when it is not known or none waits.
    pub serving_ceiling: Option<u64>,
    /// Sentences with the numbers in them.
    pub evidence: Vec<String>,
    /// What to change, the most useful first.
    pub advice: Vec<String>,
}

impl Level {
    /// All, from good to bad.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Busy, Self::Saturated, Self::Overflowing];

    /// The names of all, in that order.
    pub const NAMES: &[&str] = &["ok", "busy", "saturated", "overflowing"];

    /// The name in output.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl Cause {
    /// The names of all.
    pub const NAMES: &[&str] = &[
        "none",
        "worker_limit",
        "not_accepting",
        "slow_accept",
        "backlog_too_small",
        "one_worker_stuck",
        "syn_flood",
        "fd_limit",
        "cpu_throttled",
    ];

    /// The name in output.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl Verdict {
    /// Nothing is wrong.
    pub fn ok() -> Self {
        Self {
            level: Level::Ok,
            cause: Cause::None,
            since: None,
            serving_ceiling: None,
            evidence: Vec::new(),
            advice: Vec::new(),
        }
    }
}
