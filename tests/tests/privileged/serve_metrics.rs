//! What the daemon exports is what the test did: exact sums under churn, also over a reload.

use std::collections::BTreeMap;
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::bpf;
use overwatch_tests::harness::daemon::{Daemon, Labels, Scrape};
use overwatch_tests::harness::host::{Host, Tier, in_guest};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::traffic;
use overwatch_tests::traffic::report::Sums;

/// What one end of a connection of a churn moves at most.
const LARGEST: f64 = 251.0;

/// A number that may be as much smaller as what so many runs can have missed.
fn is(shown: f64, counted: u64, left_out: u64, of_each: f64) -> bool {
    let counted = counted as f64;
    shown <= counted && shown >= counted - left_out as f64 * of_each
}

/// Series that only grow, by name and labels.
fn counters(scrape: &Scrape) -> BTreeMap<(&str, &Labels), f64> {
    let grows = |name: &str| name.ends_with("_total") || name.ends_with("_count") || name.ends_with("_bucket");
    let samples = scrape.samples.iter().filter(|(name, _, _)| grows(name));
    samples.map(|(name, labels, value)| ((name.as_str(), labels), *value)).collect()
}

fn grows(before: &Scrape, after: &Scrape) -> Result<()> {
    let after = counters(after);
    for (series, value) in counters(before) {
        if let Some(later) = after.get(&series) {
            ensure!(*later >= value, "{series:?} fell from {value} to {later}");
        }
    }
    Ok(())
}

/// Runs the churn and scrapes meanwhile; in the middle the configuration is read anew.
fn churn_scraping(daemon: &Daemon, churn: &[&str]) -> Result<(Vec<Sums>, usize)> {
    thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic::run(churn));
        let mut last = daemon.scrape()?;
        let mut scrapes = 1;
        while !traffic.is_finished() {
            sleep(Duration::from_millis(250));
            if scrapes == 2 {
                daemon.signal(Signal::SIGHUP)?;
            }
            let now = daemon.scrape()?;
            grows(&last, &now)?;
            last = now;
            scrapes += 1;
        }
        let traffic = traffic.join().unwrap_or_else(|_| bail!("the churn panicked"))?;
        Ok((traffic.sums, scrapes))
    })
}

fn sums_are_exact(tier: Tier) -> Result<()> {
    let netns = NetNs::new("svsum")?;
    let daemon = Daemon::start(Some(tier), &[])?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let size =
        ["--servers", "2", "--clients", "2", "--threads", "2", "--seconds", if in_guest() { "15" } else { "10" }];
    let (sums, scrapes) = churn_scraping(&daemon, &[&["churn"], &place[..], &size].concat())?;
    ensure!(scrapes > 3, "{scrapes} scrapes are not enough to see a reload between them");
    let total =
        |role: &str, of: fn(&Sums) -> u64| -> u64 { sums.iter().filter(|sums| sums.flood == role).map(of).sum() };
    // All connections are through, and an interval has ended since.
    sleep(Duration::from_secs(1));
    let closed = total("server", |sums| sums.connections) as f64;
    let left_out = bpf::runs_left_out(daemon.id())?;
    // Either end may be the last one to be closed.
    let enough = move |scrape: &Scrape| {
        [("server", "ow-ch-srv"), ("client", "ow-ch-cli")].into_iter().all(|(role, process)| {
            let labels = [("role", role), ("process", process)];
            scrape.sum("overwatch_connections_closed_total", &labels) + left_out as f64 >= closed
        })
    };
    let scrape = daemon.scrape_until(10, enough)?;
    for (role, process) in [("server", "ow-ch-srv"), ("client", "ow-ch-cli")] {
        let labels = [("role", role), ("process", process)];
        for (name, counted, of_each) in [
            ("overwatch_sent_bytes_total", total(role, |sums| sums.sent), LARGEST),
            ("overwatch_received_bytes_total", total(role, |sums| sums.received), LARGEST),
            ("overwatch_connections_opened_total", total(role, |sums| sums.connections), 1.0),
            ("overwatch_connections_closed_total", total(role, |sums| sums.connections), 1.0),
            ("overwatch_connections_open", 0, 0.0),
        ] {
            let shown = scrape.sum(name, &labels);
            ensure!(
                is(shown, counted, left_out, of_each),
                "{tier}: {name}{labels:?} is {shown}, not {counted}; {left_out} runs left out\n{}",
                scrape.text
            );
        }
        let ended = scrape.sum("overwatch_connection_endings_total", &[("role", role), ("port", "9000")])
            + scrape.sum("overwatch_connection_endings_total", &[("role", role), ("port", "9001")]);
        let counted = total(role, |sums| sums.connections);
        ensure!(is(ended, counted, left_out, 1.0), "{tier}: {ended} endings, not {counted}");
    }
    let lost = scrape.sum("overwatch_lost_events_total", &[("event", "closed")]);
    println!("{tier}: {closed} connections, {scrapes} scrapes, {lost} records lost, {left_out} runs left out");
    daemon.stop().map(drop)
}

#[test]
fn counters_grow_and_are_what_was_sent() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(sums_are_exact)
}
