//! From the kernel side's clock to the one on the wall.

use std::time::{Duration, SystemTime};

use crate::collect::Sample;

/// One instant on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    time: SystemTime,
    monotonic_ns: u64,
}

impl Clock {
    /// By the sample's own instant: as near as can be to the events in it, so that a wall clock that was set does little harm.
    pub fn of(sample: &Sample) -> Self {
        Self { time: sample.time, monotonic_ns: sample.monotonic_ns }
    }

    /// The time of day of an instant of CLOCK_MONOTONIC; `None` for 0, which is the kernel side's word for unknown.
    pub fn time(&self, monotonic_ns: u64) -> Option<SystemTime> {
        let of = |nanoseconds| Duration::from_nanos(nanoseconds);
        match monotonic_ns {
            0 => None,
            past if past <= self.monotonic_ns => self.time.checked_sub(of(self.monotonic_ns - past)),
            // Programs on other CPUs went on while the sample was taken.
            later => self.time.checked_add(of(later - self.monotonic_ns)),
        }
    }
}

/// How long it took from one instant to another; `None` when one of them is not known (0) or they are the wrong way round.
pub fn between(from_ns: u64, to_ns: u64) -> Option<Duration> {
    (from_ns != 0 && to_ns != 0).then(|| to_ns.checked_sub(from_ns)).flatten().map(Duration::from_nanos)
}
