//! Samples to listening sockets with their verdicts.

use super::{
    queue::{Row, Snapshot},
    queues::{Queues, Told},
    verdict::{Judge, Thresholds},
};
use crate::collect::Sample;

/// What is known of the listening sockets, and what is to be said about them.
#[derive(Debug)]
pub struct Judged {
    queues: Queues,
    judge: Judge,
}

impl Judged {
    /// `first` has what there was before the first interval: drops, overflows, clients that wait.
    pub fn new(thresholds: Thresholds, first: &Sample) -> Self {
        let mut queues = Queues::default();
        queues.update(first);
        Self { queues, judge: Judge::new(thresholds) }
    }

    /// From now on verdicts change at these.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.judge.set_thresholds(thresholds);
    }

    /// Takes in a sample within an interval.
    pub fn take_in(&mut self, sample: &Sample) {
        self.queues.take_in(sample);
    }

    /// Ends an interval with this sample.
    pub fn end(&mut self, sample: &Sample) -> Snapshot {
        let Told { queues, lost_events } = self.queues.update(sample);
        let verdicts = self.judge.judge(sample.time, sample.elapsed, &queues);
        let rows = queues.into_iter().zip(verdicts).map(|(queue, verdict)| Row { queue, verdict }).collect();
        let mut snapshot = Snapshot { time: sample.time, interval: sample.elapsed, rows, lost_events };
        snapshot.sort();
        snapshot
    }
}
