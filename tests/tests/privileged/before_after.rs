//! Before and after: connections that were there before overwatch have their owner from the first interval on, and
//! an overwatch that was killed leaves nothing in the kernel.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::bpf::Objects;
use overwatch_tests::harness::host::{Host, patience};
use overwatch_tests::harness::judge::rows_of;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch::{Run, Top};
use overwatch_tests::harness::rows::Bytes;
use overwatch_tests::harness::traffic::Hold;
use overwatch_tests::traffic::report::Report;

/// What the end moved since an earlier report of it; all of it, when there was none.
fn since(end: &Report, before: &[Report]) -> Bytes {
    let earlier = before.iter().find(|earlier| earlier.pid == end.pid);
    let (sent, received) = earlier.map_or((0, 0), |earlier| (earlier.sent, earlier.received));
    Bytes { sent: end.sent - sent, received: end.received - received }
}

/// One end of a connection that was there before: what it moved since, all of it in rows of its process.
fn judge_since(run: &Run, end: &Report, before: &[Report], reconciled: Bytes) -> Result<()> {
    let rows = rows_of(&run.intervals, end);
    let shown: Bytes = rows.iter().map(|row| row.bytes()).sum();
    let made_good: Bytes = rows.iter().map(|row| row.reconciled()).sum();
    let place = format!("{} {}:{} in {}", end.role, end.local_addr, end.local_port, end.netns);
    ensure!(shown == since(end, before), "{place}: {shown:?} shown, {:?} moved", since(end, before));
    ensure!(
        made_good.sent <= reconciled.sent && made_good.received <= reconciled.received,
        "{place}: {made_good:?} made good, at most {reconciled:?} expected"
    );
    for row in rows {
        let nobody_saw = row.pid.is_none() && row.bytes() == row.reconciled();
        ensure!(row.pid == Some(end.pid) || nobody_saw, "{place}: owner {:?}, not {}: {row:?}", row.pid, end.pid);
        let named = row.comm.as_deref() == Some(end.comm.as_str());
        ensure!(named || nobody_saw, "{place}: called {:?}: {row:?}", row.comm);
        // Who listened when the connection came may be beyond knowing; a wrong answer is not allowed.
        let role = row.role.as_deref();
        ensure!(role.is_none_or(|role| role == end.role), "{place}: role {role:?}");
    }
    Ok(())
}

#[test]
fn connections_opened_before_have_their_owner_from_the_first_interval() -> Result<()> {
    let _host = Host::take()?;
    let netns = NetNs::new("before")?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let mut holds = [Hold::open(&[])?, Hold::open(&["--family", "v6"])?, Hold::open(&place)?];
    let mut before = Vec::new();
    for hold in &mut holds {
        // Bytes from before the start are nobody's news: neither now nor when the connection closes.
        before.extend(hold.send(10_007, 333)?);
    }
    let mut top = Top::start(None, &[])?;
    let mut after = Vec::new();
    for (index, hold) in holds.iter_mut().enumerate() {
        after.extend(hold.send(20_011 + 2 * index, 555 + 2 * index)?);
    }
    top.read_until(30, |seen| after.iter().all(|end| !rows_of(seen, end).is_empty()))?;
    for hold in holds {
        hold.close()?;
    }
    let run = top.stop()?;
    after.iter().try_for_each(|end| judge_since(&run, end, &before, Bytes::default()))
}

#[test]
fn what_was_under_way_at_the_start_is_counted_when_it_arrives() -> Result<()> {
    let _host = Host::take()?;
    let mut hold = Hold::open(&[])?;
    // In the server's queue when overwatch starts, so no news to the kernel's counters, but not received by anybody.
    let before = hold.push(5_003)?;
    let top = Top::start(None, &[])?;
    let after = hold.pull(5_003)?;
    hold.close()?;
    let run = top.stop()?;
    after.iter().try_for_each(|end| judge_since(&run, end, &before, Bytes::default()))
}

#[test]
fn what_a_tier_cannot_see_is_made_good_from_the_start_on_only() -> Result<()> {
    let _host = Host::take()?;
    let mut hold = Hold::open(&[])?;
    let mut before = hold.send_by(10_007, 333, "splice_from_socket")?;
    // Of this the server has received nothing yet.
    for end in hold.push(7_001)? {
        let earlier = before.iter_mut().find(|earlier| earlier.pid == end.pid).context("two ends")?;
        *earlier = end;
    }
    let top = Top::start(None, &[])?;
    hold.pull(7_001)?;
    let after = hold.send_by(20_011, 30_013, "splice_from_socket")?;
    hold.close()?;
    let run = top.stop()?;
    // Some tiers see splice and make nothing good; what was read plainly need not be made good by any.
    let unseen = |end: &Report| Bytes { sent: 0, received: if end.role == "server" { 20_011 } else { 30_013 } };
    after.iter().try_for_each(|end| judge_since(&run, end, &before, unseen(end)))
}

#[test]
fn a_connection_that_waited_to_be_accepted_gets_its_owner() -> Result<()> {
    let _host = Host::take()?;
    let mut hold = Hold::open(&["--accept", "late"])?;
    let before = hold.push(5_003)?;
    let top = Top::start(None, &[])?;
    hold.accept()?;
    hold.pull(5_003)?;
    let after = hold.send(20_011, 555)?;
    hold.close()?;
    let run = top.stop()?;
    after.iter().try_for_each(|end| judge_since(&run, end, &before, Bytes::default()))
}

/// Starts overwatch, ends it by `end`, and waits until the kernel has nothing of it any more.
fn leaves_nothing(end: fn(Top) -> Result<()>) -> Result<()> {
    let before = Objects::now()?;
    let mut top = Top::start(None, &[])?;
    top.read_until(30, |seen| !seen.is_empty())?;
    let made = Objects::now()?.without(&before);
    let held = Objects::held_by(top.id())?;
    ensure!(!made.programs.is_empty() && !made.maps.is_empty(), "overwatch made programs and maps: {made:?}");
    ensure!(!held.and(&made).programs.is_empty(), "overwatch holds programs: {held:?}");
    end(top)?;
    // The kernel frees them in its own time.
    let deadline = Instant::now() + patience(30);
    loop {
        // Somebody else may have loaded something in the meantime, and still hold it.
        let left = Objects::now()?.and(&made).without(&Objects::held_by_anyone()?);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still there: {left:?}");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn nothing_is_left_after_kill() -> Result<()> {
    let _host = Host::take()?;
    leaves_nothing(Top::kill)
}

#[test]
fn nothing_is_left_after_an_interrupt() -> Result<()> {
    let _host = Host::take()?;
    leaves_nothing(|top| top.stop().map(drop))
}
