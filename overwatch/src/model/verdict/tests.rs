//! The scenarios, at several intervals, and the rules by themselves.

use std::time::Duration;

use self::host::{Watch, client, idle};
use super::{Cause, Level};
use crate::model::queue::{Count, Queue, Waits};

mod host;
mod rules;
mod scenarios;
mod servers;
mod stalled;
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

/// Three clients that wait, the oldest for so long, at a server that serves five.
fn waiting(oldest_ms: u64) -> Queue {
    Queue {
        accept_queue: 3,
        accept_queue_peak: 3,
        serving: Some(5),
        waiting: vec![client(oldest_ms), client(oldest_ms / 2), client(0)],
        waiting_total: 3,
        ..idle(1)
    }
}

fn calm() -> Queue {
    Queue { serving: Some(5), ..idle(1) }
}

fn count(number: u64) -> Count {
    Count { interval: number, total: number }
}

fn waits(milliseconds: u64) -> Option<Waits> {
    let wait = Duration::from_millis(milliseconds);
    Some(Waits { p50: wait, p90: wait, p99: wait, max: wait })
}

/// Judges one interval after the other, of the same length.
fn levels(interval_ms: u64, queues: &[Queue]) -> Vec<(Level, Cause)> {
    let mut watch = Watch::new();
    queues.iter().map(|queue| watch.one(interval_ms, queue)).map(|verdict| (verdict.level, verdict.cause)).collect()
}
