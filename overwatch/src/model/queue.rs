//! What is known of each listening socket in an interval. From this alone the verdict is made.

use std::{
    cmp::{Ordering, Reverse},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

pub use self::wait_totals::{WAIT_EDGES, WaitTotals};
use super::{
    filter::{Filter, Subject},
    state::{CLOSE, CLOSE_WAIT},
    verdict::{Level, Verdict},
};
pub use crate::kernel::{activity::Threads, throttling::Throttling};

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
mod wait_totals;

/// A number that grows: in this interval, and since overwatch started or the socket began to listen, whichever was later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// In this interval.
    pub interval: u64,
    /// Since the start.
    pub total: u64,
}

/// A client that is connected and that nobody has accepted yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its address.
    pub remote_addr: IpAddr,
    /// Its port.
    pub remote_port: u16,
    /// How long it has waited; `None` when it is not known.
    pub waiting: Option<Duration>,
    /// Bytes that it has sent and that nobody has read.
    pub unread_bytes: u32,
    /// TCP state, the kernel's number. In ESTABLISHED the client is there; in CLOSE_WAIT it has closed, in CLOSE it has reset the connection or
    /// the kernel has given it up: it still takes its place in the queue.
    pub state: u32,
}

impl Waiting {
    /// The client has closed or reset the connection, or the kernel has given it up.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, CLOSE_WAIT | CLOSE)
    }
}

/// Where the limit of an accept queue comes from: the smaller of the two (`__sys_listen`, net/socket.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BacklogOrigin {
    /// The limit is what net.core.somaxconn is now: the program asked for that many or for more.
    Somaxconn,
    /// It is another number: what the program gave to listen(), or what somaxconn was at that time.
    Listen,
}

impl BacklogOrigin {
    /// The names of both.
    pub const NAMES: &[&str] = &["somaxconn", "listen"];

    /// The name in output.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// How long accepted connections had waited in the accept queue, from queued to accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Median.
    pub p50: Duration,
    /// Of ten connections, nine waited no longer.
    pub p90: Duration,
    /// Of a hundred connections, 99 waited no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// The half-open connections of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynQueue {
    /// Half-open connections.
    pub length: u32,
    /// Half-open connections whose SYN-ACK was sent again, so that the client is slow, silent or not there.
    pub old: u32,
    /// TCP_DEFER_ACCEPT is set: clients that send nothing stay half-open.
    pub defers_accept: bool,
}

/// A process that holds a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name, of its main thread.
    pub comm: String,
    /// Control group number (version 2); 0 when not known.
    pub cgroup_id: u64,
    /// Its threads; `None` when they were not looked at, which is done only where somebody waits.
    pub threads: Option<Threads>,
    /// Time on a CPU in this interval, of all its threads; `None` when it is not known.
    pub on_cpu: Option<Duration>,
    /// Descriptors that it has open; `None` when they were not looked at.
    pub open_files: Option<u64>,
    /// How many it may have (RLIMIT_NOFILE, soft); `None` likewise.
    pub open_files_limit: Option<u64>,
    /// Throttling of its control group, or of the one above it that is throttled most; `None` when the host does not tell.
    pub throttling: Option<Throttling>,
}

/// What is known of one listening socket in one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Number of the socket in this run: rows with the same number are of the same listening socket.
    pub listener: u64,
    /// Network namespace, inode number.
    pub netns: u32,
    /// The address that it is bound to.
    pub local_addr: IpAddr,
    /// The port.
    pub local_port: u16,
    /// Inode number of the socket; `None` when it is not known.
    pub inode: Option<u64>,
    /// When it began to listen; `None` when that was before overwatch.
    pub listening_since: Option<SystemTime>,
    /// Processes that hold it, the lowest pid first; empty when none is known.
    pub holders: Vec<Holder>,
    /// Other sockets that listen at the same address in the same namespace (SO_REUSEPORT).
    pub siblings: u32,
    /// Connections in the accept queue at the end of the interval.
    pub accept_queue: u32,
    /// Most connections in the accept queue at any time of the interval.
    pub accept_queue_peak: u32,
    /// The kernel's limit of the accept queue. One more than this fits: it is full when it holds limit + 1.
    pub backlog_limit: u32,
    /// net.core.somaxconn of the namespace; `None` when it is not known.
    pub somaxconn: Option<u32>,
    /// net.ipv4.tcp_syncookies of the namespace; `None` when it is not known.
    pub syncookies: Option<u32>,
    /// Its SYN queue; `None` where the scan cannot read it.
    pub syn_queue: Option<SynQueue>,
    /// Its accepts are seen, and what it serves is known. Otherwise `arrivals`, `accepts` and `served` say nothing, and `serving` is `None`.
    pub accepts_seen: bool,
    /// Accepts were lost in this interval, since the connection table was full.
    #[serde(default)]
    pub accepts_lost: bool,
    /// Connections that entered the accept queue.
    pub arrivals: Count,
    /// Connections that were accepted.
    pub accepts: Count,
    /// SYNs refused because the accept queue was full.
    pub overflows_syn: Count,
    /// Handshakes whose last ACK was refused because the accept queue was full.
    pub overflows_ack: Count,
    /// It is known which of them were at the SYN and which at the last ACK. Otherwise their sum alone is meant: see
    /// [`Self::overflows_by_packet`].
    pub overflows_told_apart: bool,
    /// The overflows are exact. Otherwise they were worked out from the drops of the socket and the overflows of the namespace.
    pub overflows_exact: bool,
    /// Packets to this socket that were dropped for other reasons, among them SYNs refused because the SYN queue was full.
    pub other_drops: Count,
    /// SYNs that were answered with a SYN cookie; `None` in a tier that does not see it.
    pub syn_cookies: Option<Count>,
    /// SYNs refused because the SYN queue was full and there are no cookies; `None` in a tier that does not see it.
    pub syn_queue_overflows: Option<Count>,
    /// Connections that were accepted here and that a process has not closed yet; `None` when it is not known of which of several sockets they are.
    pub serving: Option<u64>,
    /// Connections that a process has stopped serving in this interval.
    pub served: u64,
    /// Clients in the accept queue, the one that has waited longest first; at most [`MOST_WAITING`].
    pub waiting: Vec<Waiting>,
    /// How many there are.
    pub waiting_total: u64,
    /// How long those had waited that were accepted in this interval; `None` when there were none, or it is not known.
    pub accept_waits: Option<Waits>,
    /// The same of all accepts since the start.
    pub accept_wait_totals: WaitTotals,
}

/// At most so many waiting clients are shown by name: the kernel side walks no further.
pub use overwatch_common::scan::MOST_WAITING;

impl Queue {
    /// How long the client has waited that came first; `None` when there is none or it is not known.
    pub fn oldest_wait(&self) -> Option<Duration> {
        self.waiting.iter().filter_map(|client| client.waiting).max()
    }

    /// Refused in either way because the accept queue was full.
    pub fn overflows(&self) -> Count {
        Count {
            interval: self.overflows_syn.interval + self.overflows_ack.interval,
            total: self.overflows_syn.total + self.overflows_ack.total,
        }
    }

    /// At the SYN, and at the last ACK; `None` in a tier that sees neither.
    pub fn overflows_by_packet(&self) -> Option<(Count, Count)> {
        self.overflows_told_apart.then_some((self.overflows_syn, self.overflows_ack))
    }

    /// One of the numbers that come from accepts; `None` when those are not seen.
    pub fn by_accepts<T>(&self, number: T) -> Option<T> {
        self.accepts_seen.then_some(number)
    }

    /// The accept queue takes no more.
    pub fn is_full(&self) -> bool {
        self.accept_queue > self.backlog_limit
    }

    /// Where its limit comes from; `None` when somaxconn is not known.
    pub fn backlog_origin(&self) -> Option<BacklogOrigin> {
        let of = |somaxconn| {
            if self.backlog_limit == somaxconn { BacklogOrigin::Somaxconn } else { BacklogOrigin::Listen }
        };
        self.somaxconn.map(of)
    }

    /// True when the filter wants it; `path` finds the path of a control group.
    pub fn is_wanted<'a>(&'a self, filter: &Filter, path: impl Fn(u64) -> Option<&'a str>) -> bool {
        let subject = Subject {
            process: None,
            netns: self.netns,
            local_addr: self.local_addr,
            local_port: self.local_port,
            remote_addr: None,
            remote_port: None,
        };
        let holders = self.holders.iter().map(|holder| (holder.pid, holder.comm.as_str(), path(holder.cgroup_id)));
        filter.matches_any(&subject, holders)
    }
}

/// A listening socket with what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The numbers.
    pub queue: Queue,
    /// The verdict.
    pub verdict: Verdict,
}

impl Row {
    /// Clients wait too long or are refused.
    pub fn is_sick(&self) -> bool {
        // Where accepts are not seen, a listener whose clients wait too long is busy at most, since its cause cannot be known; it has advice.
        let is_unexplained = !self.queue.accepts_seen && !self.verdict.advice.is_empty();
        self.verdict.level >= Level::Saturated || is_unexplained
    }

    /// The worse comes first: by level, by the longest wait, by the length of the accept queue, by what is served. Those that are
    /// equal in all of it have an order that stays the same.
    fn order(&self, other: &Self) -> Ordering {
        let badness = |row: &Self| {
            Reverse((row.verdict.level, row.queue.oldest_wait(), row.queue.accept_queue, row.queue.serving))
        };
        let place = |row: &Self| (row.queue.local_addr, row.queue.local_port, row.queue.netns, row.queue.listener);
        badness(self).cmp(&badness(other)).then_with(|| place(self).cmp(&place(other)))
    }
}

/// One interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When it ended.
    pub time: SystemTime,
    /// How long it was.
    pub interval: Duration,
    /// Listening sockets, the worst first.
    pub rows: Vec<Row>,
    /// Changes that were lost in this interval, and accepts and listening sockets for which there was no room: accepts among them are missing.
    pub lost_events: u64,
}

impl Snapshot {
    /// Puts the worst first.
    pub fn sort(&mut self) {
        self.rows.sort_by(Row::order);
    }
}
