//! What the daemon may still do once it runs: little, and the process that reads what strangers send, nothing.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::daemon::Daemon;
use overwatch_tests::harness::host::{Host, Tier};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::unit;

/// What root's collecting process keeps: what the unit has, but for PERFMON, which is needed to attach, and DAC_READ_SEARCH, a part of DAC_OVERRIDE.
const KEPT: u64 = unit::CAPABILITIES & !(1 << 38) | 1 << 2;

/// What the kernel says of a thread.
fn status(task: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(format!("{task}/status"))?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

/// All threads of a process.
fn threads(pid: u32) -> Result<Vec<String>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    entries.map(|entry| Ok(entry?.path().display().to_string())).collect()
}

fn has_at_most(pid: u32, kept: u64, bounding: u64) -> Result<()> {
    for thread in threads(pid)? {
        let status = status(&thread)?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
            let bits = status.get(set).with_context(|| format!("{thread} has {set}"))?;
            let bits = u64::from_str_radix(bits, 16)?;
            let most = if set == "CapBnd" { bounding } else { kept };
            ensure!(bits & !most == 0, "{thread}: {set} is {bits:x}, at most {most:x} was expected");
        }
        println!("{thread}: {} CapEff {} NoNewPrivs {}", status["Name"], status["CapEff"], status["NoNewPrivs"]);
        ensure!(status["NoNewPrivs"] == "1", "{thread} could get new privileges");
    }
    Ok(())
}

/// As the unit runs it, in a tier.
fn as_the_unit(tier: Tier) -> Result<()> {
    let arguments = ["serve", "-v", "--web.listen-address", "127.0.0.1:0", "--attach", tier.name()];
    let daemon = Daemon::start_command(unit::command(&arguments))?;
    let status = status(&format!("/proc/{}", daemon.id()))?;
    ensure!(status["Uid"].split_whitespace().all(|id| id == unit::USER.to_string()), "{}", status["Uid"]);
    // Who is not root cannot make the bounding set smaller; without new privileges it gives nothing.
    has_at_most(daemon.id(), KEPT, unit::CAPABILITIES)?;
    for child in daemon.children()? {
        has_at_most(child, 0, unit::CAPABILITIES)?;
    }
    still_sees(&daemon)?;
    daemon.stop().map(drop)
}

#[test]
fn as_the_unit_runs_it_it_sees_all_the_same() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(as_the_unit)
}

/// Who listens in a namespace that is made now, who waits there, and why.
fn still_sees(daemon: &Daemon) -> Result<()> {
    let netns = NetNs::new("svpriv")?;
    let server = Party::serve(&netns, 1, &["--accept", "never"])?;
    let _clients = Party::call(&netns, server.port()?, &["--count", "3", "--request-bytes", "5"])?;
    let inode = netns.inode().to_string();
    let at = [("netns", inode.as_str())];
    let judged = [("cause", "not_accepting"), at[0]];
    let scrape = daemon.scrape_until(15, |scrape| scrape.sum("overwatch_listener_cause", &judged) == 1.0)?;
    ensure!(scrape.sum("overwatch_listener_waiting_clients", &at) == 3.0, "{}", scrape.text);
    let (labels, _) = scrape.of("overwatch_listener_info", &at).next().context("it is described")?;
    ensure!(labels["processes"] == "ow-serve", "{labels:?}");
    ensure!(scrape.sum("overwatch_listener_open_files", &at) > 3.0, "its descriptors are counted:\n{}", scrape.text);
    Ok(())
}

#[test]
fn the_process_that_answers_has_no_privileges_and_the_other_few() -> Result<()> {
    let _host = Host::take()?;
    // A name is looked up before the privileges are given up.
    let daemon = Daemon::start(None, &["--web.listen-address", "localhost:0"])?;
    let children = daemon.children()?;
    ensure!(children.len() == 1, "one child: {children:?}");
    has_at_most(children[0], 0, 0)?;
    has_at_most(daemon.id(), KEPT, KEPT)?;
    still_sees(&daemon)?;
    daemon.stop().map(drop)
}
