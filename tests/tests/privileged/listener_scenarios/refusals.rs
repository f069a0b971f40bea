//! Servers that refuse connections, and clients that never finish their handshakes.

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::{self, patience};
use overwatch_tests::harness::listeners::ListenerRow;
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::sockets::{backlog, counted};
use overwatch_tests::traffic::queue::step;

use super::scene::{
    OK, Scene, counter_agrees, find, holds, is_true, natively_or_guest, now, only, queue_agrees, set_sysctl, soon, sum,
};

/// Twenty clients, room for three, nobody accepts.
pub(crate) fn never_accepts(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("deaf")?;
    let server = Party::serve(&netns, 1, &["--accept", "never", "--backlog", "2"])?;
    let view = scene.view_of(&netns, &server)?;
    let begin = now();
    let clients = Party::call(&netns, server.port()?, &["--count", "20", "--request-bytes", "123"])?;
    let judged = [("overflowing", "not_accepting")];
    let sight = find(&view, begin, soon(), &judged)?;
    ensure!((sight.row.accept_queue, sight.row.backlog_limit) == (3, 2), "three of two: {:#?}", sight.row);
    ensure!(sight.row.accept_queue_peak == 3 && sight.row.serving.is_none_or(|serving| serving == 0), "{sight:#?}");
    // The clients try again after 1, 2, 4 and 8 seconds; between that nobody is refused.
    holds(&view, 6, &[judged[0], ("saturated", "not_accepting")])?;
    queue_agrees(&view, &netns, server.port()?)?;
    let refused = counter_agrees(&view, &netns, "ListenOverflows", |row| Some(row.overflows_total))?;
    ensure!(refused >= 17, "{refused} refused");
    is_true(&view, &server, &[&clients], true)?;
    only(&view, "not_accepting")
}

/// More at once than there is room for, and an acceptor that takes all there is, but too late for some: it waits for the first refusal,
/// so that there are some however slowly the clients come.
pub(crate) fn burst(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("burst")?;
    let how = ["--accept", "refused", "--backlog", "5", "--then", "answer", "--answer-bytes", "200"];
    let server = Party::serve(&netns, 1, &how)?;
    let view = scene.view_of(&netns, &server)?;
    let begin = now();
    let count = host::scale(300)?.to_string();
    // They would come again for a minute; nobody waits so long.
    let visit = ["--count", &count, "--request-bytes", "10", "--give-up-ms", "2500"];
    let clients = Party::call(&netns, server.port()?, &visit)?;
    let sight = find(&view, begin, soon(), &[("overflowing", "backlog_too_small")])?;
    ensure!(sight.row.accept_queue_peak == 6, "it was full, which is six of five: {sight:#?}");
    // Those that were refused try again after 1, 2, 3, 4, 5 and 8 seconds.
    find(&view, sight.time + 2.0, patience(20), &[OK])?;
    let refused = counter_agrees(&view, &netns, "ListenOverflows", |row| Some(row.overflows_total))?;
    ensure!(refused > 0 && refused == sum(&view, |row| row.overflows), "{refused} refused");
    is_true(&view, &server, &[&clients], true)?;
    only(&view, "backlog_too_small")
}

fn flood(scene: &Scene, tag: &str, cookies: bool) -> Result<()> {
    let joined = Joined::with_nobodies(tag)?;
    set_sysctl(&joined.server, "net/ipv4/tcp_syncookies", if cookies { "1" } else { "0" })?;
    let how = ["--address", Joined::SERVER, "--backlog", "16", "--then", "answer"];
    let server = Party::serve(&joined.server, 1, &how)?;
    let view = scene.view_of(&joined.server, &server)?;
    let begin = now();
    let (count, rate) = natively_or_guest(("600", "50"), ("600", "20"));
    let visit = ["--address", Joined::SERVER, "--from", Joined::NOBODY, "--count", count, "--rate", rate];
    let knocks = Party::knock(&joined.client, server.port()?, &visit)?;
    let is_flood = |judged: (&str, &str)| judged.1 == "syn_flood" && judged.0 != "ok";
    let sight = view.find(begin, patience(5), "syn_flood", |sight| is_flood(sight.row.judged()))?;
    ensure!(sight.row.syn_queue >= Some(16) && sight.row.accept_queue == 0, "the SYN queue is full: {sight:#?}");
    for sight in view.wait_for(4)? {
        ensure!(is_flood(sight.row.judged()), "syn_flood must go on: {sight:#?}");
    }
    drop(knocks);
    let (counter, shown): (_, fn(&ListenerRow) -> Option<u64>) = if cookies {
        ("TCPReqQFullDoCookies", |row| row.syn_cookies)
    } else {
        ("TCPReqQFullDrop", |row| row.syn_queue_overflows)
    };
    let happened = counted(&joined.server, counter)?;
    ensure!(happened > 50, "{counter} is {happened}");
    // A tier that does not see it says so. After one more interval all of it is in some row.
    view.next()?;
    view.next()?;
    if shown(&sight.row).is_some() {
        let all = sum(&view, |row| shown(row).unwrap_or(0));
        ensure!(all == happened, "{counter} is {happened}, {all} are shown");
    }
    let overflows = counter_agrees(&view, &joined.server, "ListenOverflows", |row| Some(row.overflows_total))?;
    ensure!(overflows == 0, "the accept queue has overflowed {overflows} times");
    counter_agrees(&view, &joined.server, "ListenDrops", |row| Some(row.drops_total))?;
    only(&view, "syn_flood")
}

pub(crate) fn flood_with_cookies(scene: &Scene) -> Result<()> {
    flood(scene, "flood1", true)
}

pub(crate) fn flood_without_cookies(scene: &Scene) -> Result<()> {
    flood(scene, "flood0", false)
}

/// The queue is filled between the SYN-ACK and the last ACK: each refusal is one, though the socket's drops count it twice.
pub(crate) fn at_the_last_ack(scene: &Scene) -> Result<()> {
    const KNOCKS: usize = 3;
    let joined = Joined::with_nobodies("ack")?;
    let how = ["--address", Joined::SERVER, "--accept", "never", "--backlog", "4"];
    let server = Party::serve(&joined.server, 1, &how)?;
    let (view, port) = (scene.view_of(&joined.server, &server)?, server.port()?);
    let begin = now();
    let visit = ["--address", Joined::SERVER, "--from", Joined::NOBODY, "--count", &KNOCKS.to_string()];
    let mut knocks = Party::knock(&joined.client, port, &visit)?;
    knocks.wait_for(step::OFFERED, KNOCKS, 5)?;
    let visit = ["--address", Joined::SERVER, "--count", "5", "--request-bytes", "77"];
    let clients = Party::call(&joined.client, port, &visit)?;
    clients.wait_for(step::CONNECTED, 5, 5)?;
    knocks.tell("complete")?;
    knocks.wait_for(step::COMPLETED, KNOCKS, 5)?;
    let sick = find(&view, begin, soon(), &[("overflowing", "not_accepting")])?.row;
    let refused = counter_agrees(&view, &joined.server, "ListenOverflows", |row| Some(row.overflows_total))?;
    ensure!(refused == KNOCKS as u64, "{refused} refused, not {KNOCKS}");
    // A tier that does not see at which packet it was says so. Those that see the SYNs see it.
    ensure!(sick.overflows_ack.is_some() || sick.syn_cookies.is_none(), "at which packet? {sick:#?}");
    if sick.overflows_ack.is_some() {
        let at_ack = sum(&view, |row| row.overflows_ack.unwrap_or(0));
        ensure!(at_ack == refused, "{at_ack} at the last ACK, of {refused}");
    }
    let dropped = backlog(&joined.server, port)?.drops;
    ensure!(dropped == 2 * refused, "the socket has dropped {dropped}: the scenario is not what it should be");
    let other = sum(&view, |row| row.drops);
    ensure!(other == 0, "{other} other drops: those that were counted twice?");
    queue_agrees(&view, &joined.server, port)?;
    is_true(&view, &server, &[&clients], false)?;
    only(&view, "not_accepting")
}
