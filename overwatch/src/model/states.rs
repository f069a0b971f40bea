//! Changes of sockets to transitions, one line each.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use overwatch_common::{connection::role, counter::Counter, event::Change};

use super::{
    clock::{Clock, between},
    filter::Subject,
    listeners::Listeners,
    snapshot::{Process, Role, address},
    state::{CLOSE, LISTEN, before_accept},
};
use crate::collect::Sample;

#[cfg(test)]
mod tests;

/// A socket went from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When.
    pub time: SystemTime,
    /// Number of the socket's life in this run: lines with the same number are of the same connection, or of the same
    /// listening socket.
    pub connection: u64,
    /// The process that connected, accepted or listens, and before accept the one that listens; `None` when it is not known.
    pub process: Option<Process>,
    /// Network namespace of the socket, inode number.
    pub netns: u32,
    /// Local address.
    pub local_addr: IpAddr,
    /// Local port; 0 when the kernel had not chosen it.
    pub local_port: u16,
    /// Remote address; `None` when it is not known, or there is none.
    pub remote_addr: Option<IpAddr>,
    /// Remote port, likewise.
    pub remote_port: Option<u16>,
    /// Who opened it; `None` when it is not known, and for listening sockets.
    pub role: Option<Role>,
    /// TCP state before, the kernel's number.
    pub old_state: u32,
    /// TCP state now.
    pub new_state: u32,
    /// How long the old state lasted; `None` when its beginning was not seen.
    pub old_state_time: Option<Duration>,
}

impl Transition {
    /// For filters.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            process: self.process.as_ref(),
            netns: self.netns,
            local_addr: self.local_addr,
            local_port: self.local_port,
            remote_addr: self.remote_addr,
            remote_port: self.remote_port,
        }
    }
}

/// What a sample tells of transitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    /// In the order of time.
    pub lines: Vec<Transition>,
    /// How many were lost. Somewhere among these lines, nobody knows where.
    pub lost_events: u64,
}

/// The number of a socket's present life, and when that began.
#[derive(Clone, Copy, Debug)]
struct Life {
    created_ns: u64,
    number: u64,
}

/// The model of transitions. Feed it samples, it gives lines.
#[derive(Debug, Default)]
pub struct States {
    listeners: Listeners,
    /// By socket. Those whose end was lost stay until the kernel uses the address again, so there are never more than it has
    /// had sockets at one time.
    lives: HashMap<u64, Life>,
    numbers: u64,
    change_lost: u64,
}

impl States {
    /// The transitions of a sample.
    pub fn update(&mut self, sample: &Sample) -> Transitions {
        self.listeners.update(sample);
        let lost = sample.counters.get(Counter::ChangeLost);
        let lost_events = lost.saturating_sub(std::mem::replace(&mut self.change_lost, lost));
        let clock = Clock::of(sample);
        let mut changes: Vec<&Change> = sample.changes.iter().collect();
        // Stable: what happened to one socket at one instant stays in its order.
        changes.sort_by_key(|change| change.time_ns);
        let all_facts = self.facts(&changes);
        let transitions = changes.into_iter().zip(all_facts).filter(|(change, _)| change.old != change.new);
        let lines = transitions
            .map(|(change, facts)| Transition {
                time: clock.time(change.time_ns).unwrap_or(sample.time),
                connection: self.number(change),
                process: facts.process,
                netns: change.netns,
                local_addr: facts.local_addr,
                local_port: facts.local_port,
                remote_addr: facts.remote.map(|(addr, _)| addr),
                remote_port: facts.remote.map(|(_, port)| port),
                role: Role::from_number(change.role),
                old_state: u32::from(change.old),
                new_state: u32::from(change.new),
                old_state_time: between(change.since_ns, change.time_ns),
            })
            .collect();
        Transitions { lines, lost_events }
    }

    /// What is known of each change's socket: what it says itself, then what later ones of the same life say.
    fn facts(&self, changes: &[&Change]) -> Vec<Facts> {
        let mut later: HashMap<(u64, u64), Facts> = HashMap::new();
        let from_the_last = changes.iter().rev().map(|change| {
            let life = (change.sock, change.created_ns);
            let own = Facts::of(change);
            let mut facts = match later.get(&life) {
                Some(later) => own.filled_from(later),
                None => own.clone(),
            };
            later.insert(life, facts.clone());
            if own.process.is_none() {
                // Not for the lines before it, which ask for themselves.
                facts.process = self.listener_process(change).or(facts.process);
            }
            facts
        });
        let mut facts: Vec<_> = from_the_last.collect();
        facts.reverse();
        facts
    }

    /// The process that listens, for listening sockets and what nobody has accepted yet.
    fn listener_process(&self, change: &Change) -> Option<Process> {
        let (old, new) = (u32::from(change.old), u32::from(change.new));
        let listening = old == LISTEN || new == LISTEN;
        if !(listening || change.role == role::SERVER) || !before_accept(old) || !before_accept(new) {
            return None;
        }
        let local_addr = address(change.local_addr);
        self.listeners.of(change.netns, local_addr, change.local_port, change.created_ns)?.process.clone()
    }

    fn number(&mut self, change: &Change) -> u64 {
        let (old, new) = (u32::from(change.old), u32::from(change.new));
        let same = |life: &&Life| life.created_ns == change.created_ns && old != CLOSE;
        let number = self.lives.get(&change.sock).filter(same).map_or_else(
            || {
                self.numbers += 1;
                self.numbers
            },
            |life| life.number,
        );
        if new == CLOSE {
            self.lives.remove(&change.sock);
        } else {
            self.lives.insert(change.sock, Life { created_ns: change.created_ns, number });
        }
        number
    }
}

/// What becomes known of a socket in the course of its life.
#[derive(Clone, Debug)]
struct Facts {
    process: Option<Process>,
    local_addr: IpAddr,
    local_port: u16,
    remote: Option<(IpAddr, u16)>,
}

impl Facts {
    fn of(change: &Change) -> Self {
        Self {
            process: Process::from_kernel(change.tgid, &change.comm, change.cgroup_id),
            local_addr: address(change.local_addr),
            local_port: change.local_port,
            remote: (change.remote_port != 0).then(|| (address(change.remote_addr), change.remote_port)),
        }
    }

    /// Never in place of what is known. A child that is born has its listener's address, which can be the wildcard.
    fn filled_from(&self, later: &Self) -> Self {
        let local_addr = if self.local_addr.is_unspecified() { later.local_addr } else { self.local_addr };
        Self {
            process: self.process.clone().or_else(|| later.process.clone()),
            local_addr,
            local_port: if self.local_port == 0 { later.local_port } else { self.local_port },
            remote: self.remote.or(later.remote),
        }
    }
}
