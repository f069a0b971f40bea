//! What may happen to a daemon in months: the daemon goes on, or says why not, and leaves nothing.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use overwatch_tests::harness::bpf::Objects;
use overwatch_tests::harness::daemon::{Daemon, Scrape};
use overwatch_tests::harness::host::{Host, in_guest, patience};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::traffic;

/// Whether everything that the kernel has now was there before.
fn nothing_is_left(before: &Objects) -> Result<()> {
    // Programs are freed a moment after their last user has gone.
    for _ in 0..50 {
        if Objects::now()?.programs.is_subset(&before.programs) {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    let (now, before) = (Objects::now()?.programs, &before.programs);
    ensure!(now.is_subset(before), "left behind: {:?}", now.difference(before));
    Ok(())
}

#[test]
fn an_address_in_use_is_said_in_one_line_and_nothing_is_attached() -> Result<()> {
    let _host = Host::take()?;
    let before = Objects::now()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let output = overwatch::output(&["serve", "--web.listen-address", &address])?;
    ensure!(output.code == Some(1), "{output:?}");
    let said = output.stderr.trim();
    ensure!(said.lines().count() == 1 && said.contains(&address) && said.contains("in use"), "{said}");
    nothing_is_left(&before)
}

#[test]
fn told_to_end_in_the_middle_of_a_scrape_it_answers_and_leaves_nothing() -> Result<()> {
    let _host = Host::take()?;
    let before = Objects::now()?;
    let daemon = Daemon::start(None, &[])?;
    let mut stream = TcpStream::connect(daemon.address())?;
    stream.set_read_timeout(Some(patience(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")?;
    sleep(Duration::from_millis(100));
    daemon.signal(Signal::SIGTERM)?;
    stream.write_all(b"Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // Asked before the signal, it is answered whole; asked after, not at all. Never a part.
    ensure!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 200 ") && answer.trim_end().lines().count() > 50,
        "{answer}"
    );
    daemon.finish()?;
    nothing_is_left(&before)
}

#[test]
fn killed_it_leaves_nothing_and_starts_again() -> Result<()> {
    let _host = Host::take()?;
    let before = Objects::now()?;
    let daemon = Daemon::start(None, &[])?;
    let address = daemon.address();
    daemon.kill()?;
    nothing_is_left(&before)?;
    // Also the process that answers requests has gone.
    for _ in 0..50 {
        if TcpStream::connect(address).is_err() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    ensure!(TcpStream::connect(address).is_err(), "somebody still listens at {address}");
    let again = overwatch::command(&["serve", "-v", "--web.listen-address", &address.to_string()]);
    Daemon::start_command(again)?.stop().map(drop)
}

#[test]
fn a_namespace_that_goes_takes_its_listeners_along() -> Result<()> {
    let _host = Host::take()?;
    let daemon = Daemon::start(None, &[])?;
    let netns = NetNs::new("svgone")?;
    let inode = netns.inode().to_string();
    let labels = [("netns", inode.as_str())];
    let server = overwatch_tests::harness::party::Party::serve(&netns, 1, &["--accept", "never"])?;
    let name = "overwatch_listener_accept_queue_limit";
    daemon.scrape_until(10, |scrape| scrape.of(name, &labels).count() == 1)?;
    drop(server);
    drop(netns);
    daemon.scrape_until(10, |scrape| scrape.of(name, &labels).count() == 0)?;
    let lost = daemon.scrape()?.sum("overwatch_lost_events_total", &[]);
    ensure!(lost == 0.0, "{lost} events lost");
    daemon.stop().map(drop)
}

#[test]
fn a_daemon_that_stood_still_has_lost_nothing() -> Result<()> {
    let host = Host::take()?;
    let tier = host.tiers()?[0];
    let netns = NetNs::new("svstill")?;
    let daemon = Daemon::start(Some(tier), &["--ring-buffer-bytes", "4096"])?;
    daemon.signal(Signal::SIGSTOP)?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let sums = traffic::run(&[&["churn"], &place[..], &["--connections", "2000"]].concat())?.sums;
    daemon.signal(Signal::SIGCONT)?;
    let counted: u64 = sums.iter().filter(|sums| sums.flood == "client").map(|sums| sums.sent).sum();
    let labels = [("role", "client"), ("process", "ow-ch-cli")];
    let left_out = overwatch_tests::harness::bpf::runs_left_out(daemon.id())?;
    let enough =
        |scrape: &Scrape| scrape.sum("overwatch_sent_bytes_total", &labels) + 251.0 * left_out as f64 >= counted as f64;
    let scrape = daemon.scrape_until(20, enough)?;
    let shown = scrape.sum("overwatch_sent_bytes_total", &labels);
    ensure!(shown <= counted as f64, "{shown} bytes shown, {counted} sent");
    ensure!(scrape.sum("overwatch_connections_open", &labels) == 0.0, "{}", scrape.text);
    daemon.stop().map(drop)
}

/// Puts the clock of this host forward, until it goes away.
struct Ahead(TimeSpec);

impl Ahead {
    fn by(seconds: i64) -> Result<Self> {
        let step = TimeSpec::from_duration(Duration::from_secs(seconds.unsigned_abs()));
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
        clock_settime(ClockId::CLOCK_REALTIME, if seconds < 0 { now - step } else { now + step })?;
        Ok(Self(if seconds < 0 { step } else { TimeSpec::from(Duration::ZERO) - step }))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Ok(now) = clock_gettime(ClockId::CLOCK_REALTIME) {
            let _restored = clock_settime(ClockId::CLOCK_REALTIME, now + self.0);
        }
    }
}

#[test]
fn a_clock_that_is_set_changes_no_count_and_no_wait() -> Result<()> {
    if !in_guest() {
        println!("skipped: the clock is everybody's here; guests have their own");
        return Ok(());
    }
    let _host = Host::take()?;
    let netns = NetNs::new("svclock")?;
    let daemon = Daemon::start(None, &[])?;
    let server = overwatch_tests::harness::party::Party::serve(&netns, 1, &["--accept", "never"])?;
    let _clients = overwatch_tests::harness::party::Party::call(&netns, server.port()?, &["--count", "3"])?;
    let inode = netns.inode().to_string();
    let at = [("netns", inode.as_str())];
    let oldest = |scrape: &Scrape| scrape.sum("overwatch_listener_oldest_wait_seconds", &at);
    let mut before = daemon.scrape_until(20, |scrape| oldest(scrape) > 2.0)?;
    for seconds in [3_600, -7_200] {
        let _ahead = Ahead::by(seconds)?;
        let waited = oldest(&before);
        let after = daemon.scrape_until(20, |scrape| oldest(scrape) > waited + 2.0)?;
        ensure!(
            oldest(&after) < waited + 60.0,
            "{} s, after {waited} s: the clock was set by {seconds} s",
            oldest(&after)
        );
        let verdict = [("verdict", "saturated"), at[0]];
        ensure!(after.sum("overwatch_listener_verdict", &verdict) == 1.0, "{}", after.text);
        before = after;
    }
    daemon.stop().map(drop)
}
