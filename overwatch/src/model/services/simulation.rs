//! The model against a small host: processes with a thousand names and five hundred ports come and go, limits change, records come late or
//! get lost, and after every sample the sum of all series is what was put in.

use std::collections::BTreeMap;

use overwatch_common::{
    connection::{COMM_LEN, Listener, Share, role, state},
    counter::Counter,
    event::Change,
};

use super::*;
use crate::{
    collect::{ClosedConnection, Counters, OpenConnection, ProcessShare},
    model::{
        fixtures::{change, connection, listener, sample},
        traffic::Traffic,
    },
    random::Random,
};

const NAMES: usize = 1_000;
const PORTS: usize = 500;
const FIRST_PORT: u16 = 1_000;
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
const IDLE: Duration = Duration::from_nanos(400);
/// What all sockets are listened at by.
const LISTENS: &str = "listens";

fn comm(text: &str) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    comm[..text.len()].copy_from_slice(text.as_bytes());
    comm
}

fn name(pid: u32) -> String {
    format!("name-{pid}")
}

/// A connection's socket, and what the model is to know of it.
struct Socket {
    sock: u64,
    entry: Connection,
    shares: BTreeMap<u32, Share>,
    /// It has moved something since the last sample.
    active: bool,
    /// A sample was taken while it was open.
    is_sampled: bool,
    is_opened: bool,
    /// As whose the model has seen it when a process had it.
    opened_as: Option<Service>,
}

impl Socket {
    fn key(&self) -> Key {
        (self.sock, self.entry.created_ns)
    }

    fn port(&self) -> Port {
        match self.entry.role {
            role::SERVER => Port::Number(self.entry.local_port),
            _ if EPHEMERAL.contains(&self.entry.remote_port) => Port::Ephemeral,
            _ => Port::Number(self.entry.remote_port),
        }
    }

    fn service_as(&self, process: &str, cgroup_id: u64) -> Service {
        Service {
            role: Role::from_number(self.entry.role),
            port: self.port(),
            process: Some(process.into()),
            cgroup_id: Some(cgroup_id),
        }
    }

    fn is_waiting(&self) -> bool {
        self.entry.tgid == 0
    }

    fn service(&self) -> Service {
        self.service_as(&if self.is_waiting() { LISTENS.to_owned() } else { name(self.entry.tgid) }, 9)
    }

    fn process_shares(&self) -> Vec<ProcessShare> {
        self.shares.iter().map(|(tgid, share)| ProcessShare { tgid: *tgid, share: *share }).collect()
    }
}

/// What is to be known: by service, and by port.
#[derive(Default)]
struct Truth {
    services: BTreeMap<Service, ServiceTotals>,
    ports: BTreeMap<ServicePort, PortTotals>,
    unattributed: Bytes,
}

impl Truth {
    fn add(&mut self, service: &Service, more: ServiceTotals) {
        let totals = self.services.entry(service.clone()).or_default();
        *totals = totals.plus(more);
    }

    fn close(&mut self, service: &Service, is_opened: bool, ended: PortTotals) {
        self.add(service, ServiceTotals { opened: u64::from(!is_opened), closed: 1, ..ServiceTotals::default() });
        let totals = self.ports.entry(service.by_port()).or_default();
        *totals = totals.plus(ended);
    }

    fn total(&self) -> (ServiceTotals, PortTotals) {
        let services = self.services.values().fold(ServiceTotals::default(), |sum, totals| sum.plus(*totals));
        (services, self.ports.values().fold(PortTotals::default(), |sum, totals| sum.plus(*totals)))
    }
}

struct Simulation {
    random: Random,
    now_ns: u64,
    limits: Limits,
    open: Vec<Socket>,
    /// In CLOSE, not destroyed yet.
    dead: Vec<Socket>,
    changes: Vec<Change>,
    closed: Vec<ClosedConnection>,
    /// Those of the next sample, of the one before it that are not decided, and of which a RST is told late.
    ended: Vec<(Service, bool, Connection)>,
    undecided: Vec<(Service, bool, Connection)>,
    resets: Vec<u64>,
    told_resets: Vec<u64>,
    /// Those that end without a record, likewise.
    lost: Vec<(Service, bool)>,
    lost_before: Vec<(Service, bool)>,
    read_table: bool,
    is_first: bool,
    counters: Counters,
    traffic: Traffic,
    model: Open,
    services: Services,
    truth: Truth,
    before: HashMap<Service, ServiceTotals>,
    before_others: ServiceTotals,
    before_ports: HashMap<ServicePort, PortTotals>,
    /// How much was tried.
    samples: usize,
    twins: usize,
    late_resets: usize,
    all_lost: usize,
}

impl Simulation {
    fn new(seed: u64, limits: Limits) -> Self {
        let mut simulation = Self {
            random: Random::new(seed),
            now_ns: 1_000,
            limits,
            open: Vec::new(),
            dead: Vec::new(),
            changes: Vec::new(),
            closed: Vec::new(),
            ended: Vec::new(),
            undecided: Vec::new(),
            resets: Vec::new(),
            told_resets: Vec::new(),
            lost: Vec::new(),
            lost_before: Vec::new(),
            read_table: true,
            is_first: true,
            counters: Counters::default(),
            traffic: Traffic::default(),
            model: Open::default(),
            services: Services::new(EPHEMERAL, &limits),
            truth: Truth::default(),
            before: HashMap::new(),
            before_others: ServiceTotals::default(),
            before_ports: HashMap::new(),
            samples: 0,
            twins: 0,
            late_resets: 0,
            all_lost: 0,
        };
        // Open before overwatch.
        for _ in 0..20 {
            simulation.begin();
        }
        simulation.changes.clear();
        for socket in &mut simulation.open {
            socket.entry.flags |= flag::PARTIAL;
            socket.is_opened = true;
        }
        simulation
    }

    fn step(&mut self, limits_may_change: bool) {
        self.now_ns += 1 + self.random.below(5) as u64;
        match self.random.below(40) {
            0..8 => self.begin(),
            8..14 => self.accept(),
            14..24 => self.transfer(),
            24..32 => self.close(),
            32..34 => self.destroy(),
            34 => self.give_up(),
            35 if limits_may_change => self.set_limits(),
            36 => self.twin(),
            _ => self.sample(),
        }
    }

    fn pid(&mut self) -> u32 {
        1 + self.random.below(NAMES) as u32
    }

    fn free_address(&mut self) -> u64 {
        loop {
            let sock = self.random.below(4_096) as u64;
            let is_used = self.open.iter().chain(&self.dead).any(|socket| socket.sock == sock);
            // A reset is of the last one that had it.
            if !is_used && self.closed.iter().all(|closed| closed.sock != sock) {
                return sock;
            }
        }
    }

    fn tell(&mut self, socket: &Socket, (old, new): (u32, u32)) {
        let entry = &socket.entry;
        self.changes.push(Change {
            tgid: entry.tgid,
            comm: entry.comm,
            role: entry.role,
            local_port: entry.local_port,
            remote_port: entry.remote_port,
            ..change(socket.sock, entry.created_ns, self.now_ns, (old as u8, new as u8))
        });
    }

    fn begin(&mut self) {
        let sock = self.free_address();
        let port = FIRST_PORT + self.random.below(PORTS) as u16;
        let entry = Connection { created_ns: self.now_ns, comm: [0; COMM_LEN], ..connection(0, 0, 0) };
        let is_client = self.random.once_in(2);
        let pid = self.pid();
        let entry = if is_client {
            let remote_port = if self.random.once_in(10) { 40_000 + self.random.below(9_000) as u16 } else { port };
            let entry = Connection { tgid: pid, comm: comm(&name(pid)), role: role::CLIENT, ..entry };
            Connection { local_port: 50_000, remote_port, flags: flag::ESTABLISHED, ..entry }
        } else {
            Connection { local_port: port, role: role::SERVER, flags: flag::ESTABLISHED, ..entry }
        };
        let socket = Socket {
            sock,
            entry,
            shares: BTreeMap::new(),
            active: false,
            is_sampled: false,
            is_opened: false,
            opened_as: None,
        };
        let states = if is_client { [7, 2, 1] } else { [10, 3, 1] };
        self.tell(&socket, (states[0], states[1]));
        self.tell(&socket, (states[1], states[2]));
        self.open.push(socket);
    }

    fn accept(&mut self) {
        let Some(index) = self.open.iter().position(Socket::is_waiting) else { return };
        let pid = self.pid();
        let mut socket = self.open.swap_remove(index);
        (socket.entry.tgid, socket.entry.comm) = (pid, comm(&name(pid)));
        self.tell(&socket, (1, 1));
        self.open.push(socket);
    }

    fn transfer(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (index, other) = (self.random.below(self.open.len()), self.pid());
        let (sent, received) = (self.random.below(1_000) as u64, self.random.below(1_000) as u64);
        let is_shared = self.random.once_in(4);
        let socket = &mut self.open[index];
        if socket.is_waiting() {
            return;
        }
        socket.active = true;
        let service = if is_shared && other != socket.entry.tgid {
            let fresh = Share { sent: 0, received: 0, cgroup_id: 8, comm: comm(&name(other)), epoch: 0, pad: 0 };
            let share = socket.shares.entry(other).or_insert(fresh);
            share.sent += sent;
            share.received += received;
            socket.entry.shares = socket.shares.len() as u64;
            socket.service_as(&name(other), 8)
        } else {
            socket.entry.sent += sent;
            socket.entry.received += received;
            socket.service()
        };
        socket.entry.kernel_sent += sent;
        socket.entry.kernel_received += received;
        let moved = ServiceTotals { sent_bytes: sent, received_bytes: received, ..ServiceTotals::default() };
        self.truth.add(&service, moved);
    }

    fn give_up(&mut self) {
        let bytes = self.random.below(100) as u64;
        self.counters.add(Counter::UnattributedSent, bytes);
        self.counters.add(Counter::UnattributedReceived, 2 * bytes);
        self.truth.unattributed.sent += bytes;
        self.truth.unattributed.received += 2 * bytes;
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let index = self.random.below(self.open.len());
        let mut socket = self.open.swap_remove(index);
        socket.entry.state = state::CLOSE;
        socket.entry.flags |= flag::CLOSED;
        socket.entry.retransmits = self.random.below(5) as u32;
        let from = *self.random.pick(&[state::ESTABLISHED, state::FIN_WAIT2, state::LAST_ACK]);
        socket.entry.closed_from = from as u8;
        socket.entry.error = *self.random.pick(&[0, 0, 104, 110]);
        self.tell(&socket, (from, state::CLOSE));
        // The model knows it as it was in the last sample.
        let is_known = socket.is_sampled && (socket.opened_as.is_some() || socket.is_waiting());
        if is_known && !socket.active && socket.shares.is_empty() && self.random.once_in(8) {
            // Its record fits nowhere.
            self.read_table = true;
            self.counters.add(Counter::ClosedLost, 1);
            self.lost.push((socket.opened_as.clone().unwrap_or_else(|| socket.service()), socket.is_opened));
            self.all_lost += 1;
        } else if self.random.once_in(3) {
            self.dead.push(socket);
        } else {
            self.end(&socket);
        }
    }

    fn destroy(&mut self) {
        if !self.dead.is_empty() {
            let index = self.random.below(self.dead.len());
            let socket = self.dead.swap_remove(index);
            self.end(&socket);
        }
    }

    fn end(&mut self, socket: &Socket) {
        let shares = socket.process_shares();
        self.closed.push(ClosedConnection { sock: socket.sock, connection: socket.entry, shares });
        let mut last = socket.entry;
        if self.random.once_in(6) {
            // That this end has sent a RST is told with the next sample.
            last.flags |= flag::RESET_SENT;
            self.resets.push(socket.sock);
            self.late_resets += 1;
        }
        let service = socket.opened_as.clone().unwrap_or_else(|| socket.service());
        self.ended.push((service, socket.is_opened, last));
    }

    /// The kernel makes two children of one handshake.
    fn twin(&mut self) {
        let sock = self.free_address();
        let entry = Connection {
            created_ns: self.now_ns,
            role: role::SERVER,
            local_port: FIRST_PORT,
            state: state::CLOSE,
            closed_from: state::SYN_RECV as u8,
            flags: flag::CLOSED,
            comm: [0; COMM_LEN],
            ..connection(0, 0, 0)
        };
        self.closed.push(ClosedConnection { sock, connection: entry, shares: Vec::new() });
        self.twins += 1;
    }

    fn set_limits(&mut self) {
        let most = |random: &mut Random| random.below(17);
        self.limits = Limits { services: most(&mut self.random), ports: most(&mut self.random), ..self.limits };
        self.services.set_limits(&self.limits);
        self.check();
    }

    fn sample(&mut self) {
        let is_first = std::mem::take(&mut self.is_first);
        let read_table = std::mem::take(&mut self.read_table) || self.random.once_in(15);
        let late_resets = std::mem::take(&mut self.resets);
        let mut active = Vec::new();
        for socket in self.open.iter_mut().chain(&mut self.dead) {
            if std::mem::take(&mut socket.active) {
                let shares = socket.process_shares();
                active.push(OpenConnection { sock: socket.sock, connection: socket.entry, shares });
            }
        }
        let all = || self.open.iter().chain(&self.dead);
        let listens = |index: usize| {
            let local_port = FIRST_PORT + index as u16;
            let listener = Listener { tgid: 5_000, comm: comm(LISTENS), local_port, ..listener(0, "::") };
            (10_000 + index as u64, listener)
        };
        let sample = Sample {
            monotonic_ns: self.now_ns,
            closed: std::mem::take(&mut self.closed),
            changes: std::mem::take(&mut self.changes),
            resets: std::mem::take(&mut self.told_resets),
            listeners: is_first.then(|| (0..PORTS).map(listens).collect()),
            table: read_table.then(|| all().map(|socket| (socket.sock, socket.entry)).collect()),
            present: read_table.then(|| all().map(Socket::key).collect()),
            open: active,
            counters: self.counters,
            ..sample()
        };
        self.told_resets = late_resets;
        let snapshot = self.traffic.update(&sample);
        self.model.update(&sample);
        self.services.update(&sample, &snapshot, &self.model);
        self.samples += 1;
        for socket in &mut self.open {
            socket.is_sampled = true;
            if socket.opened_as.is_none() && !socket.is_waiting() {
                let service = socket.service();
                let opened = u64::from(!std::mem::replace(&mut socket.is_opened, true));
                self.truth.add(&service, ServiceTotals { opened, ..ServiceTotals::default() });
                socket.opened_as = Some(service);
            }
        }
        for (service, is_opened, last) in std::mem::replace(&mut self.undecided, std::mem::take(&mut self.ended)) {
            let ended = PortTotals::of(ending(&last), last.retransmits.into());
            self.truth.close(&service, is_opened, ended);
        }
        for (service, is_opened) in std::mem::replace(&mut self.lost_before, std::mem::take(&mut self.lost)) {
            self.truth.close(&service, is_opened, PortTotals::of(None, 0));
        }
        self.check();
        self.check_sums();
    }

    /// What holds at any time.
    fn check(&mut self) {
        let own: HashMap<Service, ServiceTotals> =
            self.services.services().map(|(service, sums)| (service.clone(), sums.totals)).collect();
        assert!(own.len() <= self.limits.services, "{} of {:?}", own.len(), self.limits);
        for (service, now) in &own {
            let grows = self.before.get(service).is_none_or(|before| has_grown(before, now));
            assert!(grows, "{service:?} went back to {now:?}");
        }
        let others = self.services.other_services().totals;
        assert!(has_grown(&self.before_others, &others));
        (self.before, self.before_others) = (own, others);
        let ports: HashMap<ServicePort, PortTotals> =
            self.services.ports().map(|(port, totals)| (*port, totals)).collect();
        assert!(ports.len() <= self.limits.ports, "{} of {:?}", ports.len(), self.limits);
        for (port, now) in &ports {
            let before = self.before_ports.get(port).copied().unwrap_or_default();
            let grows = before.endings.iter().zip(now.endings).all(|(before, now)| *before <= now);
            assert!(grows && before.retransmitted_segments <= now.retransmitted_segments, "{port:?}");
        }
        self.before_ports = ports;
        let counts = (self.services.service_counts(), self.services.port_counts());
        assert_eq!((counts.0.series, counts.1.series), (self.before.len(), self.before_ports.len()));
        assert_eq!((counts.0.limit, counts.1.limit), (self.limits.services, self.limits.ports));
    }

    /// The sums of all are what was put in.
    fn check_sums(&mut self) {
        let others = self.services.other_services();
        let all = self.services.services().fold(others, |sum, (_, sums)| ServiceSums {
            totals: sum.totals.plus(sums.totals),
            open: sum.open + sums.open,
        });
        let ports = self.services.ports().fold(self.services.other_ports(), |sum, (_, totals)| sum.plus(totals));
        let ports = ports.plus(self.services.ports.ended());
        let (services, endings) = self.truth.total();
        assert_eq!(all.totals.plus(self.services.services.ended()), services, "sample {}", self.samples);
        assert_eq!(self.services.unattributed_bytes(), self.truth.unattributed);
        assert_eq!(ports, endings, "sample {}", self.samples);
        assert_eq!(all.open, self.open.len() as u64);
        assert_eq!(all.open, self.model.counts().open_connections);
        assert_eq!(ports.endings().map(|(_, count)| count).sum::<u64>(), services.closed);
    }

    /// Each service by itself, where all of them have a series.
    fn check_each(&self) {
        let mut open: BTreeMap<Service, u64> = BTreeMap::new();
        for socket in &self.open {
            *open.entry(socket.service()).or_default() += 1;
        }
        let found: BTreeMap<&Service, ServiceSums> = self.services.services().collect();
        for (service, sums) in &found {
            let totals = self.truth.services.get(service).copied().unwrap_or_default();
            let open = open.get(service).copied().unwrap_or(0);
            assert_eq!(*sums, ServiceSums { totals, open }, "{service:?}");
        }
        assert!(self.truth.services.keys().chain(open.keys()).all(|service| found.contains_key(service)));
        assert_eq!(self.services.other_services(), ServiceSums::default());
        let ports: BTreeMap<ServicePort, PortTotals> =
            self.services.ports().map(|(port, totals)| (*port, totals)).collect();
        for (port, totals) in &ports {
            assert_eq!(*totals, self.truth.ports.get(port).copied().unwrap_or_default(), "{port:?}");
        }
        assert!(self.truth.ports.keys().all(|port| ports.contains_key(port)));
    }

    /// Everything ends, and nothing is on its way any more.
    fn finish(&mut self) {
        self.sample();
        while !self.open.is_empty() {
            self.close();
        }
        while !self.dead.is_empty() {
            self.destroy();
        }
        for _ in 0..3 {
            self.now_ns += 1;
            self.sample();
        }
        assert!(self.services.lives.is_empty() && self.services.open.is_empty() && self.services.held.is_empty());
    }
}

fn has_grown(before: &ServiceTotals, now: &ServiceTotals) -> bool {
    before.sent_bytes <= now.sent_bytes
        && before.received_bytes <= now.received_bytes
        && before.opened <= now.opened
        && before.closed <= now.closed
}

#[test]
fn the_sum_of_all_series_is_what_was_put_in_whatever_the_limits() {
    let (mut samples, mut folded, mut ended, mut twins, mut late_resets, mut lost) = (0, 0, 0, 0, 0, 0);
    for seed in 0..16 {
        let mut simulation = Simulation::new(seed, Limits { services: 16, ports: 16, idle: IDLE });
        for _ in 0..2_000 {
            simulation.step(seed % 2 == 1);
        }
        simulation.finish();
        samples += simulation.samples;
        folded += simulation.services.service_counts().folded + simulation.services.port_counts().folded;
        ended += simulation.services.services.ended().closed;
        twins += simulation.twins;
        late_resets += simulation.late_resets;
        lost += simulation.all_lost;
    }
    // Otherwise nothing was tried.
    assert!(samples > 1_000 && folded > 1_000 && ended > 100, "{folded} folded, {ended} ended in {samples} samples");
    assert!(twins > 200 && late_resets > 200 && lost > 50, "{twins} {late_resets} {lost}");
}

#[test]
fn with_room_for_all_each_service_has_what_it_did() {
    let limits = Limits { services: usize::MAX, ports: usize::MAX, idle: Duration::from_secs(1) };
    for seed in 100..103 {
        let mut simulation = Simulation::new(seed, limits);
        for _ in 0..2_000 {
            simulation.step(false);
        }
        simulation.finish();
        simulation.check_each();
        assert!(simulation.services.service_counts().series > 300 && simulation.services.port_counts().series > 200);
    }
}
