//! How long accepted connections had waited, since the start: numbers that only grow, so that whoever reads them now and then misses none.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The waits up to which is counted, in rising order: what a healthy server needs, and the times at which a client sends its SYN again and
/// gives up.
pub const WAIT_EDGES: [Duration; 15] = [
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(7),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Waits of all accepts of one listening socket of which the wait is known, since overwatch started or the socket began to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitTotals {
    /// For each of [`WAIT_EDGES`]: how many waited no longer. Each one includes those before it.
    pub at_most: [u64; WAIT_EDGES.len()],
    /// How many there were, whatever they waited.
    pub count: u64,
    /// How long they waited together.
    pub sum: Duration,
}

impl WaitTotals {
    /// Counts one accept.
    pub(in crate::model) fn add(&mut self, waited: Duration) {
        let first = WAIT_EDGES.partition_point(|edge| *edge < waited);
        for at_most in &mut self.at_most[first..] {
            *at_most += 1;
        }
        self.count += 1;
        self.sum += waited;
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        Self {
            at_most: std::array::from_fn(|place| self.at_most[place] + more.at_most[place]),
            count: self.count + more.count,
            sum: self.sum + more.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_are_those_of_the_metric() {
        let seconds = WAIT_EDGES.map(|edge| edge.as_secs_f64());
        assert_eq!(
            seconds.map(|seconds| seconds.to_string()).join(" "),
            "0.0001 0.001 0.005 0.01 0.025 0.05 0.1 0.2 0.5 1 3 7 15 30 60"
        );
    }

    #[test]
    fn each_wait_is_counted_at_every_edge_that_it_does_not_exceed() {
        let all = WAIT_EDGES.len();
        // A wait, and how many edges are below it.
        for (waited, below) in [
            (Duration::ZERO, 0),
            (Duration::from_micros(100), 0),
            (Duration::from_nanos(100_001), 1),
            (Duration::from_millis(40), 5),
            (Duration::from_secs(1), 9),
            (Duration::from_millis(1_001), 10),
            (Duration::from_secs(60), 14),
            (Duration::from_secs(61), 15),
        ] {
            let mut totals = WaitTotals::default();
            totals.add(waited);
            let counted: Vec<u64> = (0..all).map(|index| u64::from(index >= below)).collect();
            assert_eq!(totals.at_most[..], counted[..], "{waited:?}");
            assert_eq!((totals.count, totals.sum), (1, waited));
        }
        let mut totals = WaitTotals::default();
        for millis in [1, 2, 30, 700, 700, 90_000] {
            totals.add(Duration::from_millis(millis));
        }
        assert_eq!(totals.at_most, [0, 1, 2, 2, 2, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5]);
        assert_eq!((totals.count, totals.sum), (6, Duration::from_millis(91_433)));
    }
}
