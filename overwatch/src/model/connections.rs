//! Every connection that is open, and those that have ended in the interval: who has it, what it has moved, and since when.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use overwatch_common::{
    connection::{Connection, flag},
    event::Change,
};

use super::{
    bytes::Bytes,
    clock::Clock,
    filter::Subject,
    open::{Member, Open, is_connection},
    snapshot::{Key, Process, Role, Row, Snapshot, address},
    state::{CLOSE, ESTABLISHED},
};
use crate::collect::Sample;

#[cfg(test)]
mod tests;

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// What names it in this run.
    pub key: Key,
    /// Who has it; where nobody has accepted it, who listens. `None` when it is not known.
    pub process: Option<Process>,
    /// Network namespace of the socket, inode number.
    pub netns: u32,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address; `None` when it is not known.
    pub remote_addr: Option<IpAddr>,
    /// Remote port, likewise.
    pub remote_port: Option<u16>,
    /// Who opened it; `None` when it is not known.
    pub role: Option<Role>,
    /// TCP state, the kernel's number. One that has ended is in CLOSE.
    pub state: u32,
    /// Nobody has accepted it.
    pub waits: bool,
    /// When it began; `None` when that was before overwatch.
    pub opened: Option<SystemTime>,
    /// When the handshake was complete, likewise.
    pub established: Option<SystemTime>,
    /// When it was accepted, likewise, and for the end that connected.
    pub accepted: Option<SystemTime>,
    /// Bytes in this interval.
    pub moved: Bytes,
    /// Bytes since it began, or overwatch did.
    pub moved_total: Bytes,
}

impl Live {
    /// It ended in this interval.
    pub fn has_ended(&self) -> bool {
        self.state == CLOSE
    }

    /// Of its process; `None` when that is not known.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

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

/// What a process has moved over all its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mover {
    /// The process.
    pub process: Process,
    /// Bytes in this interval.
    pub moved: Bytes,
    /// Bytes since overwatch began, as long as it has a socket.
    pub moved_total: Bytes,
}

/// What changes and the table tell of a connection beside what it is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Details {
    local_addr: IpAddr,
    is_partial: bool,
    established_ns: u64,
    accepted_ns: u64,
    total: Bytes,
}

impl Details {
    fn of_entry(connection: &Connection) -> Self {
        Self {
            local_addr: address(connection.local_addr),
            is_partial: connection.flags & flag::PARTIAL != 0,
            established_ns: connection.established_ns,
            accepted_ns: connection.accepted_ns,
            total: Bytes::default(),
        }
    }

    fn of_change(change: &Change) -> Self {
        Self {
            local_addr: address(change.local_addr),
            is_partial: false,
            established_ns: 0,
            accepted_ns: 0,
            total: Bytes::default(),
        }
    }

    fn take(&mut self, change: &Change) {
        let local_addr = address(change.local_addr);
        // A child that is born has its listener's address, which can be the wildcard.
        if self.local_addr.is_unspecified() {
            self.local_addr = local_addr;
        }
        if change.old != change.new && u32::from(change.new) == ESTABLISHED {
            self.established_ns = change.time_ns;
        } else if change.old == change.new && change.established_ns != 0 && self.accepted_ns == 0 {
            self.accepted_ns = change.time_ns;
        }
    }
}

/// A connection that has no entry among those that are open: it ended in this interval, or is not known to be open but moves bytes.
#[derive(Clone, Debug)]
struct Unlisted {
    live: Live,
    /// Only bytes told of it: its total is that of these processes, which moved some in this interval.
    counted: Option<HashSet<Option<u32>>>,
}

/// So many of these are kept in an interval, however long it is, and so many processes.
const MOST_UNLISTED: usize = 20_000;

/// The model of all connections. Feed it every sample, with what it tells of bytes and of what is open.
#[derive(Debug, Default)]
pub struct Connections {
    details: HashMap<Key, Details>,
    /// In this interval, of those that are open.
    moved: HashMap<Key, Bytes>,
    unlisted: HashMap<Key, Unlisted>,
    movers: HashMap<u32, Mover>,
    /// In this interval, by everybody.
    moved_by_all: Bytes,
    left_out: u64,
}

impl Connections {
    /// Takes in a sample.
    pub fn update(&mut self, sample: &Sample, snapshot: &Snapshot, open: &Open) {
        let clock = Clock::of(sample);
        for (sock, connection) in sample.table.iter().flatten() {
            let key = (*sock, connection.created_ns);
            if open.member(&key).is_some() {
                let fresh = Details::of_entry(connection);
                let details = self.details.entry(key).or_insert(fresh);
                *details = Details { total: details.total, ..fresh };
            }
        }
        for change in sample.changes.iter().filter(|change| is_connection(change)) {
            self.details.entry(key_of(change)).or_insert_with(|| Details::of_change(change)).take(change);
        }
        for (key, member) in open.removed() {
            let live = Live { state: CLOSE, waits: false, ..self.live(key, member, open, &clock) };
            self.moved.remove(key);
            self.keep(live, None);
        }
        for change in sample.changes.iter().filter(|change| is_connection(change)) {
            let key = key_of(change);
            let is_over = open.member(&key).is_none();
            if is_over && u32::from(change.new) == CLOSE && !self.unlisted.contains_key(&key) {
                self.keep(self.short(change, &clock), None);
            }
        }
        let closed: HashSet<Key> = sample.closed.iter().map(|of| (of.sock, of.connection.created_ns)).collect();
        for row in &snapshot.rows {
            let state = if closed.contains(&row.key) { CLOSE } else { row.state };
            self.moved(row, state, open, &clock);
        }
        let keys = sample.changes.iter().map(key_of).chain(open.removed().iter().map(|(key, _)| *key));
        for key in keys.filter(|key| open.member(key).is_none()) {
            self.details.remove(&key);
        }
    }

    fn keep(&mut self, live: Live, counted: Option<HashSet<Option<u32>>>) {
        if self.unlisted.len() < MOST_UNLISTED {
            self.unlisted.insert(live.key, Unlisted { live, counted });
        } else {
            self.left_out += 1;
        }
    }

    fn moved(&mut self, row: &Row, state: u32, open: &Open, clock: &Clock) {
        self.moved_by_all = self.moved_by_all.plus(row.moved());
        if let Some(process) = &row.process {
            self.moved_by(process, row);
        }
        if open.member(&row.key).is_some() {
            let moved = self.moved.entry(row.key).or_default();
            *moved = moved.plus(row.moved());
            if let Some(details) = self.details.get_mut(&row.key) {
                details.total = details.total.plus(row.moved());
            }
        } else if let Some(Unlisted { live, counted }) = self.unlisted.get_mut(&row.key) {
            if counted.is_some() {
                live.state = state;
            }
            let is_new = counted.as_mut().is_some_and(|counted| counted.insert(row.pid()));
            live.moved = live.moved.plus(row.moved());
            live.moved_total = live.moved_total.plus(if is_new { row.moved_total() } else { row.moved() });
        } else {
            self.keep(self.of_row(row, state, clock), Some(HashSet::from([row.pid()])));
        }
    }

    fn moved_by(&mut self, process: &Process, row: &Row) {
        if self.movers.len() >= MOST_UNLISTED && !self.movers.contains_key(&process.pid) {
            self.left_out += 1;
            return;
        }
        let new = || Mover { process: process.clone(), moved: Bytes::default(), moved_total: Bytes::default() };
        let mover = self.movers.entry(process.pid).or_insert_with(new);
        // One that runs another program is the same; another one that has its number now differs in more.
        if mover.process.comm != process.comm && mover.process.cgroup_id != process.cgroup_id {
            *mover = new();
        }
        mover.process.clone_from(process);
        (mover.moved, mover.moved_total) = (mover.moved.plus(row.moved()), mover.moved_total.plus(row.moved()));
    }

    /// What everybody has moved in this interval.
    pub fn moved_by_all(&self) -> Bytes {
        self.moved_by_all
    }

    /// Connections that have ended, and processes, that have no row in this interval, since there are too many.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// All of them as of the last sample, which ended an interval, in no order.
    pub fn rows(&self, open: &Open, clock: &Clock) -> Vec<Live> {
        let of_open = open.members().map(|(key, member)| self.live(key, member, open, clock));
        let others = self.unlisted.values().map(|unlisted| &unlisted.live);
        of_open.chain(others.filter(|live| open.member(&live.key).is_none()).cloned()).collect()
    }

    /// One that nobody has told of but by its bytes.
    fn of_row(&self, row: &Row, state: u32, clock: &Clock) -> Live {
        let details = self.details.get(&row.key);
        let (established, accepted) = milestones(details, clock);
        Live {
            key: row.key,
            process: row.process.clone(),
            netns: row.netns,
            local_addr: row.local_addr,
            local_port: row.local_port,
            remote_addr: Some(row.remote_addr),
            remote_port: Some(row.remote_port),
            role: row.role,
            state,
            waits: false,
            opened: details.filter(|of| !of.is_partial).and_then(|_| clock.time(row.key.1)),
            established,
            accepted,
            moved: row.moved(),
            moved_total: row.moved_total(),
        }
    }

    /// One that began and ended in a sample.
    fn short(&self, change: &Change, clock: &Clock) -> Live {
        let key = key_of(change);
        let (established, accepted) = milestones(self.details.get(&key), clock);
        let known = |port: u16| (port != 0).then_some(port);
        Live {
            key,
            process: Process::from_kernel(change.tgid, &change.comm, change.cgroup_id),
            netns: change.netns,
            local_addr: address(change.local_addr),
            local_port: change.local_port,
            remote_addr: known(change.remote_port).map(|_| address(change.remote_addr)),
            remote_port: known(change.remote_port),
            role: Role::from_number(change.role),
            state: CLOSE,
            waits: false,
            opened: clock.time(key.1),
            established,
            accepted,
            moved: Bytes::default(),
            moved_total: Bytes::default(),
        }
    }

    fn live(&self, key: &Key, member: &Member, open: &Open, clock: &Clock) -> Live {
        let details = self.details.get(key);
        let (established, accepted) = milestones(details, clock);
        let known = |port: u16| (port != 0).then_some(port);
        Live {
            key: *key,
            process: open.process_of(key, member),
            netns: member.ends.netns,
            local_addr: details.map_or(IpAddr::from([0; 4]), |of| of.local_addr),
            local_port: member.ends.local_port,
            remote_addr: member.remote,
            remote_port: known(member.ends.remote_port),
            role: member.ends.role,
            state: member.state,
            waits: member.waiting,
            opened: if member.is_partial { None } else { clock.time(key.1) },
            established,
            accepted,
            moved: self.moved.get(key).copied().unwrap_or_default(),
            moved_total: details.map(|of| of.total).unwrap_or_default(),
        }
    }

    /// Processes that have moved something and are not forgotten.
    pub fn movers(&self) -> impl Iterator<Item = &Mover> {
        self.movers.values()
    }

    /// Begins the next interval. Processes that are not among these, and have moved nothing in the one that ends, are forgotten.
    pub fn begin_interval(&mut self, has_socket: impl Fn(u32) -> bool) {
        self.moved.clear();
        self.unlisted.clear();
        (self.moved_by_all, self.left_out) = (Bytes::default(), 0);
        self.movers.retain(|pid, mover| mover.moved.both() > 0 || has_socket(*pid));
        for mover in self.movers.values_mut() {
            mover.moved = Bytes::default();
        }
    }
}

/// When the handshake was complete, and when somebody accepted.
fn milestones(details: Option<&Details>, clock: &Clock) -> (Option<SystemTime>, Option<SystemTime>) {
    let since = |of: fn(&Details) -> u64| details.and_then(|details| clock.time(of(details)));
    (since(|of| of.established_ns), since(|of| of.accepted_ns))
}

fn key_of(change: &Change) -> Key {
    (change.sock, change.created_ns)
}

/// How long ago that was.
pub fn ago(then: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    then.map(|then| now.duration_since(then).unwrap_or_default())
}
