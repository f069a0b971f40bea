//! A running session: attached programs and the drain of what they leave in the maps.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{Btf, Ebpf, maps::MapError};
use overwatch_common::{
    connection::{Connection, Share, ShareKey},
    counter::Counter,
    event::{Change, Closed},
};

use super::{
    audit::Audits,
    clocks::{self, monotonic_ns},
    processes::ProcessWatch,
    queues::{ListenerReading, Namespaces},
    record::Record,
    resets, restrictions,
    sample::{ClosedConnection, Counters, OpenConnection, ProcessShare, RefusalsSeen, Sample},
    scan::{self, Scan, ScanError},
    shares::ShareIndex,
    skips::SkipWatch,
    table::Maps,
};
use crate::{
    kernel::{
        holders::Wanted,
        host::{BTF_PATH, HostFacts},
        processes,
    },
    probes::{
        attach::{self, Attached, Attempt},
        catalogue::{ACCEPTED, REFUSED_ACKS, REFUSED_SYNS},
        kretprobe::Kretprobes,
        object::{self, Capacity, Interest},
        plan::{self, Attach, Refusal},
        refusal::{self, Operation},
        refuse::{self, Refuse},
        seed::{Seed, SeedError, Seeded},
    },
};

/// Why a session could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// This host cannot run it.
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// What was tried.
        attempts: Vec<Attempt>,
    },
    /// The open connections could not be found.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The listening sockets could not be scanned.
    #[error("cannot scan the listening sockets: {0}")]
    Scan(#[from] ScanError),
    /// A map could not be read or written.
    #[error("cannot read what the kernel side has counted: {0}")]
    Map(#[from] MapError),
}

impl From<Refusal> for SessionError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal, attempts: Vec::new() }
    }
}

/// Attached programs and their maps. Dropping it detaches everything.
pub struct Session {
    pub(super) maps: Maps,
    attached: Attached,
    pub(super) seed: Seed,
    epoch: u32,
    last_ns: u64,
    counters: Counters,
    shares: ShareIndex,
    pub(super) pending: Pending,
    interest: Interest,
    scan: Option<Scan>,
    namespaces: Namespaces,
    processes: Option<ProcessWatch>,
    pub(super) audits: Audits,
    skips: SkipWatch,
    may_skip: bool,
    pub(super) root: PathBuf,
    ring_bytes: usize,
    /// No sample was taken yet.
    first: bool,
    more: bool,
    /// Holds the programs and links.
    pub(super) ebpf: Ebpf,
}

/// Not 0, which an entry has that was announced in none.
const FIRST_EPOCH: u32 = 1;
/// So many last records make some 2 MB of lines and text.
const PORTION: usize = 1_024;
/// So many records that wait for the end of an interval are some 5 MB.
const MOST_PENDING: usize = 16_384;
/// What the ring buffer holds beside each record, in bytes.
const RECORD_HEADER: usize = 8;

/// What a sample is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It ends an interval.
    Interval,
    /// The same, with no more in it than needs little memory.
    Portion,
    /// It makes room while an interval goes on.
    Part,
    /// It ends the session.
    Last,
}

/// What was taken from the ring buffer since the last sample.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) closed: Vec<ClosedConnection>,
    changes: Vec<Change>,
    resets: Vec<u64>,
    /// Processes that announced themselves, by connection. Taken with each sample of rows; otherwise they stay until the end, which
    /// finds its shares by them, or without them by a walk.
    active: HashMap<(u64, u64), HashSet<u32>>,
    /// Shares without a connection: its last record is late, or was lost.
    suspects: Vec<ShareKey>,
}

impl Session {
    /// Attaches, then seeds: what happens in between is seen by the programs.
    pub fn start(
        host: &HostFacts,
        root: &Path,
        wanted: Attach,
        capacity: &Capacity,
        interest: Interest,
        kretprobes: &Kretprobes,
    ) -> Result<Self, SessionError> {
        let facts = plan::prerequisites(host)?;
        let plans = plan::plan(host, facts, wanted, interest);
        raise_memlock_limit();
        // In a container's pid namespace the numbers in /proc are not those that the kernel side sees: see `process_watch`.
        let owners = if host.initial_pid_namespace { processes::socket_owners(root) } else { HashMap::new() };
        let mut ebpf = object::load(facts, capacity, interest, owners.len())
            .map_err(|error| explained(&Operation::CreateMaps(capacity.bytes()), &error, host))?;
        let btf =
            Btf::from_sys_fs().map_err(|error| explained(&Operation::Read(format!("/{BTF_PATH}")), &error, host))?;
        let refuse = Refuse::from_environment();
        let unknown = refuse.unknown(|name| ebpf.program(name).is_some() || name == scan::SOCK_DIAG);
        if !unknown.is_empty() {
            return Err(Refusal::new(
                format!("{} names no program of overwatch: {}", refuse::VARIABLE, unknown.join(", ")),
                "overwatch check -o json lists the programs",
            )
            .into());
        }
        let prepared = interest.wants_queues().then(|| Scan::prepare(&mut ebpf, &refuse));
        // Before anything moves: an entry that is announced in no epoch would wait for its next bytes.
        let mut maps = Maps::take(&mut ebpf)?;
        maps.set_epoch(FIRST_EPOCH)?;
        let may_skip = host.may_skip_programs();
        maps.set_skips(may_skip)?;
        let mut attached = attach::attach(&mut ebpf, &btf, &plans, wanted, host, kretprobes, &refuse)
            .map_err(|(refusal, attempts)| SessionError::Refused { refusal, attempts })?;
        attached.degradations.extend((!host.initial_pid_namespace).then(restrictions::other_pid_namespace));
        attached.degradations.extend((!host.may_inspect).then(restrictions::may_not_inspect));
        let mut seed = Seed::start(&mut ebpf, &btf, root, owners, &refuse)
            .map_err(|error| explained(&Operation::ListSockets, &error, host))?;
        attached.degradations.append(&mut seed.degradations);
        let unreachable = seed.seeded.unreachable.len();
        attached.degradations.extend((unreachable > 0).then(|| restrictions::not_entered(unreachable)));
        let scan = prepared.and_then(|prepared| {
            // Our program scans the sockets that are in the map, which lacks those from before the start.
            let prepared = if seed.works() { prepared } else { prepared.without_map(&refuse) };
            attached.degradations.extend(prepared.degradations());
            prepared.scan
        });
        let processes = scan.as_ref().and_then(|_| process_watch(host, root));
        drop(btf);
        attached.degradations.extend(refusal::few_files(processes::open_files(root), host.open_files_limit));
        give_back_memory();
        Ok(Self {
            maps,
            attached,
            seed,
            epoch: FIRST_EPOCH,
            last_ns: monotonic_ns(),
            counters: Counters::default(),
            shares: ShareIndex::default(),
            pending: Pending::default(),
            interest,
            scan,
            namespaces: Namespaces::default(),
            processes,
            audits: Audits::default(),
            skips: SkipWatch::default(),
            may_skip,
            root: root.to_owned(),
            ring_bytes: capacity.ring_bytes as usize,
            first: true,
            more: false,
            ebpf,
        })
    }

    /// True when it scans the listening sockets: that was asked for, and this kernel allows a way to do it.
    pub fn scans(&self) -> bool {
        self.scan.is_some()
    }

    /// What was attached.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// What was seeded.
    pub fn seeded(&self) -> &Seeded {
        &self.seed.seeded
    }

    /// What the kernel side had counted when the last sample was taken.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Connections that were open before the start.
    pub fn seeded_connections(&self) -> Result<u64, SessionError> {
        Ok(self.maps.counters()?.get(Counter::Seeded))
    }

    /// Empties the ring buffer. To be called several times a second, so that it does not fill up between samples.
    pub fn drain(&mut self) -> Result<(), SessionError> {
        // What was there when this began, and no more: whoever writes faster than this reads would keep it here.
        self.drain_some(self.ring_bytes)?;
        Ok(())
    }

    /// True when so many bytes were not all.
    fn drain_some(&mut self, bytes: usize) -> Result<bool, SessionError> {
        let mut ended = Vec::new();
        let mut left = bytes;
        while left > 0
            && let Some(record) = self.maps.events.next()
        {
            left = left.saturating_sub(record.len() + RECORD_HEADER);
            match Record::read(&record) {
                Some(Record::Activity(activity)) => {
                    let key = (activity.sock, activity.created_ns);
                    self.pending.active.entry(key).or_default().insert(activity.tgid);
                }
                Some(Record::Closed(closed)) => ended.push(closed),
                Some(Record::Change(change)) => self.pending.changes.push(change),
                Some(Record::Reset(reset)) => {
                    let may_be_earlier = resets::note(reset.sock, &mut ended, &mut self.pending.closed);
                    self.pending.resets.extend(may_be_earlier.then_some(reset.sock));
                }
                None => {}
            }
        }
        for closed in ended {
            self.end(closed.sock, closed.connection)?;
        }
        Ok(left == 0)
    }

    /// Takes a sample of everything since the one before.
    pub fn sample(&mut self) -> Result<Sample, SessionError> {
        self.take_sample(Purpose::Interval)
    }

    /// True when so much was drained that a part of the interval is to be taken before it ends.
    pub fn is_laden(&self) -> bool {
        self.pending.changes.len() + self.pending.closed.len() >= MOST_PENDING
    }

    /// Takes a sample within an interval, which goes on: `elapsed` of the one that ends it is of the whole, and it alone names processes.
    pub fn part(&mut self) -> Result<Sample, SessionError> {
        self.take_sample(Purpose::Part)
    }

    /// The same, but only so much as needs little memory: see [`Self::has_more`].
    pub fn portion(&mut self) -> Result<Sample, SessionError> {
        self.take_sample(Purpose::Portion)
    }

    /// True when the last portion has left something.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Takes the last sample: with connections that have closed although their process has not let go of the socket.
    pub fn last_sample(&mut self) -> Result<Sample, SessionError> {
        self.take_sample(Purpose::Last)
    }

    fn take_sample(&mut self, purpose: Purpose) -> Result<Sample, SessionError> {
        let last = purpose == Purpose::Last;
        let ends_interval = purpose != Purpose::Part;
        let rows = self.interest.wants_rows();
        if rows {
            // First the epoch, then the counters: see `announce` in the kernel side. Where nobody asks for rows it stays, so that
            // each process announces itself once and no more on each connection.
            self.epoch = self.epoch.wrapping_add(1).max(1);
            self.maps.set_epoch(self.epoch)?;
        }
        let now = clocks::now();
        // At once, since a row of a listening socket is of this instant, and the rest takes a while on a busy host.
        let scan = self.scan.as_mut();
        let queues = scan.map(|scan| scan.read(&self.root, &self.ebpf, &self.maps)).transpose()?;
        let records = if purpose == Purpose::Portion { PORTION } else { usize::MAX };
        let bytes = records.saturating_mul(size_of::<Closed>()).min(self.ring_bytes);
        let more_in_ring = self.drain_some(bytes)?;
        let before = self.counters;
        self.counters = self.maps.counters()?;
        let grew = |counter| self.counters.get(counter) > before.get(counter);
        let closed_lost = grew(Counter::ClosedLost);
        let read_all = closed_lost || rows && grew(Counter::ActivityDeferred);
        let mut anew = std::mem::take(&mut self.first) || closed_lost || grew(Counter::ChangeLost);
        let deferred = self.more || grew(Counter::ClosedDeferred);
        let more_deferred = deferred && self.take_deferred(records)?;
        self.more = purpose == Purpose::Portion && (more_in_ring || more_deferred);
        if !rows && (deferred || closed_lost) {
            // Notices of connections whose end went past the ring buffer, or nowhere, would stay for ever.
            self.pending.active.clear();
        }
        let skips = self.skips.look(&self.ebpf, last);
        self.maps.set_skips(self.may_skip || skips.all.is_some_and(|skipped| skipped > 0))?;
        if self.audits.is_due(skips.life, last) {
            self.audit(skips.life)?;
            anew = true;
        }
        if last {
            self.end_closed()?;
        }
        // Suspects of the sample before whose connection's last record has not come by now: it was lost.
        let orphans = self.take_orphans()?;
        let present = if read_all { Some(self.note_whole_table()?) } else { None };
        if let Some(present) = &present {
            self.shares.keep(present);
        }
        let listeners = if anew { Some(self.maps.listeners.iter().collect::<Result<Vec<_>, _>>()?) } else { None };
        let table = if anew && self.interest.needs_table() {
            Some(self.maps.connections.iter().collect::<Result<Vec<_>, _>>()?)
        } else {
            None
        };
        let lost = self.maps.lost.iter().collect::<Result<Vec<_>, _>>()?;
        let open = if rows { self.read_active()? } else { Vec::new() };
        let namespaces = queues.as_deref().map(|queues| self.namespaces.read(&self.root, queues)).unwrap_or_default();
        let of_interval = queues.as_deref().filter(|_| ends_interval);
        let watched = of_interval.zip(self.processes.as_mut());
        let holders = watched.map(|(listeners, processes)| processes.look(Instant::now(), &wanted(listeners)));
        let elapsed = Duration::from_nanos(now.monotonic_ns.saturating_sub(self.last_ns));
        if ends_interval {
            self.last_ns = now.monotonic_ns;
        }
        Ok(Sample {
            time: now.time,
            monotonic_ns: now.monotonic_ns,
            elapsed,
            closed: std::mem::take(&mut self.pending.closed),
            changes: std::mem::take(&mut self.pending.changes),
            resets: std::mem::take(&mut self.pending.resets),
            listeners,
            table,
            queues,
            namespaces,
            holders: holders.unwrap_or_default(),
            refusals: RefusalsSeen {
                at_syn: self.attached.sees(REFUSED_SYNS),
                at_ack: self.attached.sees(REFUSED_ACKS),
            },
            accepts_seen: self.attached.sees(ACCEPTED),
            old_sockets_known: self.seed.works(),
            lost,
            open,
            orphans,
            counters: self.counters,
            skipped_runs: skips.all,
            present,
        })
    }

    fn read_active(&mut self) -> Result<Vec<OpenConnection>, SessionError> {
        let active = std::mem::take(&mut self.pending.active);
        let mut open = Vec::with_capacity(active.len());
        for ((sock, created_ns), processes) in active {
            let Some(connection) = found(self.maps.connections.get(&sock, 0))? else {
                continue;
            };
            let generation = created_ns as u32;
            if connection.created_ns != created_ns || connection.generation != generation {
                // The address has a new owner; the last record of the old one is on its way or was here already.
                continue;
            }
            let mut shares = Vec::new();
            for tgid in processes.into_iter().filter(|tgid| *tgid != connection.tgid) {
                let key = ShareKey { sock, tgid, generation };
                // Who owned it when it was announced may have no share, and at the end only what has shares is forgotten.
                if let Some(share) = found(self.maps.shares.get(&key, 0))? {
                    self.shares.note(key);
                    shares.push(ProcessShare { tgid, share });
                }
            }
            open.push(OpenConnection { sock, connection, shares });
        }
        Ok(open)
    }

    pub(super) fn end(&mut self, sock: u64, connection: Connection) -> Result<(), SessionError> {
        let processes = self.pending.active.remove(&(sock, connection.created_ns)).unwrap_or_default();
        let generation = connection.created_ns as u32;
        let mut shares = Vec::new();
        if connection.shares > 0 {
            for tgid in processes.into_iter().filter(|tgid| *tgid != connection.tgid) {
                self.shares.note(ShareKey { sock, tgid, generation });
            }
            let keys = match self.shares.forget(sock, &connection) {
                Some(keys) => keys,
                None => self.walk_shares(sock, generation)?,
            };
            for key in keys {
                if let Some(share) = found(self.maps.shares.get(&key, 0))? {
                    shares.push(ProcessShare { tgid: key.tgid, share });
                    self.maps.shares.remove(&key)?;
                }
            }
        }
        self.pending.closed.push(ClosedConnection { sock, connection, shares });
        Ok(())
    }

    fn walk_shares(&self, sock: u64, generation: u32) -> Result<Vec<ShareKey>, SessionError> {
        let mut keys = Vec::new();
        for key in self.maps.shares.keys() {
            let key = key?;
            if key.sock == sock && key.generation == generation {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// True when so many were not all.
    fn take_deferred(&mut self, portion: usize) -> Result<bool, SessionError> {
        // Collected first: removing while walking would start the walk anew.
        let keys = self.maps.deferred.keys().take(portion).collect::<Result<Vec<_>, _>>()?;
        let more = keys.len() == portion;
        for key in keys {
            if let Some(connection) = found(self.maps.deferred.get(&key, 0))? {
                self.maps.deferred.remove(&key)?;
                self.end(key.sock, connection)?;
            }
        }
        Ok(more)
    }

    fn take_orphans(&mut self) -> Result<Vec<(ShareKey, Share)>, SessionError> {
        let mut orphans = Vec::new();
        for key in std::mem::take(&mut self.pending.suspects) {
            if self.connection_of(key)?.is_some() {
                continue;
            }
            if let Some(share) = found(self.maps.shares.get(&key, 0))? {
                self.maps.shares.remove(&key)?;
                orphans.push((key, share));
            }
        }
        Ok(orphans)
    }

    /// When the connection of a share was made, if it is in the table.
    fn connection_of(&self, key: ShareKey) -> Result<Option<u64>, SessionError> {
        let connection = found(self.maps.connections.get(&key.sock, 0))?;
        Ok(connection.map(|connection| connection.created_ns).filter(|made| *made as u32 == key.generation))
    }

    /// Notices were lost, so every entry counts as active.
    fn note_whole_table(&mut self) -> Result<HashSet<(u64, u64)>, SessionError> {
        let mut present = HashSet::new();
        for entry in &self.maps.connections {
            let (sock, connection) = entry?;
            present.insert((sock, connection.created_ns));
            self.pending.active.entry((sock, connection.created_ns)).or_default().insert(connection.tgid);
        }
        let by_generation: HashMap<_, _> =
            present.iter().map(|(sock, created_ns)| ((*sock, *created_ns as u32), *created_ns)).collect();
        let keys = self.maps.shares.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys {
            if let Some(created_ns) = by_generation.get(&(key.sock, key.generation)) {
                self.pending.active.entry((key.sock, *created_ns)).or_default().insert(key.tgid);
            } else if let Some(created_ns) = self.connection_of(key)? {
                // Made since the walk, or the walk missed it: the table changes under it.
                self.pending.active.entry((key.sock, created_ns)).or_default().insert(key.tgid);
            } else {
                self.pending.suspects.push(key);
            }
        }
        Ok(present)
    }
}

/// Reading the kernel's type information took some 25 MB, which the allocator would keep for the life of the process.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only looks for free pages at the allocator's own; any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whose processes are looked for; where somebody waits, also what they do.
pub(super) fn wanted(listeners: &[ListenerReading]) -> Vec<Wanted> {
    let wanted = listeners.iter().filter_map(|reading| {
        let listener_pid = (reading.listener.tgid != 0).then_some(reading.listener.tgid);
        Some(Wanted { inode: reading.inode?, listener_pid, waiting: reading.accept_queue > 0 })
    });
    wanted.collect()
}

/// `None` in a container's pid namespace: the numbers in its `/proc` would be taken for the host's.
pub(super) fn process_watch(host: &HostFacts, root: &Path) -> Option<ProcessWatch> {
    host.initial_pid_namespace.then(|| ProcessWatch::new(root))
}

/// A key that is not there is an answer, not an error.
pub(super) fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kernels before 5.11 hold maps against this limit. Where it cannot be raised, creating the maps says so.
fn raise_memlock_limit() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err()
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK)
    {
        let _stays = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
}

fn explained(operation: &Operation, error: &(dyn std::error::Error + 'static), host: &HostFacts) -> Refusal {
    let cause = attach::cause(error);
    refusal::explain(operation, cause.errno, &cause.line, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_watched_where_their_numbers_are_the_hosts() {
        let here = HostFacts::read(Path::new("/"));
        for (initial_pid_namespace, is_watched) in [(true, true), (false, false)] {
            let host = HostFacts { initial_pid_namespace, ..here.clone() };
            assert_eq!(process_watch(&host, Path::new("/")).is_some(), is_watched);
        }
        assert!(restrictions::other_pid_namespace().loss.ends_with("and listening sockets have no processes"));
    }
}
