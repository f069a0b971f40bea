//! A signal during start-up: overwatch ends at once, with exit code 0, and leaves nothing in the kernel.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use overwatch_tests::harness::bpf::Objects;
use overwatch_tests::harness::cgroup::CGroup;
use overwatch_tests::harness::host::{Host, Tier, overwatch_binary, patience};
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::servers::installed;
use overwatch_tests::harness::tmux::Tmux;

const SERVE: &[&str] = &["serve", "-v", "--web.listen-address", "127.0.0.1:0"];
const DEFINITIONS: &str = "/sys/kernel/tracing/kprobe_events";

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + patience(30);
    while !is_so()? {
        ensure!(Instant::now() < end, "not after {:?}: {what}", patience(30));
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Starts overwatch, stops it as soon as `began`, sends `signal`, lets it go on, and judges how it ends.
fn ended_by(signal: Signal, arguments: &[&str], began: impl Fn(u32) -> Result<bool>) -> Result<()> {
    let what = format!("{signal} to {arguments:?}");
    let before = Objects::now()?;
    let mut process = Proc::start(overwatch::command(arguments))?;
    process.close_stdin();
    let pid = process.id();
    wait_until(&format!("{what}: it has begun"), || began(pid))?;
    process.signal(Signal::SIGSTOP)?;
    ensure!(!process.stderr().contains("overwatch: ready"), "{what}: it was ready before it was stopped");
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    process.signal(signal)?;
    process.signal(Signal::SIGCONT)?;
    let output = process.finish(patience(10)).with_context(|| what.clone())?;
    ensure!(output.code == Some(0), "{what}: exit {:?}; stderr:\n{}", output.code, output.stderr);
    ensure!(output.stdout.is_empty(), "{what}: stdout is {:?}", output.stdout);
    ensure!(!output.stderr.contains("overwatch: ready"), "{what}: stderr:\n{}", output.stderr);
    for child in children.split_whitespace() {
        wait_until(&format!("{what}: child {child} has ended"), || Ok(!runs(child)))?;
    }
    // The kernel frees them a moment after the last descriptor.
    wait_until(&format!("{what}: nothing is left"), || {
        Ok(Objects::now()?.without(&before).without(&Objects::held_by_anyone()?).is_empty())
    })
}

/// False for a process that has ended and waits for its parent.
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_signal_ends_every_verb_that_attaches() -> Result<()> {
    let host = Host::take()?;
    let has_begun = |pid| Ok(!Objects::held_by(pid)?.is_empty());
    let verbs: &[&[&str]] = &[
        &["top", "-v", "1"],
        &["states", "-v"],
        &["life", "-v"],
        &["open", "-v"],
        &["listeners", "-v"],
        &["check", "-v"],
    ];
    for tier in host.tiers()? {
        for verb in verbs {
            ended_by(Signal::SIGTERM, &[verb, &["--attach", tier.name()][..]].concat(), has_begun)?;
        }
        for signal in [Signal::SIGINT, Signal::SIGHUP] {
            ended_by(signal, &["top", "-v", "--attach", tier.name(), "1"], has_begun)?;
        }
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            ended_by(signal, &[SERVE, &["--attach", tier.name()]].concat(), has_begun)?;
        }
    }
    Ok(())
}

#[test]
fn definitions_in_tracefs_are_taken_away() -> Result<()> {
    let host = Host::take()?;
    if !host.tiers()?.contains(&Tier::Kprobe) {
        eprintln!("skipped: this kernel has no kprobe tier");
        return Ok(());
    }
    see_tracefs()?;
    let of = |pid: u32| -> Result<bool> {
        let end = format!("_{pid} ");
        Ok(fs::read_to_string(DEFINITIONS)?.lines().any(|line| line.contains(":overwatch/") && line.contains(&end)))
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        ended_by(signal, &["top", "-v", "--attach", "kprobe", "1"], of)?;
        let left = fs::read_to_string(DEFINITIONS)?;
        ensure!(!left.contains(":overwatch/"), "{signal}: left in tracefs:\n{left}");
    }
    Ok(())
}

/// Mounts tracefs for this test's thread and what it starts, unless it is there.
fn see_tracefs() -> Result<()> {
    if Path::new(DEFINITIONS).exists() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), MsFlags::empty(), None::<&str>).context("tracefs")
}

/// A group in which start-up takes minutes.
fn overloaded(tag: &str) -> Result<Option<CGroup>> {
    let group = CGroup::with_processor_limit(tag, 2)?;
    if group.is_none() {
        eprintln!("skipped: no control group can limit processor time here");
    }
    Ok(group)
}

/// A script that joins the group and becomes overwatch.
fn in_group(group: &CGroup, arguments: &str) -> String {
    format!("echo $$ > {}/cgroup.procs; exec {} {arguments}", group.path_text(), overwatch_binary().display())
}

fn start_in(group: &CGroup, arguments: &str) -> Result<Proc> {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &in_group(group, arguments)]);
    let mut process = Proc::start(command)?;
    process.close_stdin();
    Ok(process)
}

#[test]
fn an_overloaded_host_does_not_delay_the_end() -> Result<()> {
    let _host = Host::take()?;
    let Some(group) = overloaded("deaf")? else { return Ok(()) };
    let mut process = start_in(&group, "top -v 1 1")?;
    process.wait_for_stderr(patience(60), |line| line == "overwatch: attaching...")?;
    for _ in 0..20 {
        sleep(Duration::from_millis(100));
        ensure!(!process.stderr().contains("ready"), "start-up is not slow: {}", process.stderr());
    }
    process.signal(Signal::SIGTERM)?;
    let start = Instant::now();
    let output = process.finish(patience(20))?;
    println!("ended {:?} after the signal", start.elapsed());
    ensure!(output.code == Some(0) && output.stdout.is_empty(), "exit {:?}: {}", output.code, output.stdout);
    ensure!(output.stderr == "overwatch: attaching...", "stderr:\n{}", output.stderr);
    Ok(())
}

#[test]
fn a_slow_start_is_announced_on_a_terminal_only() -> Result<()> {
    if !installed(&["tmux"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let Some(group) = overloaded("slow")? else { return Ok(()) };
    let tmux = Tmux::start(150, 20)?;
    tmux.keys(&["-l", &format!("sh -c '{}'; echo ended-$?", in_group(&group, "open 1 1"))])?;
    tmux.keys(&["Enter"])?;
    tmux.wait_for(60, "an announcement", |screen| screen.contains("overwatch: attaching..."))?;
    tmux.keys(&["C-c"])?;
    tmux.wait_for(20, "its end", |screen| screen.contains("ended-0"))?;

    let script = start_in(&group, "open 1 1")?;
    let pid = script.id();
    wait_until("it has begun", || Ok(!Objects::held_by(pid)?.is_empty()))?;
    sleep(Duration::from_secs(2));
    ensure!(runs(&pid.to_string()), "start-up is not slow: {}", script.stderr());
    script.signal(Signal::SIGTERM)?;
    let output = script.finish(patience(20))?;
    ensure!(output.code == Some(0) && output.stderr.is_empty(), "exit {:?}: {}", output.code, output.stderr);
    Ok(())
}
