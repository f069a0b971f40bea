//! Readings of the listening sockets, and the counters and settings of their network namespaces.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    time::Duration,
};

use overwatch_common::connection::Listener;

use crate::kernel::netstat::{self, Limits};

#[cfg(test)]
mod tests;

/// A client that is connected and that nobody has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingReading {
    /// The kernel address of its socket.
    pub sock: u64,
    /// When the handshake was completed, nanoseconds of CLOCK_MONOTONIC; 0 when nobody saw it, or the kernel is of another mind.
    pub established_ns: u64,
    /// Remote address; IPv4 is v4-mapped.
    pub remote_addr: [u8; 16],
    /// Remote port, host order.
    pub remote_port: u16,
    /// TCP state, the kernel's number.
    pub state: u32,
    /// Bytes that have arrived and that nobody has read.
    pub unread_bytes: u32,
    /// How many connections were in the accept queue when this one was put there.
    pub queued_behind: u32,
    /// How long it has been in the accept queue, to a tick of the kernel's where nobody saw it come; `None` while the length of those is
    /// not known, which takes two samples.
    pub waited: Option<Duration>,
}

/// A listening socket as it was at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReading {
    /// Its kernel address.
    pub sock: u64,
    /// Its entry in the kernel side's map. What its counters say of refusals is since it began to listen, or since overwatch started; in a
    /// tier without the hooks they stay 0.
    pub listener: Listener,
    /// When it was read, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Inode number; `None` when no process has it open.
    pub inode: Option<u64>,
    /// Connections in the accept queue.
    pub accept_queue: u32,
    /// The kernel's limit of it: one more than this fits.
    pub backlog_limit: u32,
    /// Packets to it that were dropped, since it was made. What is refused at the last ACK counts twice.
    pub drops: u32,
    /// Its SYN queue; `None` where only our own program could read it, and this kernel refuses that.
    pub syn_queue: Option<SynQueueReading>,
    /// Clients in the accept queue, the oldest first; at most `overwatch_common::scan::MOST_WAITING`.
    pub waiting: Vec<WaitingReading>,
}

/// The SYN queue of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynQueueReading {
    /// Half-open connections.
    pub length: u32,
    /// Half-open connections whose SYN-ACK was sent only once.
    pub young: u32,
    /// TCP_DEFER_ACCEPT is set.
    pub defers_accept: bool,
}

/// A network namespace with listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceReading {
    /// Inode number.
    pub netns: u32,
    /// Its numbers and settings, as they were when they were read last: at first sight, in each sample in which one of its listening
    /// sockets has dropped more, has a full SYN queue, or has gone, and every ten seconds while somebody waits in it.
    pub limits: Limits,
}

/// Remembers of one scan what the next one needs.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// What each socket had dropped or refused at the last scan.
    turned_away: HashMap<Name, TurnedAway>,
    known: BTreeMap<u32, Known>,
}

/// What was read of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    limits: Limits,
    /// When, nanoseconds of CLOCK_MONOTONIC.
    read_ns: u64,
}

/// Where somebody waits, settings are no older than this: whoever has followed the advice must see that it is done.
const REREAD: Duration = Duration::from_secs(10);

impl Namespaces {
    /// The namespaces of these sockets. Reads those whose counters or settings may have changed since the last scan.
    pub(super) fn read(&mut self, root: &Path, listeners: &[ListenerReading]) -> Vec<NamespaceReading> {
        let due = due(listeners, &self.turned_away, &self.known);
        self.turned_away = listeners.iter().map(|listener| (name(listener), turned_away(listener))).collect();
        let present: BTreeSet<u32> = listeners.iter().map(|listener| listener.listener.netns).collect();
        self.known.retain(|netns, _| present.contains(netns));
        if !due.is_empty() {
            let read_ns = listeners.iter().map(|listener| listener.time_ns).max().unwrap_or(0);
            let read = netstat::read_all(root, &due).into_iter();
            self.known.extend(read.map(|(netns, limits)| (netns, Known { limits, read_ns })));
        }
        let known = self.known.iter();
        known.map(|(netns, known)| NamespaceReading { netns: *netns, limits: known.limits }).collect()
    }
}

/// Names a listening socket for ever: its address and its beginning. And its namespace.
type Name = (u64, u64, u32);

fn name(listener: &ListenerReading) -> Name {
    (listener.sock, listener.listener.since_ns, listener.listener.netns)
}

/// Drops, and what hooks have counted.
type TurnedAway = (u32, u64);

fn turned_away(listener: &ListenerReading) -> TurnedAway {
    let of = &listener.listener;
    let full = of.syn_cookies + of.syn_queue_overflows + of.syn_queue_at_limit;
    (listener.drops, full + of.overflows_syn + of.overflows_ack)
}

/// The namespaces that are to be read: those not known yet, those whose numbers may have changed, and after a while those whose settings
/// matter. Numbers may also have changed where a socket has gone: what it was the last to refuse must not be taken for another's later.
fn due(
    listeners: &[ListenerReading],
    before: &HashMap<Name, TurnedAway>,
    known: &BTreeMap<u32, Known>,
) -> BTreeSet<u32> {
    let may_have_changed = |listener: &&ListenerReading| {
        let before = before.get(&name(listener)).copied().unwrap_or_default();
        let sends_cookies =
            listener.syn_queue.is_some_and(|queue| queue.length > 0 && queue.length >= listener.backlog_limit);
        let waits = listener.accept_queue > 0 || listener.syn_queue.is_none_or(|queue| queue.length > 0);
        let is_old = known.get(&listener.listener.netns).is_none_or(|known| {
            let age = Duration::from_nanos(listener.time_ns.saturating_sub(known.read_ns));
            waits && age >= REREAD
        });
        turned_away(listener) != before || sends_cookies || is_old
    };
    let present: HashSet<Name> = listeners.iter().map(name).collect();
    let listened: HashSet<u32> = listeners.iter().map(|listener| listener.listener.netns).collect();
    let gone = before.keys().filter(|name| !present.contains(name)).map(|(_, _, netns)| *netns);
    let changed = listeners.iter().filter(may_have_changed).map(|listener| listener.listener.netns);
    changed.chain(gone.filter(|netns| listened.contains(netns))).collect()
}
