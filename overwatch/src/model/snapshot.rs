//! What every output shows.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use overwatch_common::connection::{COMM_LEN, role};

use super::{bytes::Bytes, filter::Subject};

/// A connection's life: the kernel address of its socket, and when its entry was made.
pub type Key = (u64, u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// This end called connect.
    Client,
    /// This end was accepted.
    Server,
}

impl Role {
    /// The names of both.
    pub const NAMES: &[&str] = &["client", "server"];

    /// From the kernel side's number; `None` when it is not known.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            role::CLIENT => Some(Self::Client),
            role::SERVER => Some(Self::Server),
            _ => None,
        }
    }

    /// The name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Names of the kernel's TCP states by number (include/net/tcp_states.h), which are part of its interface to users
/// (`/proc/net/tcp`, `tcp_info`).
const STATES: &[&str] = &[
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// The names of all TCP states.
pub const STATE_NAMES: &[&str] = STATES.split_at(1).1;

/// Name of a TCP state; `None` for a number that is none.
pub fn state_name(number: u32) -> Option<&'static str> {
    STATES.get(number as usize).copied().filter(|name| !name.is_empty())
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name, as the kernel has it: any bytes that another user chose.
    pub comm: String,
    /// Control group number; 0 when not known.
    pub cgroup_id: u64,
}

impl Process {
    /// From the kernel side's fields; `None` for pid 0, its word for nobody.
    pub fn from_kernel(tgid: u32, comm: &[u8; COMM_LEN], cgroup_id: u64) -> Option<Self> {
        (tgid != 0).then(|| Self { pid: tgid, comm: comm_text(comm), cgroup_id })
    }
}

/// A process name out of the kernel's fixed field.
pub fn comm_text(comm: &[u8; COMM_LEN]) -> String {
    let len = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&comm[..len]).into_owned()
}

/// An address; IPv4 that the kernel holds v4-mapped is shown as what it is.
pub fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// What one process moved over one connection in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number of the connection in this run: rows with the same number are of the same connection.
    pub connection: u64,
    /// What other models know it by.
    pub key: Key,
    /// The process; `None` when it is not known.
    pub process: Option<Process>,
    /// Network namespace of the socket, inode number.
    pub netns: u32,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address.
    pub remote_addr: IpAddr,
    /// Remote port.
    pub remote_port: u16,
    /// Who opened it; `None` when it is not known.
    pub role: Option<Role>,
    /// TCP state, the kernel's number.
    pub state: u32,
    /// Bytes sent in this interval.
    pub sent_bytes: u64,
    /// Bytes received in this interval.
    pub received_bytes: u64,
    /// Bytes sent since the connection began, or overwatch did.
    pub sent_bytes_total: u64,
    /// Bytes received, likewise.
    pub received_bytes_total: u64,
    /// Of the bytes sent in this interval: those that no hook saw, known from the kernel's counters at close.
    pub reconciled_sent_bytes: u64,
    /// Of the bytes received, likewise.
    pub reconciled_received_bytes: u64,
    /// The kernel's own count for the whole connection; `None` until it has ended.
    pub kernel_totals: Option<KernelTotals>,
}

impl Row {
    /// Of its process; `None` when that is not known.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Bytes of this interval.
    pub fn moved(&self) -> Bytes {
        Bytes { sent: self.sent_bytes, received: self.received_bytes }
    }

    /// Bytes since the connection began, or overwatch did.
    pub fn moved_total(&self) -> Bytes {
        Bytes { sent: self.sent_bytes_total, received: self.received_bytes_total }
    }

    /// For filters.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            process: self.process.as_ref(),
            netns: self.netns,
            local_addr: self.local_addr,
            local_port: self.local_port,
            remote_addr: Some(self.remote_addr),
            remote_port: Some(self.remote_port),
        }
    }
}

/// The kernel's own count of what the application handed to a socket and took from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTotals {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// One interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When it ended.
    pub time: SystemTime,
    /// How long it was.
    pub interval: Duration,
    /// Connections that moved bytes, the busiest first.
    pub rows: Vec<Row>,
    /// Bytes sent in this interval that could be put on no connection.
    pub unattributed_sent_bytes: u64,
    /// Bytes received, likewise.
    pub unattributed_received_bytes: u64,
    /// Runs of the programs that the kernel skipped in this interval; `None` when this kernel does not tell.
    pub skipped_runs: Option<u64>,
    /// Last records that were lost in this interval; their bytes are among the unattributed.
    pub lost_events: u64,
}

impl Snapshot {
    /// Bytes of this interval that could be put on no connection.
    pub fn unattributed(&self) -> Bytes {
        Bytes { sent: self.unattributed_sent_bytes, received: self.unattributed_received_bytes }
    }
}
