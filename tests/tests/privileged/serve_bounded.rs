//! However many clients, processes and listeners come and go: as many series as there may be, and sums that stay right.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use overwatch_tests::harness::daemon::{Daemon, Scrape};
use overwatch_tests::harness::host::{self, Host, traffic_binary};

/// What every client sends.
const REQUEST: &[u8] = b"0123456789";
/// Of listeners, services and ports, each.
const CAP: usize = 16;
const SENT: &str = "overwatch_sent_bytes_total";
const RECEIVED: &str = "overwatch_received_bytes_total";
const OPENED: &str = "overwatch_connections_opened_total";
const CLOSED: &str = "overwatch_connections_closed_total";

fn capped() -> Result<Daemon> {
    let cap = CAP.to_string();
    Daemon::start(None, &["--series.listeners", &cap, "--series.services", &cap, "--series.ports", &cap])
}

/// Listening sockets on so many ports that the kernel chose.
fn listeners(count: usize) -> Result<Vec<TcpListener>> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    (0..count).map(|_| TcpListener::bind(any).context("listening")).collect()
}

#[test]
fn series_stay_under_their_caps_and_the_rest_is_in_other() -> Result<()> {
    let _host = Host::take()?;
    let count = host::scale(500)?;
    let daemon = capped()?;
    let listeners = listeners(count)?;
    let full = |scrape: &Scrape| scrape.sum("overwatch_listener_accept_queue_limit", &[]) > 0.0;
    daemon.scrape_until(10, full)?;
    for listener in &listeners {
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        client.write_all(REQUEST)?;
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

/// A client of an address of its own: 127.1.0.0 and those after it.
fn visit(server: SocketAddr, number: usize) -> Result<()> {
    let own = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + u32::try_from(number)?);
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(own, 0)))?;
    let SocketAddr::V4(server) = server else { bail!("{server} is not IPv4") };
    connect(fd.as_raw_fd(), &SockaddrIn::from(server)).with_context(|| format!("from {own}"))?;
    let mut stream = TcpStream::from(fd);
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(())
}

/// Answers so many clients, one after the other, by closing.
fn answer(listener: &TcpListener, count: usize) -> Result<()> {
    for _ in 0..count {
        let (mut client, _) = listener.accept()?;
        client.read_exact(&mut [0; REQUEST.len()])?;
    }
    Ok(())
}

/// A client in a process with a name of its own.
fn visit_as(name: &str, port: u16) -> Result<()> {
    let status = Command::new(traffic_binary()?)
        .args(["call", "--comm", name, "--port", &port.to_string(), "--request-bytes", &REQUEST.len().to_string()])
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

/// The sum over all series, but for those of who scrapes.
fn sum(scrape: &Scrape, name: &str, daemon: &Daemon) -> f64 {
    let port = daemon.address().port().to_string();
    scrape.sum(name, &[]) - scrape.sum(name, &[("port", &port)])
}

#[test]
fn sums_stay_right_however_many_clients_and_processes_come() -> Result<()> {
    let _host = Host::take()?;
    let (clients, processes) = (host::scale(10_000)?, host::scale(1_000)?);
    let daemon = capped()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let before = daemon.scrape()?;
    thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(|| answer(&listener, clients + processes));
        (0..clients).try_for_each(|number| visit(address, number))?;
        let some = (0..8).map(|first| {
            let names = (first..processes).step_by(8).map(|number| format!("ow-p-{number}"));
            scope.spawn(move || names.into_iter().try_for_each(|name| visit_as(&name, address.port())))
        });
        for some in some.collect::<Vec<_>>() {
            some.join().unwrap_or_else(|_| bail!("a client panicked"))?;
        }
        server.join().unwrap_or_else(|_| bail!("the server panicked"))
    })?;
    let all = (clients + processes) as f64;
    let bytes = all * REQUEST.len() as f64;
    let since = |scrape: &Scrape, name: &str| sum(scrape, name, &daemon) - sum(&before, name, &daemon);
    let scrape = daemon.scrape_until(10, |scrape| since(scrape, CLOSED) >= 2.0 * all)?;
    for (name, expected) in [(SENT, bytes), (RECEIVED, bytes), (OPENED, 2.0 * all), (CLOSED, 2.0 * all)] {
        let shown = since(&scrape, name);
        // Who else is on this host may have moved a little meanwhile.
        ensure!(shown >= expected && shown <= expected * 1.01, "{name}: {shown}, not {expected}\n{}", scrape.text);
        let series = scrape.series(name);
        ensure!(series <= CAP + 1, "{series} series of {name}, at a cap of {CAP}");
    }
    let others = [("role", "other"), ("port", "other"), ("process", "other"), ("cgroup", "other")];
    let other = scrape.one(OPENED, &others)?;
    ensure!(other >= (processes - CAP) as f64, "{other} connections are in other, of {processes} processes");
    // Ten thousand clients are one service, and no more than that.
    let served = [("role", "server"), ("port", &address.port().to_string())];
    ensure!(scrape.one(OPENED, &served)? == all, "{served:?}\n{}", scrape.text);
    let listener = address.to_string();
    ensure!(scrape.one("overwatch_listener_accepts_total", &[("listener", &listener)])? == all);
    let folded = scrape.one("overwatch_series_folded_total", &[("family", "services")])?;
    ensure!(folded >= (processes - CAP) as f64, "{folded} services were folded");
    daemon.stop().map(drop)
}
