//! Sums by label set, of which only so many stand by themselves.
//!
//! Invariant: what was added to a sum is in the sum of one label set or in that of the others, so the sum of all never goes back. A sum that
//! stands by itself only grows while it is there.

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
    /// Those that did, and have been added to the others since the start. One that came back counts again.
    pub folded: u64,
}

/// Sums by label set.
#[derive(Debug)]
pub(super) struct Series<K, S> {
    limit: usize,
    own: HashMap<K, Own<S>>,
    other: S,
    folded: u64,
    /// All that was ever added.
    added: S,
}

impl<K: Clone + Eq + Hash, S: Sums> Series<K, S> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, own: HashMap::new(), other: S::default(), folded: 0, added: S::default() }
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
        }
    }

    /// Adds those to the others in which nothing is open and has changed for so long.
    pub(super) fn fold_idle(&mut self, now_ns: u64, idle: Duration, is_open: impl Fn(&K) -> bool) {
        let Self { own, other, folded, .. } = self;
        own.retain(|key, own| {
            let stays = is_open(key) || u128::from(now_ns.saturating_sub(own.changed_ns)) < idle.as_nanos();
            if !stays {
                *other = other.plus(own.sums);
                *folded += 1;
            }
            stays
        });
    }

    /// Sets the limit. Where it is lower now, those are added to the others that have been idle longest.
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
                self.other = self.other.plus(own.sums);
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

    /// The sums of all of them together, counted anew.
    pub(super) fn total(&self) -> S {
        self.own().fold(self.other, |sum, (_, sums)| sum.plus(sums))
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
        assert_eq!(series.counts(), SeriesCounts { limit: 2, series: 2, folded: 0 });
        // With more room, the next that moves has sums of its own from then on.
        series.limit(3, |_| false);
        series.add(&3, 2, 0);
        series.add(&4, 3, 0);
        assert_eq!(sums(&series), (vec![(1, 6), (2, 9), (3, 2)], 11));
    }

    #[test]
    fn who_is_idle_makes_room() {
        let mut series = Series::new(2);
        series.add(&1, 5, 100);
        series.add(&2, 6, 105);
        series.add(&3, 7, 106);
        for (now_ns, open, left) in [(109, 0, vec![1, 2]), (110, 1, vec![1, 2]), (110, 0, vec![2]), (115, 2, vec![2])] {
            series.fold_idle(now_ns, IDLE, |key| *key == open);
            assert_eq!(sums(&series).0.iter().map(|(key, _)| *key).collect::<Vec<_>>(), left, "{now_ns}");
        }
        assert_eq!((series.other(), series.counts().folded), (12, 1));
        series.add(&3, 1, 116);
        // It comes back, and begins anew.
        series.fold_idle(126, IDLE, |_| false);
        series.add(&1, 1, 127);
        assert_eq!(sums(&series), (vec![(1, 1)], 19));
        assert_eq!(series.counts(), SeriesCounts { limit: 2, series: 1, folded: 3 });
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
        assert_eq!(sums(&series), (vec![(1, 1), (2, 2), (3, 3)], 9));
        series.limit(1, is_open);
        assert_eq!(sums(&series), (vec![(2, 2)], 13));
        series.limit(0, is_open);
        series.add(&2, 1, 60);
        assert_eq!((sums(&series), series.counts().folded), ((Vec::new(), 16), 5));
    }
}
