//! A sample: raw counters as they were at one instant. Nothing is computed here.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use overwatch_common::{
    connection::{Connection, Listener, Share, ShareKey},
    counter::{COUNTERS, Counter},
    event::{Change, LostKey, LostSum},
};

use super::{
    processes::HolderReading,
    queues::{ListenerReading, NamespaceReading},
};

/// What a further process has moved over a connection that another process owns.
#[derive(Clone, Debug)]
pub struct ProcessShare {
    /// The process.
    pub tgid: u32,
    /// Its counters, since the connection began.
    pub share: Share,
}

/// A connection that moved bytes since the last sample and is still open.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    /// The socket's address.
    pub sock: u64,
    /// Its entry.
    pub connection: Connection,
    /// Shares that moved bytes since the last sample.
    pub shares: Vec<ProcessShare>,
}

/// A connection that ended since the last sample.
#[derive(Clone, Debug)]
pub struct ClosedConnection {
    /// The socket's address.
    pub sock: u64,
    /// Its last entry.
    pub connection: Connection,
    /// All its shares.
    pub shares: Vec<ProcessShare>,
}

/// Values of the kernel side's own counters, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u64; COUNTERS.len()]);

impl Counters {
    /// One of them.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Adds to one of them.
    pub fn add(&mut self, counter: Counter, value: u64) {
        self.0[counter as usize] += value;
    }
}

/// Which refusals of listening sockets the kernel side counts, since there is a hook that sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalsSeen {
    /// Those at the first packet of a handshake.
    pub at_syn: bool,
    /// Those at the last one.
    pub at_ack: bool,
}

/// Everything that was seen since the last sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was taken.
    pub time: SystemTime,
    /// The same instant, nanoseconds of CLOCK_MONOTONIC, which the kernel side's times are of.
    pub monotonic_ns: u64,
    /// Time since the interval before has ended, or since everything was attached.
    pub elapsed: Duration,
    /// Connections that ended.
    pub closed: Vec<ClosedConnection>,
    /// What changed in state or owner, in the order in which it happened; only listening sockets unless the session was
    /// asked for more.
    pub changes: Vec<Change>,
    /// Sockets for which this end sent a RST after their last record had been handed over, where that was in the sample before.
    /// In this one it is among the record's flags.
    pub resets: Vec<u64>,
    /// All listening sockets with their kernel addresses: in the first sample, and after changes were lost.
    pub listeners: Option<Vec<(u64, Listener)>>,
    /// The whole connection table with the sockets' addresses: in the first sample and after changes were lost, if the session was asked
    /// for changes or queues.
    pub table: Option<Vec<(u64, Connection)>>,
    /// Every listening socket as it was at the end, if the session was asked for queues; `None` when it was not, or this kernel refuses,
    /// which is then among what the session is degraded by.
    pub queues: Option<Vec<ListenerReading>>,
    /// The network namespaces that those are in.
    pub namespaces: Vec<NamespaceReading>,
    /// The processes that hold those, by the socket's inode; only where the sample ends an interval.
    pub holders: HashMap<u64, Vec<HolderReading>>,
    /// Which refusals the kernel side counts.
    pub refusals: RefusalsSeen,
    /// Accepts are among the changes. False where no hook sees them, so that an interval without accepts means nothing.
    pub accepts_seen: bool,
    /// Sockets from before the start were looked up. Otherwise it is not known what a listening socket from then serves.
    pub old_sockets_known: bool,
    /// What connections whose last records were lost have moved, since the start.
    pub lost: Vec<(LostKey, LostSum)>,
    /// Connections that moved bytes, if the session was asked for rows.
    pub open: Vec<OpenConnection>,
    /// Shares of connections whose last record was lost: nobody knows any more what they were shares of.
    pub orphans: Vec<(ShareKey, Share)>,
    /// The kernel side's counters.
    pub counters: Counters,
    /// Runs of the programs that the kernel has skipped since the start; `None` when this kernel does not tell.
    pub skipped_runs: Option<u64>,
    /// Sockets that are still in the table, when the whole table was read because notices were lost.
    pub present: Option<std::collections::HashSet<(u64, u64)>>,
}
