//! What the numbers of an interval, and those before it, say of one listening socket. Level and cause are decided from this.

use std::time::Duration;

use super::{
    Cause, Level, Thresholds, history,
    history::{History, Sums},
};
use crate::model::queue::{Holder, Queue};

/// A process that has at most so many descriptors left cannot accept: many servers keep a few back.
const DESCRIPTORS_KEPT_BACK: u64 = 4;

/// Fewer connections in the queue at once are no burst, however short the queue is.
const SMALLEST_BURST: u32 = 4;

/// The other sockets of the same address (SO_REUSEPORT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Siblings {
    /// At which nobody waits noticeably, and that another process holds.
    pub(super) fine: usize,
    /// Accepted by those in the window.
    pub(super) accepts: u64,
}

/// One listening socket, now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) queue: &'a Queue,
    pub(super) history: &'a History,
    /// The numbers of the window.
    pub(super) window: Sums,
    pub(super) thresholds: &'a Thresholds,
    pub(super) siblings: Siblings,
}

/// All threads of the process are stopped.
pub(super) fn is_stopped(holder: &Holder) -> bool {
    holder.threads.is_some_and(|threads| threads.total > 0 && threads.stopped >= threads.total)
}

/// All threads of the process wait for a disk or the like.
fn is_uninterruptible(holder: &Holder) -> bool {
    holder.threads.is_some_and(|threads| threads.total > 0 && threads.uninterruptible >= threads.total)
}

/// The processes that were looked at are all like that, and there is one.
fn all(queue: &Queue, is: impl Fn(&Holder) -> bool) -> bool {
    let mut seen = queue.holders.iter().filter(|holder| holder.threads.is_some()).peekable();
    seen.peek().is_some() && seen.all(is)
}

/// All processes that hold the socket are stopped.
pub(super) fn all_stopped(queue: &Queue) -> bool {
    all(queue, is_stopped)
}

/// How long the oldest client has waited, or at least how long; `None` when nobody waits.
pub(super) fn oldest_wait(queue: &Queue, history: &History) -> Option<Duration> {
    queue.oldest_wait().or_else(|| history.least_wait())
}

/// Somebody waits, and would notice.
pub(super) fn somebody_waits(queue: &Queue, history: &History, thresholds: &Thresholds) -> bool {
    oldest_wait(queue, history).is_some_and(|oldest| oldest >= thresholds.noticed())
}

impl Facts<'_> {
    pub(super) fn oldest_wait(&self) -> Option<Duration> {
        oldest_wait(self.queue, self.history)
    }

    pub(super) fn somebody_waits(&self) -> bool {
        somebody_waits(self.queue, self.history, self.thresholds)
    }

    /// The longest wait that is known of: of those who wait, and of those accepted in this interval.
    fn longest_wait(&self) -> Duration {
        let accepted = self.queue.accept_waits.map(|waits| waits.max);
        self.oldest_wait().max(accepted).unwrap_or_default()
    }

    /// How bad this interval was.
    pub(super) fn level(&self) -> Level {
        let (queue, history) = (self.queue, self.history);
        let open_refusals = history.open_refusals && self.window.overflows > 0;
        let wait = self.longest_wait();
        if history.refusing || open_refusals || history::syn_refused(queue) > 0 {
            Level::Overflowing
        } else if wait > self.thresholds.wait {
            Level::Saturated
        } else if !queue.accepts_seen && queue.accept_queue > 0 && self.oldest_wait().is_none() {
            // There is a queue, and nothing tells how long it has been there.
            Level::Busy
        } else if wait >= self.thresholds.noticed() || self.is_nearly_full() || history::is_syn_trouble(queue) {
            Level::Busy
        } else {
            Level::Ok
        }
    }

    /// The accept queue was nearly full at some time of the interval.
    pub(super) fn is_nearly_full(&self) -> bool {
        let most = self.queue.accept_queue_peak.max(self.queue.accept_queue);
        let capacity = f64::from(self.queue.backlog_limit) + 1.0;
        most >= SMALLEST_BURST && f64::from(most) >= capacity * self.thresholds.queue_share
    }

    /// Why this interval was that bad; `None` while it cannot be told yet. A cause other than none for all that is worse than busy.
    pub(super) fn cause(&self, level: Level) -> Option<Cause> {
        if level == Level::Ok {
            return Some(Cause::None);
        }
        if let Some(cause) = self.certain_cause(level) {
            return Some(cause);
        }
        if !self.is_accept_trouble() && history::is_syn_trouble(self.queue) {
            return self.cause_of_syn_trouble(level);
        }
        if level == Level::Busy {
            return Some(Cause::None);
        }
        // The other causes rest on how many are accepted and served.
        if self.is_throttling_open() || !self.queue.accepts_seen || self.queue.accepts_lost {
            return None;
        }
        self.cause_of_waiting(level).or_else(|| self.guess())
    }

    /// What one look is enough for.
    fn certain_cause(&self, level: Level) -> Option<Cause> {
        let waiting = self.queue.accept_queue > 0 && (level >= Level::Saturated || self.somebody_waits());
        if waiting && all_stopped(self.queue) {
            return Some(if self.siblings.fine > 0 { Cause::OneWorkerStuck } else { Cause::NotAccepting });
        }
        if waiting && self.out_of_descriptors(0).is_some() {
            return Some(Cause::FdLimit);
        }
        let hindered = self.is_accept_trouble() || self.longest_wait() >= self.thresholds.noticed();
        (hindered && self.is_throttled()).then_some(Cause::CpuThrottled)
    }

    /// Clients wait, or were refused, because they are not accepted soon enough.
    fn is_accept_trouble(&self) -> bool {
        let refused = self.window.overflows > 0;
        self.history.refusing || refused || self.somebody_waits() || self.longest_wait() > self.thresholds.wait
    }

    /// The first process that has no more than so many descriptors left, with what it has open and may have.
    pub(super) fn out_of_descriptors(&self, left: u64) -> Option<(&Holder, u64, u64)> {
        self.queue.holders.iter().find_map(|holder| {
            let (open, limit) = holder.open_files.zip(holder.open_files_limit)?;
            (open.saturating_add(left) >= limit).then_some((holder, open, limit))
        })
    }

    /// As above, of the servers that keep some back.
    pub(super) fn nearly_out_of_descriptors(&self) -> Option<(&Holder, u64, u64)> {
        self.out_of_descriptors(DESCRIPTORS_KEPT_BACK)
    }

    fn is_throttled(&self) -> bool {
        let share = self.thresholds.throttled_share;
        let spans = [self.history.interval(), self.window];
        spans.iter().any(|sums| sums.throttled_share().is_some_and(|throttled| throttled >= share))
    }

    /// It has been throttled, in too few periods to tell whether that is the rule.
    fn is_throttling_open(&self) -> bool {
        let sums = self.window;
        sums.throttled_periods > 0 && sums.throttled_share().is_none()
    }

    /// The SYN queue is full, and the accept queue is not the reason.
    fn cause_of_syn_trouble(&self, level: Level) -> Option<Cause> {
        if history::is_stale(self.queue) {
            return Some(Cause::SynFlood);
        }
        let sums = self.window;
        // Also clients from far away fill the SYN queue, for a round trip; they complete, though.
        let seen_long_enough = self.history.syn_trouble > self.thresholds.settle;
        match seen_long_enough {
            true if sums.syn_cookies + sums.syn_refused > 2 * sums.arrivals => Some(Cause::SynFlood),
            true if level == Level::Overflowing => Some(Cause::BacklogTooSmall),
            _ if level == Level::Busy => Some(Cause::None),
            _ => None,
        }
    }

    /// Somebody waits, and nobody has been accepted for so long that it is no accident.
    pub(super) fn is_stalled(&self) -> bool {
        let (quiet, accepts) = (self.history.quiet, self.history.accepts_under_wait());
        // A slow server that accepts at a steady rate has gaps as well.
        let gaps = u128::from(accepts) * quiet.as_nanos() / self.history.under_wait().length.as_nanos().max(1);
        self.queue.accept_queue > 0 && quiet >= self.thresholds.settle && (accepts == 0 || gaps >= 3)
    }

    /// At least half of the processes are stopped.
    fn half_stopped(&self) -> bool {
        let stopped = self.queue.holders.iter().filter(|holder| is_stopped(holder)).count();
        stopped > 0 && stopped * 2 >= self.queue.holders.len()
    }

    /// Of clients that wait too long, or were refused because of the accept queue.
    fn cause_of_waiting(&self, level: Level) -> Option<Cause> {
        let thresholds = self.thresholds;
        let history = self.history;
        let stalled = self.is_stalled();
        if stalled && self.nearly_out_of_descriptors().is_some() {
            return Some(Cause::FdLimit);
        }
        if stalled && self.siblings.fine > 0 && self.siblings.accepts > 0 {
            return Some(Cause::OneWorkerStuck);
        }
        if stalled && self.half_stopped() {
            return Some(Cause::NotAccepting);
        }
        let longest = self.oldest_wait().max(history.longest_wait()).unwrap_or_default();
        if level == Level::Overflowing && longest <= thresholds.wait && history.drained_after_overflow() {
            return Some(Cause::BacklogTooSmall);
        }
        if stalled {
            let ceiling = history.pressed_against(1, thresholds).filter(|ceiling| self.is_limit(*ceiling));
            return Some(if ceiling.is_some() { Cause::WorkerLimit } else { Cause::NotAccepting });
        }
        if self.queue.accept_queue == 0 {
            // It is over: what it was cannot be seen any more.
            return None;
        }
        if history.under_wait().length >= thresholds.pressed() && history.accepts_under_wait() > 0 {
            let limited = history.pressed_against(2, thresholds).is_some() && history.is_turnover();
            return Some(if limited { Cause::WorkerLimit } else { Cause::SlowAccept });
        }
        self.began_and_goes_on().then_some(Cause::SlowAccept)
    }

    /// The waiting began in this interval, which was long: those accepted had waited, and nothing speaks for a ceiling.
    fn began_and_goes_on(&self) -> bool {
        let interval = self.history.interval();
        let had_waited = self.queue.accept_waits.is_some_and(|waits| waits.p50 >= self.thresholds.noticed());
        let no_ceiling = interval.served == 0 || self.queue.serving.is_some_and(|serving| serving <= 1);
        interval.length >= self.thresholds.settle * 2 && interval.accepts > 0 && had_waited && no_ceiling
    }

    /// That nobody is accepted while so many are served is a limit, and not a server that hangs.
    fn is_limit(&self, ceiling: u64) -> bool {
        let hangs = self.is_idle() && self.history.has_served_more(ceiling, self.thresholds);
        !hangs && !all(self.queue, is_uninterruptible)
    }

    /// The processes have not been on a CPU for long.
    pub(super) fn is_idle(&self) -> bool {
        self.history.idle.is_some_and(|idle| idle >= self.thresholds.idle)
    }

    /// When the cause has been open for long, what is nearest.
    fn guess(&self) -> Option<Cause> {
        let (history, window) = (self.history, self.thresholds.window);
        let long = history.undecided >= window && history.undecided_intervals >= 3;
        let accepts = self.window.accepts;
        long.then_some(if accepts > 0 { Cause::SlowAccept } else { Cause::NotAccepting })
    }
}
