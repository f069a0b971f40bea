//! Who moved how much: from counters that only grow to what was moved in each interval.
//!
//! Invariant: what all snapshots so far have put on a connection's process equals its counter in the kernel side, so
//! the sum over all intervals and rows, with the unattributed bytes, is what was moved.

use std::collections::HashMap;

use overwatch_common::{
    connection::{Connection, flag},
    counter::Counter,
};

use super::{
    bytes::{Bytes, unseen},
    snapshot::{KernelTotals, Key, Process, Role, Row, Snapshot, address, comm_text},
};
use crate::collect::{ClosedConnection, Counters, OpenConnection, ProcessShare, Sample};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

/// What has been reported of an open connection.
#[derive(Clone, Debug, Default)]
struct Reported {
    number: u64,
    /// By process.
    processes: HashMap<u32, Bytes>,
    /// What the last sample showed that the kernel knew of and no hook had seen.
    unseen: Bytes,
    /// How much of that has been reported, on the owner.
    reconciled: Bytes,
    /// It was in the table no more when that was read. Its last record may still come, or its shares if that was lost.
    gone: bool,
}

/// The model of the traffic. Feed it samples, it gives snapshots.
#[derive(Debug, Default)]
pub struct Traffic {
    reported: HashMap<Key, Reported>,
    connections: u64,
    counters: Counters,
    skipped_runs: u64,
}

impl Traffic {
    /// The snapshot of the interval that the sample ends.
    pub fn update(&mut self, sample: &Sample) -> Snapshot {
        let mut rows = Vec::new();
        let mut unattributed = Bytes {
            sent: self.grown(sample, Counter::UnattributedSent),
            received: self.grown(sample, Counter::UnattributedReceived),
        };
        let lost_events = self.grown(sample, Counter::ClosedLost);
        for (key, share) in &sample.orphans {
            let now = Bytes { sent: share.sent, received: share.received };
            unattributed = unattributed.plus(now.since(self.reported_of_orphan(key.sock, key.generation, key.tgid)));
        }
        for open in &sample.open {
            self.open(open, &mut rows);
        }
        for closed in &sample.closed {
            self.close(closed, &mut rows);
        }
        // One sample is enough: records and shares that this one did not bring will not come.
        self.reported.retain(|_, reported| !reported.gone);
        if let Some(present) = &sample.present {
            for (key, reported) in &mut self.reported {
                reported.gone = !present.contains(key);
            }
        }
        let skipped_runs = sample.skipped_runs.map(|now| now.saturating_sub(self.skipped_runs));
        self.skipped_runs = sample.skipped_runs.unwrap_or(0);
        self.counters = sample.counters;
        rows.sort_by_key(|row| (std::cmp::Reverse(row.sent_bytes + row.received_bytes), row.connection));
        Snapshot {
            time: sample.time,
            interval: sample.elapsed,
            rows,
            unattributed_sent_bytes: unattributed.sent,
            unattributed_received_bytes: unattributed.received,
            skipped_runs,
            lost_events,
        }
    }

    fn grown(&self, sample: &Sample, counter: Counter) -> u64 {
        sample.counters.get(counter).saturating_sub(self.counters.get(counter))
    }

    fn reported_of_orphan(&self, sock: u64, generation: u32, tgid: u32) -> Bytes {
        let reported =
            self.reported.iter().find(|((of, created_ns), _)| *of == sock && *created_ns as u32 == generation);
        reported.and_then(|(_, reported)| reported.processes.get(&tgid).copied()).unwrap_or_default()
    }

    fn open(&mut self, open: &OpenConnection, rows: &mut Vec<Row>) {
        let connection = &open.connection;
        let key = (open.sock, connection.created_ns);
        let reported = self.reported(open.sock, connection);
        let alone = connection.shares == 0;
        // The kernel's counters are read while it changes them, and run ahead of calls that have not returned. What two
        // samples agree on is true: the kernel skipped a program, or the tier cannot see the call.
        let kernel = Bytes { sent: connection.live_sent, received: connection.live_received };
        let unseen = if alone { unseen(kernel, connection, &open.shares) } else { Bytes::default() };
        let certain = unseen.min(std::mem::replace(&mut reported.unseen, unseen));
        let fresh = certain.since(reported.reconciled);
        reported.reconciled = reported.reconciled.max(certain);
        let mut held = Bytes::default();
        for (index, (process, now)) in movers(connection, &open.shares).into_iter().enumerate() {
            let now = if index == OWNER { now.plus(certain) } else { now };
            let (moved, total) = report(reported, process.pid, now, &mut held);
            if index == OWNER {
                held = total.since(now);
            }
            if !moved.is_zero() {
                let fresh = if index == OWNER { fresh.min(moved) } else { Bytes::default() };
                rows.push(Row {
                    reconciled_sent_bytes: fresh.sent,
                    reconciled_received_bytes: fresh.received,
                    ..row(reported.number, key, connection, known(process), moved, total)
                });
            }
        }
    }

    fn close(&mut self, closed: &ClosedConnection, rows: &mut Vec<Row>) {
        let connection = &closed.connection;
        self.reported(closed.sock, connection);
        let key = (closed.sock, connection.created_ns);
        let Some(mut reported) = self.reported.remove(&key) else {
            return;
        };
        let kernel = KernelTotals { sent_bytes: connection.kernel_sent, received_bytes: connection.kernel_received };
        let unseen = unseen(
            Bytes { sent: connection.kernel_sent, received: connection.kernel_received },
            connection,
            &closed.shares,
        );
        let mut movers = movers(connection, &closed.shares);
        // Who moved what no hook saw? With one mover, that one. With none, the owner. With several, nobody knows.
        let active = movers.iter().filter(|(_, now)| !now.is_zero()).count();
        if active > 1 && !unseen.is_zero() {
            movers.push((Process { pid: 0, comm: String::new(), cgroup_id: 0 }, Bytes::default()));
        }
        let chosen = match active {
            0 => 0,
            1 => movers.iter().position(|(_, now)| !now.is_zero()).unwrap_or(0),
            _ => movers.len() - 1,
        };
        // What was put on the owner while it was alone stays there.
        let fresh = unseen.since(reported.reconciled);
        let mut held = Bytes::default();
        for (index, (process, now)) in movers.into_iter().enumerate() {
            let kept = if index == OWNER { reported.reconciled.min(unseen) } else { Bytes::default() };
            let fresh = if index == chosen { fresh } else { Bytes::default() };
            let now = now.plus(kept).plus(fresh);
            let (moved, total) = report(&mut reported, process.pid, now, &mut held);
            if index == OWNER {
                held = total.since(now);
            }
            if !moved.is_zero() {
                let fresh = fresh.min(moved);
                rows.push(Row {
                    reconciled_sent_bytes: fresh.sent,
                    reconciled_received_bytes: fresh.received,
                    kernel_totals: (connection.flags & flag::CLOSED != 0).then_some(kernel),
                    ..row(reported.number, key, connection, known(process), moved, total)
                });
            }
        }
    }

    fn reported(&mut self, sock: u64, connection: &Connection) -> &mut Reported {
        let connections = &mut self.connections;
        let reported = self.reported.entry((sock, connection.created_ns)).or_insert_with(|| {
            *connections += 1;
            Reported { number: *connections, ..Reported::default() }
        });
        reported.gone = false;
        reported
    }
}

/// Where the owner stands among the movers.
const OWNER: usize = 0;

/// Everyone who has a part in the connection, the owner first, with what each has moved so far.
fn movers(connection: &Connection, shares: &[ProcessShare]) -> Vec<(Process, Bytes)> {
    let owner = Process { pid: connection.tgid, comm: comm_text(&connection.comm), cgroup_id: connection.cgroup_id };
    let owner = (owner, Bytes { sent: connection.sent, received: connection.received });
    let shares = shares.iter().map(|ProcessShare { tgid, share }| {
        let process = Process { pid: *tgid, comm: comm_text(&share.comm), cgroup_id: share.cgroup_id };
        (process, Bytes { sent: share.sent, received: share.received })
    });
    std::iter::once(owner).chain(shares).collect()
}

/// Notes that a process's counter stands at `now`, and gives what it has grown by and what has been reported by then.
///
/// `held` is what was put on the owner and is not in its counter: if it was a call of this process that had not returned,
/// these bytes have been reported. They are held back until the end, which shows whose they were.
fn report(reported: &mut Reported, pid: u32, now: Bytes, held: &mut Bytes) -> (Bytes, Bytes) {
    let noted = reported.processes.entry(pid).or_default();
    let grown = now.since(*noted);
    let moved = grown.since(*held);
    *held = held.since(grown);
    // Never back: what no hook had seen is in the owner's counter when its call returns.
    *noted = noted.plus(moved);
    (moved, *noted)
}

/// Pid 0 is the kernel side's word for nobody.
fn known(process: Process) -> Option<Process> {
    (process.pid != 0).then_some(process)
}

fn row(number: u64, key: Key, connection: &Connection, process: Option<Process>, moved: Bytes, total: Bytes) -> Row {
    Row {
        connection: number,
        key,
        process,
        netns: connection.netns,
        local_addr: address(connection.local_addr),
        local_port: connection.local_port,
        remote_addr: address(connection.remote_addr),
        remote_port: connection.remote_port,
        role: Role::from_number(connection.role),
        state: connection.state,
        sent_bytes: moved.sent,
        received_bytes: moved.received,
        sent_bytes_total: total.sent,
        received_bytes_total: total.received,
        reconciled_sent_bytes: 0,
        reconciled_received_bytes: 0,
        kernel_totals: None,
    }
}
