//! Readings of the listening sockets: from what a look tells to what was there, and what their network namespaces say beside it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::Path,
    time::Duration,
};

use overwatch_common::{
    connection::Listener,
    look::{LISTENER, ListenerRecord, WAITING, WaitingRecord},
};

use super::record::read;
use crate::{
    kernel::netstat::{self, Limits},
    probes::look::Look,
};

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
    /// Handshakes that are not complete.
    pub syn_queue: u32,
    /// Of these: such as have had no SYN-ACK sent again.
    pub syn_queue_young: u32,
    /// TCP_DEFER_ACCEPT is set.
    pub defers_accept: bool,
    /// Clients in the accept queue, the one that came first in front; at most `overwatch_common::look::MOST_WAITING`.
    pub waiting: Vec<WaitingReading>,
}

/// A network namespace that somebody listens in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceReading {
    /// Inode number.
    pub netns: u32,
    /// Its numbers and settings, as they were when they were read last: at first sight, in each sample in which one of its listening
    /// sockets has dropped more, has a full SYN queue, or has gone, and every ten seconds while somebody waits in it.
    pub limits: Limits,
}

/// Looks, and remembers what the next look needs of this one.
#[derive(Debug)]
pub(super) struct Queues {
    look: Look,
    ticks: Ticks,
    /// What each socket had turned away at the last look.
    turned_away: HashMap<Name, TurnedAway>,
    namespaces: BTreeMap<u32, Known>,
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

impl Queues {
    pub(super) fn new(look: Look) -> Self {
        Self { look, ticks: Ticks::default(), turned_away: HashMap::new(), namespaces: BTreeMap::new() }
    }

    /// What is there now.
    pub(super) fn read(&mut self, root: &Path) -> io::Result<(Vec<ListenerReading>, Vec<NamespaceReading>)> {
        let records = parse(self.look.take()?);
        if let Some((first, _)) = records.first() {
            self.ticks.note(first.jiffies, first.time_ns);
        }
        let ticks_per_second = self.ticks.per_second();
        let listeners: Vec<_> =
            records.iter().map(|(record, waiting)| reading(record, waiting, ticks_per_second)).collect();
        let due = due(&listeners, &self.turned_away, &self.namespaces);
        self.turned_away = listeners.iter().map(|listener| (name(listener), turned_away(listener))).collect();
        let present: BTreeSet<u32> = listeners.iter().map(|listener| listener.listener.netns).collect();
        self.namespaces.retain(|netns, _| present.contains(netns));
        if !due.is_empty() {
            let read_ns = listeners.iter().map(|listener| listener.time_ns).max().unwrap_or(0);
            let read = netstat::read_all(root, &due).into_iter();
            self.namespaces.extend(read.map(|(netns, limits)| (netns, Known { limits, read_ns })));
        }
        let namespaces =
            self.namespaces.iter().map(|(netns, known)| NamespaceReading { netns: *netns, limits: known.limits });
        Ok((listeners, namespaces.collect()))
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
        let sends_cookies = listener.syn_queue > 0 && listener.syn_queue >= listener.backlog_limit;
        let waits = listener.accept_queue > 0 || listener.syn_queue > 0;
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

/// Each listening socket once, with the clients that follow it. What is no record ends the row.
fn parse(mut bytes: &[u8]) -> Vec<(ListenerRecord, Vec<WaitingRecord>)> {
    let mut found: Vec<(ListenerRecord, Vec<WaitingRecord>)> = Vec::new();
    let mut places = HashMap::new();
    // The map may change between two pieces of a look, so that an entry comes again: the later one counts.
    let mut place = None;
    while let Some(kind) = read::<u32>(bytes) {
        let size = match kind {
            LISTENER => {
                let Some(record) = read::<ListenerRecord>(bytes) else { break };
                let at = *places.entry(record.sock).or_insert(found.len());
                match found.get_mut(at) {
                    Some(again) => *again = (record, Vec::new()),
                    None => found.push((record, Vec::new())),
                }
                place = Some(at);
                size_of::<ListenerRecord>()
            }
            WAITING => {
                let Some(record) = read::<WaitingRecord>(bytes) else { break };
                if let Some((listener, waiting)) = place.and_then(|place| found.get_mut(place))
                    && listener.sock == record.listener
                {
                    waiting.push(record);
                }
                size_of::<WaitingRecord>()
            }
            _ => break,
        };
        bytes = &bytes[size..];
    }
    found
}

fn reading(record: &ListenerRecord, waiting: &[WaitingRecord], ticks_per_second: Option<u64>) -> ListenerReading {
    ListenerReading {
        sock: record.sock,
        listener: record.listener,
        time_ns: record.time_ns,
        inode: (record.inode != 0).then_some(record.inode),
        accept_queue: record.accept_queue,
        backlog_limit: record.backlog_limit,
        drops: record.drops,
        syn_queue: record.syn_queue,
        syn_queue_young: record.syn_queue_young,
        defers_accept: record.defer_accept != 0,
        // More may have come while it was looked at.
        waiting: waiting
            .iter()
            .take(record.accept_queue as usize)
            .map(|client| {
                let (established_ns, waited) = waited(client, record, ticks_per_second);
                WaitingReading {
                    sock: client.sock,
                    established_ns,
                    remote_addr: remote_addr(client),
                    remote_port: client.remote_port,
                    state: client.state,
                    unread_bytes: client.unread_bytes,
                    queued_behind: client.queued_behind,
                    waited,
                }
            })
            .collect(),
    }
}

fn remote_addr(client: &WaitingRecord) -> [u8; 16] {
    if i32::from(client.family) == libc::AF_INET6 {
        return client.remote_addr_v6;
    }
    let [a, b, c, d] = client.remote_addr_v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The two ways to know how long a client has waited are of one mind unless the entry is of an earlier connection, or the client was
/// queued before the handshake was over (TCP Fast Open).
const OF_ONE_MIND: Duration = Duration::from_millis(100);

/// Since when it has waited by our own record, 0 where that is not to be believed; and how long, by it, else by the kernel's.
fn waited(client: &WaitingRecord, at: &ListenerRecord, ticks_per_second: Option<u64>) -> (u64, Option<Duration>) {
    let ticks = (at.jiffies as u32).wrapping_sub(client.last_sent_jiffies);
    // It came after the listener was read.
    let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
    let by_kernel =
        ticks_per_second.map(|per_second| Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / per_second));
    let seen = client.established_ns != 0;
    let by_us = seen.then(|| Duration::from_nanos(at.time_ns.saturating_sub(client.established_ns)));
    match (by_us, by_kernel) {
        (Some(ours), Some(kernels)) if ours.abs_diff(kernels) > OF_ONE_MIND => (0, Some(kernels)),
        (Some(ours), _) => (client.established_ns, Some(ours)),
        (None, kernels) => (0, kernels),
    }
}

/// How long the kernel's tick is (CONFIG_HZ), which it tells nobody: two looks show how many fit between them.
#[derive(Debug, Default)]
struct Ticks {
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl Ticks {
    /// What kernels are built with (kernel/Kconfig.hz).
    const COMMON: [u64; 4] = [100, 250, 300, 1000];
    /// Time after which one tick more or less takes none of these for another.
    const SHORTEST_NS: u64 = 200_000_000;
    /// Time after which the measurement is good without knowing what is common.
    const LONG_NS: u64 = 1_000_000_000;

    fn note(&mut self, jiffies: u64, time_ns: u64) {
        self.last = (jiffies, time_ns);
        self.first.get_or_insert(self.last);
    }

    fn per_second(&self) -> Option<u64> {
        let (first_jiffies, first_ns) = self.first?;
        let elapsed_ns = self.last.1.saturating_sub(first_ns);
        if elapsed_ns < Self::SHORTEST_NS {
            return None;
        }
        let ticks = u128::from(self.last.0.saturating_sub(first_jiffies));
        let measured = (ticks * 1_000_000_000 + u128::from(elapsed_ns / 2)) / u128::from(elapsed_ns);
        let measured = u64::try_from(measured).ok().filter(|measured| *measured > 0)?;
        let near = |common: &u64| measured.abs_diff(*common) <= common / 12;
        Self::COMMON.into_iter().find(near).or((elapsed_ns >= Self::LONG_NS).then_some(measured))
    }
}
