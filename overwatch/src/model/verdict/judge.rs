//! The verdicts of all listening sockets, interval by interval: hysteresis, and who belongs together.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{
    Cause, Level, Thresholds, Verdict, advice, evidence,
    facts::{self, Facts, Siblings},
    history::History,
};
use crate::model::queue::{Holder, Queue};

/// By network namespace, address and port.
type Groups = BTreeMap<(u32, IpAddr, u16), Group>;

/// Of the sockets that share an address (SO_REUSEPORT), those at which nobody waits noticeably.
#[derive(Debug, Default)]
struct Group {
    /// Which of the queues, in order, and how many each has accepted in the window.
    fine: Vec<(usize, u64)>,
    /// The sum of these.
    accepts: u64,
}

/// Makes the verdicts. It remembers some seconds of every listening socket, and forgets those that are gone.
#[derive(Debug)]
pub struct Judge {
    thresholds: Thresholds,
    known: HashMap<u64, Known>,
    round: u64,
}

/// What is remembered of a listening socket.
#[derive(Debug, Default)]
struct Known {
    history: History,
    episode: Episode,
    /// In which round it was last there.
    round: u64,
}

/// The verdict that stands, and what may change it.
#[derive(Debug)]
struct Episode {
    level: Level,
    cause: Cause,
    since: Option<SystemTime>,
    /// Time since the socket was first seen, by the lengths of the intervals: clocks are set, this is not.
    elapsed: Duration,
    /// When it was last as bad as each level, or worse.
    last: [Option<Duration>; Level::ALL.len()],
    /// Another cause that has been the answer since then.
    candidate: Option<(Cause, Duration)>,
}

impl Default for Episode {
    fn default() -> Self {
        let last = [None; Level::ALL.len()];
        Self { level: Level::Ok, cause: Cause::None, since: None, elapsed: Duration::ZERO, last, candidate: None }
    }
}

impl Episode {
    /// Takes in how bad an interval was, and why (`None`: open). True when the cause is open, and therefore the level no more than busy.
    fn update(&mut self, level: Level, cause: Option<Cause>, interval: Duration, calm: Duration) -> bool {
        self.elapsed = self.elapsed.saturating_add(interval);
        // An episode that goes on keeps its cause. A flood of SYNs does not explain why clients are not accepted.
        let goes_on = self.level >= Level::Saturated && self.cause != Cause::SynFlood;
        let open = cause.is_none() && !goes_on;
        let (level, cause) = if open { (level.min(Level::Busy), Some(Cause::None)) } else { (level, cause) };
        for reached in Level::ALL.into_iter().filter(|reached| *reached <= level) {
            self.last[reached as usize] = Some(self.elapsed);
        }
        let elapsed = self.elapsed;
        // To the nearest interval: none is exactly as long as it should be, and three of a second each are three seconds.
        let calm = calm.saturating_sub((interval / 2).min(calm / 4));
        let holds =
            |level: &Level| self.last[*level as usize].is_some_and(|last| last == elapsed || elapsed - last < calm);
        let held = Level::ALL.into_iter().rev().find(holds).unwrap_or(Level::Ok);
        self.choose(held, level, cause, calm);
        self.level = held;
        open
    }

    /// The cause of the level that holds now.
    fn choose(&mut self, held: Level, level: Level, answer: Option<Cause>, calm: Duration) {
        if held == Level::Ok {
            (self.cause, self.candidate) = (Cause::None, None);
            return;
        }
        let is_current = level == held;
        if self.level >= Level::Saturated && held == Level::Busy {
            self.cause = answer.filter(|_| is_current).unwrap_or(Cause::None);
        }
        // While it is better than what is still reported, there is nothing to see of the cause.
        let Some(answer) = answer.filter(|answer| is_current && *answer != self.cause) else {
            self.candidate = None;
            return;
        };
        let begins = self.level <= Level::Busy && held >= Level::Saturated;
        if begins || self.cause == Cause::None {
            (self.cause, self.candidate) = (answer, None);
            return;
        }
        let since = self.candidate.filter(|(cause, _)| *cause == answer).map_or(self.elapsed, |(_, since)| since);
        if self.elapsed - since >= calm && since < self.elapsed {
            (self.cause, self.candidate) = (answer, None);
        } else {
            self.candidate = Some((answer, since));
        }
    }
}

impl Judge {
    /// One that has seen nothing yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, known: HashMap::new(), round: 0 }
    }

    /// From now on verdicts change at these.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// The verdicts on the listening sockets of an interval, in the same order. `time` is when it ended.
    pub fn judge(&mut self, time: SystemTime, interval: Duration, queues: &[Queue]) -> Vec<Verdict> {
        self.round += 1;
        for queue in queues {
            let known = self.known.entry(queue.listener).or_default();
            known.round = self.round;
            known.history.push(queue, interval, &self.thresholds);
        }
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
        let groups = self.groups(queues);
        (0..queues.len()).map(|index| self.verdict(time, interval, index, queues, &groups)).collect()
    }

    fn groups(&self, queues: &[Queue]) -> Groups {
        let mut groups = Groups::new();
        for (index, queue) in queues.iter().enumerate().filter(|(_, queue)| queue.siblings > 0) {
            let Some(known) = self.known.get(&queue.listener) else { continue };
            if !facts::somebody_waits(queue, &known.history, &self.thresholds) {
                let accepts = known.history.window().accepts;
                let group = groups.entry(address(queue)).or_default();
                group.fine.push((index, accepts));
                group.accepts += accepts;
            }
        }
        groups
    }

    fn verdict(
        &mut self,
        time: SystemTime,
        interval: Duration,
        index: usize,
        queues: &[Queue],
        groups: &Groups,
    ) -> Verdict {
        let queue = &queues[index];
        let siblings = siblings(index, queues, groups);
        let thresholds = &self.thresholds;
        let Some(known) = self.known.get_mut(&queue.listener) else { return Verdict::ok() };
        let window = known.history.window();
        let facts = Facts { queue, history: &known.history, window, thresholds, siblings };
        let now = facts.level();
        let answer = facts.cause(now);
        let oldest = facts.oldest_wait();
        let episode = &mut known.episode;
        let before = (episode.level, episode.cause);
        let open = episode.update(now, answer, interval, thresholds.calm);
        let (level, cause) = (episode.level, episode.cause);
        // Not later than the oldest client came, and never in the future.
        let began = oldest.and_then(|oldest| time.checked_sub(oldest)).unwrap_or(time);
        let since = if before == (level, cause) { episode.since.unwrap_or(began) } else { began };
        episode.since = (level > Level::Ok).then_some(since.min(began));
        known.history.note_open(open, now, interval);
        if level == Level::Ok {
            return Verdict::ok();
        }
        let facts = Facts { queue, history: &known.history, window, thresholds, siblings };
        let serving_ceiling = facts.somebody_waits().then(|| facts.history.ceiling()).flatten();
        let mut verdict = Verdict {
            level,
            cause,
            since: known.episode.since,
            serving_ceiling,
            evidence: Vec::new(),
            advice: advice::advice(cause, &facts),
        };
        verdict.evidence = evidence::evidence(&verdict, now, time, &facts);
        verdict
    }

    /// How much is kept: sockets, and samples of all of them.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.known.len(), self.known.values().map(|known| known.history.len()).max().unwrap_or(0))
    }
}

fn address(queue: &Queue) -> (u32, IpAddr, u16) {
    (queue.netns, queue.local_addr, queue.local_port)
}

/// The other sockets of the same address that are fine. Where a process is stopped, a socket that nobody else holds is not fine, though nobody
/// waits there yet: only then they are looked at one by one.
fn siblings(index: usize, queues: &[Queue], groups: &Groups) -> Siblings {
    let queue = &queues[index];
    let Some(group) = groups.get(&address(queue)).filter(|_| queue.siblings > 0) else { return Siblings::default() };
    let stopped: Vec<u32> =
        queue.holders.iter().filter(|holder| facts::is_stopped(holder)).map(|holder| holder.pid).collect();
    if stopped.is_empty() {
        let own = group.fine.binary_search_by_key(&index, |(fine, _)| *fine).ok().map(|at| group.fine[at].1);
        let fine = group.fine.len() - usize::from(own.is_some());
        return Siblings { fine, accepts: group.accepts - own.unwrap_or_default() };
    }
    let by_stopped =
        |holders: &[Holder]| !holders.is_empty() && holders.iter().all(|holder| stopped.contains(&holder.pid));
    let others = group.fine.iter().filter(|(fine, _)| *fine != index && !by_stopped(&queues[*fine].holders));
    let accepts = others.map(|(_, accepts)| *accepts);
    Siblings { fine: accepts.clone().count(), accepts: accepts.sum() }
}

impl History {
    /// Notes whether the cause of this interval stays open.
    fn note_open(&mut self, open: bool, level: Level, interval: Duration) {
        self.open_refusals = open && level == Level::Overflowing;
        if open {
            self.undecided = self.undecided.saturating_add(interval);
            self.undecided_intervals = self.undecided_intervals.saturating_add(1);
        } else {
            (self.undecided, self.undecided_intervals) = (Duration::ZERO, 0);
        }
    }
}
