//! The model against a small kernel side: connections open, move bytes and end as it happens, records come late or get
//! lost, and in the end every byte is in exactly one place.

use std::collections::{BTreeMap, HashMap};

use overwatch_common::connection::{Share, ShareKey};

use super::{tests::share, *};
use crate::{
    model::fixtures::{connection, sample},
    random::Random,
};

const PIDS: u32 = 5;
const ADDRESSES: u64 = 6;

type Totals = BTreeMap<u32, Bytes>;

fn add(totals: &mut Totals, pid: u32, moved: Bytes) {
    let total = totals.entry(pid).or_default();
    *total = total.plus(moved);
}

fn sum(totals: &Totals) -> Bytes {
    totals.values().fold(Bytes::default(), |sum, bytes| sum.plus(*bytes))
}

/// An open connection, as the kernel side and the kernel know it.
struct Open {
    sock: u64,
    entry: Connection,
    shares: BTreeMap<u32, Share>,
    /// What the kernel moved and no hook saw.
    unseen: Bytes,
    /// What calls that have not returned yet have moved.
    running: BTreeMap<u32, Bytes>,
    /// Whether the kernel's totals have ever been ahead of what was seen.
    ahead: bool,
    /// Who moved bytes since the last sample.
    active: BTreeMap<u32, Bytes>,
}

impl Open {
    fn key(&self) -> (u64, u64) {
        (self.sock, self.entry.created_ns)
    }

    fn process_shares(&self, which: impl Fn(u32) -> bool) -> Vec<ProcessShare> {
        let shares = self.shares.iter().filter(|(tgid, _)| which(**tgid));
        shares.map(|(tgid, share)| ProcessShare { tgid: *tgid, share: *share }).collect()
    }

    /// Writes the kernel's own totals into the entry, as every announcement and the end do.
    fn settle(&mut self) {
        let unattributed = Bytes { sent: self.entry.unattributed_sent, received: self.entry.unattributed_received };
        let own = Bytes { sent: self.entry.sent, received: self.entry.received };
        let seen = self
            .shares
            .values()
            .fold(own.plus(unattributed), |sum, share| sum.plus(Bytes { sent: share.sent, received: share.received }));
        let kernel = seen.plus(self.unseen).plus(sum(&self.running));
        self.entry.live_sent = kernel.sent;
        self.entry.live_received = kernel.received;
        self.entry.kernel_sent = kernel.sent;
        self.entry.kernel_received = kernel.received;
    }

    fn needs_a_share(&self, pid: u32) -> bool {
        self.entry.tgid != pid && !self.shares.contains_key(&pid)
    }

    fn ended(mut self) -> ClosedConnection {
        self.settle();
        self.entry.flags = flag::CLOSED;
        let shares = self.process_shares(|_| true);
        ClosedConnection { sock: self.sock, connection: self.entry, shares }
    }
}

/// What a sample will find.
#[derive(Default)]
struct Drained {
    closed: Vec<ClosedConnection>,
    orphans: Vec<(ShareKey, Share)>,
}

/// Whose calls may last longer than a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    Nobody,
    Owners,
    Anybody,
}

struct Simulation {
    random: Random,
    slow: Slow,
    open: Vec<Open>,
    /// Records for the next sample, and for the one after it.
    next: Drained,
    later: Drained,
    /// Ended, with its entry still in the table when that is read.
    lingering: Vec<OpenConnection>,
    read_all: bool,
    created: u64,
    counters: Counters,
    /// Truth: who moved what, what no hook saw, what can be put on nobody, how many records were lost.
    moved: Totals,
    unseen: Bytes,
    unattributed: Bytes,
    lost: u64,
    /// What the snapshots have said.
    traffic: Traffic,
    said: Totals,
    reconciled: Bytes,
    said_unattributed: Bytes,
    said_lost: u64,
    /// Each connection's local port tells it from all others.
    ports: HashMap<u64, u16>,
}

impl Simulation {
    fn new(seed: u64, slow: Slow) -> Self {
        Self {
            random: Random::new(seed),
            slow,
            open: Vec::new(),
            next: Drained::default(),
            later: Drained::default(),
            lingering: Vec::new(),
            read_all: false,
            created: 0,
            counters: Counters::default(),
            moved: Totals::new(),
            unseen: Bytes::default(),
            unattributed: Bytes::default(),
            lost: 0,
            traffic: Traffic::default(),
            said: Totals::new(),
            reconciled: Bytes::default(),
            said_unattributed: Bytes::default(),
            said_lost: 0,
            ports: HashMap::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..4 => self.connect(),
            4..13 => self.transfer(),
            13 => self.transfer_unseen(),
            14 if self.slow != Slow::Nobody => self.transfer_slowly(),
            14..17 => self.close(),
            _ => self.sample(),
        }
    }

    fn some_bytes(&mut self) -> Bytes {
        let amount = self.random.below(1000) as u64;
        match self.random.below(3) {
            0 => Bytes { sent: amount, received: 0 },
            1 => Bytes { sent: 0, received: amount },
            _ => Bytes { sent: amount, received: amount / 2 },
        }
    }

    fn connect(&mut self) {
        let sock = self.random.below(ADDRESSES as usize) as u64;
        if self.open.iter().any(|open| open.sock == sock) {
            return;
        }
        self.created += 1;
        // Pid 0: nobody was known when the entry was made.
        let owner = self.random.below(PIDS as usize + 1) as u32;
        let entry =
            Connection { created_ns: self.created * 1000, local_port: self.created as u16, ..connection(owner, 0, 0) };
        self.open.push(Open {
            sock,
            entry,
            shares: BTreeMap::new(),
            unseen: Bytes::default(),
            running: BTreeMap::new(),
            ahead: false,
            active: BTreeMap::new(),
        });
    }

    fn transfer(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (index, bytes) = (self.random.below(self.open.len()), self.some_bytes());
        let pid = 1 + self.random.below(PIDS as usize) as u32;
        if self.random.once_in(10) && self.open[index].needs_a_share(pid) {
            // There is no room for it.
            self.open[index].entry.unattributed_sent += bytes.sent;
            self.open[index].entry.unattributed_received += bytes.received;
            self.give_up(bytes);
        } else {
            self.account(index, pid, bytes);
        }
    }

    /// A call returns.
    fn account(&mut self, index: usize, pid: u32, bytes: Bytes) {
        let open = &mut self.open[index];
        if open.entry.tgid == pid {
            open.entry.sent += bytes.sent;
            open.entry.received += bytes.received;
        } else {
            let share = open.shares.entry(pid).or_insert_with(|| share(0, 0));
            share.sent += bytes.sent;
            share.received += bytes.received;
            open.entry.shares = open.shares.len() as u64;
        }
        if !open.active.contains_key(&pid) {
            // Its first call since the last sample announces it.
            open.settle();
        }
        add(&mut open.active, pid, bytes);
        add(&mut self.moved, pid, bytes);
    }

    fn give_up(&mut self, bytes: Bytes) {
        self.counters.add(Counter::UnattributedSent, bytes.sent);
        self.counters.add(Counter::UnattributedReceived, bytes.received);
        self.unattributed = self.unattributed.plus(bytes);
    }

    fn transfer_unseen(&mut self) {
        if !self.open.is_empty() {
            let (index, bytes) = (self.random.below(self.open.len()), self.some_bytes());
            let open = &mut self.open[index];
            open.unseen = open.unseen.plus(bytes);
            open.ahead = true;
        }
    }

    /// A call that lasts moves more, or returns.
    fn transfer_slowly(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (index, bytes) = (self.random.below(self.open.len()), self.some_bytes());
        let any = 1 + self.random.below(PIDS as usize) as u32;
        let open = &mut self.open[index];
        let pid = if self.slow == Slow::Owners { open.entry.tgid } else { any };
        if pid == 0 {
            return;
        }
        add(&mut open.running, pid, bytes);
        open.ahead = true;
        if self.random.once_in(3) {
            self.return_calls(index);
        }
    }

    fn return_calls(&mut self, index: usize) {
        for (pid, bytes) in std::mem::take(&mut self.open[index].running) {
            self.account(index, pid, bytes);
        }
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let index = self.random.below(self.open.len());
        // No socket is destroyed while somebody is in a call on it.
        self.return_calls(index);
        let open = self.open.swap_remove(index);
        match self.random.below(10) {
            0 if !open.ahead => self.lose(&open),
            1 => {
                // After the ring buffer was emptied, before the table was read.
                self.read_all = true;
                self.unseen = self.unseen.plus(open.unseen);
                self.later.closed.push(open.ended());
            }
            2 => {
                self.read_all = true;
                self.unseen = self.unseen.plus(open.unseen);
                let (sock, entry, shares) = (open.sock, open.entry, open.process_shares(|_| true));
                self.lingering.push(OpenConnection { sock, connection: entry, shares });
                self.next.closed.push(open.ended());
            }
            _ => {
                self.unseen = self.unseen.plus(open.unseen);
                self.next.closed.push(open.ended());
            }
        }
    }

    /// The record fits nowhere. What the last sample did not report is put on nobody: the owner's part by the kernel side,
    /// that of the shares when they are found without a connection.
    fn lose(&mut self, open: &Open) {
        self.read_all = true;
        self.lost += 1;
        self.counters.add(Counter::ClosedLost, 1);
        for (pid, bytes) in &open.active {
            let known = self.moved.get_mut(pid).unwrap();
            *known = known.since(*bytes);
            if *pid == open.entry.tgid {
                self.give_up(*bytes);
            } else {
                self.unattributed = self.unattributed.plus(*bytes);
            }
        }
        let generation = open.entry.created_ns as u32;
        let orphans =
            open.shares.iter().map(|(tgid, share)| (ShareKey { sock: open.sock, tgid: *tgid, generation }, *share));
        self.later.orphans.extend(orphans);
    }

    fn sample(&mut self) {
        let Drained { closed, orphans } = std::mem::replace(&mut self.next, std::mem::take(&mut self.later));
        let read_all = std::mem::take(&mut self.read_all) || self.random.once_in(10);
        let mut lingering = std::mem::take(&mut self.lingering);
        let mut found = Vec::new();
        for open in &mut self.open {
            let active = std::mem::take(&mut open.active);
            if read_all || !active.is_empty() {
                let shares = open.process_shares(|tgid| read_all || active.contains_key(&tgid));
                found.push(OpenConnection { sock: open.sock, connection: open.entry, shares });
            }
        }
        let mut present = None;
        if read_all {
            let gone = lingering.iter().map(|open| (open.sock, open.connection.created_ns));
            present = Some(self.open.iter().map(Open::key).chain(gone).collect());
            found.append(&mut lingering);
        }
        let sample = Sample { closed, open: found, orphans, counters: self.counters, present, ..sample() };
        let snapshot = self.traffic.update(&sample);
        self.note(&snapshot);
    }

    fn note(&mut self, snapshot: &Snapshot) {
        for row in &snapshot.rows {
            let moved = Bytes { sent: row.sent_bytes, received: row.received_bytes };
            let reconciled = Bytes { sent: row.reconciled_sent_bytes, received: row.reconciled_received_bytes };
            assert!(!moved.is_zero(), "a row without bytes");
            assert!(moved.since(reconciled).plus(reconciled) == moved, "more made good than there is: {row:?}");
            self.reconciled = self.reconciled.plus(reconciled);
            let pid = row.process.as_ref().map_or(0, |process| process.pid);
            let seen = moved.since(reconciled);
            assert!(pid != 0 || seen.is_zero(), "nobody's bytes were seen: {row:?}");
            add(&mut self.said, pid, if self.slow == Slow::Nobody { seen } else { moved });
            let port = *self.ports.entry(row.connection).or_insert(row.local_port);
            assert_eq!(port, row.local_port, "two connections have the number {}", row.connection);
        }
        let unattributed =
            Bytes { sent: snapshot.unattributed_sent_bytes, received: snapshot.unattributed_received_bytes };
        self.said_unattributed = self.said_unattributed.plus(unattributed);
        self.said_lost += snapshot.lost_events;
    }

    /// All that were open end in order, and nothing is on its way any more.
    fn finish(&mut self) {
        self.sample();
        for index in 0..self.open.len() {
            self.return_calls(index);
        }
        for open in std::mem::take(&mut self.open) {
            self.unseen = self.unseen.plus(open.unseen);
            self.next.closed.push(open.ended());
        }
        for _ in 0..3 {
            self.sample();
        }
    }
}

/// Runs the simulation to its end and checks what holds in any case.
fn run(seed: u64, slow: Slow) -> Simulation {
    let mut simulation = Simulation::new(seed, slow);
    for _ in 0..400 {
        simulation.step();
    }
    simulation.finish();
    simulation.moved.retain(|_, bytes| !bytes.is_zero());
    simulation.said.retain(|_, bytes| !bytes.is_zero());
    assert_eq!(simulation.said_unattributed, simulation.unattributed, "put on nobody, seed {seed}");
    assert_eq!(simulation.said_lost, simulation.lost, "lost records, seed {seed}");
    assert!(simulation.traffic.reported.is_empty(), "left behind, seed {seed}");
    let numbers: std::collections::HashSet<_> = simulation.ports.values().collect();
    assert_eq!(numbers.len(), simulation.ports.len(), "one connection has two numbers, seed {seed}");
    simulation
}

#[test]
fn every_byte_is_said_once_and_of_the_process_that_moved_it() {
    let (mut total, mut lost) = (Bytes::default(), 0);
    for seed in 0..200 {
        let simulation = run(seed, Slow::Nobody);
        assert_eq!(simulation.said, simulation.moved, "by process, seed {seed}");
        assert_eq!(simulation.reconciled, simulation.unseen, "not seen by hooks, seed {seed}");
        total = total.plus(sum(&simulation.said));
        lost += simulation.lost;
    }
    // Otherwise nothing was tried.
    assert!(total.sent > 1_000_000 && total.received > 1_000_000 && lost > 100, "{total:?}, {lost} lost");
}

#[test]
fn calls_that_last_longer_than_a_sample_are_said_once() {
    for seed in 0..200 {
        for slow in [Slow::Owners, Slow::Anybody] {
            let simulation = run(seed, slow);
            assert_eq!(sum(&simulation.said), sum(&simulation.moved).plus(simulation.unseen), "{slow:?}, seed {seed}");
            if slow == Slow::Owners {
                for (pid, moved) in &simulation.moved {
                    let unsaid = moved.since(simulation.said.get(pid).copied().unwrap_or_default());
                    assert!(unsaid.is_zero(), "{unsaid:?} of process {pid} were not said, seed {seed}");
                }
            }
        }
    }
}
