//! The model against a small kernel: sockets listen, are born, accepted and closed, addresses are used again, records come
//! late or get lost, and after every sample the counts are what a recount of the kernel's sockets gives.

use std::collections::VecDeque;

use overwatch_common::connection::{COMM_LEN, Listener};

use super::*;
use crate::{
    collect::ClosedConnection,
    model::{
        fixtures::{bytes, change, connection, listener, listening, sample},
        state::{CLOSE_WAIT, ESTABLISHED, SYN_RECV},
    },
    random::Random,
};

const SYN_SENT: u32 = 2;
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const LAST_ACK: u32 = 9;

const ADDRESSES: u64 = 24;
const PIDS: usize = 4;
/// Network namespace, bound address, port, and where its children are reached.
const PLACES: [(u32, &str, u16, &str); 5] = [
    (7, "0.0.0.0", 80, "10.0.0.9"),
    (7, "10.0.0.1", 80, "10.0.0.1"),
    (8, "0.0.0.0", 80, "10.0.0.9"),
    (7, "::", 443, "10.0.0.9"),
    (7, "fd00::1", 443, "fd00::1"),
];
const REMOTE: [&str; 3] = ["10.0.0.2", "10.0.0.3", "fd00::2"];

fn name(tgid: u32) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    comm[0] = b'a' + tgid as u8;
    comm
}

/// A connection's socket.
#[derive(Clone, Copy)]
struct Socket {
    sock: u64,
    entry: Connection,
    /// Socket and place of its listener.
    parent: Option<(u64, usize)>,
}

impl Socket {
    fn unaccepted(&self) -> bool {
        self.entry.role == role::SERVER && self.entry.flags & flag::ACCEPTED == 0
    }
}

struct ListenSocket {
    sock: u64,
    place: usize,
    listener: Listener,
    /// A sample was taken since it began.
    sampled: bool,
}

enum Record {
    Change(Change),
    Closed(ClosedConnection),
}

struct Simulation {
    random: Random,
    now_ns: u64,
    /// Before 6.18 a birth does not tell the addresses.
    old_kernel: bool,
    open: Vec<Socket>,
    /// In CLOSE, not destroyed yet.
    dead: Vec<Socket>,
    listening: Vec<ListenSocket>,
    ring: VecDeque<Record>,
    /// For how many more records there is no room in the ring buffer.
    full: usize,
    deferred: Vec<ClosedConnection>,
    /// Changes were lost since the last sample.
    lost: bool,
    /// Some records did not come with the last sample.
    late: bool,
    /// Nothing happens any more.
    over: bool,
    samples: usize,
    model: Open,
    /// How often what was tried: exact comparisons, tables, ends before births, the most that was open.
    compared: usize,
    tables: usize,
    overtaken: usize,
    most: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            now_ns: 1000,
            old_kernel: seed.is_multiple_of(2),
            open: Vec::new(),
            dead: Vec::new(),
            listening: Vec::new(),
            ring: VecDeque::new(),
            full: 0,
            deferred: Vec::new(),
            lost: false,
            late: false,
            over: false,
            samples: 0,
            model: Open::default(),
            compared: 0,
            tables: 0,
            overtaken: 0,
            most: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0..2 => self.listen(),
            2 => self.stop_listening(),
            3..5 => self.sample(),
            _ => self.act(),
        }
    }

    /// Whatever can also happen while a sample is taken.
    fn act(&mut self) {
        match self.random.below(30) {
            0..8 => self.give_birth(),
            8..12 => self.connect(),
            12..18 => self.accept(),
            18..26 => self.go_on(),
            26..29 => self.destroy(),
            _ => self.full = self.random.below(6),
        }
    }

    fn tick(&mut self) -> u64 {
        self.now_ns += 1 + self.random.below(5) as u64;
        self.now_ns
    }

    fn pid(&mut self) -> u32 {
        1 + self.random.below(PIDS) as u32
    }

    fn remote_addr(&mut self) -> [u8; 16] {
        bytes(REMOTE[self.random.below(REMOTE.len())])
    }

    fn free_address(&mut self) -> Option<u64> {
        let used = self.open.iter().chain(&self.dead).map(|socket| socket.sock);
        let used: HashSet<u64> = used.chain(self.listening.iter().map(|socket| socket.sock)).collect();
        let free: Vec<u64> = (0..ADDRESSES).filter(|sock| !used.contains(sock)).collect();
        (!free.is_empty()).then(|| *self.random.pick(&free))
    }

    /// True when a record finds room.
    fn room(&mut self) -> bool {
        let room = self.full == 0;
        self.full = self.full.saturating_sub(1);
        room
    }

    fn emit(&mut self, change: Change) {
        if self.room() {
            self.ring.push_back(Record::Change(change));
        } else {
            self.lost = true;
        }
    }

    fn emit_of(&mut self, socket: &Socket, old: u32) {
        let time_ns = self.tick();
        let entry = &socket.entry;
        let mut record = Change {
            tgid: entry.tgid,
            cgroup_id: entry.cgroup_id,
            local_addr: entry.local_addr,
            remote_addr: entry.remote_addr,
            comm: entry.comm,
            netns: entry.netns,
            local_port: entry.local_port,
            remote_port: entry.remote_port,
            role: entry.role,
            ..change(socket.sock, entry.created_ns, time_ns, (old as u8, entry.state as u8))
        };
        if let Some((_, place)) = socket.parent
            && self.old_kernel
            && old == LISTEN
        {
            (record.local_addr, record.remote_addr, record.remote_port) = (bytes(PLACES[place].1), [0; 16], 0);
        }
        self.emit(record);
    }

    fn listen(&mut self) {
        let Some(sock) = self.free_address() else { return };
        let place = self.random.below(PLACES.len());
        let (netns, local_addr, local_port, _) = PLACES[place];
        let tgid = self.pid();
        let since_ns = self.tick();
        let listener = Listener { tgid, comm: name(tgid), netns, local_port, ..listener(since_ns, local_addr) };
        self.listening.push(ListenSocket { sock, place, listener, sampled: false });
        self.emit_listening(sock, &listener, (CLOSE, LISTEN));
    }

    fn emit_listening(&mut self, sock: u64, listener: &Listener, (old, new): (u32, u32)) {
        let comm = listener.comm;
        self.emit(Change { comm, ..listening(sock, listener, self.now_ns, (old as u8, new as u8)) });
    }

    /// Takes those with it that nobody has accepted. One that came and went without a sample may have left nothing but
    /// connections from an unknown listener, so they all stay for one.
    fn stop_listening(&mut self) {
        let able = (0..self.listening.len()).filter(|index| self.listening[*index].sampled).collect::<Vec<_>>();
        if able.is_empty() {
            return;
        }
        let index = *self.random.pick(&able);
        let ListenSocket { sock, listener, .. } = self.listening.swap_remove(index);
        self.tick();
        self.emit_listening(sock, &listener, (LISTEN, CLOSE));
        while let Some(index) = self
            .open
            .iter()
            .position(|socket| socket.unaccepted() && socket.parent.is_some_and(|(parent, _)| parent == sock))
        {
            self.close(index);
        }
    }

    fn give_birth(&mut self) {
        let Some(sock) = self.free_address().filter(|_| !self.listening.is_empty()) else { return };
        let index = self.random.below(self.listening.len());
        let ListenSocket { sock: parent, place, .. } = self.listening[index];
        let (netns, _, local_port, local_addr) = PLACES[place];
        let remote_addr = self.remote_addr();
        let entry = Connection {
            created_ns: self.tick(),
            state: SYN_RECV,
            netns,
            local_addr: bytes(local_addr),
            local_port,
            remote_addr,
            comm: [0; COMM_LEN],
            ..connection(0, 0, 0)
        };
        let mut socket = Socket { sock, entry, parent: Some((parent, place)) };
        self.emit_of(&socket, LISTEN);
        socket.entry.state = ESTABLISHED;
        self.emit_of(&socket, SYN_RECV);
        self.open.push(socket);
    }

    /// Also with a socket that was connected before.
    fn connect(&mut self) {
        let again = self.random.once_in(3) && !self.dead.is_empty();
        let sock = if again { Some(self.destroy_dead(0)) } else { self.free_address() };
        let Some(sock) = sock else { return };
        let tgid = self.pid();
        let remote_addr = self.remote_addr();
        let entry = Connection {
            created_ns: self.tick(),
            state: SYN_SENT,
            role: role::CLIENT,
            comm: name(tgid),
            local_addr: bytes("10.0.0.1"),
            local_port: 40_000,
            remote_addr,
            ..connection(tgid, 0, 0)
        };
        let socket = Socket { sock, entry, parent: None };
        self.emit_of(&socket, CLOSE);
        self.open.push(socket);
    }

    fn accept(&mut self) {
        let Some(index) = self.open.iter().position(Socket::unaccepted) else { return };
        let tgid = self.pid();
        let socket = &mut self.open[index];
        socket.entry.flags |= flag::ACCEPTED;
        (socket.entry.tgid, socket.entry.comm) = (tgid, name(tgid));
        let socket = *socket;
        self.emit_of(&socket, socket.entry.state);
    }

    fn go_on(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let index = self.random.below(self.open.len());
        let socket = &self.open[index];
        let old = socket.entry.state;
        let next: &[u32] = match (old, socket.unaccepted()) {
            (SYN_SENT, _) => &[ESTABLISHED, ESTABLISHED, CLOSE],
            (ESTABLISHED, false) => &[CLOSE_WAIT, FIN_WAIT1, CLOSE],
            (ESTABLISHED, true) => &[CLOSE_WAIT, CLOSE],
            (FIN_WAIT1, _) => &[FIN_WAIT2],
            (CLOSE_WAIT, false) => &[LAST_ACK],
            _ => &[CLOSE],
        };
        let new = *self.random.pick(next);
        if new == CLOSE {
            self.close(index);
        } else {
            self.open[index].entry.state = new;
            let socket = self.open[index];
            self.emit_of(&socket, old);
        }
    }

    fn close(&mut self, index: usize) {
        let mut socket = self.open.swap_remove(index);
        let old = std::mem::replace(&mut socket.entry.state, CLOSE);
        self.emit_of(&socket, old);
        self.dead.push(socket);
        if self.random.once_in(2) {
            self.destroy_dead(self.dead.len() - 1);
        }
    }

    fn destroy(&mut self) {
        if !self.dead.is_empty() {
            let index = self.random.below(self.dead.len());
            self.destroy_dead(index);
        }
    }

    fn destroy_dead(&mut self, index: usize) -> u64 {
        let Socket { sock, entry, .. } = self.dead.swap_remove(index);
        let closed = ClosedConnection { sock, connection: entry, shares: Vec::new() };
        if self.room() && !self.random.once_in(3) {
            self.ring.push_back(Record::Closed(closed));
        } else if !self.random.once_in(4) {
            self.deferred.push(closed);
        }
        sock
    }

    /// As a session does it: the time, the ring buffer, the counters, the deferred records, the tables. The kernel goes on
    /// meanwhile.
    fn sample(&mut self) {
        let mut sample = Sample { monotonic_ns: self.now_ns, ..sample() };
        self.tick();
        // A record that is being written holds up those behind it.
        self.late = !self.over && !self.late && self.random.once_in(3);
        let ready = if self.late { self.random.below(1 + self.ring.len() / 2) } else { self.ring.len() };
        for record in self.ring.drain(..ready) {
            match record {
                Record::Change(change) => sample.changes.push(change),
                Record::Closed(closed) => sample.closed.push(closed),
            }
        }
        let lost = std::mem::take(&mut self.lost);
        self.overtaken += self.deferred.iter().filter(|closed| self.birth_is_late(closed)).count();
        sample.closed.append(&mut self.deferred);
        let listening: Vec<u64> = self.listening.iter().map(|socket| socket.sock).collect();
        let mut truth = self.truth();
        let mut exact = !self.late;
        for _ in 0..if self.over { 0 } else { self.random.below(3) } {
            self.act();
        }
        if lost || self.samples == 0 || self.random.once_in(20) {
            let all = self.open.iter().chain(&self.dead).map(|socket| (socket.sock, socket.entry));
            sample.table = Some(all.collect());
            sample.listeners = Some(self.listening.iter().map(|socket| (socket.sock, socket.listener)).collect());
            truth = self.truth();
            exact = true;
            self.tables += 1;
        }
        self.model.update(&sample);
        self.samples += 1;
        let counts = self.model.counts();
        self.most = self.most.max(counts.open_connections);
        if exact {
            assert_eq!(counts, truth.0, "sample {}", self.samples);
            assert_eq!(self.model.states().collect::<BTreeMap<_, _>>(), truth.1, "sample {}", self.samples);
            self.compared += 1;
        }
        for socket in self.listening.iter_mut().filter(|socket| listening.contains(&socket.sock)) {
            socket.sampled = true;
        }
    }

    fn birth_is_late(&self, closed: &ClosedConnection) -> bool {
        let life = (closed.sock, closed.connection.created_ns);
        self.ring.iter().any(|record| {
            matches!(record, Record::Change(change)
                if (change.sock, change.created_ns) == life && u32::from(change.new) != CLOSE)
        })
    }

    /// What is open, and in which states.
    fn truth(&self) -> (OpenCounts, BTreeMap<u32, u64>) {
        let mut states = BTreeMap::new();
        for socket in &self.open {
            *states.entry(socket.entry.state).or_default() += 1;
        }
        (self.counts(), states)
    }

    /// Counts the kernel's sockets, each question by itself.
    fn counts(&self) -> OpenCounts {
        let lowest = |place| {
            let pids = self.listening.iter().filter(|socket| socket.place == place).map(|socket| socket.listener.tgid);
            pids.min().and_then(|tgid| Process::from_kernel(tgid, &name(tgid), 9))
        };
        let at = |place| self.open.iter().filter(move |socket| socket.parent.is_some_and(|(_, of)| of == place));
        let mut listeners: Vec<ListenerOpen> = (0..PLACES.len())
            .filter(|place| lowest(*place).is_some() || at(*place).count() > 0)
            .map(|place| ListenerOpen {
                netns: PLACES[place].0,
                local_addr: PLACES[place].1.parse().unwrap(),
                local_port: PLACES[place].2,
                process: lowest(place),
                open: at(place).count() as u64,
                waiting: at(place).filter(|socket| socket.unaccepted()).count() as u64,
            })
            .collect();
        listeners.sort_by_key(|entry| (Reverse(entry.open), entry.local_addr, entry.local_port, entry.netns));
        let owner = |socket: &Socket| match socket.parent {
            Some((_, place)) if socket.unaccepted() => lowest(place),
            _ => Process::from_kernel(socket.entry.tgid, &socket.entry.comm, 9),
        };
        let mut owners: Vec<OwnerOpen> = Vec::new();
        for process in self.open.iter().map(owner) {
            match owners.iter_mut().find(|owner| owner.process == process) {
                Some(owner) => owner.open += 1,
                None => owners.push(OwnerOpen { process, open: 1 }),
            }
        }
        owners.sort_by_key(|owner| (Reverse(owner.open), owner.process.as_ref().map(|process| process.pid)));
        let mut remotes: Vec<RemoteOpen> = Vec::new();
        for remote_addr in self.open.iter().map(|socket| address(socket.entry.remote_addr)) {
            match remotes.iter_mut().find(|remote| remote.remote_addr == remote_addr) {
                Some(remote) => remote.open += 1,
                None => remotes.push(RemoteOpen { remote_addr, open: 1 }),
            }
        }
        remotes.sort_by_key(|remote| (Reverse(remote.open), remote.remote_addr));
        OpenCounts { open_connections: self.open.len() as u64, listeners, owners, remotes }
    }

    /// Everything ends, and nothing is on its way any more.
    fn finish(&mut self) {
        self.sample();
        while !self.open.is_empty() {
            self.close(0);
        }
        while !self.dead.is_empty() {
            self.destroy();
        }
        for ListenSocket { sock, listener, .. } in std::mem::take(&mut self.listening) {
            self.tick();
            self.emit_listening(sock, &listener, (LISTEN, CLOSE));
        }
        self.over = true;
        for _ in 0..3 {
            self.sample();
        }
    }
}

#[test]
fn the_counts_are_those_of_a_recount_after_every_sample_and_zero_at_the_end() {
    let (mut samples, mut compared, mut tables, mut overtaken, mut most) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..500 {
            simulation.step();
        }
        simulation.finish();
        assert_eq!(simulation.model.counts(), OpenCounts::default(), "at the end, seed {seed}");
        assert_eq!(simulation.model.tally, Tally::default(), "at the end, seed {seed}");
        samples += simulation.samples;
        compared += simulation.compared;
        tables += simulation.tables;
        overtaken += simulation.overtaken;
        most = most.max(simulation.most);
    }
    // Otherwise nothing was tried.
    assert!(compared * 2 > samples && samples > 5000, "{compared} of {samples} samples compared");
    assert!(tables > 1000 && tables < samples, "{tables} tables in {samples} samples");
    assert!(overtaken > 100, "{overtaken} ends before births");
    assert!(most > 10, "at most {most} open");
}
