//! Honest traffic: one process per end of a connection, each of which counts what its own system calls returned.

pub mod args;
pub mod end;
pub mod family;
pub mod flood;
pub mod hold;
pub mod ops;
pub mod other;
pub mod pair;
pub mod process;
pub mod report;
pub mod sandbox;
pub mod shared;
pub mod stream;
