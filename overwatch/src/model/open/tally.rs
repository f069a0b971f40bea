//! The counts, and what they count by.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
};

use overwatch_common::connection::COMM_LEN;

use super::{ListenerOpen, Listening, Member, Process};

/// An address that is listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::model) struct Place {
    pub(super) netns: u32,
    pub(super) local_addr: IpAddr,
    pub(super) local_port: u16,
}

impl Place {
    pub(super) fn of(listening: &Listening) -> Self {
        Self { netns: listening.netns, local_addr: listening.local_addr, local_port: listening.local_port }
    }

    /// With nothing open, and nobody known who listens.
    pub(super) fn idle(self) -> ListenerOpen {
        let Self { netns, local_addr, local_port } = self;
        ListenerOpen { netns, local_addr, local_port, process: None, open: 0, waiting: 0 }
    }
}

/// A process, without its name on the heap: there is one for every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::model) struct Owner {
    tgid: u32,
    comm: [u8; COMM_LEN],
    cgroup_id: u64,
}

impl Owner {
    /// `None` for pid 0, the kernel side's word for nobody.
    pub(super) fn known(tgid: u32, comm: [u8; COMM_LEN], cgroup_id: u64) -> Option<Self> {
        (tgid != 0).then_some(Self { tgid, comm, cgroup_id })
    }

    pub(super) fn process(&self) -> Option<Process> {
        Process::from_kernel(self.tgid, &self.comm, self.cgroup_id)
    }
}

/// How many members there are of each listener, owner and remote address.
///
/// A member that waits at a known listener counts for no owner: its owner is whoever listens when somebody asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    listeners: HashMap<Place, u64>,
    waiting: HashMap<Place, u64>,
    owners: HashMap<Option<Owner>, u64>,
    remotes: HashMap<IpAddr, u64>,
    states: HashMap<u32, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, member: &Member) {
        let waits_at = waits_at(member);
        count(&mut self.listeners, member.listener);
        count(&mut self.waiting, waits_at);
        count(&mut self.owners, waits_at.is_none().then_some(member.owner));
        count(&mut self.remotes, member.remote);
        count(&mut self.states, Some(member.state));
    }

    /// What was added before, and only that.
    pub(super) fn take_off(&mut self, member: &Member) {
        let waits_at = waits_at(member);
        discount(&mut self.listeners, member.listener);
        discount(&mut self.waiting, waits_at);
        discount(&mut self.owners, waits_at.is_none().then_some(member.owner));
        discount(&mut self.remotes, member.remote);
        discount(&mut self.states, Some(member.state));
    }

    /// Open, and of these waiting.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (Place, (u64, u64))> {
        let waiting = |place| self.waiting.get(place).copied().unwrap_or(0);
        self.listeners.iter().map(move |(place, open)| (*place, (*open, waiting(place))))
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = (Option<Owner>, u64)> {
        self.owners.iter().map(|(owner, open)| (*owner, *open))
    }

    pub(super) fn remotes(&self) -> impl Iterator<Item = (IpAddr, u64)> {
        self.remotes.iter().map(|(remote, open)| (*remote, *open))
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (u32, u64)> {
        self.states.iter().map(|(state, open)| (*state, *open))
    }
}

impl<'a> FromIterator<&'a Member> for Tally {
    fn from_iter<T: IntoIterator<Item = &'a Member>>(members: T) -> Self {
        let mut tally = Self::default();
        for member in members {
            tally.add(member);
        }
        tally
    }
}

fn waits_at(member: &Member) -> Option<Place> {
    member.listener.filter(|_| member.waiting)
}

fn count<K: Hash + Eq>(counts: &mut HashMap<K, u64>, key: Option<K>) {
    if let Some(key) = key {
        *counts.entry(key).or_default() += 1;
    }
}

fn discount<K: Hash + Eq>(counts: &mut HashMap<K, u64>, key: Option<K>) {
    if let Some(Entry::Occupied(mut entry)) = key.map(|key| counts.entry(key)) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}
