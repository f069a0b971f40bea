//! What is open: per listener, per owner, per remote address and per state.
//!
//! Invariant: each count is the number of members that name its key, and no key stands there with 0. Every change of
//! membership adds or takes off what that member has been counted as, so no count can go below 0, and when nothing is
//! open nothing is counted. Debug builds count everything anew after each sample.
//!
//! What happened reaches the model in no fixed order: the end of a life may come in a sample before its birth (its last
//! record went past a full ring buffer), twice (the change to CLOSE, then the last record) or not at all (lost, but then a
//! table comes). Three rules make the order irrelevant:
//!
//! - An end is final. A life (socket and the time of its birth) that ended in this sample or the one before is not open,
//!   whatever changes or a table say. Two samples are enough: no record stays behind longer.
//! - A table is newer than all changes in its sample, because it is read after they were taken. What is in it, is open
//!   unless it has ended; what is not in it, is not, even if a change in that sample tells of its birth: its end follows, or
//!   was lost.
//! - So changes older than the last table can only end something.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use overwatch_common::{
    connection::{Connection, flag, role},
    event::Change,
};

use self::tally::{Owner, Place, Tally};
use super::{
    listeners::{Listeners, Listening},
    snapshot::{Key, Process, Role, address},
    state::{CLOSE, LISTEN, before_accept},
};
use crate::collect::Sample;

#[cfg(test)]
mod simulation;
mod tally;
#[cfg(test)]
mod tests;

/// What is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Connections that are not in CLOSE.
    pub open_connections: u64,
    /// By address that something listens at, the one with most connections first. Also those with none, and those that
    /// nothing listens at any more while connections from there are open.
    pub listeners: Vec<ListenerOpen>,
    /// By process, likewise.
    pub owners: Vec<OwnerOpen>,
    /// By remote address, likewise.
    pub remotes: Vec<RemoteOpen>,
}

/// What is open of the connections that came in at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerOpen {
    /// Network namespace, inode number.
    pub netns: u32,
    /// The address that is listened at.
    pub local_addr: IpAddr,
    /// The port.
    pub local_port: u16,
    /// The process that listens, of several the one with the lowest pid; `None` when it is not known, or there is none any
    /// more.
    pub process: Option<Process>,
    /// Connections.
    pub open: u64,
    /// Of these: not accepted yet.
    pub waiting: u64,
}

/// What is open of one process's connections. Those that nobody has accepted are of the process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerOpen {
    /// The process; `None` when it is not known.
    pub process: Option<Process>,
    /// Connections.
    pub open: u64,
}

/// What is open to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOpen {
    /// Remote address.
    pub remote_addr: IpAddr,
    /// Connections.
    pub open: u64,
}

/// What a connection is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    listener: Option<Place>,
    owner: Option<Owner>,
    /// Nobody has accepted it.
    pub(super) waiting: bool,
    pub(super) remote: Option<IpAddr>,
    pub(super) ends: Ends,
    /// TCP state, the kernel's number.
    pub(super) state: u32,
    /// It was open before overwatch, or its beginning was not seen.
    pub(super) is_partial: bool,
}

/// Which service a connection is of, as far as its two ends tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Network namespace, inode number.
    pub(super) netns: u32,
    /// Who opened it; `None` when it is not known.
    pub(super) role: Option<Role>,
    /// 0 when it is not known.
    pub(super) local_port: u16,
    /// Likewise.
    pub(super) remote_port: u16,
}

impl Ends {
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            netns: connection.netns,
            role: Role::from_number(connection.role),
            local_port: connection.local_port,
            remote_port: connection.remote_port,
        }
    }

    /// What was known before goes on to be known.
    fn or(self, before: Self) -> Self {
        let known = |now: u16, before| if now == 0 { before } else { now };
        Self {
            netns: self.netns,
            role: self.role.or(before.role),
            local_port: known(self.local_port, before.local_port),
            remote_port: known(self.remote_port, before.remote_port),
        }
    }
}

/// The model of what is open. Feed it samples, ask it at any time.
#[derive(Debug, Default)]
pub struct Open {
    listeners: Listeners,
    members: HashMap<Key, Member>,
    tally: Tally,
    /// What ended in the last sample.
    ended: HashSet<Key>,
    /// What the last sample has made a member, or another, or none any more.
    changed: Vec<Key>,
    /// What it has made none any more.
    removed: Vec<(Key, Member)>,
    /// When the last table was read.
    table_ns: u64,
}

impl Open {
    /// Takes in what a sample tells.
    pub fn update(&mut self, sample: &Sample) {
        self.listeners.update(sample);
        (self.changed, self.removed) = (Vec::new(), Vec::new());
        let (ended, before) = (ends_of(sample), std::mem::take(&mut self.ended));
        let is_over = |key: &Key| ended.contains(key) || before.contains(key);
        for key in &ended {
            if let Some(member) = self.members.remove(key) {
                self.tally.take_off(&member);
                self.changed.push(*key);
                self.removed.push((*key, member));
            }
        }
        if let Some(table) = &sample.table {
            let known = std::mem::take(&mut self.members);
            self.tally = Tally::default();
            self.table_ns = sample.monotonic_ns;
            for (sock, connection) in table {
                let key = (*sock, connection.created_ns);
                if is_open(connection) && !is_over(&key) {
                    self.put(key, &Sighting::from_table(connection), known.get(&key));
                }
            }
            self.removed.extend(known.into_iter().filter(|(key, _)| !self.members.contains_key(key)));
            self.changed.extend(self.removed.iter().map(|(key, _)| *key));
        } else {
            for change in sample.changes.iter().filter(|change| is_connection(change)) {
                let key = (change.sock, change.created_ns);
                if change.time_ns >= self.table_ns && !is_over(&key) {
                    let known = self.members.get(&key).copied();
                    self.put(key, &Sighting::from_change(change), known.as_ref());
                }
            }
        }
        self.ended = ended;
        debug_assert_eq!(self.tally, self.members.values().collect(), "the counts are not those of the members");
    }

    /// What is open as of the last sample.
    pub fn counts(&self) -> OpenCounts {
        let mut listeners: BTreeMap<Place, ListenerOpen> = BTreeMap::new();
        for listening in self.listeners.open() {
            let place = Place::of(listening);
            let entry = listeners.entry(place).or_insert_with(|| place.idle());
            let lower = |process: &Process| entry.process.as_ref().is_none_or(|lowest| process.pid < lowest.pid);
            if listening.process.as_ref().is_some_and(lower) {
                entry.process.clone_from(&listening.process);
            }
        }
        for (place, (open, waiting)) in self.tally.listeners() {
            let entry = listeners.entry(place).or_insert_with(|| place.idle());
            (entry.open, entry.waiting) = (open, waiting);
        }
        let accepted = self.tally.owners().map(|(owner, open)| (owner.and_then(|owner| owner.process()), open));
        let waiting = listeners.values().filter(|entry| entry.waiting > 0);
        let waiting = waiting.map(|entry| (entry.process.clone(), entry.waiting));
        let mut owners: BTreeMap<Option<(u32, String)>, OwnerOpen> = BTreeMap::new();
        for (process, open) in accepted.chain(waiting) {
            let key = process.as_ref().map(|process| (process.pid, process.comm.clone()));
            owners.entry(key).or_insert(OwnerOpen { process, open: 0 }).open += open;
        }
        // Stable: those with equally many stay in the order of pid and name.
        let mut owners: Vec<_> = owners.into_values().collect();
        owners.sort_by_key(|owner| Reverse(owner.open));
        let mut listeners: Vec<_> = listeners.into_values().collect();
        listeners
            .sort_by_key(|listener| (Reverse(listener.open), listener.local_addr, listener.local_port, listener.netns));
        let mut remotes: Vec<_> =
            self.tally.remotes().map(|(remote_addr, open)| RemoteOpen { remote_addr, open }).collect();
        remotes.sort_by_key(|remote| (Reverse(remote.open), remote.remote_addr));
        OpenCounts { open_connections: self.members.len() as u64, listeners, owners, remotes }
    }

    /// Open connections by TCP state, the kernel's number; states in which there is none are left out.
    pub fn states(&self) -> impl Iterator<Item = (u32, u64)> {
        self.tally.states()
    }

    /// Connections that are not in CLOSE.
    pub fn open_connections(&self) -> u64 {
        self.members.len() as u64
    }

    /// Who listens.
    pub(super) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// What the last sample has made a member, or another, or none any more. One may be there twice.
    pub(super) fn changed(&self) -> &[Key] {
        &self.changed
    }

    /// What the last sample has ended, as it was before.
    pub(super) fn removed(&self) -> &[(Key, Member)] {
        &self.removed
    }

    /// All that are open, in no order.
    pub(super) fn members(&self) -> impl Iterator<Item = (&Key, &Member)> {
        self.members.iter()
    }

    /// What it is counted as; `None` when it is not open.
    pub(super) fn member(&self, key: &Key) -> Option<&Member> {
        self.members.get(key)
    }

    /// Whose it is: where nobody has accepted it, of the process that listens. `None` when that is not known.
    pub(super) fn process_of(&self, (_, created_ns): &Key, member: &Member) -> Option<Process> {
        let listening = || {
            let Place { netns, local_addr, local_port } = member.listener.filter(|_| member.waiting)?;
            self.listeners.of(netns, local_addr, local_port, *created_ns)?.process.clone()
        };
        member.owner.and_then(|owner| owner.process()).or_else(listening)
    }

    /// Makes it a member, or a known one what it is now.
    fn put(&mut self, key: Key, sighting: &Sighting, known: Option<&Member>) {
        let member = Member {
            // The first answer is the best one: a listener that has ended is forgotten some day.
            listener: known.and_then(|known| known.listener).or_else(|| self.listener_of(key, sighting)),
            owner: sighting.owner.or_else(|| known.and_then(|known| known.owner)),
            // Accepted once, accepted for ever.
            waiting: sighting.waiting && known.is_none_or(|known| known.waiting),
            remote: sighting.remote.or_else(|| known.and_then(|known| known.remote)),
            ends: known.map_or(sighting.ends, |known| sighting.ends.or(known.ends)),
            // Who only tells of an owner may have looked at the state a moment before another CPU changed it.
            state: known.filter(|_| !sighting.is_transition).map_or(sighting.state, |known| known.state),
            is_partial: sighting.is_partial || known.is_some_and(|known| known.is_partial),
        };
        if known != Some(&member) {
            self.changed.push(key);
        }
        if let Some(before) = self.members.insert(key, member) {
            self.tally.take_off(&before);
        }
        self.tally.add(&member);
    }

    fn listener_of(&self, (_, created_ns): Key, sighting: &Sighting) -> Option<Place> {
        let Ends { netns, role: Some(Role::Server), local_port, .. } = sighting.ends else { return None };
        let of = self.listeners.of(netns, sighting.local_addr, local_port, created_ns);
        of.map(Place::of)
    }
}

/// What a change or an entry of the table tells of a connection that is open.
struct Sighting {
    ends: Ends,
    local_addr: IpAddr,
    remote: Option<IpAddr>,
    owner: Option<Owner>,
    waiting: bool,
    state: u32,
    /// The state is as it was read under the socket's lock.
    is_transition: bool,
    is_partial: bool,
}

impl Sighting {
    fn from_change(change: &Change) -> Self {
        let owner = Owner::known(change.tgid, change.comm, change.cgroup_id);
        Self {
            ends: Ends {
                netns: change.netns,
                role: Role::from_number(change.role),
                local_port: change.local_port,
                remote_port: change.remote_port,
            },
            local_addr: address(change.local_addr),
            remote: (change.remote_port != 0).then(|| address(change.remote_addr)),
            owner,
            waiting: change.role == role::SERVER && owner.is_none() && before_accept(u32::from(change.new)),
            state: change.new.into(),
            is_transition: change.old != change.new,
            is_partial: false,
        }
    }

    fn from_table(connection: &Connection) -> Self {
        let owner = Owner::known(connection.tgid, connection.comm, connection.cgroup_id);
        let accepted = connection.is_accepted();
        Self {
            ends: Ends::of(connection),
            local_addr: address(connection.local_addr),
            remote: (connection.remote_port != 0).then(|| address(connection.remote_addr)),
            owner,
            waiting: connection.role == role::SERVER && !accepted && before_accept(connection.state),
            state: connection.state,
            is_transition: true,
            is_partial: connection.flags & flag::PARTIAL != 0,
        }
    }
}

pub(super) fn is_connection(change: &Change) -> bool {
    let (old, new) = (u32::from(change.old), u32::from(change.new));
    // The birth of a child begins in LISTEN.
    new != LISTEN && (old != LISTEN || new != CLOSE)
}

fn ends_of(sample: &Sample) -> HashSet<Key> {
    let changes = sample.changes.iter().filter(|change| is_connection(change) && u32::from(change.new) == CLOSE);
    let changes = changes.map(|change| (change.sock, change.created_ns));
    let last_records = sample.closed.iter().map(|closed| (closed.sock, closed.connection.created_ns));
    changes.chain(last_records).collect()
}

fn is_open(connection: &Connection) -> bool {
    !matches!(connection.state, CLOSE | LISTEN) && connection.flags & flag::HANDED_OVER == 0
}
