//! Honest traffic: one process per end of a connection, each of which counts what its own system calls returned.

pub mod args;
pub mod churn;
pub mod crowd;
pub mod end;
pub mod family;
pub mod flood;
pub mod hold;
pub mod lives;
pub mod ops;
pub mod other;
pub mod pair;
pub mod process;
pub mod queue;
pub mod queues;
pub mod report;
pub mod sandbox;
pub mod shared;
pub mod storm;
pub mod stream;
mod workers;
