//! What became of each connection: from its last record to one line.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use overwatch_common::{
    connection::{Connection, flag},
    event::{LostKey, LostSum},
};

use super::{
    bytes::{Bytes, seen, unseen},
    clock::{Clock, between},
    ending::{Ending, ending, errno_name, is_twin},
    filter::Subject,
    listeners::Listeners,
    snapshot::{KernelTotals, Process, Role, address},
};
use crate::collect::{ClosedConnection, ProcessShare, Sample};

#[cfg(test)]
mod tests;

/// A connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it closed; when that is not known, when we heard of it.
    pub time: SystemTime,
    /// The process that connected or accepted, or that listens when nobody has accepted; `None` when it is not known.
    pub process: Option<Process>,
    /// Network namespace of the socket, inode number.
    pub netns: u32,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port; 0 when it is not known.
    pub local_port: u16,
    /// Remote address; `None` when it is not known.
    pub remote_addr: Option<IpAddr>,
    /// Remote port, likewise.
    pub remote_port: Option<u16>,
    /// Who opened it; `None` when it is not known.
    pub role: Option<Role>,
    /// What the listener it came from is bound to; `None` for a client, or when it is not known.
    pub listener: Option<SocketAddr>,
    /// When the SYN was sent (client), or answered (server).
    pub syn_time: Option<SystemTime>,
    /// When the handshake was completed.
    pub established_time: Option<SystemTime>,
    /// When a process accepted it.
    pub accepted_time: Option<SystemTime>,
    /// From the SYN to the close.
    pub duration: Option<Duration>,
    /// From the SYN to the end of the handshake, or to the end of a connect that failed (client).
    pub connect: Option<Duration>,
    /// From the SYN-ACK to the final ACK (server).
    pub handshake: Option<Duration>,
    /// How long it waited to be accepted (server).
    pub accept_wait: Option<Duration>,
    /// Bytes that all processes sent.
    pub sent_bytes: u64,
    /// Bytes that all processes received.
    pub received_bytes: u64,
    /// Of the bytes sent: those that no hook saw, known from the kernel's counters.
    pub reconciled_sent_bytes: u64,
    /// Of the bytes received, likewise.
    pub reconciled_received_bytes: u64,
    /// What the kernel knew of it at CLOSE; `None` when that was not seen.
    pub at_close: Option<AtClose>,
    /// How it ended; `None` when it is not known.
    pub ended: Option<Ending>,
    /// Name of the socket's error; `None` when it had none.
    pub error: Option<String>,
    /// Its beginning was not seen.
    pub partial: bool,
}

/// What the kernel knew of a connection at CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtClose {
    /// Its own count of the bytes.
    pub totals: KernelTotals,
    /// Bytes that had arrived and were not read.
    pub unread_bytes: u32,
    /// Segments sent.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Segments taken for lost.
    pub lost_segments: u32,
    /// Smoothed round-trip time; `None` when nothing was ever measured.
    pub smoothed_rtt: Option<Duration>,
}

impl Line {
    /// For filters.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            process: self.process.as_ref(),
            netns: self.netns,
            local_addr: self.local_addr,
            local_port: self.local_port,
            remote_addr: self.remote_addr,
            remote_port: self.remote_port,
        }
    }
}

/// Connections of one process whose last records were lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When we heard of it.
    pub time: SystemTime,
    /// How many connections.
    pub lost_events: u64,
    /// The process; `None` when it is not known.
    pub process: Option<Process>,
    /// Network namespace of the sockets, inode number.
    pub netns: u32,
    /// Who opened them; `None` when it is not known.
    pub role: Option<Role>,
    /// Bytes sent, over their whole lives.
    pub sent_bytes: u64,
    /// Bytes received, likewise.
    pub received_bytes: u64,
}

/// What a sample brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    /// Connections that have ended.
    pub lines: Vec<Line>,
    /// What there is no line of.
    pub lost: Vec<Lost>,
}

/// The model of connections' lives. Feed it samples, it gives lines.
#[derive(Debug, Default)]
pub struct Life {
    listeners: Listeners,
    held: Vec<Held>,
    lost: HashMap<LostKey, LostSum>,
}

/// A line whose ending is not decided: that this end sent a RST is said after the last record, perhaps in the next sample.
#[derive(Debug)]
struct Held {
    sock: u64,
    connection: Connection,
    line: Line,
}

impl Life {
    /// The lines of the sample before, and what was lost in this one.
    pub fn update(&mut self, sample: &Sample) -> Lives {
        self.listeners.update(sample);
        let fresh: Vec<_> = sample.closed.iter().map(|closed| self.held(sample, closed)).collect();
        // The kernel uses addresses again: a reset is of the last one that had it.
        let mut resets: HashSet<u64> = sample.resets.iter().copied().collect();
        for held in self.held.iter_mut().rev() {
            if resets.remove(&held.sock) {
                held.connection.flags |= flag::RESET_SENT;
            }
        }
        let lines = decided(std::mem::replace(&mut self.held, fresh));
        Lives { lines, lost: self.lost(sample) }
    }

    /// The lines of the last sample.
    pub fn finish(&mut self) -> Lives {
        Lives { lines: decided(std::mem::take(&mut self.held)), lost: Vec::new() }
    }

    fn held(&self, sample: &Sample, closed: &ClosedConnection) -> Held {
        let line = line(sample, &closed.connection, &closed.shares, &self.listeners);
        Held { sock: closed.sock, connection: closed.connection, line }
    }

    fn lost(&mut self, sample: &Sample) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (key, now) in &sample.lost {
            let before = self.lost.insert(*key, *now).unwrap_or_default();
            if *now == before {
                continue;
            }
            lost.push(Lost {
                time: sample.time,
                lost_events: now.connections.saturating_sub(before.connections),
                process: Process::from_kernel(key.tgid, &key.comm, 0),
                netns: key.netns,
                role: Role::from_number(key.role),
                sent_bytes: now.sent.saturating_sub(before.sent),
                received_bytes: now.received.saturating_sub(before.received),
            });
        }
        lost
    }
}

fn decided(held: Vec<Held>) -> Vec<Line> {
    let connections = held.into_iter().filter(|held| !is_twin(&held.connection));
    connections.map(|Held { connection, line, .. }| Line { ended: ending(&connection), ..line }).collect()
}

fn line(sample: &Sample, connection: &Connection, shares: &[ProcessShare], listeners: &Listeners) -> Line {
    let clock = Clock::of(sample);
    let has = |bit| connection.flags & bit != 0;
    let role = Role::from_number(connection.role);
    let (local_addr, local_port) = (address(connection.local_addr), connection.local_port);
    let listening = (role == Some(Role::Server))
        .then(|| listeners.of(connection.netns, local_addr, local_port, connection.created_ns))
        .flatten();
    let owner = Process::from_kernel(connection.tgid, &connection.comm, connection.cgroup_id);
    let waited_at = listening.filter(|_| !connection.is_accepted()).and_then(|listening| listening.process.clone());
    let remote_is_known = connection.remote_port != 0;
    let times = Times { connection, role };
    let seen = seen(connection, shares);
    let kernel = Bytes { sent: connection.kernel_sent, received: connection.kernel_received };
    let reconciled = unseen(kernel, connection, shares);
    let moved = seen.plus(reconciled);
    Line {
        time: clock.time(connection.closed_ns).unwrap_or(sample.time),
        process: owner.or(waited_at),
        netns: connection.netns,
        local_addr,
        local_port,
        remote_addr: remote_is_known.then(|| address(connection.remote_addr)),
        remote_port: remote_is_known.then_some(connection.remote_port),
        role,
        listener: listening.map(|listening| SocketAddr::new(listening.local_addr, listening.local_port)),
        syn_time: clock.time(times.syn_ns()),
        established_time: clock.time(connection.established_ns),
        accepted_time: clock.time(connection.accepted_ns),
        duration: times.duration(),
        connect: times.connect(),
        handshake: times.handshake(),
        accept_wait: times.accept_wait(),
        sent_bytes: moved.sent,
        received_bytes: moved.received,
        reconciled_sent_bytes: reconciled.sent,
        reconciled_received_bytes: reconciled.received,
        at_close: has(flag::CLOSED).then(|| at_close(connection)),
        ended: None,
        error: errno_name(connection.error),
        partial: has(flag::PARTIAL),
    }
}

fn at_close(connection: &Connection) -> AtClose {
    AtClose {
        totals: KernelTotals { sent_bytes: connection.kernel_sent, received_bytes: connection.kernel_received },
        unread_bytes: connection.unread,
        segments_sent: connection.segments_sent,
        segments_received: connection.segments_received,
        retransmits: connection.retransmits,
        lost_segments: connection.lost_segments,
        smoothed_rtt: microseconds(connection.smoothed_rtt_us),
    }
}

/// Zero is the kernel side's word for unknown.
fn microseconds(number: u32) -> Option<Duration> {
    (number != 0).then(|| Duration::from_micros(number.into()))
}

/// How long the parts of a connection's life took. Instants are nanoseconds, 0 for unknown.
struct Times<'a> {
    connection: &'a Connection,
    role: Option<Role>,
}

impl Times<'_> {
    fn has(&self, bit: u32) -> bool {
        self.connection.flags & bit != 0
    }

    /// When the entry was made, unless that was later than the beginning.
    fn created_ns(&self) -> u64 {
        if self.has(flag::PARTIAL) { 0 } else { self.connection.created_ns }
    }

    fn syn_ns(&self) -> u64 {
        match (self.role, self.handshake()) {
            (Some(Role::Client), _) => self.created_ns(),
            (_, Some(handshake)) => self.connection.established_ns.saturating_sub(handshake.as_nanos() as u64),
            _ => 0,
        }
    }

    fn duration(&self) -> Option<Duration> {
        let closed_ns = self.connection.closed_ns;
        between(self.syn_ns(), closed_ns).or_else(|| between(self.created_ns(), closed_ns))
    }

    fn connect(&self) -> Option<Duration> {
        let came_to_something = self.has(flag::ESTABLISHED);
        let end_ns = if came_to_something { self.connection.established_ns } else { self.connection.closed_ns };
        (self.role == Some(Role::Client)).then(|| between(self.created_ns(), end_ns)).flatten()
    }

    fn handshake(&self) -> Option<Duration> {
        (self.role == Some(Role::Server)).then(|| microseconds(self.connection.handshake_us)).flatten()
    }

    fn accept_wait(&self) -> Option<Duration> {
        let connection = self.connection;
        let end_ns = if connection.is_accepted() { connection.accepted_ns } else { connection.closed_ns };
        // With TCP Fast Open a process may accept it before the handshake is completed.
        let queued_ns = match connection.established_ns {
            0 => self.created_ns(),
            established_ns if established_ns > end_ns => self.created_ns(),
            established_ns => established_ns,
        };
        (self.role == Some(Role::Server)).then(|| between(queued_ns, end_ns)).flatten()
    }
}
