//! What `overwatch top -o json` prints, as far as the tests need it.

use std::net::IpAddr;

use serde::Deserialize;

/// One line of output: one interval.
#[derive(Clone, Debug, Deserialize)]
pub struct Interval {
    /// When the interval ended.
    pub time: String,
    /// How long it was.
    pub interval_seconds: f64,
    /// This host's name.
    pub host: String,
    /// Who moved bytes.
    pub connections: Vec<Row>,
    /// Bytes sent in this interval that belong to no row.
    pub unattributed_sent_bytes: u64,
    /// Bytes received in this interval that belong to no row.
    pub unattributed_received_bytes: u64,
    /// Events that were lost in this interval.
    pub lost_events: u64,
    /// Runs of the programs that the kernel skipped in this interval, where it tells.
    pub skipped_runs: Option<u64>,
}

/// One process on one connection, in one interval.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// The same in all rows of one socket.
    pub connection: u64,
    /// The process that made the calls.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Inode number of the socket's network namespace.
    pub netns: u64,
    /// Control group.
    pub cgroup: Option<String>,
    /// This end.
    pub local_addr: IpAddr,
    /// This end's port.
    pub local_port: u16,
    /// The other end.
    pub remote_addr: IpAddr,
    /// The other end's port.
    pub remote_port: u16,
    /// `server`, `client` or unknown.
    pub role: Option<String>,
    /// TCP state.
    pub state: Option<String>,
    /// Sent in this interval.
    pub sent_bytes: u64,
    /// Received in this interval.
    pub received_bytes: u64,
    /// Sent since the connection is known.
    pub sent_bytes_total: u64,
    /// Received since the connection is known.
    pub received_bytes_total: u64,
    /// How many of the bytes sent were made good from the kernel's counters.
    pub reconciled_sent_bytes: u64,
    /// How many of the bytes received were made good from the kernel's counters.
    pub reconciled_received_bytes: u64,
}

/// Sums of both directions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bytes {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, more: Self) {
        self.sent += more.sent;
        self.received += more.received;
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), |mut sum, more| {
            sum += more;
            sum
        })
    }
}

impl Row {
    /// What moved in this interval.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes { sent: self.sent_bytes, received: self.received_bytes }
    }

    /// How much of it was made good.
    #[must_use]
    pub fn reconciled(&self) -> Bytes {
        Bytes { sent: self.reconciled_sent_bytes, received: self.reconciled_received_bytes }
    }

    /// What moved since the connection is known.
    #[must_use]
    pub fn total(&self) -> Bytes {
        Bytes { sent: self.sent_bytes_total, received: self.received_bytes_total }
    }
}

/// All rows of all intervals.
pub fn rows(intervals: &[Interval]) -> impl Iterator<Item = &Row> {
    intervals.iter().flat_map(|interval| &interval.connections)
}

/// What belongs to no row, in all intervals.
#[must_use]
pub fn unattributed(intervals: &[Interval]) -> Bytes {
    intervals
        .iter()
        .map(|interval| Bytes {
            sent: interval.unattributed_sent_bytes,
            received: interval.unattributed_received_bytes,
        })
        .sum()
}

/// Events lost in all intervals.
#[must_use]
pub fn lost(intervals: &[Interval]) -> u64 {
    intervals.iter().map(|interval| interval.lost_events).sum()
}

/// Runs of the programs that the kernel skipped, as far as it told.
#[must_use]
pub fn skipped(intervals: &[Interval]) -> u64 {
    intervals.iter().filter_map(|interval| interval.skipped_runs).sum()
}
