//! Sums by label set, of which only so many stand by themselves.
//!
//! Invariant: what was added is in the sum of one label set, in that of the others, or in what those had that have ended. The first two are
//! shown, and only grow while they are there. The last is not, and not added to the others: readers take what a counter has grown by for what
//! happened just now, so the bytes of a backup would be moved once more an hour later, in an instant.

use std::{cmp::Reverse, collections::HashMap, fmt::Debug, hash::Hash, time::Duration};

/// What is summed.
pub(super) trait Sums: Copy + Debug + Default + PartialEq {
    fn plus(self, other: Self) -> Self;
}

/// The sums of one label set.
#[derive(Clone, Copy, Debug, Default)]
struct Own<S> {
    sums: S,
    /// When it has last changed, nanoseconds of CLOCK_MONOTONIC.
    changed_ns: u64,
}

/// How many label sets have sums of their own, and how many had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// The most that may stand by themselves.
    pub limit: usize,
    /// Those that do.
    pub series: usize,
    /// How often something was put on the others since there was no room.
    pub folded: u64,
}

/// Sums by label set.
#[derive(Debug)]
pub(super) struct Series<K, S> {
    limit: usize,
    own: HashMap<K, Own<S>>,
    other: S,
    /// What those had that have ended.
    ended: S,
    folded: u64,
    /// All that was ever added.
    added: S,
}

impl<K: Clone + Eq + Hash, S: Sums> Series<K, S> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, own: HashMap::new(), other: S::default(), ended: S::default(), folded: 0, added: S::default() }
    }

    /// Adds to the sums of a label set; to those of the others where there is no room for one more. With nothing to add, it is there.
    pub(super) fn add(&mut self, key: &K, more: S, now_ns: u64) {
        self.added = self.added.plus(more);
        if let Some(own) = self.own.get_mut(key) {
            *own = Own { sums: own.sums.plus(more), changed_ns: now_ns };
        } else if self.own.len() < self.limit {
            self.own.insert(key.clone(), Own { sums: more, changed_ns: now_ns });
        } else {
            self.other = self.other.plus(more);
            self.folded += 1;
        }
    }

    /// Ends those in which nothing is open and has changed for so long.
    pub(super) fn end_idle(&mut self, now_ns: u64, idle: Duration, is_open: impl Fn(&K) -> bool) {
        let Self { own, ended, .. } = self;
        own.retain(|key, own| {
            let stays = is_open(key) || u128::from(now_ns.saturating_sub(own.changed_ns)) < idle.as_nanos();
            if !stays {
                *ended = ended.plus(own.sums);
            }
            stays
        });
    }

    /// Makes one of those that have one name: what has nothing open is added to the one of them that changed last. They are shown as one series,
    /// which would go back when the first of them ends.
    pub(super) fn merge<N: Eq + Hash>(&mut self, name: impl Fn(&K) -> N, is_open: impl Fn(&K) -> bool) {
        let mut latest: HashMap<N, (bool, u64, K)> = HashMap::new();
        for (key, own) in &self.own {
            let rank = (is_open(key), own.changed_ns);
            let last = latest.entry(name(key)).or_insert_with(|| (rank.0, rank.1, key.clone()));
            if rank > (last.0, last.1) {
                *last = (rank.0, rank.1, key.clone());
            }
        }
        let into = |key: &K| latest.get(&name(key)).map(|(.., last)| last).filter(|last| *last != key && !is_open(key));
        let merged: Vec<(K, K)> = self.own.keys().filter_map(|key| Some((key.clone(), into(key)?.clone()))).collect();
        for (key, into) in merged {
            if let Some(own) = self.own.remove(&key)
                && let Some(last) = self.own.get_mut(&into)
            {
                last.sums = last.sums.plus(own.sums);
            }
        }
    }

    /// Sets the limit. Where it is lower now, those end that have been idle longest.
    pub(super) fn limit(&mut self, limit: usize, is_open: impl Fn(&K) -> bool) {
        self.limit = limit;
        let beyond = self.own.len().saturating_sub(limit);
        if beyond == 0 {
            return;
        }
        let mut keys: Vec<_> = self.own.iter().map(|(key, own)| (is_open(key), own.changed_ns, key.clone())).collect();
        keys.sort_by_key(|(is_open, changed_ns, _)| Reverse((*is_open, *changed_ns)));
        for (_, _, key) in &keys[limit..] {
            if let Some(own) = self.own.remove(key) {
                self.ended = self.ended.plus(own.sums);
                self.folded += 1;
            }
        }
    }

    /// Those that stand by themselves, in no order.
    pub(super) fn own(&self) -> impl Iterator<Item = (&K, S)> {
        self.own.iter().map(|(key, own)| (key, own.sums))
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.own.contains_key(key)
    }

    pub(super) fn other(&self) -> S {
        self.other
    }

    pub(super) fn counts(&self) -> SeriesCounts {
        SeriesCounts { limit: self.limit, series: self.own.len(), folded: self.folded }
    }

    /// What those had that have ended.
    pub(super) fn ended(&self) -> S {
        self.ended
    }

    /// The sums of all of them together, also of those that have ended, counted anew.
    pub(super) fn total(&self) -> S {
        self.own().fold(self.other.plus(self.ended()), |sum, (_, sums)| sum.plus(sums))
    }

    /// True when nothing was lost or counted twice.
    pub(super) fn is_complete(&self) -> bool {
        self.total() == self.added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sums for u64 {
        fn plus(self, other: Self) -> Self {
            self + other
        }
    }

    const IDLE: Duration = Duration::from_nanos(10);

    /// Label sets with their sums in order, and the sum of the others.
    fn sums(series: &Series<u8, u64>) -> (Vec<(u8, u64)>, u64) {
        assert!(series.is_complete());
        let mut own: Vec<_> = series.own().map(|(key, sums)| (*key, sums)).collect();
        own.sort_unstable();
        (own, series.other())
    }

    #[test]
    fn the_first_ones_stand_by_themselves() {
        let mut series = Series::new(2);
        for (key, more) in [(1, 5), (2, 0), (3, 7), (1, 1), (4, 1), (2, 9)] {
            series.add(&key, more, 0);
        }
        assert_eq!(sums(&series), (vec![(1, 6), (2, 9)], 8));
        assert_eq!(series.counts(), SeriesCounts { limit: 2, series: 2, folded: 2 });
        // With more room, the next that moves has sums of its own from then on.
        series.limit(3, |_| false);
        series.add(&3, 2, 0);
        series.add(&4, 3, 0);
        assert_eq!(sums(&series), (vec![(1, 6), (2, 9), (3, 2)], 11));
    }

    #[test]
    fn who_is_idle_ends_and_makes_room() {
        let mut series = Series::new(2);
        series.add(&1, 5, 100);
        series.add(&2, 6, 105);
        series.add(&3, 7, 106);
        for (now_ns, open, left) in [(109, 0, vec![1, 2]), (110, 1, vec![1, 2]), (110, 0, vec![2]), (115, 2, vec![2])] {
            series.end_idle(now_ns, IDLE, |key| *key == open);
            assert_eq!(sums(&series).0.iter().map(|(key, _)| *key).collect::<Vec<_>>(), left, "{now_ns}");
        }
        // The others have not moved what it did.
        assert_eq!((series.other(), series.ended(), series.counts().folded), (7, 5, 1));
        series.add(&3, 1, 116);
        // It comes back, and begins anew.
        series.end_idle(126, IDLE, |_| false);
        series.add(&1, 1, 127);
        assert_eq!((sums(&series), series.ended()), ((vec![(1, 1)], 7), 12));
        assert_eq!(series.counts(), SeriesCounts { limit: 2, series: 1, folded: 1 });
    }

    #[test]
    fn a_lower_limit_leaves_those_that_were_active_last() {
        let mut series = Series::new(9);
        for (key, now_ns) in [(1, 50), (2, 10), (3, 40), (4, 20), (5, 30)] {
            series.add(&key, u64::from(key), now_ns);
        }
        // What is open is not idle.
        let is_open = |key: &u8| *key == 2;
        series.limit(3, is_open);
        assert_eq!((sums(&series), series.ended()), ((vec![(1, 1), (2, 2), (3, 3)], 0), 9));
        series.limit(1, is_open);
        assert_eq!((sums(&series), series.ended()), ((vec![(2, 2)], 0), 13));
        series.limit(0, is_open);
        series.add(&2, 1, 60);
        assert_eq!((sums(&series), series.ended(), series.counts().folded), ((Vec::new(), 1), 15, 6));
    }

    #[test]
    fn those_of_one_name_are_one_as_soon_as_nothing_is_open() {
        let tens = |key: &u8| key / 10;
        let mut series = Series::new(9);
        for (key, more, now_ns) in [(10, 5, 100), (11, 6, 105), (12, 7, 103), (20, 1, 100), (30, 1, 100), (31, 2, 101)]
        {
            series.add(&key, more, now_ns);
        }
        // 30 goes on to be used, though 31 changed last.
        series.merge(tens, |key| *key == 30);
        assert_eq!(sums(&series), (vec![(11, 18), (20, 1), (30, 3)], 0));
        // Two that are open stay two.
        series.add(&10, 1, 106);
        series.merge(tens, |key| [10, 11].contains(key));
        assert_eq!(sums(&series), (vec![(10, 1), (11, 18), (20, 1), (30, 3)], 0));
        // One that has merged does not take the rest along when its time has come.
        series.merge(tens, |key| *key == 10);
        series.end_idle(115, IDLE, |_| false);
        assert_eq!((sums(&series), series.ended()), ((vec![(10, 19)], 0), 4));
    }
}
