//! Servers that accept too slowly, or not for a while.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::host::patience;
use overwatch_tests::harness::listeners::ListenerRow;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::sockets::backlog;
use overwatch_tests::traffic::queue::step;

use super::scene::{OK, Scene, WELL, find, has_number, holds, is_true, natively_or_guest, now, only, says, soon};

/// A server that does well is stopped, and continued.
pub(crate) fn stopped(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("stop")?;
    let server = Party::serve(&netns, 1, &["--then", "answer", "--backlog", "511"])?;
    let view = scene.view_of(&netns, &server)?;
    let visit = ["--count", "1000", "--rate", natively_or_guest("10", "4"), "--request-bytes", "50"];
    let clients = Party::call(&netns, server.port()?, &visit)?;
    clients.wait_for(step::ENDED, 10, 10)?;
    holds(&view, 2, WELL)?;
    let stopped = now();
    server.signal(Signal::SIGSTOP)?;
    let judged = [("saturated", "not_accepting")];
    let sight = find(&view, stopped, soon(), &judged)?;
    ensure!(says(&sight.row.evidence, "stopped"), "the evidence: {:#?}", sight.row);
    for sight in holds(&view, 3, &judged)? {
        ensure!(says(&sight.row.evidence, "stopped"), "the evidence: {:#?}", sight.row);
    }
    let continued = now();
    server.signal(Signal::SIGCONT)?;
    let sight = find(&view, continued, patience(5), &[OK])?;
    ensure!(sight.time - continued <= patience(5).as_secs_f64(), "ok within five seconds: {sight:#?}");
    holds(&view, 2, WELL)?;
    let visits = is_true(&view, &server, &[&clients], false)?;
    ensure!(visits.iter().filter(|visit| visit.accepted.is_some()).count() > 10, "clients were served");
    only(&view, "not_accepting")
}

/// Twenty come per second and five are taken.
pub(crate) fn one_at_a_time(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("slow")?;
    let how = ["--accept", "one-per:200", "--backlog", "2000", "--then", "answer"];
    let server = Party::serve(&netns, 1, &how)?;
    let view = scene.view_of(&netns, &server)?;
    let begin = now();
    let visit = ["--count", "2000", "--rate", "20", "--request-bytes", "33"];
    let clients = Party::call(&netns, server.port()?, &visit)?;
    let judged = [("saturated", "slow_accept")];
    find(&view, begin, patience(5), &judged)?;
    let tolerance = natively_or_guest(0.25, 0.5);
    let sights = holds(&view, 6, &judged)?;
    // The window of the rates, which a moment without the processor does not spoil.
    let window = &sights[sights.len() - 5..];
    let seconds: f64 = window.iter().map(|sight| sight.seconds).sum();
    let evidence = &window[window.len() - 1].row.evidence;
    let sum = |of: fn(&ListenerRow) -> u64| window.iter().map(|sight| of(&sight.row)).sum::<u64>();
    for (count, rate) in [(sum(|row| row.arrivals), 20.0), (sum(|row| row.accepts), 5.0)] {
        let measured = count as f64 / seconds;
        ensure!((measured - rate).abs() <= rate * tolerance, "{measured} per second, not {rate}: {window:#?}");
        ensure!(has_number(evidence, measured, tolerance), "the evidence has no {measured}: {evidence:#?}");
    }
    let sights = view.sights();
    ensure!(sights.iter().all(|sight| sight.row.overflows_total == 0), "nobody was refused");
    let last = sights.last().map_or(0, |sight| sight.row.accept_queue);
    ensure!(last > 40, "the queue has grown to {last}");
    is_true(&view, &server, &[&clients], false)?;
    let (limit, shown) = (backlog(&netns, server.port()?)?.limit, view.next()?.row.backlog_limit);
    ensure!(shown == limit, "backlog_limit is {shown}, not {limit}");
    only(&view, "slow_accept")
}
