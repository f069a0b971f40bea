//! Samples to snapshots. Pure: no I/O, and no clock of its own.

pub mod bytes;
pub mod clock;
pub mod connections;
pub mod ending;
pub mod filter;
pub mod judged;
pub mod life;
pub mod listeners;
pub mod losses;
pub mod open;
pub mod queue;
pub mod queues;
pub mod services;
pub mod snapshot;
mod state;
pub mod states;
pub mod traffic;
pub mod verdict;
pub mod workers;

#[cfg(test)]
pub(crate) mod fixtures;
