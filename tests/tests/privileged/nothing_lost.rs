//! Nothing lost: with thousands of short connections, a table that is far too small, or a reader that stands still,
//! the rows and the unattributed bytes still add up to what was moved.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::host::{self, Host, Tier};
use overwatch_tests::harness::judge::{Expect, judge};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch::{Run, Top};
use overwatch_tests::harness::rows::{Bytes, Row, lost, rows, skipped, unattributed};
use overwatch_tests::harness::traffic::{Flood, Hold};
use overwatch_tests::traffic::report::Sums;

const CONNECTIONS: usize = 20_000;
/// Bytes of one call of a flood, and so the most that a skipped run can have missed.
const LARGEST_CALL: u64 = 1024;

/// Starts a flood in `netns`. It says when an eighth is done.
fn flood(netns: &NetNs, at_once: usize) -> Result<Flood> {
    let count = host::scale(CONNECTIONS)?;
    let (text, eighth) = (count.to_string(), (count / 16).max(1).to_string());
    let at_once = at_once.to_string();
    let arguments =
        ["--connections", &text, "--at-once", &at_once, "--netns", netns.path_text(), "--progress-every", &eighth];
    Flood::start(&arguments)
}

fn moved(sums: &[Sums]) -> Bytes {
    sums.iter().map(|sums| Bytes { sent: sums.sent, received: sums.received }).sum()
}

/// Rows of the namespace and unattributed bytes together are what was moved.
fn adds_up(run: &Run, netns: &NetNs, expected: Bytes) -> Result<()> {
    let ours: Bytes = rows(&run.intervals).filter(|row| row.netns == netns.inode()).map(Row::bytes).sum();
    let rest = unattributed(&run.intervals);
    println!("{ours:?} in rows, {rest:?} unattributed, {} events lost, {expected:?} moved", lost(&run.intervals));
    ensure!(ours.sent <= expected.sent && ours.received <= expected.received, "rows show more than was moved");
    let all = Bytes { sent: ours.sent + rest.sent, received: ours.received + rest.received };
    ensure!(all.sent >= expected.sent && all.received >= expected.received, "{all:?} shown, {expected:?} moved");
    // Unattributed bytes are of the whole host: equality can be asked for only while nobody else talks.
    match rows(&run.intervals).find(|row| row.netns != netns.inode()) {
        None => ensure!(all == expected, "{all:?} shown, {expected:?} moved"),
        Some(other) => eprintln!("not alone on this host ({:?}): equality is not asked for", other.comm),
    }
    Ok(())
}

/// While the table is large enough, each process has its own bytes.
fn each_process_has_its_own(run: &Run, netns: &NetNs, sums: &[Sums]) -> Result<()> {
    for sums in sums {
        let ours = |row: &&Row| row.netns == netns.inode() && row.pid == Some(sums.pid);
        let own: Vec<&Row> = rows(&run.intervals).filter(ours).collect();
        let shown: Bytes = own.iter().map(|row| row.bytes()).sum();
        let counted = Bytes { sent: sums.sent, received: sums.received };
        // Where the kernel skipped every program for a connection, its bytes are unattributed, or nobody's.
        let nobodys =
            rows(&run.intervals).filter(|row| row.netns == netns.inode() && row.pid.is_none()).map(Row::bytes);
        let rest = if skipped(&run.intervals) > 0 {
            nobodys.chain([unattributed(&run.intervals)]).sum()
        } else {
            Bytes::default()
        };
        let enough = |shown: u64, counted: u64, rest: u64| (counted.saturating_sub(rest)..=counted).contains(&shown);
        ensure!(
            enough(shown.sent, counted.sent, rest.sent) && enough(shown.received, counted.received, rest.received),
            "{} {}: {shown:?} shown, {counted:?} counted",
            sums.comm,
            sums.pid
        );
        let misnamed = own.iter().find(|row| row.comm.as_deref() != Some(sums.comm.as_str()));
        ensure!(misnamed.is_none(), "a row of {} has another name: {misnamed:?}", sums.comm);
    }
    Ok(())
}

fn short_connections(tier: Tier) -> Result<()> {
    let netns = NetNs::new("flood")?;
    let top = Top::start(Some(tier), &[])?;
    let sums = flood(&netns, 16)?.finish()?;
    let run = top.stop()?;
    adds_up(&run, &netns, moved(&sums))?;
    each_process_has_its_own(&run, &netns, &sums)
}

fn table_too_small(tier: Tier) -> Result<()> {
    let netns = NetNs::new("small")?;
    let mut top = Top::start(Some(tier), &["--max-connections", "64"])?;
    let sums = flood(&netns, 504)?.finish()?;
    let before = top.read_until(10, |_| true)?.len();
    top.read_until(30, |seen| seen.len() >= before + 2)?;
    // The flood is gone, so there is room again: what comes now has its row.
    let mut hold = Hold::open(&["--server-netns", netns.path_text(), "--client-netns", netns.path_text()])?;
    let ends = hold.send(30_011, 40_013)?;
    hold.close()?;
    let run = top.stop()?;
    let mut expected = moved(&sums);
    expected += ends.iter().map(|end| Bytes { sent: end.sent, received: end.received }).sum();
    let rest = unattributed(&run.intervals);
    if skipped(&run.intervals) == 0 {
        adds_up(&run, &netns, expected)?;
    } else {
        // A preemptible kernel skipped programs, and said so. Sockets without an entry have nothing that is made good.
        let shown: Bytes = rows(&run.intervals).map(Row::bytes).chain([rest]).sum();
        println!("{} runs skipped: {shown:?} shown, {expected:?} moved", skipped(&run.intervals));
        ensure!(shown.sent <= expected.sent && shown.received <= expected.received, "more shown than was moved");
        let most = skipped(&run.intervals) * LARGEST_CALL;
        let (sent, received) = (expected.sent - shown.sent, expected.received - shown.received);
        ensure!(
            sent <= most && received <= most,
            "{shown:?} shown, {expected:?} moved: more is missing than was skipped"
        );
    }
    ensure!(rest.sent > 0 && rest.received > 0, "504 connections at a time do not fit, yet nothing is unattributed");
    for end in &ends {
        let problems = judge(&run.intervals, &[end], Expect::Exact).problems;
        ensure!(problems.is_empty(), "after the flood:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn reader_stands_still(tier: Tier) -> Result<()> {
    let netns = NetNs::new("still")?;
    let mut top = Top::start(Some(tier), &[])?;
    let flood = flood(&netns, 16)?;
    flood.wait_for_progress()?;
    top.signal(Signal::SIGSTOP)?;
    sleep(Duration::from_secs(5));
    top.signal(Signal::SIGCONT)?;
    let sums = flood.finish()?;
    let before = top.read_until(10, |_| true)?.len();
    top.read_until(30, |seen| seen.len() > before)?;
    let run = top.stop()?;
    adds_up(&run, &netns, moved(&sums))
}

/// More readers that wait in their calls than a kernel keeps return probes for: web servers do nothing else.
fn many_wait_in_their_calls(tier: Tier) -> Result<()> {
    let netns = NetNs::new("wait")?;
    let top = Top::start(Some(tier), &[])?;
    let place = ["--netns", netns.path_text(), "--connections", "512", "--at-once", "128"];
    let sums = Flood::start(&[&place[..], &["--threads", "64", "--pause-ms", "500"]].concat())?.finish()?;
    let run = top.stop()?;
    adds_up(&run, &netns, moved(&sums))?;
    each_process_has_its_own(&run, &netns, &sums)?;
    let made_good: Bytes = rows(&run.intervals).filter(|row| row.netns == netns.inode()).map(Row::reconciled).sum();
    let most = skipped(&run.intervals) * LARGEST_CALL;
    ensure!(
        made_good.sent <= most && made_good.received <= most,
        "{made_good:?} had to be made good, though these were plain reads and writes"
    );
    Ok(())
}

/// In each tier, also when another one failed.
fn in_every_tier(what: fn(Tier) -> Result<()>) -> Result<()> {
    let host = Host::take()?;
    let mut problems = Vec::new();
    for tier in host.tiers()? {
        problems.extend(what(tier).err().map(|error| format!("{tier}: {error:#}")));
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn twenty_thousand_short_connections() -> Result<()> {
    in_every_tier(short_connections)
}

#[test]
fn five_hundred_at_a_time_in_a_table_of_sixty_four() -> Result<()> {
    in_every_tier(table_too_small)
}

#[test]
fn the_reader_is_stopped_for_five_seconds() -> Result<()> {
    in_every_tier(reader_stands_still)
}

#[test]
fn more_readers_wait_than_there_are_return_probes() -> Result<()> {
    in_every_tier(many_wait_in_their_calls)
}
