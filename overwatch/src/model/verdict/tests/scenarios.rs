//! What the real servers are going to do, in every interval length and from every phase of it.

use super::{
    super::{Cause, Level, Verdict},
    BUSY, OK, busy,
    host::{Habit, Hold, Host, Watch, client, holder, idle},
    overflowing, saturated, seconds,
};
use crate::model::{
    queue::{Count, Queue, Threads, Throttling, fixtures::half_open},
    state::{CLOSE, CLOSE_WAIT},
};

/// Lengths of intervals, in milliseconds.
const INTERVALS: [u64; 4] = [100, 1000, 10_000, 60_000];

/// The clients come at 5 s and some more, so that the interval begins in every phase of what happens.
const PHASES: [u64; 4] = [0, 170, 650, 990];

/// Until when a host is watched: at short intervals not so long, since there is much to do.
fn end_ms(interval_ms: u64) -> u64 {
    (interval_ms * 30).clamp(30_000, 180_000)
}

type Case = (Level, Cause);

/// What is to come out.
struct Expected<'a> {
    /// Nothing else may be said, ever.
    allowed: &'a [Case],
    /// From so long after the incident's beginning on (plus two intervals) until its end.
    then: &'a [Case],
    after_ms: u64,
}

/// Runs a host and checks every interval. The incident begins at 5 s and the phase, which is watched until [`end_ms`].
fn check(name: &str, make: impl Fn(u64) -> Host, expected: &Expected<'_>) -> Vec<(u64, u64, Verdict)> {
    let mut last = Vec::new();
    for interval_ms in INTERVALS {
        for phase_ms in PHASES {
            let begins_ms = 5000 + phase_ms;
            let mut host = make(begins_ms);
            let mut watch = Watch::new();
            let mut verdict = Verdict::ok();
            while host.now_ms < end_ms(interval_ms) {
                let queue = host.pass(interval_ms);
                verdict = watch.one(interval_ms, &queue);
                let said = (verdict.level, verdict.cause);
                let is_due = host.now_ms >= begins_ms + expected.after_ms + 2 * interval_ms;
                let is_right = expected.allowed.contains(&said) && (!is_due || expected.then.contains(&said));
                let is_whole = (said.0 == Level::Ok) == verdict.evidence.is_empty()
                    && (said.0 == Level::Ok) == verdict.since.is_none();
                assert!(
                    is_right && is_whole,
                    "{name}: interval {interval_ms}, phase {phase_ms}, at {}: {verdict:?}\n{queue:?}",
                    host.now_ms
                );
            }
            last.push((interval_ms, phase_ms, verdict));
        }
    }
    last
}

fn named(comm: &str) -> Queue {
    Queue { holders: vec![holder(100, comm)], ..idle(1) }
}

/// The same with nothing known but what every tier sees.
fn blind(mut queue: Queue) -> Queue {
    queue.somaxconn = None;
    queue.syncookies = None;
    queue.syn_cookies = None;
    queue.syn_queue_overflows = None;
    for holder in &mut queue.holders {
        holder.on_cpu = None;
    }
    queue
}

#[test]
fn an_idle_listener_and_one_with_idle_connections_are_ok() {
    let expected = Expected { allowed: &[OK], then: &[OK], after_ms: 0 };
    check("idle", |_| Host::new(Habit::Prompt(Hold::Keep), idle(1)), &expected);
    let expected = Expected { allowed: &[OK, BUSY], then: &[OK], after_ms: 4000 };
    let make = |begins_ms| {
        let mut host = Host::new(Habit::Prompt(Hold::Keep), Queue { backlog_limit: 4096, ..idle(1) });
        host.connect(begins_ms, 1000);
        host
    };
    check("keep-alive", make, &expected);
}

#[test]
fn a_healthy_server_under_load_is_never_worse_than_busy() {
    let expected = Expected { allowed: &[OK, BUSY], then: &[OK, BUSY], after_ms: 0 };
    let make = |begins_ms| {
        let mut host = Host::new(Habit::Prompt(Hold::For(300)), named("nginx"));
        host.connect(begins_ms, 200);
        host.connect_each(3, begins_ms, 180_000);
        host
    };
    check("nginx", make, &expected);
}

#[test]
fn a_full_apache_is_at_its_worker_limit() {
    let limit = saturated(Cause::WorkerLimit);
    let expected = Expected { allowed: &[OK, BUSY, limit], then: &[limit], after_ms: 1000 };
    for base in [named("apache2"), blind(named("apache2"))] {
        let make = |begins_ms| {
            let mut host = Host::new(Habit::Workers(5, Hold::Keep), base.clone());
            host.connect(begins_ms, 8);
            host
        };
        for (interval_ms, phase_ms, verdict) in check("apache", make, &expected) {
            let what = format!("{interval_ms} {phase_ms} {verdict:?}");
            assert_eq!(verdict.serving_ceiling, Some(5), "{what}");
            assert!(verdict.evidence[0].starts_with("3 clients wait, the oldest for "), "{what}");
            assert!(
                verdict
                    .evidence
                    .iter()
                    .any(|text| text.starts_with("5 connections are being served, and not more since 22:1")),
                "{what}"
            );
            assert!(verdict.advice[0].contains("MaxRequestWorkers"), "{what}");
            assert!(verdict.advice[2].contains("clients only wait longer"), "{what}");
            // Since the three came.
            assert_eq!(
                verdict.since.unwrap(),
                super::host::start() + seconds(5) + std::time::Duration::from_millis(phase_ms),
                "{what}"
            );
        }
    }
}

#[test]
fn a_proxy_at_maxconn_is_at_its_worker_limit_also_while_some_end() {
    let limit = saturated(Cause::WorkerLimit);
    // With a backend of 2 s the queue is gone after 4 s; 400 clients keep it going.
    for (clients, backend_ms) in [(25, 200_000), (400, 2000), (400, 5000), (2000, 900), (100, 30_000)] {
        let expected = Expected { allowed: &[OK, BUSY, limit], then: &[OK, BUSY, limit], after_ms: 1000 };
        let make = |begins_ms| {
            let base = Queue { backlog_limit: 4096, ..named("haproxy") };
            let mut host = Host::new(Habit::Workers(10, Hold::For(backend_ms)), base);
            host.connect(begins_ms, clients);
            host
        };
        check("haproxy", make, &expected);
        for interval_ms in [100, 1000] {
            let (mut host, mut watch) = (make(5000), Watch::new());
            while host.now_ms < 8000 {
                let verdict = watch.one(interval_ms, &host.pass(interval_ms));
                if host.now_ms >= 7000 {
                    assert_eq!((verdict.level, verdict.cause), limit, "{clients} {backend_ms} {interval_ms}");
                    assert_eq!(verdict.serving_ceiling, Some(10));
                    assert!(verdict.advice[0].contains("maxconn"));
                }
            }
        }
    }
}

#[test]
fn a_server_that_never_accepts_overflows() {
    let refused = overflowing(Cause::NotAccepting);
    let expected = Expected { allowed: &[OK, BUSY, refused], then: &[refused], after_ms: 1000 };
    for base in [idle(1), blind(idle(1)), Queue { serving: None, ..idle(1) }] {
        let make = |begins_ms| {
            let mut host = Host::new(Habit::Never, Queue { backlog_limit: 2, ..base.clone() });
            host.connect(begins_ms, 20);
            host
        };
        for (interval_ms, phase_ms, verdict) in check("never", make, &expected) {
            let full = "The accept queue is full: it holds 3 with a limit of 2.";
            assert!(verdict.evidence.iter().any(|text| text == full), "{interval_ms} {phase_ms} {verdict:?}");
        }
    }
}

#[test]
fn a_stopped_server_does_not_accept_and_is_ok_soon_after_it_goes_on() {
    for (backlog_limit, reached) in [(511, Level::Saturated), (20, Level::Overflowing)] {
        for interval_ms in [100, 1000] {
            for phase_ms in PHASES {
                let mut host = Host::new(Habit::Prompt(Hold::For(20)), Queue { backlog_limit, ..idle(1) });
                host.connect_each(50, 0, 60_000);
                let mut watch = Watch::new();
                let mut worst = Level::Ok;
                let (stop_ms, continue_ms) = (5000 + phase_ms, 15_000 + phase_ms);
                while host.now_ms < 40_000 {
                    // The signals come between two looks.
                    host.begin();
                    let end_ms = host.now_ms + interval_ms;
                    for (at_ms, stopped) in [(stop_ms, true), (continue_ms, false)] {
                        if (host.now_ms..end_ms).contains(&at_ms) {
                            host.run(at_ms - host.now_ms);
                            host.stopped = stopped;
                        }
                    }
                    host.run(end_ms - host.now_ms);
                    let verdict = watch.one(interval_ms, &host.look());
                    let what = format!("{backlog_limit} {interval_ms} {phase_ms} at {}: {verdict:?}", host.now_ms);
                    assert!([Cause::None, Cause::NotAccepting].contains(&verdict.cause), "{what}");
                    worst = worst.max(verdict.level);
                    if host.now_ms > stop_ms + 1000 + interval_ms && host.now_ms < continue_ms {
                        assert!(verdict.level >= Level::Saturated && verdict.cause == Cause::NotAccepting, "{what}");
                        assert!(verdict.evidence.iter().any(|text| text.contains("stopped")), "{what}");
                        assert!(verdict.advice[0].contains("kill -CONT 100"), "{what}");
                    }
                    if host.now_ms >= continue_ms + 5000 {
                        assert_eq!(verdict, Verdict::ok(), "{what}");
                    }
                }
                assert_eq!(worst, reached);
            }
        }
    }
}

#[test]
fn of_four_sockets_of_a_port_only_the_stopped_one_is_reported() {
    for interval_ms in [100, 1000, 10_000] {
        let mut hosts: Vec<Host> = (1..=4)
            .map(|listener| {
                let base =
                    Queue { siblings: 3, holders: vec![holder(100 + listener as u32, "server")], ..idle(listener) };
                let mut host = Host::new(Habit::Prompt(Hold::For(5)), base);
                host.connect_each(200, 0, 60_000);
                host
            })
            .collect();
        hosts[2].stopped = true;
        let mut watch = Watch::new();
        while hosts[0].now_ms < 60_000 {
            let queues: Vec<Queue> = hosts.iter_mut().map(|host| host.pass(interval_ms)).collect();
            let verdicts = watch.all(interval_ms, &queues);
            let said: Vec<Case> = verdicts.iter().map(|verdict| (verdict.level, verdict.cause)).collect();
            let stuck = said[2];
            assert_eq!([said[0], said[1], said[3]], [OK; 3]);
            assert!(
                [OK, BUSY, busy(Cause::OneWorkerStuck), saturated(Cause::OneWorkerStuck)].contains(&stuck),
                "{stuck:?}"
            );
            if hosts[0].now_ms > 1000 + 2 * interval_ms {
                assert_eq!(stuck, saturated(Cause::OneWorkerStuck));
                assert!(verdicts[2].advice[0].contains("kill -CONT 103"), "{:?}", verdicts[2]);
            }
        }
    }
}

#[test]
fn a_stuck_worker_is_found_also_when_all_processes_hold_all_sockets() {
    // As with nginx: the master and every worker have the descriptor, one worker hangs.
    let holders = || (1..=5).map(|pid| holder(pid, "nginx")).collect::<Vec<_>>();
    let base = |listener| Queue { siblings: 1, serving: None, holders: holders(), ..idle(listener) };
    let mut good = Host::new(Habit::Prompt(Hold::For(5)), base(1));
    let mut bad = Host::new(Habit::Never, base(2));
    good.connect_each(100, 0, 30_000);
    bad.connect_each(100, 0, 30_000);
    let mut watch = Watch::new();
    while good.now_ms < 30_000 {
        let verdicts = watch.all(1000, &[good.pass(1000), bad.pass(1000)]);
        let said = (verdicts[1].level, verdicts[1].cause);
        assert_eq!((verdicts[0].level, verdicts[0].cause), OK);
        assert!([BUSY, saturated(Cause::OneWorkerStuck)].contains(&said), "{said:?}");
        assert_eq!(said != BUSY, good.now_ms > 1000);
    }
}

#[test]
fn silent_clients_of_a_listener_that_defers_accept_are_ok() {
    for queue in [idle(1), blind(idle(1))] {
        for (limit, clients) in [(511, 50), (128, 50), (51, 50)] {
            for interval_ms in INTERVALS {
                let mut watch = Watch::new();
                for _ in 0..20 {
                    let queue =
                        Queue { backlog_limit: limit, syn_queue: half_open(clients, clients, true), ..queue.clone() };
                    assert_eq!(watch.one(interval_ms, &queue), Verdict::ok());
                }
            }
        }
    }
}

#[test]
fn half_open_connections_are_a_syn_flood_with_cookies_and_without() {
    let flood = |number: u64| Some(Count { interval: number, total: number });
    // (cookies on, the tier sees it, limit)
    for (cookies, seen, limit) in [
        (true, true, 128),
        (true, false, 128),
        (false, true, 128),
        (false, false, 128),
        (false, true, 511),
        (true, true, 2),
    ] {
        for interval_ms in INTERVALS {
            let what = format!("cookies {cookies}, seen {seen}, limit {limit}, interval {interval_ms}");
            let level = if cookies { Level::Busy } else { Level::Overflowing };
            let mut watch = Watch::new();
            let mut found = false;
            for round in 0..20 {
                // Half-open ones become old after a second; 500 SYNs come each second. Without cookies only 3/4 of tcp_max_syn_backlog fit.
                let old = if round == 0 && interval_ms <= 1000 { 0 } else { limit };
                let lost = interval_ms / 2;
                let most = if cookies && limit == 128 { limit } else { 96 };
                let syn_queue = half_open(limit.min(most), old.min(most), false);
                let mut queue = Queue { backlog_limit: limit, syn_queue, ..idle(1) };
                queue.syncookies = Some(u32::from(cookies));
                (queue.syn_cookies, queue.syn_queue_overflows) = match (seen, cookies) {
                    (false, _) => (None, None),
                    (true, true) => (flood(lost), flood(0)),
                    (true, false) => (flood(0), flood(if limit == 511 { 0 } else { lost })),
                };
                if !cookies {
                    queue.other_drops = Count { interval: lost, total: lost };
                }
                let verdict = watch.one(interval_ms, &queue);
                let said = (verdict.level, verdict.cause);
                assert!([OK, BUSY, (level, Cause::SynFlood)].contains(&said), "{what}: {said:?}");
                found |= said.1 == Cause::SynFlood;
                assert!(found || round < 2 || round as u64 * interval_ms < 2000, "{what}: {said:?}");
                if found {
                    assert_eq!(said, (level, Cause::SynFlood), "{what}");
                    assert!(verdict.evidence.iter().any(|text| text.contains("not complete")), "{what} {verdict:?}");
                    assert!(verdict.advice[0].contains("tcp_syncookies"), "{what} {verdict:?}");
                }
            }
        }
    }
}

#[test]
fn a_server_without_descriptors_is_at_the_fd_limit() {
    let limit = saturated(Cause::FdLimit);
    for kept_back in [0, 3] {
        for interval_ms in INTERVALS {
            for phase_ms in PHASES {
                let mut host = Host::new(Habit::Workers(28 - kept_back, Hold::Keep), idle(1));
                host.connect(5000 + phase_ms, 60);
                let mut watch = Watch::new();
                while host.now_ms < end_ms(interval_ms) {
                    let mut queue = host.pass(interval_ms);
                    queue.holders[0].open_files = Some(4 + queue.serving.unwrap());
                    queue.holders[0].open_files_limit = Some(32);
                    let verdict = watch.one(interval_ms, &queue);
                    let said = (verdict.level, verdict.cause);
                    assert!([OK, BUSY, busy(Cause::FdLimit), limit].contains(&said), "{said:?}");
                    if host.now_ms > 6000 + phase_ms + 2 * interval_ms {
                        assert_eq!(said, limit);
                        let open =
                            format!("server (pid 100) has {} of 32 descriptors open (RLIMIT_NOFILE).", 32 - kept_back);
                        assert!(verdict.evidence.contains(&open), "{verdict:?}");
                        assert!(verdict.advice[0].contains("prlimit --pid 100 --nofile=4096:"), "{verdict:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_burst_at_a_prompt_server_overflows_a_short_queue_and_is_over_by_itself() {
    let short = overflowing(Cause::BacklogTooSmall);
    let expected = Expected { allowed: &[OK, BUSY, short], then: &[OK], after_ms: 15_000 };
    let make = |begins_ms| {
        let mut host = Host::new(Habit::Prompt(Hold::For(10)), Queue { backlog_limit: 5, ..idle(1) });
        // 300 within 15 ms.
        (0..15).for_each(|after_ms| host.connect(begins_ms + after_ms, 20));
        host
    };
    check("burst", make, &expected);
    for interval_ms in INTERVALS {
        let (mut host, mut watch) = (make(5000), Watch::new());
        let verdicts: Vec<Verdict> = std::iter::from_fn(|| {
            (host.now_ms < end_ms(interval_ms)).then(|| watch.one(interval_ms, &host.pass(interval_ms)))
        })
        .collect();
        let found = verdicts.iter().find(|verdict| (verdict.level, verdict.cause) == short).unwrap();
        assert!(found.advice[1].contains("net.core.somaxconn is 4096 and not what limits it"), "{found:?}");
    }
}

#[test]
fn a_slow_acceptor_is_that_whatever_it_does_with_connections() {
    let slow = saturated(Cause::SlowAccept);
    for hold in [Hold::For(0), Hold::For(200), Hold::Keep] {
        for backlog_limit in [4096, 5, 2] {
            // What it does with connections does not matter where it cannot be seen.
            let blind = matches!(hold, Hold::For(200)).then(|| Queue { serving: None, ..blind(idle(1)) });
            for base in [idle(1)].into_iter().chain(blind) {
                let refusing = overflowing(Cause::SlowAccept);
                let expected = Expected {
                    allowed: &[OK, BUSY, slow, refusing],
                    then: if backlog_limit == 4096 { &[slow] } else { &[slow, refusing] },
                    after_ms: 3500,
                };
                let make = |begins_ms| {
                    let base = Queue { backlog_limit, ..base.clone() };
                    let mut host = Host::new(Habit::Serial(200, hold), base);
                    host.connect_each(50, begins_ms, 200_000);
                    host
                };
                for (interval_ms, phase_ms, verdict) in
                    check(&format!("slow {hold:?} {backlog_limit}"), make, &expected)
                {
                    let rates = verdict.evidence.iter().find(|text| text.contains("per second were accepted")).unwrap();
                    if backlog_limit == 4096 && interval_ms >= 500 {
                        assert!(rates.contains("there came 20.0 connections"), "{interval_ms} {phase_ms} {rates}");
                        assert!(rates.contains("and 5.0 per second were accepted"), "{interval_ms} {phase_ms} {rates}");
                    }
                }
            }
        }
    }
}

#[test]
fn clients_that_gave_up_are_said_to_hold_a_place() {
    let mut host = Host::new(Habit::Never, idle(1));
    host.connect(100, 5);
    let mut watch = Watch::new();
    for _ in 0..5 {
        let mut queue = host.pass(1000);
        queue.waiting[0].state = CLOSE_WAIT;
        queue.waiting[1].state = CLOSE;
        let verdict = watch.one(1000, &queue);
        let gone = "2 clients have closed the connection or reset it, and still take a place in the queue.";
        assert!(verdict.evidence.iter().any(|text| text == gone), "{verdict:?}");
    }
}

#[test]
fn the_same_port_in_two_namespaces_is_judged_apart() {
    let mut sick = Host::new(Habit::Never, Queue { netns: 2, ..idle(2) });
    let mut well = Host::new(Habit::Prompt(Hold::For(5)), idle(1));
    sick.connect(100, 3);
    well.connect_each(20, 0, 20_000);
    let mut watch = Watch::new();
    for round in 0..20 {
        let verdicts = watch.all(1000, &[well.pass(1000), sick.pass(1000)]);
        assert_eq!(verdicts[0], Verdict::ok());
        if round > 0 {
            assert_eq!((verdicts[1].level, verdicts[1].cause), saturated(Cause::NotAccepting));
        }
    }
}

#[test]
fn refusals_at_the_last_ack_overflow_too() {
    let mut watch = Watch::new();
    let mut last = Verdict::ok();
    for round in 0..10_u64 {
        let queue = Queue {
            backlog_limit: 3,
            accept_queue: 4,
            accept_queue_peak: 4,
            waiting: (0..4).map(|_| client(500 + round * 1000)).collect(),
            waiting_total: 4,
            syn_queue: half_open(2, 2, false),
            overflows_ack: Count { interval: 2, total: 2 * (round + 1) },
            ..idle(1)
        };
        last = watch.one(1000, &queue);
        assert!([BUSY, overflowing(Cause::NotAccepting)].contains(&(last.level, last.cause)));
    }
    assert_eq!((last.level, last.cause), overflowing(Cause::NotAccepting));
    assert!(
        last.evidence.iter().any(|text| text
            .contains("10 attempts were refused in the last 5.0 s because the accept queue was full, at the last ACK")),
        "{last:?}"
    );
}

#[test]
fn a_throttled_group_is_cpu_throttled() {
    let throttled = Cause::CpuThrottled;
    for interval_ms in INTERVALS {
        for phase_ms in PHASES {
            for backlog_limit in [4096, 5] {
                // Runs for a moment in each second, while requests come.
                let base = Queue { backlog_limit, ..idle(1) };
                let mut host = Host::new(Habit::Serial(150, Hold::For(400)), base);
                host.connect_each(40, 5000 + phase_ms, 180_000);
                let mut watch = Watch::new();
                while host.now_ms < end_ms(interval_ms) {
                    let mut queue = host.pass(interval_ms);
                    let begun_ms = host.now_ms.saturating_sub(5000 + phase_ms).min(interval_ms);
                    let periods = begun_ms / 100 + u64::from(begun_ms % 100 > 50);
                    queue.holders[0].throttling = Some(Throttling {
                        periods,
                        throttled_periods: periods - periods / 10,
                        throttled: std::time::Duration::from_millis(begun_ms),
                    });
                    let verdict = watch.one(interval_ms, &queue);
                    assert!([Cause::None, throttled].contains(&verdict.cause), "{verdict:?}");
                    if host.now_ms > 8000 + 2 * interval_ms {
                        assert!(verdict.level >= Level::Saturated && verdict.cause == throttled, "{verdict:?}");
                        assert!(verdict.advice[0].contains("CPUQuota="));
                    }
                }
            }
        }
    }
}

#[test]
fn some_stopped_processes_of_several_are_counted() {
    // nginx: the master goes on, its only worker is stopped with 200 connections.
    let mut watch = Watch::new();
    for round in 0..10_u64 {
        let mut queue = Queue {
            holders: vec![holder(100, "nginx"), holder(101, "nginx")],
            accept_queue: 10,
            serving: Some(200),
            waiting: (0..10).map(|_| client(300 + 1000 * round)).collect(),
            waiting_total: 10,
            ..idle(1)
        };
        queue.holders[0].threads = Some(Threads { total: 1, sleeping: 1, ..Threads::default() });
        queue.holders[1].threads = Some(Threads { total: 1, stopped: 1, ..Threads::default() });
        let verdict = watch.one(1000, &queue);
        if round > 0 {
            assert_eq!((verdict.level, verdict.cause), saturated(Cause::NotAccepting));
            assert!(
                verdict.evidence.iter().any(|text| text.starts_with("1 of 2 processes that listen is stopped")),
                "{verdict:?}"
            );
        }
    }
}
