//! One instant on two clocks.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// An instant, on the wall's clock and on the kernel side's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Both {
    pub(super) time: SystemTime,
    pub(super) monotonic_ns: u64,
}

/// Near enough: a line's times are printed in microseconds.
const NEAR_NS: u64 = 10_000;
/// A reader that is never left alone for so long has worse worries.
const TRIES: usize = 8;

/// Now. Whoever reads two clocks may lose the CPU in between, and be several milliseconds wrong.
pub(super) fn now() -> Both {
    nearest(|| (monotonic_ns(), SystemTime::now(), monotonic_ns()))
}

/// Now by the clock of the kernel side's times.
pub(super) fn monotonic_ns() -> u64 {
    // Cannot fail for a clock that every kernel has; 0 is the word for unknown.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(0)
}

/// Of some readings of the wall's clock, each between two of the other, the one with the least between them.
fn nearest(mut read: impl FnMut() -> (u64, SystemTime, u64)) -> Both {
    let mut try_once = || {
        let (before, time, after) = read();
        let apart = after.saturating_sub(before);
        (apart, Both { time, monotonic_ns: before + apart / 2 })
    };
    let (mut least, mut best) = try_once();
    for _ in 1..TRIES {
        if least <= NEAR_NS {
            break;
        }
        let (apart, both) = try_once();
        if apart < least {
            (least, best) = (apart, both);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_that_was_interrupted_is_not_taken() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let cases: [(&[(u64, u64)], usize); 4] = [
            (&[(100, 200)], 0),
            (&[(100, 5_000_100), (6_000_000, 6_000_100)], 1),
            (&[(100, 5_000_100), (6_000_000, 6_050_000), (7_000_000, 7_090_000)], 1),
            (
                &[
                    (0, 90_000),
                    (0, 80_000),
                    (0, 70_000),
                    (0, 60_000),
                    (0, 50_000),
                    (0, 40_000),
                    (0, 30_000),
                    (0, 20_000),
                ],
                7,
            ),
        ];
        for (readings, expected) in cases {
            let mut count = 0;
            let both = nearest(|| {
                // The last one again, once they are used up.
                let index = count.min(readings.len() - 1);
                count += 1;
                (readings[index].0, at(index as u64), readings[index].1)
            });
            let (before, after) = readings[expected];
            assert_eq!(both, Both { time: at(expected as u64), monotonic_ns: before + (after - before) / 2 });
        }
    }

    #[test]
    fn both_clocks_go_on() {
        let (first, second) = (now(), now());
        assert!(first.monotonic_ns > 0 && first.monotonic_ns <= second.monotonic_ns);
    }
}
