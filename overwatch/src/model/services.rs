//! What each service of this host has moved since the start, for those who read numbers that only grow.
//!
//! Invariants, which debug builds check after each sample: the bytes of all series are those of all rows that `traffic` has told, so with the
//! unattributed bytes they are what was moved; what is open in all series is what `open` counts. Label sets beyond the limits share one
//! series. Those that are idle end: what they had counts for the invariants, and is shown no more.
//!
//! A connection is opened when a process has it, by connect or by accept, and closed when its last record has come: at the latest, both are
//! counted then. One that nobody has accepted is open, as what it is of the process that listens. What was open before is never opened.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hash,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use overwatch_common::connection::{Connection, flag};

use self::{
    port::Listened,
    series::{Series, Sums},
};
use super::{
    bytes::Bytes,
    ending::{Ending, ending, is_twin},
    open::{Ends, Open},
    snapshot::{Key, Process, Role, Row, Snapshot, address},
};
use crate::collect::Sample;

mod port;
mod series;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use self::{port::Port, series::SeriesCounts};

/// What a service is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Who opened its connections; `None` when it is not known.
    pub role: Option<Role>,
    /// Its port.
    pub port: Port,
    /// Name of the process at this end; `None` when it is not known, or has none.
    pub process: Option<Arc<str>>,
    /// Control group number of that process; `None` when it is not known.
    pub cgroup_id: Option<u64>,
}

impl Service {
    fn new(role: Option<Role>, port: Port, process: Option<&Process>) -> Self {
        Self {
            role,
            port,
            process: process.map(|process| process.comm.as_str()).filter(|comm| !comm.is_empty()).map(Arc::from),
            cgroup_id: process.map(|process| process.cgroup_id).filter(|number| *number != 0),
        }
    }

    fn by_port(&self) -> ServicePort {
        ServicePort { role: self.role, port: self.port }
    }
}

/// The same, whatever the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// Who opened its connections; `None` when it is not known.
    pub role: Option<Role>,
    /// Its port.
    pub port: Port,
}

/// What a service has done since the start. These only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTotals {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Connections that a process connected or accepted, also those that came to nothing.
    pub opened: u64,
    /// Connections that have ended, also such as were open before overwatch.
    pub closed: u64,
}

impl Sums for ServiceTotals {
    fn plus(self, other: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_bytes: self.received_bytes + other.received_bytes,
            opened: self.opened + other.opened,
            closed: self.closed + other.closed,
        }
    }
}

/// One series of services as of the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceSums {
    /// Since the start.
    pub totals: ServiceTotals,
    /// Connections that are open now.
    pub open: u64,
}

impl ServiceSums {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { totals: self.totals.plus(other.totals), open: self.open + other.open }
    }
}

/// After the last ending comes the one that is not known.
const ENDINGS: usize = Ending::NAMES.len() + 1;

/// How the connections at a port have ended, since the start. These only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    endings: [u64; ENDINGS],
    /// Segments that were sent again, of connections that have ended.
    pub retransmitted_segments: u64,
}

impl PortTotals {
    fn of(ended: Option<Ending>, retransmitted_segments: u64) -> Self {
        let mut endings = [0; ENDINGS];
        endings[ended.map_or(ENDINGS - 1, |ending| ending as usize)] = 1;
        Self { endings, retransmitted_segments }
    }

    /// Connections by the name of their ending, all of them in the order of [`Ending::NAMES`]; `None` for those of which it is not known.
    pub fn endings(&self) -> impl Iterator<Item = (Option<&'static str>, u64)> {
        let names = Ending::NAMES.iter().map(|name| Some(*name)).chain([None]);
        names.zip(self.endings)
    }
}

impl Sums for PortTotals {
    fn plus(self, other: Self) -> Self {
        let mut sum = self;
        for (sum, more) in sum.endings.iter_mut().zip(other.endings) {
            *sum += more;
        }
        sum.retransmitted_segments += other.retransmitted_segments;
        sum
    }
}

/// How many series there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services with a series of their own.
    pub services: usize,
    /// Likewise ports.
    pub ports: usize,
    /// A series in which nothing is open and has changed for so long ends.
    pub idle: Duration,
}

/// A connection whose last record has not come.
#[derive(Debug)]
struct Life {
    service: Service,
    is_open: bool,
    /// Nobody has accepted it.
    is_waiting: bool,
    /// It was opened: in this run, and is counted, or before it.
    is_opened: bool,
    /// It was in the table no more when that was read. Its last record may still come.
    is_gone: bool,
}

/// A connection that has ended, though it is not decided how: that this end sent a RST is said after the last record, perhaps in the next
/// sample.
#[derive(Debug)]
struct Held {
    sock: u64,
    connection: Connection,
    service: Service,
    is_opened: bool,
}

/// The model of the services. Feed it what each sample has told, and read it at any time.
#[derive(Debug)]
pub struct Services {
    /// The ports that the kernel chooses for clients.
    ephemeral: RangeInclusive<u16>,
    idle: Duration,
    listened: Listened,
    services: Series<Service, ServiceTotals>,
    ports: Series<ServicePort, PortTotals>,
    lives: HashMap<Key, Life>,
    held: Vec<Held>,
    /// Connections that are open, also where they have no series of their own.
    open: HashMap<Service, u64>,
    open_ports: HashMap<ServicePort, u64>,
    /// What all rows have moved.
    sent_bytes: u64,
    received_bytes: u64,
    unattributed: Bytes,
}

impl Services {
    /// With the ports that the kernel chooses for clients (`net.ipv4.ip_local_port_range`).
    pub fn new(ephemeral: RangeInclusive<u16>, limits: &Limits) -> Self {
        Self {
            ephemeral,
            idle: limits.idle,
            listened: Listened::default(),
            services: Series::new(limits.services),
            ports: Series::new(limits.ports),
            lives: HashMap::new(),
            held: Vec::new(),
            open: HashMap::new(),
            open_ports: HashMap::new(),
            sent_bytes: 0,
            received_bytes: 0,
            unattributed: Bytes::default(),
        }
    }

    /// Sets how many series there may be. Where it is fewer now, those end that have been idle longest.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.idle = limits.idle;
        self.services.limit(limits.services, |service| self.open.contains_key(service));
        self.ports.limit(limits.ports, |port| self.open_ports.contains_key(port));
    }

    /// Takes in a sample: also one within an interval. The snapshot is of it, and the open connections are as of it.
    pub fn update(&mut self, sample: &Sample, snapshot: &Snapshot, open: &Open) {
        let now_ns = sample.monotonic_ns;
        self.listened = Listened::of(open.listeners());
        for row in &snapshot.rows {
            self.moved(row, now_ns);
        }
        self.unattributed = self.unattributed.plus(snapshot.unattributed());
        for key in open.changed() {
            self.changed(key, open, now_ns);
        }
        self.decide(&sample.resets, now_ns);
        self.end(sample, open);
        self.lose(sample, now_ns);
        self.services.end_idle(now_ns, self.idle, |service| self.open.contains_key(service));
        self.ports.end_idle(now_ns, self.idle, |port| self.open_ports.contains_key(port));
        debug_assert!(self.is_complete(open), "the series are not what was put in");
    }

    /// Makes one of services that differ only in numbers of control groups that have one path, or none that is known: a group that is made again,
    /// as whenever systemd starts a service, has another number.
    pub fn merge<'a>(&mut self, path: &dyn Fn(u64) -> Option<&'a str>) {
        let name = |service: &Service| (service.by_port(), service.process.clone(), service.cgroup_id.and_then(path));
        self.services.merge(name, |service| self.open.contains_key(service));
    }

    /// Services with a series of their own, in no order.
    pub fn services(&self) -> impl Iterator<Item = (&Service, ServiceSums)> {
        let open = |service| self.open.get(service).copied().unwrap_or(0);
        self.services.own().map(move |(service, totals)| (service, ServiceSums { totals, open: open(service) }))
    }

    /// All other services together.
    pub fn other_services(&self) -> ServiceSums {
        let open = self.open.iter().filter(|(service, _)| !self.services.has(service)).map(|(_, open)| open).sum();
        ServiceSums { totals: self.services.other(), open }
    }

    /// How many series of services there are.
    pub fn service_counts(&self) -> SeriesCounts {
        self.services.counts()
    }

    /// Ports with a series of their own, in no order.
    pub fn ports(&self) -> impl Iterator<Item = (&ServicePort, PortTotals)> {
        self.ports.own()
    }

    /// All other ports together.
    pub fn other_ports(&self) -> PortTotals {
        self.ports.other()
    }

    /// How many series of ports there are.
    pub fn port_counts(&self) -> SeriesCounts {
        self.ports.counts()
    }

    /// Bytes that are on no service, since they could be put on no connection.
    pub fn unattributed_bytes(&self) -> Bytes {
        self.unattributed
    }

    fn moved(&mut self, row: &Row, now_ns: u64) {
        let Row { netns, role, local_port, remote_port, sent_bytes, received_bytes, .. } = *row;
        let port = self.listened.port(&Ends { netns, role, local_port, remote_port }, &self.ephemeral);
        let service = Service::new(role, port, row.process.as_ref());
        self.services.add(&service, ServiceTotals { sent_bytes, received_bytes, ..ServiceTotals::default() }, now_ns);
        self.sent_bytes += sent_bytes;
        self.received_bytes += received_bytes;
    }

    /// It is open, or is no more.
    fn changed(&mut self, key: &Key, open: &Open, now_ns: u64) {
        let known = self.lives.get_mut(key);
        let Some(member) = open.member(key) else {
            if let Some(life) = known
                && std::mem::replace(&mut life.is_open, false)
            {
                let service = life.service.clone();
                self.take_off(&service, now_ns);
            }
            return;
        };
        let before = known.map(|life| (life.service.clone(), life.is_open, life.is_opened));
        // Who begins or stops to listen there later does not make it another service's.
        let known_port = before.as_ref().map(|(service, ..)| service.by_port());
        let known_port = known_port.filter(|known| known.role == member.ends.role && known.port != Port::Unknown);
        let port = known_port.map_or_else(|| self.listened.port(&member.ends, &self.ephemeral), |known| known.port);
        let service = Service::new(member.ends.role, port, open.process_of(key, member).as_ref());
        self.count(&service, now_ns);
        if let Some((before, true, _)) = &before {
            self.take_off(before, now_ns);
        }
        let mut is_opened = before.is_some_and(|(.., is_opened)| is_opened) || member.is_partial;
        if !is_opened && !member.waiting {
            is_opened = true;
            self.services.add(&service, ServiceTotals { opened: 1, ..ServiceTotals::default() }, now_ns);
        }
        let life = Life { service, is_open: true, is_waiting: member.waiting, is_opened, is_gone: false };
        self.lives.insert(*key, life);
    }

    /// How those ended whose last records came with the sample before.
    fn decide(&mut self, resets: &[u64], now_ns: u64) {
        let mut held = std::mem::take(&mut self.held);
        // The kernel uses addresses again: a reset is of the last one that had it.
        let mut resets: HashSet<u64> = resets.iter().copied().collect();
        for held in held.iter_mut().rev() {
            if resets.remove(&held.sock) {
                held.connection.flags |= flag::RESET_SENT;
            }
        }
        for Held { connection, service, is_opened, .. } in held {
            if !is_twin(&connection) {
                let has_totals = connection.flags & flag::CLOSED != 0;
                let retransmits = if has_totals { connection.retransmits.into() } else { 0 };
                self.close(&service, is_opened, PortTotals::of(ending(&connection), retransmits), now_ns);
            }
        }
    }

    fn close(&mut self, service: &Service, is_opened: bool, ended: PortTotals, now_ns: u64) {
        let totals = ServiceTotals { opened: u64::from(!is_opened), closed: 1, ..ServiceTotals::default() };
        self.services.add(service, totals, now_ns);
        self.ports.add(&service.by_port(), ended, now_ns);
    }

    /// Takes the last records in.
    fn end(&mut self, sample: &Sample, open: &Open) {
        for closed in &sample.closed {
            let connection = closed.connection;
            let life = self.lives.remove(&(closed.sock, connection.created_ns));
            let is_opened = life.as_ref().is_some_and(|life| life.is_opened) || connection.flags & flag::PARTIAL != 0;
            // Whose it was goes on to be so, but one that was waiting may have been accepted since.
            let known = life.filter(|life| !life.is_waiting).map(|life| life.service);
            let service = known.unwrap_or_else(|| self.service_of(&connection, open));
            self.held.push(Held { sock: closed.sock, connection, service, is_opened });
        }
    }

    fn service_of(&self, connection: &Connection, open: &Open) -> Service {
        let ends = Ends::of(connection);
        let owner = Process::from_kernel(connection.tgid, &connection.comm, connection.cgroup_id);
        let is_waiting = ends.role == Some(Role::Server) && !connection.is_accepted();
        let listening = || {
            let local_addr = address(connection.local_addr);
            open.listeners().of(ends.netns, local_addr, ends.local_port, connection.created_ns)?.process.clone()
        };
        let process = owner.or_else(|| is_waiting.then(listening).flatten());
        Service::new(ends.role, self.listened.port(&ends, &self.ephemeral), process.as_ref())
    }

    /// What is in the table no more, and has brought no last record one sample later, will bring none.
    fn lose(&mut self, sample: &Sample, now_ns: u64) {
        let lost: Vec<Life> = self.lives.extract_if(|_, life| life.is_gone).map(|(_, life)| life).collect();
        for life in lost {
            self.close(&life.service, life.is_opened, PortTotals::of(None, 0), now_ns);
        }
        if let Some(table) = &sample.table {
            let present: HashSet<Key> = table.iter().map(|(sock, connection)| (*sock, connection.created_ns)).collect();
            for (key, life) in &mut self.lives {
                life.is_gone = !life.is_open && !present.contains(key);
            }
        }
    }

    fn count(&mut self, service: &Service, now_ns: u64) {
        *self.open.entry(service.clone()).or_default() += 1;
        *self.open_ports.entry(service.by_port()).or_default() += 1;
        self.touch(service, now_ns);
    }

    fn take_off(&mut self, service: &Service, now_ns: u64) {
        discount(&mut self.open, service.clone());
        discount(&mut self.open_ports, service.by_port());
        self.touch(service, now_ns);
    }

    /// It is not idle.
    fn touch(&mut self, service: &Service, now_ns: u64) {
        self.services.add(service, ServiceTotals::default(), now_ns);
        self.ports.add(&service.by_port(), PortTotals::default(), now_ns);
    }

    fn is_complete(&self, open: &Open) -> bool {
        let totals = self.services.total();
        let mut counted: HashMap<&Service, u64> = HashMap::new();
        for life in self.lives.values().filter(|life| life.is_open) {
            *counted.entry(&life.service).or_default() += 1;
        }
        (totals.sent_bytes, totals.received_bytes) == (self.sent_bytes, self.received_bytes)
            && self.services.is_complete()
            && self.ports.is_complete()
            && counted == self.open.iter().map(|(service, open)| (service, *open)).collect()
            && self.open.values().sum::<u64>() == open.open_connections()
            && self.open_ports.values().sum::<u64>() == open.open_connections()
    }
}

fn discount<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}
