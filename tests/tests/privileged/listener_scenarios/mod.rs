//! What `overwatch listeners` says of servers that do well and of servers that do badly, each in a known way: the verdict, the
//! cause, the numbers, and nothing else at any time.
//!
//! One overwatch watches them all. Every scenario makes its own namespaces, runs its own server and clients, and judges the rows
//! of its own listener; they run side by side, so that a tier costs a minute.

mod gone;
mod healthy;
mod limits;
mod real;
mod refusals;
mod scene;
mod siblings;
mod slow;
mod waits;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_tests::harness::host::{Host, Tier, in_guest};
use overwatch_tests::harness::watch::Watch;

use scene::Scene;

type Scenario = (&'static str, fn(&Scene) -> Result<()>);

/// The longest first.
const SCENARIOS: &[Scenario] = &[
    ("a worker limit with real Apache", real::apache),
    ("a worker limit with real HAProxy", real::haproxy),
    ("a cgroup without processor time", limits::throttled),
    ("a worker limit, one process per client", limits::preforked),
    ("a worker limit in one process", limits::at_most),
    ("no descriptors", limits::descriptors),
    ("stopped and continued", slow::stopped),
    ("slow acceptor", slow::one_at_a_time),
    ("one of four siblings stopped", siblings::one_stopped),
    ("half-open, with cookies", refusals::flood_with_cookies),
    ("half-open, without cookies", refusals::flood_without_cookies),
    ("never accepts", refusals::never_accepts),
    ("a burst", refusals::burst),
    ("refused at the last ACK", refusals::at_the_last_ack),
    ("clients that gave up", gone::gave_up),
    ("one port in two places", siblings::two_places),
    ("known accept waits", waits::known),
    ("idle", healthy::idle),
    ("deferred accept", healthy::deferred),
    ("idle connections", healthy::idle_connections),
    ("busy with keep-alive", healthy::keep_alive),
];

/// Under emulation everything takes twenty times as long, and a scenario must not take the processor from another one.
fn at_once() -> usize {
    if in_guest() { 4 } else { SCENARIOS.len() }
}

/// A preemptible kernel skips programs now and then, and an accept that it skipped is counted when its connection ends (ADR 6). Scenarios
/// that fail beside skipped runs are judged again: one of the tries must hold.
const TRIES_WITH_SKIPPED_RUNS: usize = 3;

fn judge_all(tier: Tier, scenarios: &[Scenario]) -> Result<()> {
    let mut left = scenarios.to_vec();
    for _ in 1..TRIES_WITH_SKIPPED_RUNS {
        let (failed, skipped_runs, result) = judge_once(tier, &left)?;
        if result.is_ok() || skipped_runs == 0 {
            return result;
        }
        println!("{tier}: again, since the kernel skipped {skipped_runs} runs: {:?}", result.err());
        left = failed;
    }
    judge_once(tier, &left)?.2
}

/// The scenarios that failed, how many runs of programs the kernel skipped meanwhile, and what was wrong.
fn judge_once(tier: Tier, scenarios: &[Scenario]) -> Result<(Vec<Scenario>, u64, Result<()>)> {
    let watch = Watch::start(tier, &[])?;
    let views = watch.views();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..at_once().min(scenarios.len()) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (name, judge) = scenario;
                    let begin = Instant::now();
                    let outcome = judge(&Scene::new(&views, tier)).with_context(|| format!("{tier}: {name}"));
                    println!("{tier}: {name}: {:.1} s", begin.elapsed().as_secs_f64());
                    if let Err(error) = outcome {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push((*scenario, format!("{error:#}")));
                    }
                }
            });
        }
    });
    let skipped_runs = watch.skipped_runs();
    let intervals = watch.stop()?;
    let lost: u64 = intervals.iter().map(|interval| interval.lost_events).sum();
    println!("{tier}: {} intervals, {lost} events lost", intervals.len());
    ensure!(lost == 0, "{tier}: {lost} events were lost");
    let (failed, texts): (Vec<_>, Vec<_>) =
        failures.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().unzip();
    let result = match failed.len() {
        0 => Ok(()),
        count => Err(anyhow::anyhow!("{count} scenarios failed:\n\n{}", texts.join("\n\n"))),
    };
    Ok((failed, skipped_runs, result))
}

/// How often everything is repeated: `OVERWATCH_SCENARIO_RUNS`, or once.
fn runs() -> Result<usize> {
    match std::env::var("OVERWATCH_SCENARIO_RUNS") {
        Ok(text) => text.parse().with_context(|| format!("OVERWATCH_SCENARIO_RUNS={text:?}")),
        Err(_) => Ok(1),
    }
}

/// `OVERWATCH_SCENARIO` names one scenario, or a part of its name; else all.
fn chosen() -> Result<Vec<Scenario>> {
    let part = std::env::var("OVERWATCH_SCENARIO").unwrap_or_default();
    let chosen: Vec<Scenario> = SCENARIOS.iter().copied().filter(|(name, _)| name.contains(&part)).collect();
    if chosen.is_empty() {
        bail!("no scenario {part:?}");
    }
    Ok(chosen)
}

#[test]
fn every_scenario_has_its_verdict_and_cause() -> Result<()> {
    let host = Host::take()?;
    let scenarios = chosen()?;
    for tier in host.tiers()? {
        for run in 0..runs()? {
            judge_all(tier, &scenarios).with_context(|| format!("run {run}"))?;
        }
    }
    Ok(())
}

/// By itself: it takes all of the processor time that there is.
#[test]
fn real_nginx_under_full_load_is_never_worse_than_busy() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        judge_all(tier, &[("real nginx under full load", real::nginx)])?;
    }
    Ok(())
}
