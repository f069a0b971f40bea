//! The rules by themselves: hysteresis, since, precedence, and what is unknown.

use std::time::{Duration, SystemTime};

use super::{
    super::{
        Cause, Level, Thresholds, Verdict,
        evidence::length,
        history::{History, MOST_SAMPLES},
    },
    BUSY, OK, calm, count,
    host::{Watch, client, holder, idle, start},
    levels, overflowing, saturated, seconds, waiting, waits,
};
use crate::model::queue::{Holder, Queue, Row, Threads, Throttling, fixtures};

#[test]
fn a_wait_is_noticed_and_then_too_long() {
    for (oldest_ms, expected) in [
        (0, OK),
        (99, OK),
        (100, BUSY),
        (1000, BUSY),
        (1001, saturated(Cause::WorkerLimit)),
        (86_400_000, saturated(Cause::WorkerLimit)),
    ] {
        assert_eq!(levels(1000, &[waiting(oldest_ms)]), [expected], "{oldest_ms}");
    }
    // Of those accepted.
    for (longest_ms, expected) in [(99, OK), (100, BUSY), (1000, BUSY)] {
        assert_eq!(levels(1000, &[Queue { accepts: count(9), accept_waits: waits(longest_ms), ..calm() }]), [expected]);
    }
}

#[test]
fn a_queue_that_was_nearly_full_is_busy() {
    for (limit, peak, expected) in [
        (511, 383, OK),
        (511, 384, BUSY),
        (511, 512, BUSY),
        (5, 4, OK),
        (5, 5, BUSY),
        (1, 2, OK),
        (0, 1, OK),
        (3, 4, BUSY),
    ] {
        let queue = Queue { backlog_limit: limit, accept_queue_peak: peak, ..calm() };
        assert_eq!(levels(1000, &[queue]), [expected], "{limit} {peak}");
    }
}

#[test]
fn a_verdict_rises_at_once_and_improves_after_three_calm_seconds() {
    let bad = saturated(Cause::WorkerLimit);
    let sick = || waiting(2000);
    assert_eq!(levels(1000, &[sick(), sick(), calm(), calm(), calm(), sick()]), [bad, bad, bad, bad, OK, bad]);
    // An interval that is worse again begins the calm anew.
    assert_eq!(
        levels(1000, &[sick(), calm(), calm(), sick(), calm(), calm(), calm()]),
        [bad, bad, bad, bad, bad, bad, OK]
    );
    // To the worst that there was in the calm, without the cause of what was worse.
    assert_eq!(levels(1000, &[sick(), calm(), waiting(200), calm(), calm(), calm()]), [bad, bad, bad, BUSY, BUSY, OK]);
    for interval_ms in [3000, 10_000, 60_000, 86_400_000] {
        assert_eq!(levels(interval_ms, &[waiting(interval_ms), calm()]), [bad, OK], "{interval_ms}");
    }
    let mut tenths = vec![sick(); 20];
    tenths.extend(vec![calm(); 31]);
    let said = levels(100, &tenths);
    assert_eq!(said.iter().filter(|said| **said == bad).count(), 11 + 29);
    assert_eq!(said[48..], [bad, OK, OK]);
}

#[test]
fn while_a_better_interval_is_not_believed_yet_the_evidence_says_so() {
    let mut watch = Watch::new();
    watch.one(1000, &waiting(2000));
    let verdict = watch.one(1000, &calm());
    assert_eq!((verdict.level, verdict.serving_ceiling), (Level::Saturated, None));
    let text = "This interval by itself was ok; the verdict improves when it has been better for 3.0 s.";
    assert_eq!(verdict.evidence.last().unwrap(), text);
}

#[test]
fn since_goes_back_to_the_oldest_client_and_stays() {
    let mut watch = Watch::new();
    let verdict = watch.one(1000, &waiting(30_000));
    assert_eq!(verdict.since, Some(start() + seconds(1) - seconds(30)));
    for round in 1..50 {
        // The head of the queue changes, the episode is the same.
        let verdict = watch.one(1000, &waiting(30_000 + (round % 3) * 1000 - 2000));
        assert_eq!(verdict.since, Some(start() + seconds(1) - seconds(30)), "{round}");
    }
    // Another level begins when it begins, or with the oldest client.
    let refused = Queue { overflows_syn: count(1), ..waiting(20_000) };
    assert_eq!(watch.one(1000, &refused).since, Some(start() + seconds(51 - 20)));
    for _ in 0..10 {
        watch.one(1000, &calm());
    }
    assert_eq!(watch.one(1000, &waiting(200)).since, Some(start() + seconds(62) - Duration::from_millis(200)));
}

#[test]
fn since_is_never_in_the_future_and_a_clock_before_1970_does_no_harm() {
    let mut watch = Watch::new();
    assert_eq!(watch.one(1000, &waiting(2000)).since, Some(start() - seconds(1)));
    watch.time = start() - seconds(100_000);
    assert_eq!(watch.one(1000, &waiting(3000)).since, Some(start() - seconds(99_999 + 3)));
    watch.time = SystemTime::UNIX_EPOCH;
    let verdict = watch.one(1000, &waiting(4_000_000));
    assert!(verdict.since.unwrap() <= watch.time);
}

#[test]
fn the_ceiling_is_the_most_served_while_clients_wait() {
    let mut watch = Watch::new();
    assert_eq!(watch.one(1000, &calm()).serving_ceiling, None);
    assert_eq!(watch.one(1000, &waiting(1500)).serving_ceiling, Some(5));
    assert_eq!(watch.one(1000, &Queue { serving: Some(4), served: 1, ..waiting(2500) }).serving_ceiling, Some(4));
    assert_eq!(
        watch.one(1000, &Queue { serving: Some(5), accepts: count(1), ..waiting(3500) }).serving_ceiling,
        Some(5)
    );
    assert_eq!(watch.one(1000, &Queue { serving: Some(4), served: 1, ..waiting(4500) }).serving_ceiling, Some(5));
    assert_eq!(watch.one(1000, &Queue { serving: None, ..waiting(5500) }).serving_ceiling, None);
    assert_eq!(watch.one(1000, &calm()).serving_ceiling, None);
}

#[test]
fn what_is_more_certain_goes_first() {
    let with = |change: fn(&mut Queue)| {
        let mut queue = waiting(5000);
        change(&mut queue);
        queue
    };
    let cases: [(Queue, Cause); 10] = [
        (with(|_| {}), Cause::WorkerLimit),
        (with(|queue| queue.serving = Some(0)), Cause::NotAccepting),
        (with(|queue| queue.serving = None), Cause::NotAccepting),
        (with(|queue| queue.holders[0].throttling = Some(throttled(10, 3))), Cause::CpuThrottled),
        (with(|queue| queue.holders[0].throttling = Some(throttled(10, 2))), Cause::WorkerLimit),
        (
            with(|queue| (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(32), Some(32))),
            Cause::FdLimit,
        ),
        (
            with(|queue| (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(28), Some(32))),
            Cause::FdLimit,
        ),
        (
            with(|queue| (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(27), Some(32))),
            Cause::WorkerLimit,
        ),
        (
            with(|queue| {
                queue.holders[0].threads = Some(Threads { total: 3, stopped: 3, ..Threads::default() });
                (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(32), Some(32));
                queue.holders[0].throttling = Some(throttled(10, 10));
            }),
            Cause::NotAccepting,
        ),
        (
            with(|queue| {
                queue.holders[0].throttling = Some(throttled(10, 10));
                (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(32), Some(32));
            }),
            Cause::FdLimit,
        ),
    ];
    for (queue, cause) in cases {
        assert_eq!(levels(1000, &[queue.clone(), queue.clone()])[1], saturated(cause), "{queue:?}");
    }
}

fn throttled(periods: u64, throttled_periods: u64) -> Throttling {
    Throttling { periods, throttled_periods, throttled: Duration::from_millis(90 * throttled_periods) }
}

#[test]
fn half_open_connections_are_judged_where_cookies_and_refusals_are_not_seen() {
    let flood = |level| (level, Cause::SynFlood);
    for (limit, half_open, old, cookies, drops, expected) in [
        // With cookies nobody is refused. A queue is crowded from four on and from three quarters, stale from three and from a quarter.
        (2, 2, 2, 1, 0, OK),
        (3, 3, 3, 1, 0, OK),
        (4, 3, 3, 1, 0, OK),
        (4, 4, 3, 1, 0, flood(Level::Busy)),
        (128, 96, 23, 1, 0, OK),
        (128, 95, 95, 1, 0, OK),
        (128, 96, 24, 1, 0, flood(Level::Busy)),
        // Without them a full one refuses, however short it is; drops at one that is not full are something else.
        (2, 2, 2, 0, 300, flood(Level::Overflowing)),
        (1, 1, 0, 0, 300, flood(Level::Overflowing)),
        (3, 2, 2, 0, 300, OK),
        (2, 2, 2, 0, 0, OK),
        (128, 96, 24, 0, 300, flood(Level::Overflowing)),
        (128, 20, 5, 0, 300, flood(Level::Overflowing)),
        (128, 20, 2, 0, 300, OK),
        (2, 2, 2, 1, 300, OK),
    ] {
        let queue = Queue {
            backlog_limit: limit,
            syn_queue: fixtures::half_open(half_open, old, false),
            syncookies: Some(cookies),
            other_drops: count(drops),
            syn_cookies: None,
            syn_queue_overflows: None,
            ..idle(1)
        };
        let said = levels(1000, &vec![queue; 5]);
        assert_eq!(said[4], expected, "{limit} {half_open} {old} {cookies} {drops}");
    }
}

#[test]
fn a_cause_changes_only_when_another_has_been_the_answer_for_three_seconds() {
    let limit = saturated(Cause::WorkerLimit);
    let none = |oldest_ms| Queue { serving: Some(0), ..waiting(oldest_ms) };
    let some = waiting;
    let queues: Vec<Queue> = vec![some(2000), none(3000), some(4000), some(5000), some(6000), some(7000), some(8000)];
    assert!(levels(1000, &queues).iter().all(|said| *said == limit));
    let queues: Vec<Queue> =
        (0..10).map(|round| if round == 0 { some(2000) } else { none(2000 + 1000 * round) }).collect();
    let said = levels(1000, &queues);
    assert_eq!(said[0], limit);
    assert_eq!(said[9], saturated(Cause::NotAccepting));
}

#[test]
fn until_the_cause_is_known_the_level_is_busy() {
    // Overwatch starts into an incident: in the first second nothing is known of who is accepted.
    let queues: Vec<Queue> = (0..20).map(|round| waiting(30_000 + round * 100)).collect();
    let said = levels(100, &queues);
    assert!(said[..9].iter().all(|said| *said == BUSY));
    assert!(said[9..].iter().all(|said| *said == saturated(Cause::WorkerLimit)));
    // It does not stay open for ever: one that has long waits again and again, and nobody at the end of an interval.
    let pauses = vec![Queue { accepts: count(50), accept_waits: waits(2000), ..calm() }; 10];
    let said = levels(60_000, &pauses);
    assert_eq!(said[..3], [BUSY; 3]);
    assert_eq!(said[9], saturated(Cause::SlowAccept));
}

#[test]
fn refusals_that_could_not_be_explained_at_once_are_reported_with_the_next_interval() {
    // The first interval ends in the middle of the burst.
    let middle = Queue {
        backlog_limit: 5,
        accept_queue: 6,
        accept_queue_peak: 6,
        waiting: vec![client(3); 6],
        waiting_total: 6,
        accepts: count(20),
        arrivals: count(26),
        overflows_syn: count(200),
        accept_waits: waits(4),
        ..idle(1)
    };
    let after = Queue { backlog_limit: 5, accepts: count(6), accept_waits: waits(5), accept_queue_peak: 6, ..idle(1) };
    let said = levels(100, &[middle, after]);
    assert_eq!(said, [BUSY, overflowing(Cause::BacklogTooSmall)]);
}

#[test]
fn ages_that_are_not_known_are_bounded_by_what_was_accepted() {
    let unknown = |accepts: u64| {
        let mut queue = Queue { accepts: count(accepts), accept_queue: 30, waiting_total: 30, ..waiting(0) };
        queue.waiting.iter_mut().for_each(|client| client.waiting = None);
        queue
    };
    let said = levels(500, &vec![unknown(0); 8]);
    assert_eq!(said[..3], [OK, BUSY, BUSY]);
    assert_eq!(said[3..], [saturated(Cause::WorkerLimit); 5]);
    // All that waited at the end of an interval were accepted in the next.
    assert_eq!(levels(500, &vec![unknown(30); 8]), [OK; 8]);
}

#[test]
fn all_that_can_be_unknown_may_be() {
    let mut queue = waiting(5000);
    queue.inode = None;
    queue.somaxconn = None;
    queue.syncookies = None;
    queue.syn_cookies = None;
    queue.syn_queue_overflows = None;
    queue.serving = None;
    queue.holders.clear();
    queue.overflows_exact = false;
    for interval_ms in [100, 1000, 60_000] {
        let mut watch = Watch::new();
        let mut last = Verdict::ok();
        for _ in 0..30 {
            last = watch.one(interval_ms, &queue);
        }
        assert_eq!((last.level, last.cause), saturated(Cause::NotAccepting));
        assert!(last.evidence.iter().any(|text| text == "How many connections are being served here is not known."));
    }
    queue.overflows_syn = count(3);
    queue.accept_queue = 512;
    let mut watch = Watch::new();
    watch.one(1000, &queue);
    let verdict = watch.one(1000, &queue);
    assert_eq!((verdict.level, verdict.cause), overflowing(Cause::NotAccepting));
    assert!(
        verdict.evidence.iter().any(|text| text.contains("worked out from the drops of the socket")),
        "{verdict:?}"
    );
}

#[test]
fn a_burst_from_far_away_with_cookies_is_busy_and_no_flood() {
    // Round trips of 300 ms: the SYN queue is full of handshakes that complete.
    let far = |cookies| Queue {
        backlog_limit: 128,
        syn_queue: fixtures::half_open(128, 2, false),
        arrivals: count(400),
        accepts: count(400),
        syn_cookies: Some(count(cookies)),
        ..idle(1)
    };
    assert_eq!(levels(1000, &[far(300), far(300), far(300)]), [BUSY; 3]);
    // Without cookies they are refused, by a queue that is as long as the backlog.
    let refused = Queue { syncookies: Some(0), syn_queue_overflows: Some(count(300)), ..far(0) };
    assert_eq!(
        levels(1000, &[refused.clone(), refused.clone(), refused]),
        [BUSY, overflowing(Cause::BacklogTooSmall), overflowing(Cause::BacklogTooSmall)]
    );
}

#[test]
fn siblings_that_are_fine_are_counted_for_each_sick_one() {
    let sleeping = Threads { total: 1, sleeping: 1, ..Threads::default() };
    let stopped = Threads { total: 1, stopped: 1, ..Threads::default() };
    let held = |queue: Queue, listener: u64, pid: u32, threads: Threads| {
        let mut one = holder(pid, "server");
        one.threads = Some(threads);
        Queue { listener, siblings: 3, holders: vec![one], ..queue }
    };
    let mut watch = Watch::new();
    let mut last = Vec::new();
    for round in 0..5_u64 {
        let sick = || Queue { serving: None, ..waiting(2000 + round * 1000) };
        let queues = [
            held(sick(), 1, 101, sleeping),
            held(Queue { accepts: count(5), ..calm() }, 2, 102, sleeping),
            // Fine only until somebody comes: its process is the one that is stopped.
            held(Queue { accepts: count(7), ..calm() }, 3, 104, stopped),
            held(sick(), 4, 104, stopped),
            Queue { listener: 5, local_port: 81, siblings: 3, ..calm() },
        ];
        last = watch.all(1000, &queues);
    }
    for (index, fine, accepted) in [(0, 2, 60), (3, 1, 25)] {
        assert_eq!((last[index].level, last[index].cause), saturated(Cause::OneWorkerStuck));
        let text = format!("at {fine} of them nobody waits, and {accepted} were accepted there in the last 5.0 s.");
        assert!(last[index].evidence.iter().any(|evidence| evidence.contains(&text)), "{text} {:?}", last[index]);
    }
    for index in [1, 2, 4] {
        assert_eq!(last[index], Verdict::ok());
    }
}

#[test]
fn listeners_that_are_gone_are_forgotten() {
    let mut watch = Watch::new();
    let queues: Vec<Queue> = (0..100).map(|listener| Queue { listener, ..waiting(5000) }).collect();
    watch.all(1000, &queues);
    assert_eq!(watch.judge.size().0, 100);
    watch.all(1000, &queues[..3]);
    assert_eq!(watch.judge.size().0, 3);
    // One that is there again begins anew.
    assert_eq!(watch.all(1000, &[Queue { listener: 50, ..calm() }]), [Verdict::ok()]);
    assert_eq!(watch.all(1000, &[]), []);
    assert_eq!(watch.judge.size(), (0, 0));
}

#[test]
fn what_is_kept_is_the_window_and_no_more_than_a_bound() {
    for (interval_ms, kept) in
        [(1, MOST_SAMPLES), (10, MOST_SAMPLES), (100, 51), (1000, 6), (4000, 3), (10_000, 2), (86_400_000, 2)]
    {
        let mut history = History::default();
        for _ in 0..1000 {
            history.push(&calm(), Duration::from_millis(interval_ms), &Thresholds::default());
        }
        assert_eq!(history.len(), kept, "{interval_ms}");
    }
}

#[test]
fn lengths_read_well() {
    for (milliseconds, text) in [
        (0, "0 us"),
        (1, "1 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (12_400, "12.4 s"),
        (59_949, "59.9 s"),
        (59_950, "1 min 00 s"),
        (125_000, "2 min 05 s"),
        (3_599_999, "59 min 59 s"),
        (11_220_000, "3 h 07 min"),
        (86_400_000, "24 h 00 min"),
    ] {
        assert_eq!(length(Duration::from_millis(milliseconds)), text);
    }
}

#[test]
fn without_accepts_only_a_certain_cause_is_named() {
    let unseen = |queue| Queue { accepts_seen: false, serving: None, ..queue };
    let waits = || unseen(waiting(20_000));
    let mut watch = Watch::new();
    for _ in 0..30 {
        let verdict = watch.one(1000, &waits());
        assert_eq!((verdict.level, verdict.cause, verdict.serving_ceiling), (Level::Busy, Cause::None, None));
        let why = verdict.evidence.join(" ");
        assert!(why.contains("3 clients wait, the oldest for 20.0 s. What the server accepts"), "{why}");
        assert!(!why.contains("was accepted"), "{why}");
        assert!(Row { queue: waits(), verdict }.is_sick());
    }
    // A wait below the threshold is no trouble.
    let verdict = Watch::new().one(1000, &unseen(waiting(300)));
    assert!(!Row { queue: unseen(waiting(300)), verdict }.is_sick());
    // No age is made up from accepts that are not seen, and a queue of unknown age is not all right.
    let mut watch = Watch::new();
    for _ in 0..30 {
        let verdict = watch.one(1000, &Queue { waiting: Vec::new(), ..waits() });
        assert_eq!((verdict.level, verdict.cause), (Level::Busy, Cause::None));
        assert!(!verdict.evidence.join(" ").contains("for at least"), "{verdict:?}");
    }
    // Where accepts were lost, what is left of them is no evidence either.
    let lost = Queue { accepts_lost: true, ..waiting(20_000) };
    let mut watch = Watch::new();
    for _ in 0..30 {
        assert_eq!(watch.one(1000, &lost).cause, Cause::None);
    }
    // Stopped processes, and descriptors that have run out, are seen without accepts.
    let threads = Some(Threads { total: 1, stopped: 1, ..Threads::default() });
    let stopped = Queue { holders: vec![Holder { threads, ..holder(1, "nginx") }], ..waits() };
    assert_eq!(watch.one(1000, &stopped).cause, Cause::NotAccepting);
    let full = Holder { open_files: Some(1024), open_files_limit: Some(1024), ..holder(1, "nginx") };
    let verdict = Watch::new().one(1000, &Queue { holders: vec![full], ..waits() });
    assert_eq!((verdict.level, verdict.cause), (Level::Saturated, Cause::FdLimit));
}
