//! Who listens where, and who did: finds the listener that a connection came from.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use overwatch_common::{connection::Listener, event::Change};

use super::{
    snapshot::{Process, address},
    state::{CLOSE, LISTEN},
};
use crate::collect::Sample;

#[cfg(test)]
mod tests;

/// Connections outlive their listeners, so these are kept when they have ended, but not without end.
const MAX_ENDED: usize = 4096;

/// A socket that listens, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Network namespace of the socket, inode number.
    pub netns: u32,
    /// The address it is bound to.
    pub local_addr: IpAddr,
    /// The port.
    pub local_port: u16,
    /// The process that listens; `None` when it is not known.
    pub process: Option<Process>,
    sock: u64,
    since_ns: u64,
    ended_ns: Option<u64>,
}

impl Listening {
    fn from_change(change: &Change) -> Self {
        Self {
            netns: change.netns,
            local_addr: address(change.local_addr),
            local_port: change.local_port,
            process: Process::from_kernel(change.tgid, &change.comm, change.cgroup_id),
            sock: change.sock,
            since_ns: change.created_ns,
            ended_ns: None,
        }
    }

    fn from_table(sock: u64, listener: &Listener) -> Self {
        Self {
            netns: listener.netns,
            local_addr: address(listener.local_addr),
            local_port: listener.local_port,
            process: Process::from_kernel(listener.tgid, &listener.comm, listener.cgroup_id),
            sock,
            since_ns: listener.since_ns,
            ended_ns: None,
        }
    }

    fn key(&self) -> Key {
        Key {
            netns: self.netns,
            local_port: self.local_port,
            local_addr: self.local_addr,
            since_ns: self.since_ns,
            sock: self.sock,
        }
    }
}

/// The order of the fields puts those of one address side by side, in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    netns: u32,
    local_port: u16,
    local_addr: IpAddr,
    since_ns: u64,
    sock: u64,
}

/// All listening sockets, and the last ones that ended.
#[derive(Debug, Default)]
pub struct Listeners {
    known: BTreeMap<Key, Listening>,
    /// Those that listen, by socket.
    open: HashMap<u64, Key>,
    /// The others, in the order in which they ended.
    ended: VecDeque<Key>,
    /// When the last table was read. What began before and is not in it had ended by then.
    table_ns: u64,
}

impl Listeners {
    /// Takes in what a sample tells.
    pub fn update(&mut self, sample: &Sample) {
        for change in &sample.changes {
            if u32::from(change.old) == LISTEN && u32::from(change.new) == CLOSE {
                self.end(change.sock, change.time_ns);
            } else if u32::from(change.new) == LISTEN {
                let listening = Listening::from_change(change);
                if change.time_ns >= self.table_ns {
                    self.begin(listening);
                } else {
                    // Changes are taken in portions, and the table is newer than those that were left.
                    self.note_ended(listening, self.table_ns);
                }
            }
        }
        // Read after the changes were taken, so it is newer.
        if let Some(listeners) = &sample.listeners {
            let present: HashSet<u64> = listeners.iter().map(|(sock, _)| *sock).collect();
            let gone: Vec<u64> = self.open.keys().copied().filter(|sock| !present.contains(sock)).collect();
            for sock in gone {
                self.end(sock, sample.monotonic_ns);
            }
            for (sock, listener) in listeners {
                self.begin(Listening::from_table(*sock, listener));
            }
            self.table_ns = sample.monotonic_ns;
        }
    }

    /// A listener that took connections for this address at that time (nanoseconds of CLOCK_MONOTONIC, 0 when it is not
    /// known). Where several listen at one address, any of them.
    ///
    /// As in the kernel, the exact address goes before the wildcard, and that of IPv4 before that of IPv6. Where none
    /// listened at that time it is the one that had ended last: another CPU may still have held it when it ended. One
    /// that began later is never the answer.
    pub fn of(&self, netns: u32, local_addr: IpAddr, local_port: u16, at_ns: u64) -> Option<&Listening> {
        let at_ns = if at_ns == 0 { u64::MAX } else { at_ns };
        let any_v4 = local_addr.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let bound = [Some(local_addr), any_v4, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];
        let mut last: Option<&Listening> = None;
        for local_addr in bound.into_iter().flatten() {
            let first = Key { netns, local_port, local_addr, since_ns: 0, sock: 0 };
            let past = Key { since_ns: at_ns, sock: u64::MAX, ..first };
            for (_, listening) in self.known.range(first..=past).rev() {
                if listening.ended_ns.is_none_or(|ended_ns| ended_ns >= at_ns) {
                    return Some(listening);
                }
                if last.is_none_or(|last| last.ended_ns < listening.ended_ns) {
                    last = Some(listening);
                }
            }
        }
        last
    }

    /// Those that listen now, each socket by itself.
    pub fn open(&self) -> impl Iterator<Item = &Listening> {
        self.open.values().filter_map(|key| self.known.get(key))
    }

    fn begin(&mut self, mut listening: Listening) {
        let sock = listening.sock;
        if let Some(key) = self.open.get(&sock).copied() {
            if key.since_ns > listening.since_ns {
                // A change that is older than the table from which this one is known.
                return self.note_ended(listening, key.since_ns);
            }
            if key.since_ns < listening.since_ns {
                // Its end was lost.
                self.end(sock, listening.since_ns);
            } else if let Some(before) = self.known.remove(&key) {
                listening.process = listening.process.or(before.process);
            }
        }
        let key = listening.key();
        if self.known.insert(key, listening).is_some() {
            // A table did not show it, and this one does.
            self.ended.retain(|ended| *ended != key);
        }
        self.open.insert(sock, key);
    }

    fn end(&mut self, sock: u64, ended_ns: u64) {
        // What ended before this one began is an earlier one at the same kernel address.
        let Some(key) = self.open.get(&sock).copied().filter(|key| key.since_ns <= ended_ns) else { return };
        self.open.remove(&sock);
        if let Some(listening) = self.known.get_mut(&key) {
            listening.ended_ns = Some(ended_ns);
        }
        self.note_end(key);
    }

    /// Takes in one that has ended already: its connections may be told of later.
    fn note_ended(&mut self, listening: Listening, ended_ns: u64) {
        let key = listening.key();
        if let Entry::Vacant(place) = self.known.entry(key) {
            place.insert(Listening { ended_ns: Some(ended_ns), ..listening });
            self.note_end(key);
        }
    }

    fn note_end(&mut self, key: Key) {
        self.ended.push_back(key);
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
