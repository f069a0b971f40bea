//! overwatch: who moves the bytes, and why a server does not answer.
//!
//! The folders are the way the data goes, and an arrow never points back: [`kernel`] (facts about this host) ->
//! [`probes`] (facts to plan to attached programs) -> [`collect`] (maps and ring buffer to a sample) -> [`model`]
//! (samples to a snapshot; pure) -> [`show`] (a snapshot to text) and [`export`] (a snapshot to Prometheus). [`cli`] has one file
//! per verb, and [`config`] says what the daemon can be told.

pub mod cli;
pub mod collect;
pub mod config;
pub mod export;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod kernel;
pub mod model;
pub mod privileges;
pub mod probes;
pub mod show;

// Part of build.rs, which has no tests of its own.
#[cfg(test)]
#[path = "../build/target.rs"]
mod build_target;
#[cfg(test)]
mod random;
