//! `overwatch top` on a terminal, as a person uses it: what is sick is named at once, Enter leads to who waits, and afterwards the terminal
//! is as it was before, however it ends.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use overwatch_tests::harness::host::{Host, overwatch_binary, patience};
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::servers::{HTTP_REQUEST, RealServer, installed};
use overwatch_tests::harness::tmux::Tmux;
use overwatch_tests::traffic::queue::step;

const PORT: u16 = 8003;

/// The process that runs in the terminal.
fn pid_in(tmux: &Tmux) -> Result<Pid> {
    let shell = tmux.property("#{pane_pid}")?;
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let child = children.split_whitespace().next().context("the shell runs something")?;
    Ok(Pid::from_raw(child.parse()?))
}

/// The shell waits for a command.
fn is_prompt(screen: &str) -> bool {
    screen.trim_end().lines().last().is_some_and(|line| line.trim_end() == "READY>")
}

/// The shell has the terminal again, as it was: its settings, its screen, its cursor, its mouse.
fn is_as_before(tmux: &Tmux, before: &str, name: &str) -> Result<()> {
    tmux.wait_for(10, "a prompt", is_prompt)?;
    let after = tmux.settings(name)?;
    ensure!(after == before, "{name}: the settings are\n{after}\nand were\n{before}");
    for property in ["#{alternate_on}", "#{mouse_any_flag}"] {
        let is = tmux.property(property)?;
        ensure!(is == "0", "{name}: {property} is {is}");
    }
    ensure!(tmux.property("#{cursor_flag}")? == "1", "{name}: there is no cursor");
    Ok(())
}

#[test]
fn the_sick_apache_and_its_waiting_clients_are_found_without_a_manual() -> Result<()> {
    if !installed(&["tmux", "apache2"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let joined = Joined::new("screen")?;
    joined.server.limit(&["rate", "1mbit", "burst", "32kbit", "latency", "400ms"])?;
    let _server = RealServer::apache(&joined.server, SocketAddr::new(Joined::SERVER.parse()?, PORT))?;
    let visit = ["--address", Joined::SERVER, "--count", "8", "--request", HTTP_REQUEST];
    let clients = Party::call(&joined.client, PORT, &visit)?;
    clients.wait_for(step::ANSWERED, 5, 10)?;
    sleep(Duration::from_secs(2));

    let tmux = Tmux::start(100, 30)?;
    let before = tmux.settings("before")?;
    let start = Instant::now();
    tmux.overwatch("top")?;
    tmux.wait_for(15, "a screen", |screen| screen.contains("Listeners"))?;
    let begin = Instant::now();
    let listener = format!("{}:{PORT}", Joined::SERVER);
    let sick = |screen: &str| {
        let first = screen.lines().next().unwrap_or_default();
        first.contains(&format!("{listener} saturated worker_limit")) && screen.contains("MaxRequestWorkers")
    };
    let shown = tmux.wait_for(3, "the sick listener on the first screen", sick)?;
    println!("named {:?} after the first picture, {:?} after the start:\n{shown}", begin.elapsed(), start.elapsed());
    // The row under the cursor is the sick one: Enter is enough.
    tmux.keys(&["Enter"])?;
    let answered = clients.of(step::ANSWERED);
    let waiting: Vec<SocketAddr> = clients
        .of(step::CONNECTED)
        .iter()
        .filter_map(|step| step.client)
        .filter(|client| answered.iter().all(|answer| answer.client != Some(*client)))
        .collect();
    ensure!(waiting.len() == 3, "{} clients wait", waiting.len());
    tmux.wait_for(3, "the three that wait", |screen| {
        screen.contains("Waiting clients:") && waiting.iter().all(|client| screen.contains(&client.to_string()))
    })?;
    tmux.keys(&["Escape"])?;
    tmux.wait_for(3, "the list", |screen| screen.contains("VERDICT"))?;

    // Connections of it alone, sorted, in another size.
    tmux.keys(&["2"])?;
    tmux.keys(&["-l", "/port 8003"])?;
    tmux.keys(&["Enter"])?;
    let only = |screen: &str| {
        screen.contains("only: port 8003") && screen.contains("apache2") && screen.matches(&listener).count() >= 16
    };
    tmux.wait_for(3, "both ends of eight connections", only)?;
    tmux.keys(&["s"])?;
    tmux.wait_for(3, "the order", |screen| screen.contains("sorted by SENT/s") && screen.contains("SENT/sv"))?;
    tmux.resize(80, 24)?;
    tmux.wait_for(3, "the same on a small screen", |screen| {
        screen.lines().all(|line| line.chars().count() <= 80) && only(screen)
    })?;
    tmux.keys(&["Space"])?;
    tmux.wait_for(4, "a pause that grows old", |screen| screen.contains("PAUSED, 2."))?;
    tmux.keys(&["Space"])?;
    tmux.keys(&["w"])?;
    tmux.wait_for(3, "a report", |screen| screen.contains("written to "))?;
    let report = fs::read_dir(tmux.directory())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .context("a file")?;
    ensure!(fs::read_to_string(&report)?.matches(&listener).count() >= 16, "{}", report.display());
    tmux.keys(&["q"])?;
    is_as_before(&tmux, &before, "quit")
}

#[test]
fn the_terminal_is_as_before_however_it_ends() -> Result<()> {
    if !installed(&["tmux"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let tmux = Tmux::start(90, 25)?;
    let before = tmux.settings("before")?;
    let is_there = |screen: &str| screen.contains("Connections") && screen.contains("quit");
    type End = (&'static str, fn(&Tmux) -> Result<()>);
    let ends: [End; 4] = [
        ("q", |tmux| tmux.keys(&["q"])),
        ("interrupt", |tmux| tmux.keys(&["C-c"])),
        ("terminate", |tmux| Ok(kill(pid_in(tmux)?, Signal::SIGTERM)?)),
        ("hangup", |tmux| Ok(kill(pid_in(tmux)?, Signal::SIGHUP)?)),
    ];
    for (name, end) in ends {
        tmux.overwatch("top")?;
        tmux.wait_for(15, "a screen", is_there)?;
        end(&tmux)?;
        is_as_before(&tmux, &before, name)?;
    }
    // To the background by key and by signal, and back.
    tmux.overwatch("top")?;
    tmux.wait_for(15, "a screen", is_there)?;
    for (name, stop) in [
        ("suspended", (|tmux| tmux.keys(&["C-z"])) as fn(&Tmux) -> Result<()>),
        ("stopped", |tmux| Ok(kill(pid_in(tmux)?, Signal::SIGTSTP)?)),
    ] {
        stop(&tmux)?;
        is_as_before(&tmux, &before, name)?;
        tmux.keys(&["-l", "fg"])?;
        tmux.keys(&["Enter"])?;
        tmux.wait_for(10, "the screen again", is_there)?;
    }
    tmux.keys(&["q"])?;
    is_as_before(&tmux, &before, "finally")
}

#[test]
fn a_terminal_that_takes_nothing_holds_nobody_up() -> Result<()> {
    if !installed(&["setsid"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let size = Winsize { ws_row: 60, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    // Nobody reads what comes out at the other end.
    let OpenptyResult { master, slave } = openpty(&size, None)?;
    let mut other_end = File::from(master);
    let before = tcgetattr(&slave)?;
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(overwatch_binary()).arg("top").env("TERM", "xterm-256color");
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(Stdio::null());
    let mut overwatch = Ended(command.spawn().context("starting overwatch in a terminal")?);
    let is_taken = || Ok(!tcgetattr(&slave)?.local_flags.contains(LocalFlags::ICANON));
    wait_until(15, "it has the terminal", is_taken)?;
    // Every Ctrl-L is a whole picture, until no more fits.
    wait_until(20, "the terminal is full", || {
        other_end.write_all(b"\x0c")?;
        sleep(Duration::from_millis(200));
        Ok(poll(&mut [PollFd::new(slave.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO)? == 0)
    })?;
    kill(Pid::from_raw(overwatch.0.id().cast_signed()), Signal::SIGTERM)?;
    wait_until(10, "it ends", || Ok(overwatch.0.try_wait()?.is_some()))?;
    ensure!(tcgetattr(&slave)? == before, "the settings are others than before");
    // Now somebody reads: screen, mouse and cursor are given back behind what was on its way.
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    wait_until(5, "the terminal is given back", || {
        if poll(&mut [PollFd::new(other_end.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)? > 0 {
            let length = other_end.read(&mut piece)?;
            all.extend_from_slice(&piece[..length]);
        }
        Ok(all.ends_with(b"\x1b[?1006l\x1b[?1000l\x1b[?1049l\x1b[?25h"))
    })
}

/// A process that has ended at the end, in whatever way.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(seconds: u64, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience(seconds);
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within {seconds} seconds: {what}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn what_is_shown_is_what_was_sent() -> Result<()> {
    if !installed(&["tmux"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let netns = NetNs::new("shown")?;
    let tmux = Tmux::start(160, 30)?;
    tmux.overwatch(&format!("top --netns {}", netns.name()))?;
    tmux.wait_for(15, "a screen", |screen| screen.contains("Connections"))?;
    let server = Party::serve(&netns, 1, &["--then", "keep"])?;
    let clients = Party::call(&netns, server.port()?, &["--count", "3", "--request-bytes", "2048"])?;
    clients.wait_for(step::CONNECTED, 3, 10)?;
    tmux.keys(&["2"])?;
    // Three clients have sent 2 KiB each, and nobody has read them; each connection has two ends.
    let shown = tmux.wait_for(5, "six ends", |screen| {
        screen.matches("ow-call").count() == 3 && screen.matches("ow-serve").count() == 3
    })?;
    ensure!(shown.matches(" 2.0Ki").count() >= 3, "{shown}");
    drop(clients);
    tmux.wait_for(5, "no connection of them", |screen| !screen.contains("ow-call"))?;
    tmux.keys(&["3"])?;
    tmux.wait_for(5, "the server, and nobody who has gone", |screen| {
        screen.contains("ow-serve") && !screen.contains("ow-call")
    })?;
    tmux.keys(&["4"])?;
    tmux.wait_for(5, "their ends in the log", |screen| screen.contains("SYN_SENT") && screen.contains("CLOSE"))?;
    tmux.keys(&["q"])?;
    Ok(())
}
