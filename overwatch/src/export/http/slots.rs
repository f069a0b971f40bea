//! Places for connections. There are so many and no more; when all are taken, the one that has waited longest without
//! asking anything makes room. So whoever opens connections and says nothing shuts nobody out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::counters::{Counters, Phase};

/// An answer that is not taken within that time makes room too.
const SLOW: Duration = Duration::from_secs(1);

/// For so long a connection waits for a place when all are being answered, which takes milliseconds. Meanwhile others wait in the kernel's queue,
/// which is bounded, in the order in which they came.
const HOLD: Duration = Duration::from_millis(750);
const LOOK: Duration = Duration::from_millis(50);

/// All places.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    taken: Mutex<Taken>,
    freed: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By the order in which they came.
    slots: BTreeMap<u64, Arc<Slot>>,
}

/// A place, and what the connection that has it is doing.
#[derive(Debug)]
pub(super) struct Slot {
    /// With since when.
    state: Mutex<(Phase, Instant)>,
    /// The place is needed.
    pub(super) evicted: Notify,
}

impl Slot {
    fn new(phase: Phase) -> Self {
        Self { state: Mutex::new((phase, Instant::now())), evicted: Notify::new() }
    }

    pub(super) fn state(&self) -> (Phase, Instant) {
        *self.lock()
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.lock() = (phase, Instant::now());
    }

    /// Enters a phase if it is in one of some others.
    pub(super) fn enter_from(&self, from: &[Phase], to: Phase) {
        let mut state = self.lock();
        if from.contains(&state.0) {
            *state = (to, Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lower, the sooner it makes room; `None`: not at all.
fn precedence(phase: Phase, since: Instant, now: Instant) -> Option<(u8, Instant)> {
    match phase {
        Phase::Handshake | Phase::Header | Phase::Idle => Some((0, since)),
        Phase::Writing => (now.saturating_duration_since(since) >= SLOW).then_some((1, since)),
        Phase::Serving => None,
    }
}

/// A place that is taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Admitted {
    slots: Arc<Slots>,
    number: u64,
    slot: Arc<Slot>,
}

impl Admitted {
    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.slots.lock().slots.remove(&self.number);
        self.slots.counters.open_connections.fetch_sub(1, Relaxed);
        self.slots.freed.notify_one();
    }
}

impl Slots {
    pub(super) fn new(most: usize, counters: Arc<Counters>) -> Self {
        Self { most, taken: Mutex::default(), freed: Notify::new(), counters }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; `None` when all are taken, and busy for longer than it waits.
    pub(super) async fn admit(self: &Arc<Self>, phase: Phase) -> Option<Admitted> {
        let in_time = async {
            loop {
                if let Some(place) = self.try_admit(phase) {
                    return place;
                }
                // One whose answer is not taken may make room by now.
                let _freed = timeout(LOOK, self.freed.notified()).await;
            }
        };
        let place = timeout(HOLD, in_time).await.ok();
        if place.is_none() {
            self.counters.refused_connections.fetch_add(1, Relaxed);
        }
        place
    }

    fn try_admit(self: &Arc<Self>, phase: Phase) -> Option<Admitted> {
        let mut taken = self.lock();
        if taken.slots.len() >= self.most {
            let now = Instant::now();
            let ranked = taken.slots.iter().filter_map(|(number, slot)| {
                let (phase, since) = slot.state();
                Some((precedence(phase, since, now)?, *number))
            });
            let (_, number) = ranked.min()?;
            if let Some(slot) = taken.slots.remove(&number) {
                slot.evicted.notify_one();
                self.counters.evicted_connections.fetch_add(1, Relaxed);
            }
        }
        let number = taken.next;
        taken.next += 1;
        let slot = Arc::new(Slot::new(phase));
        taken.slots.insert(number, Arc::clone(&slot));
        self.counters.connections.fetch_add(1, Relaxed);
        self.counters.open_connections.fetch_add(1, Relaxed);
        Some(Admitted { slots: Arc::clone(self), number, slot })
    }

    /// Closes all that wait: what they have been let in by holds no more.
    pub(super) fn close_waiting(&self) {
        for slot in self.lock().slots.values() {
            if matches!(slot.state().0, Phase::Handshake | Phase::Header | Phase::Idle) {
                slot.evicted.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(most: usize) -> (Arc<Slots>, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Arc::new(Slots::new(most, Arc::clone(&counters))), counters)
    }

    fn is_evicted(admitted: &Admitted) -> bool {
        use std::{future::Future as _, pin::pin, task::Context};
        let evicted = pin!(admitted.slot().evicted.notified());
        evicted.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    /// `phases`: what the connections do, in the order of their age, each a second younger than the one before.
    async fn who_makes_room(phases: &[Phase]) -> Option<usize> {
        let (slots, counters) = slots(phases.len());
        let mut taken = Vec::new();
        for phase in phases {
            taken.push(slots.admit(*phase).await.unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let new = slots.admit(Phase::Header).await;
        let evicted: Vec<_> = (0..taken.len()).filter(|index| is_evicted(&taken[*index])).collect();
        assert!(evicted.len() <= 1);
        assert_eq!(new.is_some(), evicted.len() == 1);
        assert_eq!(counters.evicted_connections.load(Relaxed), evicted.len() as u64);
        assert_eq!(counters.refused_connections.load(Relaxed), 1 - evicted.len() as u64);
        evicted.first().copied()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_waits_longest_makes_room() {
        use Phase::{Handshake, Header, Idle, Serving, Writing};
        for (phases, expected) in [
            (&[Header, Header, Header][..], Some(0)),
            (&[Idle, Header, Handshake], Some(0)),
            (&[Serving, Handshake, Idle], Some(1)),
            (&[Writing, Serving, Header], Some(2)),
            (&[Serving, Writing, Serving], Some(1)),
            (&[Serving, Serving, Serving], None),
        ] {
            assert_eq!(who_makes_room(phases).await, expected, "{phases:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_just_being_written_is_let_be() {
        let (slots, _) = slots(1);
        let first = slots.admit(Phase::Header).await.unwrap();
        first.slot().enter(Phase::Writing);
        let start = Instant::now();
        assert!(slots.admit(Phase::Header).await.is_none());
        assert_eq!(start.elapsed(), HOLD);
        assert!(slots.admit(Phase::Header).await.is_some());
        assert!(start.elapsed() >= SLOW && start.elapsed() <= SLOW + LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_all_are_answered_waits_for_the_first_that_is_through() {
        let (slots, counters) = slots(1);
        let first = slots.admit(Phase::Header).await.unwrap();
        first.slot().enter(Phase::Serving);
        let through = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            drop(first);
        };
        let start = Instant::now();
        let (second, ()) = tokio::join!(slots.admit(Phase::Header), through);
        assert!(second.is_some());
        assert_eq!(start.elapsed(), Duration::from_millis(30));
        assert_eq!(counters.refused_connections.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_place_is_given_back() {
        let (slots, counters) = slots(1);
        for _ in 0..3 {
            let admitted = slots.admit(Phase::Header).await.unwrap();
            assert_eq!(counters.open_connections.load(Relaxed), 1);
            drop(admitted);
        }
        assert_eq!(counters.open_connections.load(Relaxed), 0);
        assert_eq!(counters.connections.load(Relaxed), 3);
        assert!(slots.lock().slots.is_empty());
    }
}
