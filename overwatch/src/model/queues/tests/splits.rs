//! However often samples are taken within an interval, and whatever else is told, it tells the same.

use super::*;
use crate::random::Random;

/// The last one listens at another port, and begins while overwatch watches.
const SOCKETS: [u64; 3] = [FIRST, SECOND_SOCKET, 0x3000];
/// When it begins.
const BEGIN: u64 = 4 * SECOND;
/// Ends of the intervals.
const INTERVALS: [u64; 4] = [SECOND, 11 * SECOND, 21 * SECOND, 31 * SECOND];
/// So much later than its instant a sample is taken.
const TAKEN_LATER: u64 = 3 * MILLISECOND;
const ROUNDS: u64 = 15;

/// Which changes are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Serving,
    All,
}

/// From the address of a connection's socket to that of the client's.
const CLIENTS: u64 = 0x100_0000;

/// A connection's life. What has not happened by the end is at `u64::MAX`.
struct Visit {
    sock: u64,
    listener: u64,
    established_ns: u64,
    /// Nobody saw when it was established.
    is_unseen: bool,
    accepted_ns: u64,
    let_go_ns: u64,
    ended_ns: u64,
    queued_behind: u32,
}

impl Visit {
    fn random(random: &mut Random, sock: u64) -> Self {
        let mut after = |time_ns: u64, most_ns: u64| {
            let is_never = time_ns == u64::MAX || random.once_in(12);
            if is_never { u64::MAX } else { time_ns + random.next() % most_ns }
        };
        let accepted_after_ns = after(0, 2 * SECOND);
        let busy_ns = after(0, 12 * SECOND);
        let gone_ns = after(0, SECOND);
        let listener = *random.pick(&SOCKETS);
        let first_ns = if listener == SOCKETS[2] { BEGIN } else { SECOND / 2 };
        let established_ns = first_ns + random.next() % (30 * SECOND - first_ns);
        let accepted_ns = established_ns.saturating_add(accepted_after_ns);
        let let_go_ns = accepted_ns.saturating_add(busy_ns);
        Self {
            sock,
            listener,
            established_ns,
            is_unseen: random.once_in(3),
            accepted_ns,
            let_go_ns,
            ended_ns: let_go_ns.saturating_add(gone_ns),
            queued_behind: random.below(40) as u32,
        }
    }

    /// As the kernel side knows it.
    fn seen_ns(&self) -> u64 {
        if self.is_unseen { 0 } else { self.established_ns }
    }

    fn port(&self) -> u16 {
        if self.listener == SOCKETS[2] { 81 } else { 80 }
    }

    /// What is told of it after `from` and until `to`, with the times.
    fn changes(&self, wanted: Wanted, (from, to): (u64, u64)) -> impl Iterator<Item = Change> {
        let created_ns = self.established_ns;
        let accept = Change {
            queued_behind: self.queued_behind,
            local_port: self.port(),
            ..accept(self.sock, self.listener, self.seen_ns(), self.accepted_ns)
        };
        let let_go = Change { let_go: 1, ..change(self.sock, created_ns, self.let_go_ns, (1, 4)) };
        let mut changes = vec![Change { created_ns, ..accept }, let_go];
        if wanted == Wanted::All {
            changes.extend(self.other_changes());
        }
        changes.into_iter().filter(move |change| change.time_ns > from && change.time_ns <= to)
    }

    /// What is told only to those who want all changes: the birth, the handshake, a FIN of the peer's that crosses this end's, and the client's
    /// own end, where that is on this host.
    fn other_changes(&self) -> Vec<Change> {
        let of = |time_ns, states| Change {
            local_port: self.port(),
            listener: self.listener,
            ..change(self.sock, self.established_ns, time_ns, states)
        };
        let nobodys = |change| Change { tgid: 0, listener: 0, ..change };
        let of_client = |time_ns, states| Change {
            sock: self.sock + CLIENTS,
            local_port: 50_000,
            remote_port: self.port(),
            role: role::CLIENT,
            listener: 0,
            ..of(time_ns, states)
        };
        let half = self.accepted_ns.saturating_add(self.let_go_ns.saturating_sub(self.accepted_ns) / 2);
        vec![
            nobodys(of(self.established_ns, (10, 3))),
            nobodys(of(self.established_ns, (3, 1))),
            of(half, (1, 4)),
            Change { let_go: 1, ..of(half, (4, 11)) },
            of_client(self.established_ns, (7, 2)),
            of_client(self.established_ns, (1, 1)),
            Change { let_go: 1, ..of_client(half, (1, 4)) },
        ]
    }

    fn closed(&self) -> ClosedConnection {
        let connection = Connection {
            created_ns: self.established_ns,
            local_port: self.port(),
            ..entry(self.listener, self.seen_ns(), self.accepted_ns)
        };
        ClosedConnection { sock: self.sock, connection, shares: Vec::new() }
    }
}

/// Everything that happens.
struct Script {
    visits: Vec<Visit>,
    /// When a SYN was refused, and at which socket.
    refusals: Vec<(u64, u64)>,
    /// When a change was lost.
    lost: Vec<u64>,
}

impl Script {
    fn random(random: &mut Random) -> Self {
        let time = |random: &mut Random| random.next() % (30 * SECOND);
        Self {
            visits: (0..300).map(|sock| Visit::random(random, 0x10_0000 + sock)).collect(),
            refusals: (0..60).map(|_| (time(random), *random.pick(&SOCKETS))).collect(),
            lost: (0..9).map(|_| time(random)).collect(),
        }
    }

    fn reading(&self, sock: u64, now: u64) -> ListenerReading {
        let refused = self.refusals.iter().filter(|(time_ns, at)| *at == sock && *time_ns <= now).count();
        let is_new = sock == SOCKETS[2];
        let listener = Listener {
            overflows_syn: refused as u64,
            local_port: if is_new { 81 } else { 80 },
            ..listener(if is_new { BEGIN } else { 0 }, "10.0.0.1")
        };
        let waits = |visit: &&Visit| visit.listener == sock && visit.established_ns <= now && visit.accepted_ns > now;
        let mut waiting: Vec<&Visit> = self.visits.iter().filter(waits).collect();
        waiting.sort_by_key(|visit| visit.established_ns);
        let client = |visit: &&Visit| WaitingReading {
            sock: visit.sock,
            established_ns: visit.seen_ns(),
            remote_addr: bytes("10.0.0.2"),
            remote_port: 50_000,
            state: state::ESTABLISHED,
            unread_bytes: 0,
            queued_behind: visit.queued_behind,
            waited: Some(Duration::from_nanos(now + LOOK_IS_LATER - visit.established_ns)),
        };
        ListenerReading {
            listener,
            accept_queue: waiting.len() as u32,
            drops: refused as u32,
            waiting: waiting.iter().map(client).collect(),
            ..reading(sock)
        }
    }

    /// The sample at `now`, where the one before was at `before`.
    fn sample(&self, wanted: Wanted, before: u64, now: u64) -> Sample {
        let taken = (before + TAKEN_LATER, now + TAKEN_LATER);
        let mut changes: Vec<Change> = self.visits.iter().flat_map(|visit| visit.changes(wanted, taken)).collect();
        changes.sort_by_key(|change| change.time_ns);
        let ended = self.visits.iter().filter(|visit| visit.ended_ns > taken.0 && visit.ended_ns <= taken.1);
        let mut counters = Counters::default();
        counters.add(Counter::ChangeLost, self.lost.iter().filter(|time_ns| **time_ns <= now).count() as u64);
        let sockets = SOCKETS.into_iter().filter(|sock| *sock != SOCKETS[2] || now >= BEGIN);
        let queues = sockets.map(|sock| self.reading(sock, now)).collect();
        let second = at(0, queues);
        let look = |queue| ListenerReading { time_ns: now + LOOK_IS_LATER, ..queue };
        Sample {
            monotonic_ns: now,
            queues: second.queues.map(|queues| queues.into_iter().map(look).collect()),
            changes,
            closed: ended.map(Visit::closed).collect(),
            counters,
            refusals: RefusalsSeen { at_syn: true, at_ack: true },
            ..second
        }
    }

    /// What the intervals tell when samples are also taken at these times.
    fn told(&self, wanted: Wanted, between: &[u64]) -> Vec<Told> {
        let mut times: Vec<u64> = between.iter().chain(&INTERVALS).copied().collect();
        times.sort_unstable();
        let (mut queues, mut before, mut told) = (Queues::default(), 0, Vec::new());
        for now in times {
            let sample = self.sample(wanted, before, now);
            if INTERVALS.contains(&now) {
                told.push(queues.update(&sample));
            } else {
                queues.take_in(&sample);
            }
            before = now;
        }
        told
    }
}

/// Times of samples within the intervals, so far apart that one is taken before the next.
fn between(random: &mut Random) -> Vec<u64> {
    let step = 10 * MILLISECOND;
    let most = [3, 40, 200][random.below(3)];
    let mut times: Vec<u64> =
        (0..most).map(|_| SECOND + step * (1 + random.next() % (30 * SECOND / step - 1))).collect();
    times.sort_unstable();
    times.dedup();
    times.retain(|time| !INTERVALS.contains(time));
    times
}

#[test]
fn an_interval_tells_the_same_however_often_samples_are_taken_and_whatever_else_is_told() {
    let mut random = Random::new(13);
    let (mut accepts, mut refused, mut served, mut of_new) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let script = Script::random(&mut random);
        let whole = script.told(Wanted::Serving, &[]);
        assert_eq!(script.told(Wanted::All, &[]), whole, "round {round}, all changes");
        for wanted in [Wanted::Serving, Wanted::All, Wanted::Serving, Wanted::All] {
            let between = between(&mut random);
            let parts = script.told(wanted, &between);
            for (interval, (part, whole)) in parts.iter().zip(&whole).enumerate() {
                assert_eq!(part, whole, "round {round}, interval {interval}, {wanted:?}, {} samples", between.len());
            }
        }
        for row in whole.iter().flat_map(|told| &told.queues) {
            accepts += row.accepts.interval;
            refused += row.overflows().interval;
            served += row.served;
            of_new += if row.local_port == 81 { row.accepts.interval } else { 0 };
        }
        assert_eq!(whole.iter().map(|told| told.lost_events).sum::<u64>(), 9);
    }
    // Of 300 visits and 60 refusals in each round.
    assert!(accepts > ROUNDS * 200 && served > ROUNDS * 100 && refused > ROUNDS * 40 && of_new > ROUNDS * 50);
}
