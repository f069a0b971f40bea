//! The rules by themselves: hysteresis, since, precedence, what is unknown, and the table of servers.

use std::time::{Duration, SystemTime};

use super::{
    super::{
        Cause, Level, Thresholds, Verdict,
        evidence::length,
        history::{History, MOST_SAMPLES},
        servers::{Limit, SERVERS, recognise},
    },
    BUSY, OK, busy,
    host::{Watch, client, holder, idle, start},
    overflowing, saturated, seconds,
};
use crate::model::queue::{Count, Queue, Threads, Throttling, Waits};

/// Three clients that wait, the oldest for so long, at a server that serves five.
fn waiting(oldest_ms: u64) -> Queue {
    Queue {
        accept_queue: 3,
        accept_queue_peak: 3,
        serving: Some(5),
        waiting: vec![client(oldest_ms), client(oldest_ms / 2), client(0)],
        waiting_total: 3,
        ..idle(1)
    }
}

fn calm() -> Queue {
    Queue { serving: Some(5), ..idle(1) }
}

fn count(number: u64) -> Count {
    Count { interval: number, total: number }
}

fn waits(milliseconds: u64) -> Option<Waits> {
    let wait = Duration::from_millis(milliseconds);
    Some(Waits { p50: wait, p90: wait, p99: wait, max: wait })
}

/// Judges one interval after the other, of the same length.
fn levels(interval_ms: u64, queues: &[Queue]) -> Vec<(Level, Cause)> {
    let mut watch = Watch::new();
    queues.iter().map(|queue| watch.one(interval_ms, queue)).map(|verdict| (verdict.level, verdict.cause)).collect()
}

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
            syn_queue: half_open,
            syn_queue_old: old,
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
        syn_queue: 128,
        syn_queue_old: 2,
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
fn servers_are_recognised_by_the_names_of_their_processes() {
    for (comm, name) in [
        ("apache2", Some("Apache httpd")),
        ("httpd", Some("Apache httpd")),
        ("nginx", Some("nginx")),
        ("haproxy", Some("HAProxy")),
        ("php-fpm8.2", Some("PHP-FPM")),
        ("php-fpm", Some("PHP-FPM")),
        ("gunicorn: maste", Some("Gunicorn")),
        ("node", Some("Node.js")),
        ("node-MainThread", Some("Node.js")),
        ("node_exporter", None),
        ("redis-server", Some("Redis or Valkey")),
        ("mariadbd", Some("MySQL or MariaDB")),
        ("cache-main", Some("Varnish")),
        ("exim4", Some("Exim")),
        ("smtpd", Some("Postfix")),
        ("master", None),
        ("apache2-helper", None),
        ("", None),
    ] {
        assert_eq!(recognise(comm).map(|server| server.name), name, "{comm}");
    }
    // The kernel keeps 15 characters.
    assert!(SERVERS.iter().flat_map(|server| server.processes).all(|process| process.len() <= 15));
}

#[test]
fn every_cause_has_advice_and_evidence_for_every_server() {
    for server in SERVERS {
        let comm = server.processes[0].trim_end_matches('*');
        let mut queue = Queue { holders: vec![holder(7, comm)], ..waiting(5000) };
        let mut watch = Watch::new();
        let verdict = watch.one(1000, &queue);
        assert_eq!(verdict.advice[0], server.limit.advice(server.name));
        assert!(verdict.advice[0].starts_with(match server.limit {
            Limit::Waits(_) => "Raise what limits ",
            Limit::TurnsAway { .. } | Limit::None(_) => server.name,
        }));
        (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(1024), Some(1024));
        let verdict = Watch::new().one(1000, &queue);
        assert_eq!(verdict.cause, Cause::FdLimit);
        assert!(verdict.advice[1].contains("LimitNOFILE="), "{verdict:?}");
        assert!(server.descriptors.is_none_or(|knob| verdict.advice[1].contains(knob)), "{verdict:?}");
        for somaxconn in [None, Some(5), Some(4096)] {
            let burst = Queue {
                holders: vec![holder(7, comm)],
                somaxconn,
                backlog_limit: 5,
                overflows_syn: count(9),
                accepts: count(9),
                accept_waits: waits(1),
                ..idle(1)
            };
            let verdict = Watch::new().one(1000, &burst);
            assert_eq!((verdict.level, verdict.cause), overflowing(Cause::BacklogTooSmall));
            assert!(verdict.advice.iter().any(|text| text.contains(server.backlog)), "{verdict:?}");
            assert_eq!(verdict.advice[0].starts_with("net.core.somaxconn is 5 and cuts off"), somaxconn == Some(5));
        }
    }
    assert_eq!(busy(Cause::None), BUSY);
}
