//! Anything at all, and what must hold whatever it is.

use std::time::Duration;

use super::{
    super::{Cause, Judge, Level, Thresholds, Verdict, history::MOST_SAMPLES},
    host::{client, holder, idle, start},
};
use crate::{
    model::queue::{Count, Queue, SynQueue, Threads, Throttling, Waits},
    random::Random,
};

const NUMBERS: [u64; 8] = [0, 0, 0, 1, 3, 50, 512, 100_000];
const INTERVALS_MS: [u64; 8] = [1, 100, 100, 1000, 1000, 10_000, 60_000, 86_400_000];
const COMMS: [&str; 4] = ["nginx", "server", "apache2", ""];

fn count(random: &mut Random) -> Count {
    let interval = *random.pick(&NUMBERS);
    Count { interval, total: interval + *random.pick(&NUMBERS) }
}

fn known<T>(random: &mut Random, value: T) -> Option<T> {
    (!random.once_in(4)).then_some(value)
}

fn small(random: &mut Random) -> u32 {
    random.pick(&NUMBERS[..7]).to_owned() as u32
}

fn queue(random: &mut Random, listener: u64) -> Queue {
    let mut queue = idle(listener);
    queue.siblings = u32::from(random.once_in(2)) * 3;
    queue.backlog_limit = *random.pick(&[0, 1, 2, 5, 128, 511, 4096, u32::MAX]);
    queue.accept_queue = small(random);
    queue.accept_queue_peak = queue.accept_queue + small(random);
    let length = small(random);
    let syn_queue = SynQueue { length, old: small(random).min(length), defers_accept: random.once_in(3) };
    queue.syn_queue = known(random, syn_queue);
    let cookies = random.below(3) as u32;
    queue.syncookies = known(random, cookies);
    queue.somaxconn = known(random, 128);
    for number in [&mut queue.arrivals, &mut queue.accepts] {
        *number = count(random);
    }
    if random.once_in(3) {
        queue.overflows_syn = count(random);
        queue.overflows_ack = count(random);
        queue.other_drops = count(random);
    }
    let (cookied, overflowed) = (count(random), count(random));
    queue.syn_cookies = known(random, cookied);
    queue.syn_queue_overflows = known(random, overflowed);
    let serving = *random.pick(&NUMBERS);
    queue.serving = known(random, serving);
    queue.served = *random.pick(&NUMBERS);
    queue.waiting_total = u64::from(queue.accept_queue);
    for _ in 0..queue.accept_queue.min(3) {
        let age_ms = *random.pick(&[0, 90, 400, 1200, 20_000, 4_000_000]);
        let mut one = client(age_ms);
        one.waiting = known(random, Duration::from_millis(age_ms));
        one.state = *random.pick(&[1, 7, 8]);
        queue.waiting.push(one);
    }
    if queue.accepts.interval > 0 {
        let wait = Duration::from_millis(*random.pick(&[0, 5, 200, 3000, 90_000]));
        queue.accept_waits = known(random, Waits { p50: wait / 2, p90: wait, p99: wait, max: wait });
    }
    queue.holders.clear();
    for pid in 0..random.below(3) as u32 {
        let comm = *random.pick(&COMMS);
        let mut one = holder(pid, comm);
        let total = random.below(3) as u32;
        let stopped = if random.once_in(3) { total } else { 0 };
        one.threads = known(random, Threads { total, stopped, sleeping: total - stopped, ..Threads::default() });
        let on_cpu = Duration::from_micros(*random.pick(&NUMBERS));
        one.on_cpu = known(random, on_cpu);
        let open_files = *random.pick(&NUMBERS);
        one.open_files = known(random, open_files);
        one.open_files_limit = known(random, 512);
        let periods = random.below(20) as u64;
        let throttled_periods = random.below(periods as usize + 1) as u64;
        one.throttling = known(random, Throttling { periods, throttled_periods, throttled: on_cpu });
        queue.holders.push(one);
    }
    queue
}

fn check(verdict: &Verdict, queue: &Queue, time: std::time::SystemTime) {
    let what = || format!("{verdict:?}\n{queue:?}");
    let is_ok = verdict.level == Level::Ok;
    assert!(!is_ok || *verdict == Verdict::ok(), "{}", what());
    assert!(is_ok || !verdict.evidence.is_empty(), "{}", what());
    assert!(verdict.level < Level::Saturated || verdict.cause != Cause::None, "{}", what());
    assert_eq!(verdict.advice.is_empty(), verdict.cause == Cause::None, "{}", what());
    assert_eq!(verdict.since.is_none(), is_ok, "{}", what());
    if let Some(since) = verdict.since {
        let oldest = queue.oldest_wait().and_then(|oldest| time.checked_sub(oldest)).unwrap_or(time);
        assert!(since <= oldest, "{}", what());
    }
    assert!(verdict.serving_ceiling.is_none() || queue.accept_queue > 0, "{}", what());
    let texts = || verdict.evidence.iter().chain(&verdict.advice);
    assert!(texts().all(|text| text.ends_with(['.', ')']) && !text.contains("  ")), "{}", what());
}

/// Settings to the limits of what can be given, in any combination.
fn thresholds(random: &mut Random) -> Thresholds {
    let time = |random: &mut Random| Duration::from_millis(*random.pick(&[1, 100, 1000, 10_000, 3_600_000]));
    let share = |random: &mut Random| *random.pick(&[0.01, 0.5, 1.0]);
    Thresholds {
        wait: time(random),
        busy_wait: time(random),
        queue_share: share(random),
        calm: *random.pick(&[Duration::ZERO, Duration::from_secs(3), Duration::from_secs(3600)]),
        window: time(random).max(Duration::from_millis(100)),
        settle: *random.pick(&[Duration::ZERO, Duration::from_secs(1), Duration::from_secs(10)]),
        idle: time(random).max(Duration::from_millis(100)),
        constant_share: *random.pick(&[0.0, 0.05, 1.0]),
        throttled_share: share(random),
    }
}

#[test]
fn whatever_comes_a_verdict_is_whole_and_always_the_same() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let thresholds = if seed < 10 { Thresholds::default() } else { thresholds(&mut random) };
        let mut judges = [Judge::new(thresholds.clone()), Judge::new(thresholds)];
        let mut time = start();
        for _ in 0..250 {
            let interval = Duration::from_millis(*random.pick(&INTERVALS_MS));
            time += interval;
            let gone = random.below(30) as u64;
            let there = (0..8).filter(|listener| *listener != gone);
            let queues: Vec<Queue> = there.map(|listener| queue(&mut random, listener)).collect();
            let [first, second] = judges.each_mut().map(|judge| judge.judge(time, interval, &queues));
            assert_eq!(first, second);
            assert_eq!(first.len(), queues.len());
            for (verdict, queue) in first.iter().zip(&queues) {
                check(verdict, queue, time);
            }
            let (listeners, samples) = judges[0].size();
            assert!(listeners == queues.len() && samples <= MOST_SAMPLES);
        }
    }
}
