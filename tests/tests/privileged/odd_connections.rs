//! Connections that are easily told wrong: ones that come again with the same addresses and ports, ones that pause,
//! and sockets that are no TCP connections at all.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::Host;
use overwatch_tests::harness::judge::{Expect, judge, rows_of};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch::Top;
use overwatch_tests::harness::rows::{Bytes, lost, rows, unattributed};
use overwatch_tests::harness::traffic::{self, Hold};

#[test]
fn the_same_addresses_and_ports_again_are_another_connection() -> Result<()> {
    const TIMES: usize = 5;
    let _host = Host::take()?;
    let netns = NetNs::new("again")?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let ports = ["--port", "8214", "--client-port", "48214", "--close", "by-reset"];
    let top = Top::start(None, &[])?;
    let mut ends = Vec::new();
    for time in 0..TIMES {
        // All within an interval or two, so that one and the same line shows several.
        let mut hold = Hold::open(&[&place[..], &ports].concat())?;
        ends.extend(hold.send(1_001 + 2 * time, 3_001 + 2 * time)?);
        hold.close()?;
    }
    let run = top.stop()?;
    let mut seen: BTreeMap<u64, Bytes> = BTreeMap::new();
    for row in rows(&run.intervals).filter(|row| row.netns == netns.inode()) {
        *seen.entry(row.connection).or_default() += row.bytes();
    }
    let mut shown: Vec<Bytes> = seen.into_values().collect();
    let mut counted: Vec<Bytes> = ends.iter().map(|end| Bytes { sent: end.sent, received: end.received }).collect();
    shown.sort_by_key(|bytes| (bytes.sent, bytes.received));
    counted.sort_by_key(|bytes| (bytes.sent, bytes.received));
    ensure!(shown == counted, "shown:\n{shown:?}\ncounted:\n{counted:?}");
    for end in &ends {
        let own =
            rows_of(&run.intervals, end).iter().filter(|row| row.pid == Some(end.pid)).map(|row| row.bytes()).sum();
        ensure!(Bytes { sent: end.sent, received: end.received } == own, "process {}: {own:?} shown", end.pid);
    }
    Ok(())
}

#[test]
fn a_connection_that_pauses_has_rows_only_when_it_moves() -> Result<()> {
    let _host = Host::take()?;
    let netns = NetNs::new("pause")?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let mut top = Top::start(None, &[])?;
    let mut hold = Hold::open(&place)?;
    hold.send(10_007, 333)?;
    let ours = netns.inode();
    let active = |seen: &[overwatch_tests::harness::rows::Interval]| -> usize {
        seen.iter().filter(|interval| interval.connections.iter().any(|row| row.netns == ours)).count()
    };
    top.read_until(30, |seen| active(seen) > 0)?;
    // At least two whole intervals without a byte.
    let pause = top.read_until(10, |_| true)?.len();
    top.read_until(30, |seen| seen.len() >= pause + 3)?;
    let ends = hold.send(20_011, 555)?;
    sleep(Duration::from_millis(1_200));
    hold.close()?;
    let run = top.stop()?;
    for end in &ends {
        // This also compares the totals with the sum of all intervals so far, row by row.
        let problems = judge(&run.intervals, &[end], Expect::Exact).problems;
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
    }
    // Two transfers, each of which may straddle the border of an interval.
    ensure!((2..=4).contains(&active(&run.intervals)), "{} intervals with rows", active(&run.intervals));
    Ok(())
}

#[test]
fn other_sockets_are_not_counted() -> Result<()> {
    let _host = Host::take()?;
    let netns = NetNs::new("other")?;
    let top = Top::start(None, &[])?;
    traffic::run(&["other", "--netns", netns.path_text(), "--bytes", "1001", "--times", "50"])?;
    let run = top.stop()?;
    let stray = rows(&run.intervals).find(|row| row.netns == netns.inode() || row.comm.as_deref() == Some("ow-other"));
    ensure!(stray.is_none(), "this was no TCP: {stray:?}");
    if let Some(other) = rows(&run.intervals).next() {
        eprintln!("not alone on this host ({:?}): unattributed bytes are not judged", other.comm);
        return Ok(());
    }
    let rest = unattributed(&run.intervals);
    ensure!(rest == Bytes::default() && lost(&run.intervals) == 0, "{rest:?} unattributed, though nobody used TCP");
    Ok(())
}

/// The kernel counts a packet as sent before it knows that it cannot leave, and again when it tries again.
#[test]
fn what_cannot_leave_the_host_at_once_is_counted_once() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        let (client, server) = (NetNs::new("slow-cli")?, NetNs::new("slow-srv")?);
        client.join("10.213.9.1/24", &server, "10.213.9.2/24")?;
        client.throttle()?;
        let place = ["--client-netns", client.path_text(), "--server-netns", server.path_text()];
        let top = Top::start(Some(tier), &[])?;
        let mut hold = Hold::open(&[&place[..], &["--address", "10.213.9.2"]].concat())?;
        let mut ends = Vec::new();
        for _ in 0..4 {
            // Each time both ends say what they have counted so far.
            ends = hold.send(2_000_003, 1_009)?;
        }
        hold.close()?;
        let run = top.stop()?;
        let ours = |row: &&overwatch_tests::harness::rows::Row| [client.inode(), server.inode()].contains(&row.netns);
        let shown: Bytes = rows(&run.intervals).filter(ours).map(overwatch_tests::harness::rows::Row::bytes).sum();
        let counted: Bytes = ends.iter().map(|end| Bytes { sent: end.sent, received: end.received }).sum();
        ensure!(shown == counted, "{tier}: {shown:?} shown, {counted:?} counted");
    }
    Ok(())
}
