//! Real servers, of the host's distribution. A guest has none: there the imitations are judged by the same rules.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::patience;
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::proc::must;
use overwatch_tests::harness::servers::{HTTP_REQUEST, RealServer, installed};
use overwatch_tests::harness::visits::slack;
use overwatch_tests::harness::watch::Sight;
use overwatch_tests::traffic::queue::step;

use super::scene::{Scene, WELL, find, holds, is_at_limit, now, only, queue_agrees, says, soon};

/// The clients of a row are those that no answer has come to, with the ages that they had.
fn waiting_are_unanswered(sight: &Sight, clients: &Party, count: usize) -> Result<()> {
    let answered = clients.of(step::ANSWERED);
    let unanswered: Vec<_> = clients
        .of(step::CONNECTED)
        .into_iter()
        .filter(|step| answered.iter().all(|answer| answer.client != step.client))
        .collect();
    ensure!(unanswered.len() == count, "{} clients have no answer, not {count}", unanswered.len());
    for step in unanswered {
        let client = step.client.context("a client that is connected has an address")?;
        let is_client = |ip, port| SocketAddr::new(ip, port) == client;
        let shown = sight.row.waiting.iter().find(|shown| is_client(shown.remote_addr, shown.remote_port));
        let shown = shown.with_context(|| format!("{client} is not shown: {sight:#?}"))?;
        let (least, most) = (sight.time - step.until - slack(), sight.time - step.from + slack());
        let fits = shown.waiting_seconds.is_some_and(|age| age >= least && age <= most);
        ensure!(fits, "{client} has waited {least:.3} to {most:.3} s: {shown:?}");
        ensure!(shown.unread_bytes == step.bytes && !shown.gone, "{client} sent {} bytes: {shown:?}", step.bytes);
    }
    Ok(())
}

/// Five processes, eight clients, a file that takes minutes.
pub(crate) fn apache(scene: &Scene) -> Result<()> {
    const PORT: u16 = 8003;
    if !installed(&["apache2"])? {
        return Ok(());
    }
    let joined = Joined::new("apache")?;
    joined.server.limit(&["rate", "1mbit", "burst", "32kbit", "latency", "400ms"])?;
    let from = ["10.213.6.11", "10.213.6.12", "10.213.6.13"];
    for address in from {
        joined.client.add_address(&format!("{address}/24"), Joined::DEVICE)?;
    }
    let _server = RealServer::apache(&joined.server, SocketAddr::new(Joined::SERVER.parse()?, PORT))?;
    let view = scene.view(&joined.server, PORT);
    // All five must be there, or the first clients wait for them.
    view.find(now(), patience(10), "six processes", |sight| sight.row.processes.len() == 6)?;
    let begin = now();
    let visit = ["--address", Joined::SERVER, "--from", &from.join(","), "--count", "8", "--request", HTTP_REQUEST];
    let clients = Party::call(&joined.client, PORT, &visit)?;
    let judged = [("saturated", "worker_limit")];
    find(&view, begin, soon(), &judged)?;
    for sight in holds(&view, 5, &judged)? {
        let row = &sight.row;
        ensure!((row.accept_queue, row.waiting_total, row.backlog_limit) == (3, 3, 511), "three of 511: {row:#?}");
        ensure!((row.serving, row.serving_ceiling) == (Some(5), Some(5)), "five are served: {row:#?}");
        ensure!(says(&row.advice, "MaxRequestWorkers"), "the advice: {row:#?}");
        waiting_are_unanswered(&sight, &clients, 3)?;
    }
    queue_agrees(&view, &joined.server, PORT)?;
    only(&view, "worker_limit")
}

/// Ten connections at most, a backend that thinks for four seconds, 25 clients that come again.
pub(crate) fn haproxy(scene: &Scene) -> Result<()> {
    const PORT: u16 = 8004;
    if !installed(&["haproxy"])? {
        return Ok(());
    }
    let netns = NetNs::new("haproxy")?;
    let slow = ["--then", "answer", "--think-ms", "4000", "--answer-bytes", "500", "--backlog", "511"];
    let backend = Party::serve(&netns, 1, &slow)?;
    let backend_port = backend.port()?;
    let _server = RealServer::haproxy(&netns, SocketAddr::from(([127, 0, 0, 1], PORT)), backend_port)?;
    let view = scene.view(&netns, PORT);
    view.next()?;
    let begin = now();
    let clients = Party::call(&netns, PORT, &["--count", "25", "--request-bytes", "81", "--again-ms", "0"])?;
    is_at_limit(&view, begin, 10, "maxconn")?;
    queue_agrees(&view, &netns, PORT)?;
    let backend_view = scene.view(&netns, backend_port);
    backend_view.judged_only(0.0, f64::INFINITY, WELL)?;
    ensure!(!clients.of(step::ENDED).is_empty(), "clients are served by and by");
    only(&view, "worker_limit")
}

/// A minute of as many requests as it can answer, over 200 connections.
pub(crate) fn nginx(scene: &Scene) -> Result<()> {
    const PORT: u16 = 8002;
    const SECONDS: u64 = 60;
    if !installed(&["nginx", "wrk"])? {
        return Ok(());
    }
    let netns = NetNs::new("nginx")?;
    let at = SocketAddr::from(([127, 0, 0, 1], PORT));
    let _server = RealServer::nginx(&netns, at)?;
    let view = scene.view(&netns, PORT);
    view.next()?;
    let url = format!("http://{at}/");
    let load = netns.command(&["wrk", "-t", "1", "-c", "200", "-d", &format!("{SECONDS}s"), &url]);
    let output = must(load, Duration::from_secs(SECONDS) + patience(20))?;
    let summary = output.stdout.lines().find(|line| line.contains("requests in"));
    println!("wrk: {}", summary.context("wrk says how many requests it made")?.trim());
    let sights = view.sights();
    ensure!(sights.len() as u64 >= SECONDS - 5, "{} intervals", sights.len());
    let most = sights.iter().filter_map(|sight| sight.row.serving).max();
    ensure!(most == Some(200), "{most:?} connections served, not 200");
    view.judged_only(0.0, f64::INFINITY, WELL)?;
    view.adds_up()
}
