//! From when on something counts. Every number is a setting; the reason for its default stands beside it.

use std::time::Duration;

/// What separates one verdict from another. The defaults suit web servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// The longest that a client may wait for accept before the listener is saturated: 1 s.
    ///
    /// A server with room accepts within milliseconds, so a second is no accident of scheduling. It is also the time after which a client
    /// whose SYN was refused sends it again (RFC 6298): waiting longer than that in the queue is as bad as having been refused once.
    pub wait: Duration,
    /// From this wait on a listener is busy: 100 ms.
    ///
    /// About what a person notices. A healthy server stays below it under load, also on a slow machine.
    pub busy_wait: Duration,
    /// How full the accept queue may have been, as a share of its capacity, before the listener is busy: 3/4.
    ///
    /// Then the next burst does not fit. Below that, a queue that drains at once says nothing.
    pub queue_share: f64,
    /// For so long it must have been better throughout before a verdict improves, and for so long another cause must have been the answer
    /// before an episode's cause changes: 3 s.
    ///
    /// It bridges the pauses between retransmitted SYNs (1 s, then 2 s), and it keeps the promise that a listener is ok again within 5 s
    /// after its server has recovered, with one interval of 1 s before and one after.
    pub calm: Duration,
    /// Over so long rates, and whether a number stays constant, are looked at: 5 s.
    ///
    /// Long enough for several requests of an ordinary server, short enough to describe what happens now.
    pub window: Duration,
    /// For so long nobody must have been accepted, or the same have been seen, before a cause is named that rests on it: 1 s.
    ///
    /// Until then the level is at most busy, and the cause open: a first answer that is wrong does more harm than one that comes a second
    /// later. What is certain at once (stopped processes, no descriptors left, throttling) does not wait for it.
    pub settle: Duration,
    /// When the processes of a listener that accepts nobody have not used a CPU for so long, and serve fewer connections than they did
    /// before, work is said to be over: 10 s.
    ///
    /// A server that still works runs at least now and then: for a timer, a write, a health check. Idleness alone says little, though:
    /// workers that all wait for a slow backend, for slow clients or for the next request of a kept connection do not run either, and that
    /// is how a server at its limit looks. But at its limit it serves as many as it ever does, and one that hangs hardly ever happens to.
    pub idle: Duration,
    /// How much the number of served connections may vary, as a share of its maximum, and still be constant: 5 %, but at least 1.
    ///
    /// Where a worker becomes free it takes some moments until the next client is accepted.
    pub constant_share: f64,
    /// The share of enforcement periods in which a control group ran out of processor time, from which on it counts as throttled: 1/4.
    ///
    /// Single throttled periods are normal under a quota; at a quarter of them a client has to wait for the quota often enough to notice.
    pub throttled_share: f64,
}

impl Thresholds {
    /// Those that hold unless others are given.
    pub const DEFAULT: Self = Self {
        wait: Duration::from_secs(1),
        busy_wait: Duration::from_millis(100),
        queue_share: 0.75,
        calm: Duration::from_secs(3),
        window: Duration::from_secs(5),
        settle: Duration::from_secs(1),
        idle: Duration::from_secs(10),
        constant_share: 0.05,
        throttled_share: 0.25,
    };

    /// From this wait on somebody waits noticeably: one that is too long is noticeable as well.
    pub(super) fn noticed(&self) -> Duration {
        self.busy_wait.min(self.wait)
    }

    /// How many fewer than this are still the same number.
    pub(super) fn tolerance(&self, serving: u64) -> u64 {
        ((serving as f64 * self.constant_share) as u64).max(1)
    }

    /// For so long clients must have been waiting before the rates of that time are believed: not for longer than what is looked at.
    pub(super) fn pressed(&self) -> Duration {
        self.settle.min(self.window)
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::DEFAULT
    }
}
