//! The daemon as a service: its configuration, its sockets, its watchdog, its messages. Nothing of it depends on the kernel.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use overwatch_tests::harness::daemon::{Daemon, Scrape, exchange, get};
use overwatch_tests::harness::host::{Host, overwatch_binary, patience};
use overwatch_tests::harness::proc::Proc;

#[test]
fn a_configuration_that_breaks_leaves_the_old_one_in_force() -> Result<()> {
    let _host = Host::take()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("overwatch.toml");
    let web = directory.path().join("web.yml");
    fs::write(&web, "http_server_config:\n  headers:\n    X-Frame-Options: deny\n")?;
    fs::write(&file, format!("[web]\nconfig_file = {web:?}\n[series]\nlisteners = 7\n"))?;
    let mut daemon = Daemon::start(None, &["--config", file.to_str().context("a path is text")?])?;
    let succeeded = |scrape: &Scrape| scrape.one("overwatch_config_last_reload_successful", &[]);
    let limit = |scrape: &Scrape| scrape.one("overwatch_series_limit", &[("family", "listeners")]);
    let scrape = daemon.scrape()?;
    ensure!(succeeded(&scrape)? == 1.0 && limit(&scrape)? == 7.0, "{}", scrape.text);

    // What is wrong in either file is said with its line, and nothing of it is taken.
    let broken = [
        (&file, "[series]\nlisteners = 8\nservice = 1\n", "overwatch.toml:3"),
        (&web, "tls_server_config: 5\n", "web.yml"),
    ];
    for (which, text, said) in broken {
        let good = fs::read_to_string(which)?;
        fs::write(which, text)?;
        daemon.signal(Signal::SIGHUP)?;
        daemon.wait_for_stderr(10, |line| line.contains("stays as it was") && line.contains(said))?;
        let scrape = daemon.scrape_until(10, |scrape| succeeded(scrape).is_ok_and(|now| now == 0.0))?;
        ensure!(limit(&scrape)? == 7.0, "{}", scrape.text);
        fs::write(which, good)?;
        daemon.signal(Signal::SIGHUP)?;
        daemon.scrape_until(10, |scrape| succeeded(scrape).is_ok_and(|now| now == 1.0))?;
    }
    fs::write(&file, format!("interval_seconds = 2\n[web]\nconfig_file = {web:?}\n[series]\nlisteners = 9\n"))?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.scrape_until(10, |scrape| limit(scrape).is_ok_and(|now| now == 9.0))?;
    daemon.wait_for_stderr(10, |line| line.contains("interval_seconds has changed, which takes a restart"))?;
    daemon.stop().map(drop)
}

#[test]
fn the_watchdog_hears_of_both_processes() -> Result<()> {
    let _host = Host::take()?;
    let directory = tempfile::tempdir()?;
    let systemd = UnixDatagram::bind(directory.path().join("notify"))?;
    let mut command = Command::new("sh");
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""]).arg(overwatch_binary());
    command.args(["serve", "-v", "--web.listen-address", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", directory.path().join("notify")).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::start_command(command)?;
    daemon.scrape()?;
    let children = daemon.children()?;
    ensure!(children.len() == 1, "one child: {children:?}");
    let web = Pid::from_raw(children[0].cast_signed());
    // How often it says so in a second, when all that was said before has been heard.
    let said = || -> Result<usize> {
        let mut buffer = [0; 256];
        systemd.set_nonblocking(true)?;
        while systemd.recv(&mut buffer).is_ok() {}
        systemd.set_nonblocking(false)?;
        let (ends, mut times) = (Instant::now() + Duration::from_secs(1), 0);
        while let Some(left) = ends.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            systemd.set_read_timeout(Some(left))?;
            let Ok(length) = systemd.recv(&mut buffer) else { break };
            times += usize::from(buffer[..length].starts_with(b"WATCHDOG=1"));
        }
        Ok(times)
    };
    ensure!(said()? >= 3, "it is not fed");
    kill(web, Signal::SIGSTOP)?;
    // An answer may have been on its way.
    sleep(Duration::from_millis(300));
    let stopped = said()?;
    kill(web, Signal::SIGCONT)?;
    ensure!(stopped == 0, "fed {stopped} times while nobody answers requests");
    ensure!(said()? >= 3, "it is fed no more");
    daemon.stop().map(drop)
}

#[test]
fn it_answers_at_a_unix_socket_and_says_how_it_is() -> Result<()> {
    let _host = Host::take()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("web.sock");
    let place = format!("unix://{}", path.display());
    let daemon = Daemon::start(None, &["--web.listen-address", &place, "--web.telemetry-path", "/numbers"])?;
    // Told a moment after it has begun to look.
    let deadline = Instant::now() + patience(10);
    while daemon.get("/-/ready")?.status != 200 {
        ensure!(Instant::now() < deadline, "it is not ready");
    }
    for (path, status, body) in
        [("/-/healthy", 200, ""), ("/-/ready", 200, ""), ("/", 200, "/numbers"), ("/metrics", 404, "")]
    {
        let reply = daemon.get(path)?;
        ensure!(reply.status == status && reply.body.contains(body), "{path}: {reply:?}");
    }
    ensure!(
        exchange(
            daemon.address(),
            b"POST /numbers HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?
        .status
            == 405
    );
    ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o660);
    let mut stream = std::os::unix::net::UnixStream::connect(&path)?;
    stream.write_all(b"GET /numbers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("overwatch_build_info"), "{answer}");
    daemon.stop()?;
    ensure!(!path.exists(), "the socket's file is still there");
    Ok(())
}

/// A port that nobody has now.
fn free_address() -> Result<std::net::SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[test]
fn a_full_disk_for_its_messages_does_not_end_it() -> Result<()> {
    let _host = Host::take()?;
    let address = free_address()?;
    let mut command = Command::new("sh");
    // Whatever is written there fails with ENOSPC.
    command.args(["-c", "exec \"$0\" \"$@\" 2> /dev/full"]).arg(overwatch_binary());
    command.args(["serve", "-v", "--web.listen-address", &address.to_string()]);
    let mut process = Proc::start(command)?;
    process.close_stdin();
    let deadline = Instant::now() + patience(30);
    let is_ready = || get(address, "/-/ready").is_ok_and(|reply| reply.status == 200);
    while !is_ready() {
        ensure!(Instant::now() < deadline, "it is not ready");
        sleep(Duration::from_millis(100));
    }
    // Which it would say.
    process.signal(Signal::SIGHUP)?;
    sleep(Duration::from_millis(500));
    ensure!(is_ready(), "it has ended");
    process.signal(Signal::SIGTERM)?;
    ensure!(process.finish(patience(30))?.code == Some(0));
    Ok(())
}
