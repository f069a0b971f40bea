//! Samples to what is known of each listening socket.
//!
//! The numbers of a queue come from the kernel's look at the socket itself; who is served, from the set of connections that were accepted
//! and that a process still holds. Each count is the number of members of that set, so that none can drift: what a lost change has left
//! behind is corrected by the next table, as in `open`.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use overwatch_common::{
    connection::{Connection, flag, role},
    counter::Counter,
    event::Change,
};

use self::{
    refused::{Drops, split},
    socket::{Seen, Socket},
    syn_queue::SynQueueLimit,
};
use super::{
    clock::Clock,
    queue::{Holder, Queue},
    snapshot::{Key, address},
    state::{CLOSE, FIN_WAIT1, LAST_ACK, LISTEN, before_accept},
};
use crate::collect::{HolderReading, ListenerReading, NamespaceReading, RefusalsSeen, Sample};

mod refused;
mod socket;
mod syn_queue;
#[cfg(test)]
mod tests;

/// What nobody told us of: rows are missing, or accepts on them.
const LOST: [Counter; 3] = [Counter::ChangeLost, Counter::AcceptLost, Counter::ListenersFull];

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// The listening socket, if it is known which.
    listener: Option<Origin>,
    place: Place,
    /// A process holds it.
    is_served: bool,
}

/// A listening socket that connections were accepted from. The number tells it from a later one at the same kernel address, which must not
/// get the connections that the earlier one has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    sock: u64,
    number: u64,
}

/// An address that is listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    netns: u32,
    local_addr: IpAddr,
    local_port: u16,
}

/// What a namespace has refused.
#[derive(Clone, Copy, Debug, Default)]
struct Namespace {
    /// As of the last reading; `None` before the first.
    overflows: Option<u64>,
    /// SYNs that found a full SYN queue, likewise.
    syn_queue_full: Option<u64>,
    /// Of the overflows of the last interval: those that are on no socket yet. Drops and overflows are not read at one instant. What is on none
    /// an interval later was of sockets that have gone.
    left: u64,
}

/// The model of the listening sockets. An interval is any number of samples that are taken in, and one that ends it.
#[derive(Debug, Default)]
pub struct Queues {
    sockets: HashMap<u64, Socket>,
    /// The same by address.
    places: HashMap<Place, Vec<u64>>,
    members: HashMap<Key, Member>,
    /// What ended in the last sample.
    ended: HashSet<Key>,
    /// Changes that came after the instant of the last sample.
    later: Vec<Change>,
    namespaces: HashMap<u32, Namespace>,
    syn_queue_limit: SynQueueLimit,
    numbers: u64,
    /// When the last table was read.
    table_ns: u64,
    /// When the last interval ended.
    before_ns: u64,
    /// Accepts without room in the connection table, at the end of the last interval.
    accepts_lost: u64,
    lost: u64,
}

/// What an interval tells of the listening sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of each socket.
    pub queues: Vec<Queue>,
    /// Changes that were lost, and accepts and listening sockets for which there was no room.
    pub lost_events: u64,
}

impl Queues {
    /// Takes in a sample that ends an interval.
    pub fn update(&mut self, sample: &Sample) -> Told {
        self.take_in(sample);
        let lost = LOST.iter().map(|counter| sample.counters.get(*counter)).sum();
        let lost_events = lost - std::mem::replace(&mut self.lost, lost).min(lost);
        let told = Told { queues: self.rows(sample), lost_events };
        self.before_ns = sample.monotonic_ns;
        told
    }

    /// Takes in who was accepted and let go, so that nobody has to keep it until the interval ends. What it tells is the same however often
    /// this was done: what is read of the sockets themselves counts at the end.
    pub fn take_in(&mut self, sample: &Sample) {
        // Each time, since what a socket that is new has accepted is only here.
        self.begin(sample.queues.as_deref().unwrap_or_default());
        let ended: HashSet<Key> =
            sample.closed.iter().map(|closed| (closed.sock, closed.connection.created_ns)).collect();
        let changes = std::mem::take(&mut self.later);
        for change in changes.iter().chain(sample.changes.iter().filter(|change| is_of_serving(change))) {
            let key = (change.sock, change.created_ns);
            if self.ended.contains(&key) {
                // Its end was in the sample before, and has told of everything.
            } else if change.time_ns > sample.monotonic_ns && !ended.contains(&key) {
                // The changes are taken a little later than the sample's instant, on a busy machine not so little.
                self.later.push(*change);
            } else {
                self.change(change);
            }
        }
        for closed in &sample.closed {
            self.end((closed.sock, closed.connection.created_ns), &closed.connection);
        }
        if let Some(table) = &sample.table {
            self.take_table(table, &ended, sample.monotonic_ns);
        }
        self.ended = ended;
    }

    /// Makes room for sockets that are new, and forgets those that have gone.
    fn begin(&mut self, readings: &[ListenerReading]) {
        let present: HashMap<u64, u64> =
            readings.iter().map(|reading| (reading.sock, reading.listener.since_ns)).collect();
        self.sockets.retain(|sock, socket| present.get(sock) == Some(&socket.since_ns));
        for reading in readings {
            let numbers = &mut self.numbers;
            self.sockets.entry(reading.sock).or_insert_with(|| {
                *numbers += 1;
                Socket::new(*numbers, reading)
            });
        }
        self.places.clear();
        for socket in self.sockets.values() {
            self.places.entry(socket.place()).or_default().push(socket.sock);
        }
    }

    fn change(&mut self, change: &Change) {
        let key = (change.sock, change.created_ns);
        if change.old == change.new {
            if change.tgid != 0 && change.time_ns >= self.table_ns && !self.members.contains_key(&key) {
                self.accept(key, &Accepted::by_change(change));
            }
        } else if change.let_go != 0 {
            // Not in CLOSE as such: where the peer has sent a RST, the process is still busy until it finds out.
            self.release(key);
        }
    }

    /// A process has accepted it.
    fn accept(&mut self, key: Key, accepted: &Accepted) {
        let listener = self.listener_of(accepted);
        if let Some(socket) = listener.and_then(|origin| still_listening(&mut self.sockets, origin)) {
            socket.accepted(&Seen {
                sock: key.0,
                accepted_ns: accepted.time_ns,
                established_ns: accepted.established_ns,
                queued_behind: accepted.queued_behind,
                is_in_interval: accepted.established_ns >= self.before_ns,
            });
        }
        self.members.insert(key, Member { listener, place: accepted.place, is_served: true });
    }

    /// No process holds it any more.
    fn release(&mut self, key: Key) {
        if let Some(member) = self.members.get_mut(&key)
            && std::mem::replace(&mut member.is_served, false)
            && let Some(socket) = member.listener.and_then(|origin| still_listening(&mut self.sockets, origin))
        {
            socket.served += 1;
        }
    }

    /// It has ended. Where its accept was lost, the last record tells of it.
    fn end(&mut self, key: Key, connection: &Connection) {
        if !self.members.contains_key(&key) && connection.role == role::SERVER && self.has_news_of_accept(connection) {
            self.accept(key, &Accepted::by_entry(connection));
        }
        self.release(key);
        self.members.remove(&key);
    }

    /// It is no member, but was accepted since the last table.
    fn has_news_of_accept(&self, connection: &Connection) -> bool {
        connection.accepted_ns > self.table_ns || connection.flags & flag::ACCEPT_MISSED != 0
    }

    /// The table replaces the set: it is newer than all changes in its sample.
    fn take_table(&mut self, table: &[(u64, Connection)], ended: &HashSet<Key>, now_ns: u64) {
        let mut known = std::mem::take(&mut self.members);
        for (sock, connection) in table {
            let key = (*sock, connection.created_ns);
            let is_over = ended.contains(&key) || self.ended.contains(&key);
            if connection.role != role::SERVER || !connection.is_accepted() || is_over {
                continue;
            }
            let accepted = Accepted::by_entry(connection);
            if let Some(member) = known.remove(&key) {
                self.members.insert(key, member);
            } else if self.has_news_of_accept(connection) {
                self.accept(key, &accepted);
            } else {
                let member = Member {
                    listener: self.listener_of(&accepted),
                    place: accepted.place,
                    is_served: is_held(connection),
                };
                self.members.insert(key, member);
            }
        }
        self.table_ns = now_ns;
    }

    /// The listening socket that it came from: as the hook at accept has it, else the only one at that address.
    fn listener_of(&self, accepted: &Accepted) -> Option<Origin> {
        // Not of one that has begun since, at the address of one that has gone.
        let origin = |sock: &u64| {
            let socket = self.sockets.get(sock)?;
            let is_older = accepted.time_ns == 0 || socket.since_ns <= accepted.time_ns;
            is_older.then_some(Origin { sock: *sock, number: socket.number })
        };
        if let Some(origin) = origin(&accepted.listener) {
            return Some(origin);
        }
        let Place { netns, local_addr, local_port } = accepted.place;
        // As in the kernel, the exact address goes before the wildcard, and that of IPv4 before that of IPv6.
        let any_v4 = local_addr.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let bound = [Some(local_addr), any_v4, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        let at = |local_addr| self.places.get(&Place { netns, local_addr, local_port });
        match bound.into_iter().flatten().find_map(at)?.as_slice() {
            [only] => origin(only),
            _ => None,
        }
    }

    fn rows(&mut self, sample: &Sample) -> Vec<Queue> {
        let readings = sample.queues.as_deref().unwrap_or_default();
        let mut serving: HashMap<u64, u64> = HashMap::new();
        let mut unplaced: HashSet<(u32, u16)> = HashSet::new();
        for member in self.members.values().filter(|member| member.is_served) {
            match member.listener {
                Some(origin) => *serving.entry(origin.number).or_default() += 1,
                None => drop(unplaced.insert((member.place.netns, member.place.local_port))),
            }
        }
        let namespaces: HashMap<u32, &NamespaceReading> =
            sample.namespaces.iter().map(|namespace| (namespace.netns, namespace)).collect();
        self.tell_drops_apart(sample.refusals, readings, &namespaces);
        let clock = Clock::of(sample);
        let lost = sample.counters.get(Counter::AcceptLost);
        let accepts_lost = lost > std::mem::replace(&mut self.accepts_lost, lost);
        let mut queues = Vec::with_capacity(readings.len());
        for reading in readings {
            let Some(socket) = self.sockets.get_mut(&reading.sock) else { continue };
            let siblings = self.places.get(&socket.place()).map_or(0, |all| all.len().saturating_sub(1)) as u32;
            let is_unknown = siblings > 0 && unplaced.contains(&(socket.netns, socket.local_port));
            let namespace = namespaces.get(&socket.netns).copied();
            socket.namespace(namespace);
            let syncookies = namespace.and_then(|namespace| namespace.limits.syncookies);
            socket.syn_queue_was_full(self.syn_queue_limit.full(&reading.listener, syncookies));
            let mut queue = socket.row(reading, sample.refusals, &clock, (self.before_ns, sample.monotonic_ns));
            queue.siblings = siblings;
            let is_followed = sample.old_sockets_known || reading.listener.since_ns != 0;
            queue.accepts_seen = sample.accepts_seen && is_followed;
            queue.accepts_lost = accepts_lost;
            queue.serving =
                (queue.accepts_seen && !is_unknown).then(|| serving.get(&socket.number).copied().unwrap_or(0));

            let holders = reading.inode.and_then(|inode| sample.holders.get(&inode));
            queue.holders = holders.into_iter().flatten().map(holder).collect();
            queues.push(queue);
        }
        queues
    }

    fn tell_drops_apart(
        &mut self,
        seen: RefusalsSeen,
        readings: &[ListenerReading],
        namespaces: &HashMap<u32, &NamespaceReading>,
    ) {
        let mut by_namespace: HashMap<u32, Vec<(u64, Drops)>> = HashMap::new();
        let mut syn_queues: HashMap<u32, (u64, u64)> = HashMap::new();
        for reading in readings {
            if let Some(socket) = self.sockets.get_mut(&reading.sock) {
                by_namespace
                    .entry(reading.listener.netns)
                    .or_default()
                    .push((reading.sock, socket.drops_since(reading, seen)));
                let (beyond, at_limit) = socket.syn_queue_since(&reading.listener);
                let sum = syn_queues.entry(reading.listener.netns).or_default();
                *sum = (sum.0 + beyond, sum.1 + at_limit);
            }
        }
        self.namespaces.retain(|netns, _| by_namespace.contains_key(netns));
        for (netns, sockets) in by_namespace {
            let namespace = self.namespaces.entry(netns).or_default();
            let now = namespaces.get(&netns).and_then(|reading| reading.limits.overflows);
            let new = now.and_then(|now| grown(&mut namespace.overflows, now.listen_overflows));
            let overflows = new.map(|new| new + namespace.left);
            let full = now.and_then(|now| {
                grown(&mut namespace.syn_queue_full, now.syn_queue_full_cookies + now.syn_queue_full_drops)
            });
            // With a full accept queue as well, the kernel counts a SYN in both places, and the hooks in one.
            let is_comparable = sockets.iter().all(|(_, drops)| drops.syn == Some(0));
            if let Some((full, (beyond, at_limit))) = full.zip(syn_queues.get(&netns)).filter(|_| is_comparable) {
                self.syn_queue_limit.note(full, *beyond, *at_limit);
            }
            let drops: Vec<Drops> = sockets.iter().map(|(_, drops)| *drops).collect();
            let (refused, left) = split(&drops, overflows);
            namespace.left = left.min(new.unwrap_or(0));
            for ((sock, _), refused) in sockets.iter().zip(refused) {
                if let Some(socket) = self.sockets.get_mut(sock) {
                    socket.refused(&refused);
                }
            }
        }
    }
}

/// How far a number went on since it was read before; `None` when it was not, since then it counts from before overwatch.
fn grown(before: &mut Option<u64>, now: u64) -> Option<u64> {
    before.replace(now).map(|before| now.saturating_sub(before))
}

/// True when a process has begun to serve a client, or may have stopped: the only changes that are told where nobody asks for all of them.
/// In others, too, both directions may be shut down, but then the process has done so before and is still there.
fn is_of_serving(change: &Change) -> bool {
    let may_end = matches!(u32::from(change.new), FIN_WAIT1 | LAST_ACK | CLOSE) && u32::from(change.old) != LISTEN;
    change.role == role::SERVER && (change.old == change.new || may_end)
}

/// `None` when it has gone, also where another one is at its address.
fn still_listening(sockets: &mut HashMap<u64, Socket>, origin: Origin) -> Option<&mut Socket> {
    sockets.get_mut(&origin.sock).filter(|socket| socket.number == origin.number)
}

fn holder(reading: &HolderReading) -> Holder {
    let HolderReading { process, activity } = reading;
    let activity = activity.as_ref();
    Holder {
        pid: process.pid,
        comm: process.comm.clone(),
        cgroup_id: process.cgroup_id,
        threads: activity.map(|activity| activity.threads),
        on_cpu: activity.and_then(|activity| activity.on_cpu),
        open_files: activity.and_then(|activity| activity.open_files),
        open_files_limit: activity.and_then(|activity| activity.open_files_limit),
        throttling: activity.and_then(|activity| activity.throttling),
    }
}

/// As far as its state tells, its process has not closed it. In CLOSE there are only sockets that some process still holds, since the last
/// close(2) ends them; whether it had shut down its sending before is told by the state that came before.
fn is_held(connection: &Connection) -> bool {
    match connection.state {
        CLOSE if connection.closed_from != 0 => before_accept(connection.closed_from.into()),
        state => before_accept(state),
    }
}

/// What is known of a connection when it is accepted.
struct Accepted {
    place: Place,
    /// Kernel address of the listening socket; 0 when no hook has told.
    listener: u64,
    established_ns: u64,
    time_ns: u64,
    queued_behind: u32,
}

impl Accepted {
    fn by_change(change: &Change) -> Self {
        let place =
            Place { netns: change.netns, local_addr: address(change.local_addr), local_port: change.local_port };
        Self {
            place,
            listener: change.listener,
            established_ns: change.established_ns,
            time_ns: change.time_ns,
            queued_behind: change.queued_behind,
        }
    }

    fn by_entry(connection: &Connection) -> Self {
        let local_addr = address(connection.local_addr);
        Self {
            place: Place { netns: connection.netns, local_addr, local_port: connection.local_port },
            listener: connection.listener,
            established_ns: connection.established_ns,
            // 0 where no hook saw it.
            time_ns: connection.accepted_ns,
            // Its place in the queue was not written down.
            queued_behind: 0,
        }
    }
}
