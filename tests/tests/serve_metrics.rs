//! What the daemon exports is what the test did: exact sums under churn, also over a reload, and series that stay bounded.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::bpf;
use overwatch_tests::harness::daemon::{Daemon, Labels, Scrape};
use overwatch_tests::harness::host::{self, Host, Tier, in_guest};
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
    let size = ["--servers", "2", "--clients", "2", "--threads", "2", "--seconds", if in_guest() { "15" } else { "10" }];
    let (sums, scrapes) = churn_scraping(&daemon, &[&["churn"], &place[..], &size].concat())?;
    ensure!(scrapes > 3, "{scrapes} scrapes are not enough to see a reload between them");
    let total =
        |role: &str, of: fn(&Sums) -> u64| -> u64 { sums.iter().filter(|sums| sums.flood == role).map(of).sum() };
    // All connections are through, and an interval has ended since.
    sleep(Duration::from_secs(1));
    let closed = total("server", |sums| sums.connections) as f64;
    let left_out = bpf::runs_left_out(daemon.id())?;
    let enough = move |scrape: &Scrape| {
        let shown = scrape.sum("overwatch_connections_closed_total", &[("role", "server"), ("process", "ow-ch-srv")]);
        shown + left_out as f64 >= closed
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

/// Listening sockets on so many ports that the kernel chose.
fn listeners(count: usize) -> Result<Vec<TcpListener>> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    (0..count).map(|_| TcpListener::bind(any).context("listening")).collect()
}

#[test]
fn series_stay_under_their_caps_and_the_rest_is_in_other() -> Result<()> {
    const CAP: usize = 16;
    let _host = Host::take()?;
    let count = host::scale(500)?;
    let cap = CAP.to_string();
    let caps = ["--series.listeners", &cap, "--series.services", &cap, "--series.ports", &cap];
    let daemon = Daemon::start(None, &caps)?;
    let listeners = listeners(count)?;
    let full = |scrape: &Scrape| scrape.sum("overwatch_listener_accept_queue_limit", &[]) > 0.0;
    daemon.scrape_until(10, full)?;
    for listener in &listeners {
        let client = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        std::io::Write::write_all(&mut &client, b"0123456789")?;
        drop((client, server));
    }
    let opened = count as f64;
    let enough = |scrape: &Scrape| scrape.sum("overwatch_listener_accepts_total", &[]) >= opened;
    let scrape = daemon.scrape_until(10, enough)?;
    for (name, of_each) in [
        ("overwatch_listener_accepts_total", 1),
        ("overwatch_connections_opened_total", 1),
        ("overwatch_connection_endings_total", 12),
    ] {
        let series = scrape.series(name);
        ensure!(series <= (CAP + 1) * of_each, "{series} series of {name}, at a cap of {CAP}");
    }
    let others = [("listener", "other"), ("netns", "other"), ("socket", "other")];
    let other = scrape.one("overwatch_listener_accepts_total", &others)?;
    ensure!(other >= opened - CAP as f64, "{other} accepts are in other, of {opened}");
    let folded = scrape.one("overwatch_series_folded_total", &[("family", "listeners")])?;
    ensure!(folded >= opened - CAP as f64, "{folded} listeners were folded");
    ensure!(scrape.one("overwatch_series_limit", &[("family", "listeners")])? == CAP as f64);
    // Also after the listeners have gone, no count goes back.
    drop(listeners);
    let gone = |scrape: &Scrape| scrape.sum("overwatch_listener_accept_queue_limit", &others[..0]) < 10_000.0;
    let after = daemon.scrape_until(10, gone)?;
    let left = after.one("overwatch_listener_accepts_total", &others)?;
    ensure!(left >= other, "{left} accepts are in other, which had {other}");
    ensure!(
        after.sum("overwatch_listener_accept_queue_limit", &others) <= 4096.0 * 4.0,
        "those that are gone have gone"
    );
    daemon.stop().map(drop)
}
