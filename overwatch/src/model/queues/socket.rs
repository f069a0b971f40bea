//! One listening socket from look to look.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use hdrhistogram::Histogram;
use overwatch_common::connection::Listener;

use super::{
    Place,
    refused::{Drops, Hooks, Refused},
    syn_queue::Full,
};
use crate::{
    collect::{ListenerReading, NamespaceReading, RefusalsSeen},
    model::{
        clock::Clock,
        queue::{Count, Queue, SynQueue, WaitTotals, Waiting, Waits},
        snapshot::address,
    },
};

/// An accept.
pub(super) struct Seen {
    /// Kernel address of the connection's socket.
    pub(super) sock: u64,
    pub(super) accepted_ns: u64,
    /// When it came into the queue; 0 when that was not seen.
    pub(super) established_ns: u64,
    /// How many were in the queue before it.
    pub(super) queued_behind: u32,
    /// It came into the queue in this interval.
    pub(super) is_in_interval: bool,
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) sock: u64,
    pub(super) since_ns: u64,
    pub(super) netns: u32,
    pub(super) local_addr: IpAddr,
    pub(super) local_port: u16,
    /// Of this socket alone in this run.
    pub(super) number: u64,
    /// Connections that a process has stopped serving in this interval.
    pub(super) served: u64,
    accepts: Grows,
    arrivals: Grows,
    overflows_syn: Grows,
    overflows_ack: Grows,
    other_drops: Grows,
    is_exact: bool,
    /// As of the last look.
    queue: u32,
    /// When overwatch first looked.
    first_queue: u32,
    drops: u32,
    /// Of what hooks have counted.
    believed: Hooks,
    syn_queue: [u64; 2],
    peak: u32,
    waits: Option<Waited>,
    wait_totals: WaitTotals,
    /// Since when clients wait whose arrival was not seen, by connection.
    waiting_since_ns: HashMap<u64, u64>,
    somaxconn: Option<u32>,
    syncookies: Option<u32>,
    syn_cookies: Grows,
    syn_queue_overflows: Grows,
}

/// A number that grows.
#[derive(Debug, Default)]
struct Grows {
    total: u64,
    reported: u64,
}

impl Grows {
    /// Since the last call, and in all.
    fn take(&mut self) -> Count {
        let interval = self.total - std::mem::replace(&mut self.reported, self.total);
        Count { interval, total: self.total }
    }

    fn reach(&mut self, total: u64) {
        self.total = self.total.max(total);
    }
}

/// Waits of one interval, to one percent.
#[derive(Debug)]
struct Waited {
    microseconds: Histogram<u32>,
    most: Duration,
}

/// Two digits: a bucket is at most one percent wide.
const DIGITS: u8 = 2;

impl Socket {
    pub(super) fn new(number: u64, reading: &ListenerReading) -> Self {
        // What it has dropped before overwatch came is not ours to tell; one that began later had dropped nothing.
        let listener = &reading.listener;
        let is_old = listener.since_ns == 0;
        Self {
            sock: reading.sock,
            since_ns: listener.since_ns,
            netns: listener.netns,
            local_addr: address(listener.local_addr),
            local_port: listener.local_port,
            served: 0,
            number,
            accepts: Grows::default(),
            arrivals: Grows::default(),
            overflows_syn: Grows::default(),
            overflows_ack: Grows::default(),
            other_drops: Grows::default(),
            is_exact: true,
            queue: if is_old { reading.accept_queue } else { 0 },
            first_queue: if is_old { reading.accept_queue } else { 0 },
            drops: if is_old { reading.drops } else { 0 },
            believed: Hooks::default(),
            syn_queue: [0; 2],
            peak: 0,
            waits: None,
            wait_totals: WaitTotals::default(),
            waiting_since_ns: HashMap::new(),
            somaxconn: None,
            syncookies: None,
            syn_cookies: Grows::default(),
            syn_queue_overflows: Grows::default(),
        }
    }

    pub(super) fn place(&self) -> Place {
        Place { netns: self.netns, local_addr: self.local_addr, local_port: self.local_port }
    }

    pub(super) fn accepted(&mut self, seen: &Seen) {
        self.accepts.total += 1;
        if seen.is_in_interval {
            self.peak = self.peak.max(seen.queued_behind + 1);
        }
        if seen.accepted_ns == 0 {
            // It was, at some time that nobody knows.
            return;
        }
        let since_ns = match seen.established_ns {
            0 => self.waiting_since_ns.get(&seen.sock).copied(),
            known => Some(known),
        };
        let Some(since_ns) = since_ns else { return };
        let waited = Duration::from_nanos(seen.accepted_ns.saturating_sub(since_ns));
        self.wait_totals.add(waited);
        if self.waits.is_none() {
            self.waits = Waited::new();
        }
        if let Some(waits) = &mut self.waits {
            waits.add(waited);
        }
    }

    /// What it has dropped since the last look.
    pub(super) fn drops_since(&mut self, reading: &ListenerReading, seen: RefusalsSeen) -> Drops {
        // The kernel's number is 32 bits wide.
        let all = u64::from(reading.drops.wrapping_sub(std::mem::replace(&mut self.drops, reading.drops)));
        let hooks = Hooks::of(&reading.listener);
        Drops {
            all,
            syn: seen.at_syn.then(|| hooks.syn.saturating_sub(self.believed.syn)),
            ack: seen.at_ack.then(|| hooks.ack.saturating_sub(self.believed.ack)),
            was_full: reading.accept_queue.max(self.peak).max(self.queue) > reading.backlog_limit,
        }
    }

    /// SYNs since the last look that found its SYN queue beyond the limit, and at it.
    pub(super) fn syn_queue_since(&mut self, listener: &Listener) -> (u64, u64) {
        let now = [listener.syn_cookies + listener.syn_queue_overflows, listener.syn_queue_at_limit];
        let before = std::mem::replace(&mut self.syn_queue, now);
        (now[0].saturating_sub(before[0]), now[1].saturating_sub(before[1]))
    }

    pub(super) fn syn_queue_was_full(&mut self, full: Full) {
        self.syn_cookies.reach(full.cookies);
        self.syn_queue_overflows.reach(full.refused);
    }

    pub(super) fn refused(&mut self, refused: &Refused) {
        self.believed.syn += refused.syn;
        self.believed.ack += refused.ack;
        self.overflows_syn.total += refused.syn;
        self.overflows_ack.total += refused.ack;
        self.other_drops.total += refused.other;
        self.is_exact = refused.exact;
    }

    /// Takes what is new of its namespace.
    pub(super) fn namespace(&mut self, reading: Option<&NamespaceReading>) {
        if let Some(reading) = reading {
            self.somaxconn = reading.limits.somaxconn;
            self.syncookies = reading.limits.syncookies;
        }
    }

    /// The interval's row; what is known of more than this socket is left empty.
    pub(super) fn row(
        &mut self,
        reading: &ListenerReading,
        seen: RefusalsSeen,
        clock: &Clock,
        (before_ns, now_ns): (u64, u64),
    ) -> Queue {
        // A connection can be accepted between the end of the interval and the look, so this may go back for a moment.
        self.arrivals
            .reach((self.accepts.total + u64::from(reading.accept_queue)).saturating_sub(self.first_queue.into()));
        let here =
            reading.waiting.iter().filter(|client| client.established_ns != 0 && client.established_ns >= before_ns);
        let here = here.map(|client| client.queued_behind + 1).max().unwrap_or(0);
        let peak = reading.accept_queue.max(self.queue).max(here).max(std::mem::take(&mut self.peak));
        self.queue = reading.accept_queue;
        let mut waiting: Vec<Waiting> = Vec::with_capacity(reading.waiting.len());
        let before = std::mem::take(&mut self.waiting_since_ns);
        for client in &reading.waiting {
            let since_ns = match client.established_ns {
                0 => before
                    .get(&client.sock)
                    .copied()
                    // The look is later than the end of the interval, by the time that it took to take in what had happened.
                    .or_else(|| Some(reading.time_ns.saturating_sub(client.waited?.as_nanos() as u64))),
                known => Some(known),
            };
            if let Some(since_ns) = since_ns.filter(|_| client.established_ns == 0) {
                self.waiting_since_ns.insert(client.sock, since_ns);
            }
            waiting.push(Waiting {
                remote_addr: address(client.remote_addr),
                remote_port: client.remote_port,
                waiting: since_ns.map(|since_ns| Duration::from_nanos(now_ns.saturating_sub(since_ns))),
                unread_bytes: client.unread_bytes,
                state: client.state,
            });
        }
        Queue {
            listener: self.number,
            netns: self.netns,
            local_addr: self.local_addr,
            local_port: self.local_port,
            inode: reading.inode,
            listening_since: clock.time(self.since_ns),
            holders: Vec::new(),
            siblings: 0,
            accept_queue: reading.accept_queue,
            accept_queue_peak: peak,
            backlog_limit: reading.backlog_limit,
            somaxconn: self.somaxconn,
            syncookies: self.syncookies,
            syn_queue: reading.syn_queue.map(|of| SynQueue {
                length: of.length,
                old: of.length.saturating_sub(of.young),
                defers_accept: of.defers_accept,
            }),
            accepts_seen: true,
            accepts_lost: false,
            arrivals: self.arrivals.take(),
            accepts: self.accepts.take(),
            overflows_syn: self.overflows_syn.take(),
            overflows_ack: self.overflows_ack.take(),
            // Where those at the last ACK are counted, the rest were at the SYN.
            overflows_told_apart: seen.at_ack,
            overflows_exact: self.is_exact,
            other_drops: self.other_drops.take(),
            syn_cookies: seen.at_syn.then(|| self.syn_cookies.take()),
            syn_queue_overflows: seen.at_syn.then(|| self.syn_queue_overflows.take()),
            serving: None,
            served: std::mem::take(&mut self.served),
            waiting_total: reading.accept_queue.into(),
            waiting,
            accept_waits: self.waits.take().map(|waits| waits.summary()),
            accept_wait_totals: self.wait_totals,
        }
    }
}

impl Waited {
    /// `None` never comes: the number of digits is one that the histogram takes.
    fn new() -> Option<Self> {
        Some(Self { microseconds: Histogram::new(DIGITS).ok()?, most: Duration::ZERO })
    }

    fn add(&mut self, waited: Duration) {
        self.most = self.most.max(waited);
        // It grows with its values, so that none is too large for it.
        let _always_fits = self.microseconds.record(waited.as_micros().try_into().unwrap_or(u64::MAX));
    }

    fn summary(&self) -> Waits {
        let at = |quantile| Duration::from_micros(self.microseconds.value_at_quantile(quantile)).min(self.most);
        Waits { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.most }
    }
}
