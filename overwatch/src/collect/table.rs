//! The maps of a loaded object, by type.

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf},
};
use overwatch_common::{
    connection::{Connection, Listener, Share, ShareKey},
    counter::COUNTERS,
    event::{AUDIT, ClosedKey, EPOCH, LostKey, LostSum, SKIPS},
};

use super::sample::Counters;

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
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let mut take = |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(Self {
            connections: take("CONNECTIONS")?.try_into()?,
            shares: take("SHARES")?.try_into()?,
            deferred: take("DEFERRED")?.try_into()?,
            listeners: take("LISTENERS")?.try_into()?,
            lost: take("LOST")?.try_into()?,
            events: take("EVENTS")?.try_into()?,
            counters: take("COUNTERS")?.try_into()?,
            control: take("CONTROL")?.try_into()?,
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

    pub(super) fn counters(&self) -> Result<Counters, MapError> {
        let mut counters = Counters::default();
        for (counter, _) in COUNTERS {
            let per_cpu = self.counters.get(&(*counter as u32), 0)?;
            counters.add(*counter, per_cpu.iter().sum());
        }
        Ok(counters)
    }
}
