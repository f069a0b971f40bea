//! The scenarios, at several intervals, and the rules by themselves.

use std::time::Duration;

use super::{Cause, Level};

mod host;
mod rules;
mod scenarios;
mod walk;

/// Shorthands for tables.
const OK: (Level, Cause) = (Level::Ok, Cause::None);
const BUSY: (Level, Cause) = (Level::Busy, Cause::None);

fn busy(cause: Cause) -> (Level, Cause) {
    (Level::Busy, cause)
}

fn saturated(cause: Cause) -> (Level, Cause) {
    (Level::Saturated, cause)
}

fn overflowing(cause: Cause) -> (Level, Cause) {
    (Level::Overflowing, cause)
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}
