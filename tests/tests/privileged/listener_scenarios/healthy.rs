//! Servers that do well, whatever it looks like.

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{self, patience};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::sockets::{backlog, counted};
use overwatch_tests::traffic::queue::step;

use super::scene::{OK, Scene, WELL, find, holds, is_true, natively_or_guest, now, queue_agrees, sysctl};

/// Nobody comes. One has asked for a longer queue than the kernel allows.
pub(crate) fn idle(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("idle")?;
    let short = Party::serve(&netns, 1, &["--backlog", "7"])?;
    let long = Party::serve(&netns, 1, &["--backlog", "1000000"])?;
    let somaxconn = sysctl(&netns, "net/core/somaxconn")?;
    let mut origins = Vec::new();
    for (server, limit) in [(&short, 7), (&long, somaxconn)] {
        let view = scene.view_of(&netns, server)?;
        for sight in holds(&view, 3, &[OK])? {
            let row = sight.row;
            ensure!((row.backlog_limit, row.somaxconn) == (limit, Some(somaxconn)), "limit {limit}: {row:#?}");
            let rest = [
                row.accept_queue_peak,
                row.syn_queue.unwrap_or(u64::MAX),
                row.arrivals,
                row.accepts_total,
                row.overflows_total,
            ];
            ensure!(rest == [0; 5] && row.drops_total == 0 && row.waiting_total == 0, "nothing happens: {row:#?}");
            ensure!(row.oldest_wait_seconds.is_none() && row.accept_wait_seconds.is_none(), "nobody waits: {row:#?}");
            origins.push(row.backlog_origin);
        }
        view.judged_only(0.0, f64::INFINITY, &[OK])?;
        view.adds_up()?;
    }
    ensure!(origins.first() != origins.last(), "two origins of the limit: {origins:?}");
    Ok(())
}

/// Clients that say nothing stay in the SYN queue.
pub(crate) fn deferred(scene: &Scene) -> Result<()> {
    const CLIENTS: usize = 50;
    let netns = NetNs::new("defer")?;
    let server = Party::serve(&netns, 1, &["--defer-seconds", "30", "--then", "answer"])?;
    let view = scene.view_of(&netns, &server)?;
    let clients = Party::call(&netns, server.port()?, &["--count", &CLIENTS.to_string()])?;
    clients.wait_for(step::CONNECTED, CLIENTS, 10)?;
    view.next()?;
    for sight in holds(&view, 7, &[OK])? {
        let row = &sight.row;
        ensure!((row.accept_queue, row.syn_queue) == (0, Some(CLIENTS as u64)), "all are in the SYN queue: {row:#?}");
    }
    queue_agrees(&view, &netns, server.port()?)?;
    ensure!(server.of(step::ACCEPTED).is_empty(), "nobody was accepted");
    view.judged_only(0.0, f64::INFINITY, &[OK])?;
    view.adds_up()
}

/// Connections that are kept and say nothing more.
pub(crate) fn idle_connections(scene: &Scene) -> Result<()> {
    let count = host::scale(1_000)?;
    let netns = NetNs::new("kept")?;
    let server = Party::serve(&netns, 1, &["--backlog", "1000", "--then", "answer-on", "--answer-bytes", "300"])?;
    let view = scene.view_of(&netns, &server)?;
    let rate = natively_or_guest("500", "25");
    let visit = ["--count", &count.to_string(), "--rate", rate, "--request-bytes", "100"];
    let clients = Party::call(&netns, server.port()?, &visit)?;
    clients.wait_for(step::ANSWERED, count, 20)?;
    // An interval that began after the last one was accepted.
    find(&view, now() + 1.2, patience(5), &[OK])?;
    for sight in holds(&view, 4, &[OK])? {
        let row = &sight.row;
        ensure!(row.serving == Some(count as u64), "all {count} are served: {row:#?}");
        ensure!((row.accepts, row.accepts_total) == (0, count as u64), "all were accepted: {row:#?}");
    }
    view.judged_only(0.0, f64::INFINITY, WELL)?;
    is_true(&view, &server, &[&clients], false)?;
    view.adds_up()
}

/// An event server and clients that keep asking over the same connections, and others that come and go.
pub(crate) fn keep_alive(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("keep")?;
    let how = ["--comm", "nginx", "--backlog", "511", "--then", "answer-on", "--answer-bytes", "600"];
    let server = Party::serve(&netns, 1, &how)?;
    let view = scene.view_of(&netns, &server)?;
    let (count, again) = natively_or_guest(("40", "40"), ("10", "200"));
    let keep = ["--count", count, "--request-bytes", "80", "--again-ms", again];
    let keeping = Party::call(&netns, server.port()?, &keep)?;
    // These close as soon as they are connected.
    let brief = ["--count", natively_or_guest("5", "2"), "--give-up-ms", "20", "--again-ms", again];
    let coming = Party::call(&netns, server.port()?, &brief)?;
    coming.wait_for(step::GAVE_UP, 5, 20)?;
    holds(&view, 8, WELL)?;
    view.judged_only(0.0, f64::INFINITY, WELL)?;
    let accepted = is_true(&view, &server, &[&keeping, &coming], false)?;
    ensure!(accepted.len() > 10, "{} connections", accepted.len());
    ensure!(counted(&netns, "ListenOverflows")? == 0, "nobody was refused");
    let last = view.sights().pop().context("it was seen")?;
    ensure!(last.row.overflows_total == 0, "nobody was refused: {last:#?}");
    // A child that the kernel made twice is a drop that nobody notices.
    let dropped = backlog(&netns, server.port()?)?.drops;
    ensure!(last.row.drops_total <= dropped, "the socket has dropped {dropped}: {last:#?}");
    view.adds_up()
}
