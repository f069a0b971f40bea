//! Loading the kernel side's object: maps sized, globals set, no program loaded yet.

use aya::{Ebpf, EbpfLoader};
use overwatch_common::{counter::COUNTERS, event::want};

use crate::kernel::facts::KernelFacts;

/// The object that was built with this program, or the one that was rebuilt for a test.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overwatch.bpf.o"));

/// Sizes of the maps, all from one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Connections that are known at one time.
    pub connections: u32,
    /// Shares of further processes in them.
    pub shares: u32,
    /// Final records that wait for the next drain when the ring buffer is full.
    pub deferred: u32,
    /// Calls between entry and return (kprobe tier).
    pub in_flight: u32,
    /// The ring buffer, in bytes.
    pub ring_bytes: u32,
}

impl Capacity {
    /// The setting that `--max-connections` has when it is not given.
    pub const DEFAULT_CONNECTIONS: u32 = 65_536;
    /// What the object says of maps that no setting changes.
    const LISTENERS: u32 = 16_384;
    const LOST: u32 = 4_096;
    const CONNECTING: u32 = 4_096;
    const ENDED_AGAIN: u32 = 4_096;
    /// Few connections may still have many shares, and close all at once.
    const LEAST: u32 = 4_096;

    /// The ring buffer, unless the user says otherwise.
    pub const DEFAULT_RING_BYTES: u32 = 4 * 1024 * 1024;

    /// Sizes for this many connections.
    pub fn new(connections: u32, ring_bytes: u32) -> Self {
        Self {
            connections,
            shares: (connections / 4).max(Self::LEAST),
            deferred: connections.max(Self::LEAST),
            in_flight: 32_768,
            ring_bytes,
        }
    }

    /// What the kernel sets aside for them, about: a hash table's element has a head of 48 bytes, rounded up to 8
    /// (`htab_map_alloc`, kernel/bpf/hashtab.c), and a bucket of 16 bytes.
    pub fn bytes(&self) -> u64 {
        use overwatch_common::{
            connection::{Connecting, Connection, InFlight, Listener, Share, ShareKey},
            event::{ClosedKey, LostKey, LostSum},
            scan::SCAN_BYTES,
        };
        let table = |entries: u32, key: usize, value: usize| {
            u64::from(entries) * (48 + key + value) as u64 + u64::from(entries.next_power_of_two()) * 16
        };
        table(self.connections, 8, size_of::<Connection>())
            + table(self.shares, size_of::<ShareKey>(), size_of::<Share>())
            + table(self.deferred, size_of::<ClosedKey>(), size_of::<Connection>())
            + table(self.in_flight, 8, size_of::<InFlight>())
            + table(Self::LISTENERS, 8, size_of::<Listener>())
            + table(Self::LOST, size_of::<LostKey>(), size_of::<LostSum>())
            + table(Self::CONNECTING, 8, size_of::<Connecting>())
            + table(Self::ENDED_AGAIN, 8, 8)
            + u64::from(self.ring_bytes)
            + u64::from(SCAN_BYTES)
            + (COUNTERS.len() * 8) as u64
    }
}

/// What the user side wants to know. The ends of connections, and listening sockets, it is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Which connections move bytes, sample by sample.
    Rows,
    /// Nothing more.
    Ends,
    /// Every change of state or owner.
    Changes,
    /// What waits at the listening sockets, sample by sample, what they refuse, and which changes say who is served.
    Queues,
    /// All of it, for as long as the host runs.
    Service,
}

impl Interest {
    /// The changes of connections that the kernel side is to tell of.
    fn changes(self) -> u32 {
        match self {
            Self::Rows | Self::Ends => want::NOTHING,
            Self::Changes => want::ALL,
            Self::Queues => want::SERVING,
            Self::Service => want::ALL_AND_SERVING,
        }
    }

    /// True when what `other` wants is wanted.
    pub fn includes(self, other: Self) -> bool {
        self == Self::Service || self == other
    }

    /// True when samples are to tell which connections move bytes.
    pub fn wants_rows(self) -> bool {
        self.includes(Self::Rows)
    }

    /// True when samples are to tell what waits at the listening sockets.
    pub fn wants_queues(self) -> bool {
        self.includes(Self::Queues)
    }

    /// True when whoever follows the changes needs the table of connections to begin with.
    pub fn needs_table(self) -> bool {
        self.changes() != want::NOTHING
    }
}

/// Creates the maps and prepares the programs.
pub fn load(
    facts: &KernelFacts,
    capacity: &Capacity,
    interest: Interest,
    owners: usize,
) -> Result<Ebpf, aya::EbpfError> {
    let mut loader = EbpfLoader::new();
    let want_changes = interest.changes();
    loader.override_global("WANT_CHANGES", &want_changes, true);
    for (name, value) in &facts.globals {
        loader.override_global(name, value, true);
    }
    loader
        .map_max_entries("CONNECTIONS", capacity.connections)
        .map_max_entries("SHARES", capacity.shares)
        .map_max_entries("DEFERRED", capacity.deferred)
        .map_max_entries("IN_FLIGHT", capacity.in_flight)
        .map_max_entries("EVENTS", capacity.ring_bytes)
        .map_max_entries("OWNERS", u32::try_from(owners).unwrap_or(u32::MAX).max(1))
        .load(OBJECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_serves_wants_what_each_of_the_others_wants() {
        // Changes; whether the table, rows and queues are wanted.
        for (interest, changes, wanted) in [
            (Interest::Ends, want::NOTHING, (false, false, false)),
            (Interest::Rows, want::NOTHING, (false, true, false)),
            (Interest::Changes, want::ALL, (true, false, false)),
            (Interest::Queues, want::SERVING, (true, false, true)),
            (Interest::Service, want::ALL_AND_SERVING, (true, true, true)),
        ] {
            let found = (interest.needs_table(), interest.wants_rows(), interest.wants_queues());
            assert_eq!((interest.changes(), found), (changes, wanted), "{interest:?}");
            assert!(interest.includes(interest) && Interest::Service.includes(interest), "{interest:?}");
            assert_eq!(changes >= want::LEAST_WITH_LISTENER, interest.wants_queues(), "{interest:?}");
        }
    }
}
