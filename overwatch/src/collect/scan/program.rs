//! Listener scan by our own program: records to readings.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use overwatch_common::{
    connection::Listener,
    scan::{BATCH, LISTENER, ListenerRecord, WAITING, WaitingRecord},
};

use crate::{
    collect::{
        queues::{ListenerReading, SynQueueReading, WaitingReading},
        record::read,
        table::Maps,
    },
    probes::scan::ScanProgram,
};

use super::ScanError;

#[cfg(test)]
mod tests;

/// A listening socket and the clients in its accept queue.
type Scanned = (ListenerRecord, Vec<WaitingRecord>);

/// The program, and the clock that its readings need.
#[derive(Debug)]
pub(in crate::collect) struct ProgramScan {
    program: ScanProgram,
    /// The sockets in the map, and the word that said which they are.
    addresses: Vec<u64>,
    changed: Option<u32>,
    ticks: Ticks,
}

impl ProgramScan {
    pub(super) fn new(program: ScanProgram) -> Self {
        Self { program, addresses: Vec::new(), changed: None, ticks: Ticks::default() }
    }

    /// Scans every listening socket that is in the map.
    pub(super) fn read(&mut self, ebpf: &Ebpf, maps: &Maps) -> Result<Vec<ListenerReading>, ScanError> {
        // Read before the map, so that a socket which is added meanwhile is found the next time.
        let changed = maps.listeners_changed()?;
        if self.changed != Some(changed) {
            self.addresses = addresses(&maps.listeners)?;
            self.changed = Some(changed);
        }
        let mut scanned: Vec<Scanned> = Vec::with_capacity(self.addresses.len());
        for batch in self.addresses.chunks(BATCH) {
            let queues = self.program.listeners(ebpf, batch, |record| add_listener(&mut scanned, record))?;
            for (_, sock) in batch.iter().enumerate().filter(|(bit, _)| queues >> bit & 1 == 1) {
                // A socket that has just been scanned is among the last.
                if let Some((record, waiting)) = scanned.iter_mut().rfind(|(record, _)| record.sock == *sock) {
                    self.program.waiting(ebpf, *sock, |client| add_waiting(record, waiting, client))?;
                }
            }
        }
        if let Some((first, _)) = scanned.first() {
            self.ticks.note(first.jiffies, first.time_ns);
        }
        let ticks_per_second = self.ticks.per_second();
        Ok(scanned.iter().map(|(record, waiting)| reading(record, waiting, ticks_per_second)).collect())
    }
}

/// Each address in the map once. The kernel starts from the beginning when the entry behind which it should go on was removed
/// (`htab_map_get_next_key`, kernel/bpf/hashtab.c, v6.12), so addresses may come again, and the walk needs a bound of its own.
fn addresses(listeners: &HashMap<MapData, u64, Listener>) -> Result<Vec<u64>, MapError> {
    const MOST: usize = 1 << 20;
    let mut addresses = listeners.keys().take(MOST).collect::<Result<Vec<_>, _>>()?;
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Adds the record of a listening socket. Anything else is left out.
fn add_listener(scanned: &mut Vec<Scanned>, bytes: &[u8]) {
    let record = read::<ListenerRecord>(bytes).filter(|record| record.kind == LISTENER);
    scanned.extend(record.map(|record| (record, Vec::new())));
}

/// Adds the record of a client that waits at this socket. Anything else is left out.
fn add_waiting(listener: &ListenerRecord, waiting: &mut Vec<WaitingRecord>, bytes: &[u8]) {
    let record = read::<WaitingRecord>(bytes);
    waiting.extend(record.filter(|record| record.kind == WAITING && record.listener == listener.sock));
}

fn reading(record: &ListenerRecord, waiting: &[WaitingRecord], ticks_per_second: Option<u64>) -> ListenerReading {
    ListenerReading {
        sock: record.sock,
        listener: record.listener,
        time_ns: record.time_ns,
        inode: (record.listener.inode != 0).then_some(record.listener.inode),
        accept_queue: record.accept_queue,
        backlog_limit: record.backlog_limit,
        drops: record.drops,
        syn_queue: Some(SynQueueReading {
            length: record.syn_queue,
            young: record.syn_queue_young,
            defers_accept: record.defer_accept != 0,
        }),
        // More clients may have been queued while the queue was read.
        waiting: waiting
            .iter()
            .take(record.accept_queue as usize)
            .map(|client| {
                let (established_ns, waited) = waited(client, record, ticks_per_second);
                WaitingReading {
                    sock: client.sock,
                    established_ns,
                    remote_addr: remote_addr(client),
                    remote_port: client.remote_port,
                    state: client.state,
                    unread_bytes: client.unread_bytes,
                    queued_behind: client.queued_behind,
                    waited,
                }
            })
            .collect(),
    }
}

fn remote_addr(client: &WaitingRecord) -> [u8; 16] {
    if i32::from(client.family) == libc::AF_INET6 {
        return client.remote_addr_v6;
    }
    let [a, b, c, d] = client.remote_addr_v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Our own timestamp and the kernel's jiffies agree within this, unless the entry belongs to an earlier connection at this address, or the
/// client was queued before the handshake was complete (TCP Fast Open).
const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);

/// When the client was queued by our own timestamp, 0 if that cannot be right; and how long it has waited, by our timestamp or else by
/// the kernel's.
fn waited(client: &WaitingRecord, at: &ListenerRecord, ticks_per_second: Option<u64>) -> (u64, Option<Duration>) {
    let ticks = (at.jiffies as u32).wrapping_sub(client.last_sent_jiffies);
    // The client was queued after the listener was read.
    let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
    let by_kernel =
        ticks_per_second.map(|per_second| Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / per_second));
    let seen = client.established_ns != 0;
    let by_us = seen.then(|| Duration::from_nanos(at.time_ns.saturating_sub(client.established_ns)));
    match (by_us, by_kernel) {
        (Some(ours), Some(kernels)) if ours.abs_diff(kernels) > CLOCK_TOLERANCE => (0, Some(kernels)),
        (Some(ours), _) => (client.established_ns, Some(ours)),
        (None, kernels) => (0, kernels),
    }
}

/// Length of a jiffy (CONFIG_HZ), which no interface reports: measured between two scans.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    first: Option<(u64, u64)>,
    last: (u64, u64),
}

impl Ticks {
    /// What kernels are built with (kernel/Kconfig.hz).
    const COMMON: [u64; 4] = [100, 250, 300, 1000];
    /// Time after which one tick more or less takes none of these for another.
    const SHORTEST_NS: u64 = 200_000_000;
    /// Time after which the measurement is good without knowing what is common.
    const LONG_NS: u64 = 1_000_000_000;

    fn note(&mut self, jiffies: u64, time_ns: u64) {
        self.last = (jiffies, time_ns);
        self.first.get_or_insert(self.last);
    }

    fn per_second(&self) -> Option<u64> {
        let (first_jiffies, first_ns) = self.first?;
        let elapsed_ns = self.last.1.saturating_sub(first_ns);
        if elapsed_ns < Self::SHORTEST_NS {
            return None;
        }
        let ticks = u128::from(self.last.0.saturating_sub(first_jiffies));
        let measured = (ticks * 1_000_000_000 + u128::from(elapsed_ns / 2)) / u128::from(elapsed_ns);
        let measured = u64::try_from(measured).ok().filter(|measured| *measured > 0)?;
        let near = |common: &u64| measured.abs_diff(*common) <= common / 12;
        Self::COMMON.into_iter().find(near).or((elapsed_ns >= Self::LONG_NS).then_some(measured))
    }
}
