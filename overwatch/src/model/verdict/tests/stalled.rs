//! Nobody is accepted: a server at its limit, or one that hangs.

use std::time::Duration;

use super::{
    super::{Cause, Level, Verdict},
    calm, count,
    host::{Watch, idle},
    levels, saturated, waiting,
};
use crate::model::queue::Queue;

/// So many are served, and nobody is accepted: of this many seconds, in which the processes run every so many, the last answer.
fn stalled(before: Option<u64>, serving: u64, runs_every: Option<usize>, length: usize) -> Vec<(Level, Cause)> {
    let healthy = before.map(|serving| Queue { serving: Some(serving), accepts: count(20), ..idle(1) });
    let mut queues: Vec<Queue> = healthy.into_iter().collect();
    for round in 0..length {
        let mut queue = Queue { serving: Some(serving), ..waiting(2000 + 1000 * round as u64) };
        let runs = runs_every.is_some_and(|every| round % every == 0);
        queue.holders[0].on_cpu = Some(Duration::from_micros(u64::from(runs)));
        queues.push(queue);
    }
    levels(1000, &queues)
}

#[test]
fn workers_that_sleep_are_at_their_limit_unless_more_were_served_before() {
    use Cause::{NotAccepting, WorkerLimit};
    for (before, serving, runs_every, cause) in [
        // Overwatch comes into the incident: nothing is known of before. All wait for a backend, or for slow clients, and never run.
        (None, 5, None, WorkerLimit),
        (None, 1, None, WorkerLimit),
        (None, 1000, None, WorkerLimit),
        // It has served as many as ever when clients had to wait, or nearly.
        (Some(5), 5, None, WorkerLimit),
        (Some(3), 5, None, WorkerLimit),
        (Some(6), 5, None, WorkerLimit),
        (Some(104), 100, None, WorkerLimit),
        // It has served more, so that nothing keeps it from accepting: it hangs.
        (Some(7), 5, None, NotAccepting),
        (Some(106), 100, None, NotAccepting),
        (Some(200), 150, None, NotAccepting),
        // It works now and then: what it served before may have needed less.
        (Some(200), 150, Some(9), WorkerLimit),
        // Nothing is served.
        (None, 0, None, NotAccepting),
        (None, 0, Some(1), NotAccepting),
        (Some(5), 0, Some(1), NotAccepting),
    ] {
        let said = stalled(before, serving, runs_every, 40);
        assert_eq!(*said.last().unwrap(), saturated(cause), "{before:?} {serving} {runs_every:?}");
    }
    // Ten seconds without, and three until another cause is believed.
    let said = stalled(Some(200), 150, None, 20);
    assert_eq!(said[2], saturated(WorkerLimit));
    assert_eq!(said.iter().position(|said| *said == saturated(NotAccepting)), Some(1 + 9 + 3));
    // Not when it is unknown whether they run.
    let unknown = |round: u64| Queue { holders: Vec::new(), ..waiting(2000 + 1000 * round) };
    let queues: Vec<Queue> = [Queue { serving: Some(9), ..calm() }].into_iter().chain((0..20).map(unknown)).collect();
    assert_eq!(levels(1000, &queues)[20], saturated(WorkerLimit));
}

#[test]
fn a_burst_that_fills_the_server_in_two_intervals_does_not_make_it_a_slow_acceptor() {
    let accepting =
        |serving, accepts, age_ms| Queue { serving: Some(serving), accepts: count(accepts), ..waiting(age_ms) };
    for (first, second) in [(10, 0), (8, 2), (1, 9)] {
        let mut queues = vec![calm(), accepting(first, first, 900), accepting(10, second, 1900)];
        queues.extend((3..9).map(|second| accepting(10, 0, 900 + 1000 * (second - 1))));
        let said = levels(1000, &queues);
        assert_eq!(
            said[2].1,
            if second == 0 { Cause::WorkerLimit } else { Cause::None },
            "{first}, {second}: {said:?}"
        );
        assert!(said[3..].iter().all(|said| *said == saturated(Cause::WorkerLimit)), "{first}, {second}: {said:?}");
    }
}

#[test]
fn how_many_were_served_is_forgotten_after_an_hour_or_two_of_accepting() {
    let mut watch = Watch::new();
    let accepting = |serving| Queue { serving: Some(serving), accepts: count(600), ..idle(1) };
    let hanging = |round: u64| {
        let mut queue = waiting(2000 + 60_000 * round);
        queue.holders[0].on_cpu = Some(Duration::ZERO);
        queue
    };
    // It was 200 once; since then the limit has been lowered to 5.
    watch.one(60_000, &accepting(200));
    // That it hangs does not count: it is not forgotten by that.
    let said: Vec<Cause> = (0..300).map(|round| watch.one(60_000, &hanging(round)).cause).collect();
    assert_eq!((said[0], said[5], said[299]), (Cause::NotAccepting, Cause::NotAccepting, Cause::NotAccepting));
    (0..119).for_each(|_| drop(watch.one(60_000, &accepting(5))));
    let said: Vec<Cause> = (0..10).map(|round| watch.one(60_000, &hanging(round)).cause).collect();
    assert_eq!(said[9], Cause::WorkerLimit);
}

#[test]
fn a_limit_at_which_nobody_runs_comes_with_the_doubt() {
    let mut watch = Watch::new();
    let mut last = Verdict::ok();
    for round in 0..12_u64 {
        let mut queue = waiting(2000 + round * 1000);
        queue.holders[0].on_cpu = Some(Duration::ZERO);
        last = watch.one(1000, &queue);
        assert_eq!(last.advice.len(), if round < 9 { 3 } else { 4 });
    }
    assert!(last.evidence.iter().any(|text| text == "The processes have used no processor time for 12.0 s."));
    assert!(last.advice[1].contains("/proc/100/task/*/wchan"), "{last:?}");
    // And where it is not known how many are served, it may be a limit.
    let unknown = Queue { serving: None, ..waiting(2000) };
    watch.one(1000, &unknown);
    let verdict = Watch::new().one(2000, &unknown);
    assert_eq!((verdict.level, verdict.cause), saturated(Cause::NotAccepting));
    assert!(verdict.advice.last().unwrap().contains("limit of workers"), "{verdict:?}");
}
