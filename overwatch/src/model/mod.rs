//! Samples to snapshots. Pure: no I/O, and no clock of its own.

pub mod clock;
pub mod filter;
pub mod snapshot;
pub mod traffic;

#[cfg(test)]
pub(crate) mod fixtures;
