//! The last few seconds of one listening socket.

use std::{collections::VecDeque, time::Duration};

use super::Thresholds;
use crate::model::queue::{Queue, SynQueue};

/// More samples are not kept, however long the window and however short the intervals.
pub(super) const MOST_SAMPLES: usize = 128;

/// Fewer half-open connections than this are no crowd, and fewer old ones than [`FEWEST_OLD`] are only slow clients. Where SYN cookies are not
/// seen, a flood at a backlog below 4 is therefore not reported: nobody is refused there, and two or three lost clients look the same.
const FEWEST_HALF_OPEN: u32 = 4;
const FEWEST_OLD: u32 = 3;

/// For so long it is remembered how many were served at most, and for as long again. Only time in which somebody is accepted counts, so that
/// a server that hangs does not become one that never served more.
const MEMORY: Duration = Duration::from_secs(3600);

/// The most connections that were served at once, in the last one to two times [`MEMORY`].
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    length: Duration,
    current: u64,
    before: u64,
}

impl Most {
    fn take(&mut self, queue: &Queue, interval: Duration) {
        if queue.accepts.interval > 0 {
            self.length = self.length.saturating_add(interval);
        }
        if self.length >= MEMORY {
            *self = Self { length: Duration::ZERO, current: 0, before: self.current };
        }
        self.current = self.current.max(queue.serving.unwrap_or_default());
    }
}

/// What is kept of an interval.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    interval: Duration,
    accept_queue: u32,
    /// Somebody was in the accept queue when the interval began.
    waited_from_the_start: bool,
    /// At the end hardly anybody was in it.
    drained: bool,
    accepts_seen: bool,
    arrivals: u64,
    accepts: u64,
    overflows: u64,
    syn_refused: u64,
    syn_cookies: u64,
    serving: Option<u64>,
    served: u64,
    longest_wait: Option<Duration>,
    periods: u64,
    throttled_periods: u64,
}

/// Numbers over some intervals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) length: Duration,
    pub(super) arrivals: u64,
    pub(super) accepts: u64,
    pub(super) served: u64,
    /// Refused because the accept queue was full.
    pub(super) overflows: u64,
    /// Refused because the SYN queue was full.
    pub(super) syn_refused: u64,
    pub(super) syn_cookies: u64,
    pub(super) periods: u64,
    pub(super) throttled_periods: u64,
}

impl Sums {
    fn add(&mut self, sample: &Sample) {
        self.length = self.length.saturating_add(sample.interval);
        self.arrivals += sample.arrivals;
        self.accepts += sample.accepts;
        self.served += sample.served;
        self.overflows += sample.overflows;
        self.syn_refused += sample.syn_refused;
        self.syn_cookies += sample.syn_cookies;
        self.periods += sample.periods;
        self.throttled_periods += sample.throttled_periods;
    }

    /// Per second.
    pub(super) fn rate(&self, number: u64) -> f64 {
        number as f64 / self.length.as_secs_f64().max(1e-3)
    }

    /// The share of throttled periods; `None` when there were too few to tell.
    pub(super) fn throttled_share(&self) -> Option<f64> {
        (self.periods >= 3).then(|| self.throttled_periods as f64 / self.periods as f64)
    }
}

/// Samples of the window, and what goes on for longer than that.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// How many of the last samples the window covers: at least one, when there is any.
    covered: usize,
    /// For at least so long nobody has been accepted.
    pub(super) quiet: Duration,
    /// For so long the holders have not been on a CPU; `None` when that is not known of all of them.
    pub(super) idle: Option<Duration>,
    /// For so long the SYN queue has been in trouble.
    pub(super) syn_trouble: Duration,
    /// Connections have been refused since the accept queue became full, and it still is.
    pub(super) refusing: bool,
    /// Refusals whose cause is still open, so that they have not been reported.
    pub(super) open_refusals: bool,
    /// For so long, and over so many intervals, the cause has been open.
    pub(super) undecided: Duration,
    pub(super) undecided_intervals: u32,
    most_served: Most,
}

/// The SYN queue is full, or nearly: it takes as many as the accept queue does (inet_csk_reqsk_queue_is_full, qlen >= sk_max_ack_backlog).
pub(super) fn is_crowded(queue: &Queue) -> bool {
    let is_crowded =
        |of: SynQueue| of.length >= FEWEST_HALF_OPEN && u64::from(of.length) * 4 >= u64::from(queue.backlog_limit) * 3;
    queue.syn_queue.is_some_and(is_crowded)
}

/// Many of the handshakes do not go on: their SYN-ACK was sent again.
pub(super) fn is_stale(queue: &Queue) -> bool {
    queue.syn_queue.is_some_and(|of| of.old >= FEWEST_OLD && u64::from(of.old) * 4 >= u64::from(of.length))
}

/// SYNs that were refused because the SYN queue was full. Without cookies the kernel also refuses from 3/4 of net.ipv4.tcp_max_syn_backlog on
/// (tcp_conn_request), which only the drops show.
pub(super) fn syn_refused(queue: &Queue) -> u64 {
    let seen = queue.syn_queue_overflows.map_or(0, |count| count.interval);
    if seen > 0 {
        return seen;
    }
    let without_cookies = queue.syncookies.is_none_or(|setting| setting == 0);
    // A short one is full before it is crowded.
    let is_full = queue.syncookies == Some(0) && queue.syn_queue.is_some_and(|of| of.length >= queue.backlog_limit);
    if without_cookies && queue.overflows().interval == 0 && (is_full || is_crowded(queue) || is_stale(queue)) {
        queue.other_drops.interval
    } else {
        0
    }
}

/// The SYN queue cannot hold what comes.
pub(super) fn is_syn_trouble(queue: &Queue) -> bool {
    match queue.syn_cookies {
        _ if syn_refused(queue) > 0 => true,
        Some(cookies) => cookies.interval > 0,
        None => is_crowded(queue) && is_stale(queue) && !queue.syn_queue.is_some_and(|of| of.defers_accept),
    }
}

impl History {
    /// Takes in an interval.
    pub(super) fn push(&mut self, queue: &Queue, interval: Duration, thresholds: &Thresholds) {
        let oldest = queue.oldest_wait();
        let waited_before = self
            .samples
            .back()
            .map_or(oldest.is_some_and(|oldest| oldest >= interval), |before| before.accept_queue > 0);
        let longest_wait = queue.accept_waits.map(|waits| waits.max);
        self.quiet = if queue.accepts.interval == 0 {
            self.quiet.saturating_add(interval)
        } else {
            // Who was accepted had come before the one who is now at the head of the queue.
            let bound = oldest.zip(longest_wait).map(|(oldest, longest)| oldest.saturating_sub(longest));
            bound.unwrap_or_default().min(interval)
        };
        self.idle = match on_cpu(queue) {
            Some(Duration::ZERO) => Some(self.idle.unwrap_or_default().saturating_add(interval)),
            Some(_) => Some(Duration::ZERO),
            None => None,
        };
        self.syn_trouble =
            if is_syn_trouble(queue) { self.syn_trouble.saturating_add(interval) } else { Duration::ZERO };
        self.most_served.take(queue, interval);
        self.refusing = queue.overflows().interval > 0 || self.refusing && queue.is_full();
        // Holders may be in different groups: the one that is throttled most counts.
        let throttling = queue.holders.iter().filter_map(|holder| holder.throttling);
        let throttling = throttling.max_by_key(|throttling| throttling.throttled_periods);
        self.samples.push_back(Sample {
            interval,
            accept_queue: queue.accept_queue,
            waited_from_the_start: waited_before,
            drained: u64::from(queue.accept_queue) * 4 <= u64::from(queue.backlog_limit) + 1,
            accepts_seen: queue.accepts_seen,
            arrivals: queue.arrivals.interval,
            accepts: queue.accepts.interval,
            overflows: queue.overflows().interval,
            syn_refused: syn_refused(queue),
            syn_cookies: queue.syn_cookies.map_or(0, |count| count.interval),
            serving: queue.serving,
            served: queue.served,
            longest_wait,
            periods: throttling.map_or(0, |throttling| throttling.periods),
            throttled_periods: throttling.map_or(0, |throttling| throttling.throttled_periods),
        });
        self.forget(thresholds.window);
    }

    /// Keeps the window, and one sample before it: what it ended with is what the window began with.
    fn forget(&mut self, window: Duration) {
        let mut length = Duration::ZERO;
        let is_within = |sample: &&Sample| {
            let before = length;
            length = length.saturating_add(sample.interval);
            before < window
        };
        let within = self.samples.iter().rev().take_while(is_within).count();
        let keep = (within + 1).min(MOST_SAMPLES);
        self.samples.drain(..self.samples.len().saturating_sub(keep));
        self.covered = within.min(self.samples.len());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    fn last(&self, count: usize) -> impl DoubleEndedIterator<Item = &Sample> {
        self.samples.range(self.samples.len() - count.min(self.samples.len())..)
    }

    /// The numbers of the last interval.
    pub(super) fn interval(&self) -> Sums {
        let mut sums = Sums::default();
        self.last(1).for_each(|sample| sums.add(sample));
        sums
    }

    /// The numbers of the window.
    pub(super) fn window(&self) -> Sums {
        let mut sums = Sums::default();
        self.last(self.covered).for_each(|sample| sums.add(sample));
        sums
    }

    /// How many of the last intervals, in the window, began with somebody in the accept queue, without a gap.
    fn pressed(&self) -> usize {
        self.last(self.covered).rev().take_while(|sample| sample.waited_from_the_start).count()
    }

    /// The numbers of the time in which somebody has been waiting without a gap, within the window. What was accepted before somebody had to
    /// wait is not among them.
    pub(super) fn under_wait(&self) -> Sums {
        let mut sums = Sums::default();
        self.last(self.pressed()).for_each(|sample| sums.add(sample));
        sums
    }

    /// How many connections were served at the ends of the intervals in which somebody waited from the start, but at least of the last one;
    /// `None` where it is not known.
    fn serving_under_wait(&self) -> Option<Vec<u64>> {
        let count = self.pressed().max(1);
        self.last(count).filter(|sample| sample.accept_queue > 0).map(|sample| sample.serving).collect()
    }

    /// The most connections that were served while clients waited; `None` when it is not known or none waits.
    pub(super) fn ceiling(&self) -> Option<u64> {
        self.samples.back().filter(|sample| sample.accept_queue > 0)?;
        self.serving_under_wait()?.into_iter().max()
    }

    /// The ceiling, when most of the time nearly as many were served, and at least `least`.
    pub(super) fn pressed_against(&self, least: u64, thresholds: &Thresholds) -> Option<u64> {
        let serving = self.serving_under_wait()?;
        let ceiling = serving.iter().copied().max()?;
        let floor = ceiling.saturating_sub(thresholds.tolerance(ceiling)).max(least);
        let near = serving.iter().filter(|serving| **serving >= floor).count();
        // One that was read between an end and the next accept does not count for much.
        (near * 4 >= serving.len() * 3).then_some(ceiling)
    }

    /// It has served noticeably more than that at once, and not long ago.
    pub(super) fn has_served_more(&self, than: u64, thresholds: &Thresholds) -> bool {
        let most = self.most_served.current.max(self.most_served.before);
        most > than.saturating_add(thresholds.tolerance(most))
    }

    /// The sample before somebody began to wait, and the first one since.
    fn around_the_first_wait(&self) -> (Option<&Sample>, Option<&Sample>) {
        let first = self.samples.len() - self.pressed();
        (first.checked_sub(1).and_then(|index| self.samples.get(index)), self.samples.get(first))
    }

    /// How many were accepted while somebody has been waiting. The burst with which it began may still have filled the server in the first
    /// interval: those are not among them.
    pub(super) fn accepts_under_wait(&self) -> u64 {
        let (before, first) = self.around_the_first_wait();
        let serving = |sample: Option<&Sample>| sample.and_then(|sample| sample.serving);
        let filled = serving(first).zip(serving(before)).map_or(0, |(end, start)| end.saturating_sub(start));
        self.under_wait().accepts.saturating_sub(filled)
    }

    /// Clients are accepted only as others end.
    pub(super) fn is_turnover(&self) -> bool {
        let accepts = self.accepts_under_wait();
        // One that ended just before may have made room for the first.
        let before = self.around_the_first_wait().0.map_or(0, |sample| sample.served.min(1));
        accepts > 0 && accepts <= self.under_wait().served + before + accepts / 10
    }

    /// Since connections were refused in the window, the queue has been drained at least once.
    pub(super) fn drained_after_overflow(&self) -> bool {
        self.last(self.covered).skip_while(|sample| sample.overflows == 0).any(|sample| sample.drained)
    }

    /// The longest wait of those accepted in the window; `None` when it is not known.
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        self.last(self.covered).filter_map(|sample| sample.longest_wait).max()
    }

    /// The client at the head of the queue has waited at least so long: since the end of the last interval from which not all have been
    /// accepted yet. For where its age is not known.
    pub(super) fn least_wait(&self) -> Option<Duration> {
        self.samples.back().filter(|sample| sample.accept_queue > 0 && sample.accepts_seen)?;
        let mut accepted_since = 0;
        let mut since = Duration::ZERO;
        let mut least = Duration::ZERO;
        for sample in self.samples.iter().rev() {
            if u64::from(sample.accept_queue) <= accepted_since {
                break;
            }
            least = since;
            accepted_since += sample.accepts;
            since = since.saturating_add(sample.interval);
        }
        Some(least)
    }
}

/// Time on a CPU of all that hold the socket; `None` when it is not known whether they ran.
pub(super) fn on_cpu(queue: &Queue) -> Option<Duration> {
    let known: Duration = queue.holders.iter().filter_map(|holder| holder.on_cpu).sum();
    let all = !queue.holders.is_empty() && queue.holders.iter().all(|holder| holder.on_cpu.is_some());
    (all || known > Duration::ZERO).then_some(known)
}
