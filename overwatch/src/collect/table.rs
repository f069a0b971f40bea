//! The maps of a loaded object, by type.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use overwatch_common::{
    connection::{Connection, Listener, Share, ShareKey},
    counter::COUNTERS,
    event::{AUDIT, ClosedKey, EPOCH, LISTENERS_CHANGED, LostKey, LostSum, SKIPS},
};

use super::{about::MapReading, sample::Counters};

/// The maps that a drain reads.
pub(super) struct Maps {
    pub(super) connections: HashMap<MapData, u64, Connection>,
    pub(super) shares: HashMap<MapData, ShareKey, Share>,
    pub(super) deferred: HashMap<MapData, ClosedKey, Connection>,
    pub(super) listeners: HashMap<MapData, u64, Listener>,
    pub(super) lost: HashMap<MapData, LostKey, LostSum>,
    pub(super) events: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    control: Array<MapData, u32>,
    capacities: std::collections::HashMap<&'static str, u32>,
}

/// Maps that can fill up.
const CONNECTIONS: &str = "CONNECTIONS";
const SHARES: &str = "SHARES";
const DEFERRED: &str = "DEFERRED";
const LISTENERS: &str = "LISTENERS";
const LOST: &str = "LOST";

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let mut capacities = std::collections::HashMap::new();
        let mut take = |name: &'static str| {
            let map = ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?;
            if let Map::HashMap(data) = &map {
                capacities.insert(name, data.info()?.max_entries());
            }
            Ok::<_, MapError>(map)
        };
        Ok(Self {
            connections: take(CONNECTIONS)?.try_into()?,
            shares: take(SHARES)?.try_into()?,
            deferred: take(DEFERRED)?.try_into()?,
            listeners: take(LISTENERS)?.try_into()?,
            lost: take(LOST)?.try_into()?,
            events: take("EVENTS")?.try_into()?,
            counters: take("COUNTERS")?.try_into()?,
            control: take("CONTROL")?.try_into()?,
            capacities,
        })
    }

    pub(super) fn set_epoch(&mut self, epoch: u32) -> Result<(), MapError> {
        self.control.set(EPOCH, epoch, 0)
    }

    pub(super) fn set_audit(&mut self, number: u16) -> Result<(), MapError> {
        self.control.set(AUDIT, u32::from(number), 0)
    }

    pub(super) fn set_skips(&mut self, may_have: bool) -> Result<(), MapError> {
        self.control.set(SKIPS, u32::from(may_have), 0)
    }

    /// A word that changes with the set of listening sockets.
    pub(super) fn listeners_changed(&self) -> Result<u32, MapError> {
        self.control.get(&LISTENERS_CHANGED, 0)
    }

    pub(super) fn readings(&self) -> Result<Vec<MapReading>, MapError> {
        let entries = [
            (CONNECTIONS, entries(&self.connections)?),
            (SHARES, entries(&self.shares)?),
            (DEFERRED, entries(&self.deferred)?),
            (LISTENERS, entries(&self.listeners)?),
            (LOST, entries(&self.lost)?),
        ];
        let reading = |(name, entries)| {
            let capacity = self.capacities.get(name).copied()?;
            Some(MapReading { name, entries, capacity })
        };
        Ok(entries.into_iter().filter_map(reading).collect())
    }

    pub(super) fn counters(&self) -> Result<Counters, MapError> {
        let mut counters = Counters::default();
        for (counter, _) in COUNTERS {
            let per_cpu = self.counters.get(&(*counter as u32), 0)?;
            counters.add(*counter, per_cpu.iter().sum());
        }
        Ok(counters)
    }
}

fn entries<K: aya::Pod, V: aya::Pod>(map: &HashMap<MapData, K, V>) -> Result<u64, MapError> {
    map.keys().try_fold(0, |count, key| key.map(|_| count + 1))
}
