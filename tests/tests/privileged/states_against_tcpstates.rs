//! `overwatch states` beside tcpstates of libbpf-tools, on the same traffic: both see the same transitions of every connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use overwatch_tests::harness::host::{Host, in_guest, patience};
use overwatch_tests::harness::lines::StateLine;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::stream;
use overwatch_tests::harness::traffic;

const TCPSTATES: &str = "/usr/sbin/tcpstates";
/// Where the kernel shows the tracepoint; tcpstates looks nowhere else.
const TRACEPOINT: &str = "tracing/events/sock/inet_sock_set_state/id";

/// Local and remote port as far as any line knows them, and the transitions in order.
type Life = ((u16, u16), Vec<(String, String)>);
type Lives = Vec<Life>;

/// From transitions in the order of time, each with something that names its socket, to what became of each connection.
fn lives(lines: impl Iterator<Item = (String, u16, u16, String, String)>) -> Lives {
    let mut open: BTreeMap<String, Life> = BTreeMap::new();
    let mut lives = Vec::new();
    for (socket, local, remote, old, new) in lines {
        let begins = matches!((old.as_str(), new.as_str()), ("CLOSE", "SYN_SENT" | "LISTEN") | ("LISTEN", "SYN_RECV"));
        if begins && let Some(life) = open.remove(&socket) {
            lives.push(life);
        }
        let life = open.entry(socket).or_default();
        life.0 = (life.0.0.max(local), life.0.1.max(remote));
        life.1.push((old, new));
    }
    lives.extend(open.into_values());
    lives.sort();
    lives
}

/// A line of tcpstates: socket, process, name, local address and port, remote address and port, old state, arrow, new state, time.
fn theirs(line: &str) -> Option<(String, u16, u16, String, String)> {
    let (before, after) = line.split_once(" -> ")?;
    let words: Vec<&str> = before.split_whitespace().collect();
    let [.., local, _, remote, old] = words.as_slice() else { return None };
    let new = after.split_whitespace().next()?;
    let socket = (*words.first()?).to_owned();
    // Its heading ends in words too.
    let transition = (socket, local.parse().ok()?, remote.parse().ok()?, (*old).to_owned(), new.to_owned());
    (transition.3 != transition.4).then_some(transition)
}

fn ours(line: &StateLine) -> (String, u16, u16, String, String) {
    let (local, remote) = (line.local_port.unwrap_or(0), line.remote_port.unwrap_or(0));
    (line.connection.to_string(), local, remote, line.old_state.clone(), line.new_state.clone())
}

/// tcpstates has a buffer for each CPU and reads one after the other, so it prints what happened on two of them in any order. Whatever
/// `work` starts, and the packets over loopback with it, stays on one.
fn on_one_cpu<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu).unwrap_or(false)).context("a CPU to run on")?;
    one.set(first)?;
    sched_setaffinity(this_thread, &one)?;
    let result = work();
    sched_setaffinity(this_thread, &before)?;
    result
}

#[test]
fn the_transitions_of_every_connection_are_those_that_tcpstates_sees() -> Result<()> {
    let host = Host::take()?;
    let tracefs = ["/sys/kernel", "/sys/kernel/debug"].map(|root| Path::new(root).join(TRACEPOINT));
    if !Path::new(TCPSTATES).exists() || !tracefs.iter().any(|path| path.exists()) {
        ensure!(!in_guest(), "{TCPSTATES} and a mounted tracefs belong to a guest");
        println!("skipped: no {TCPSTATES}, or no tracefs that it could use");
        return Ok(());
    }
    for tier in host.tiers()? {
        let netns = NetNs::new("states")?;
        let mut tcpstates = Proc::start(Command::new(TCPSTATES))?;
        let said = tcpstates.take_lines();
        let states = stream::states(Some(tier), &["--netns", netns.name()])?;
        // It does not say when it is ready.
        sleep(patience(1));
        let scenarios =
            "client_closes_first,server_closes_first,client_resets,server_resets,client_half_closes,refused";
        let place =
            ["--address", "127.0.0.1", "--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
        let work = ["lives", "--scenarios", scenarios, "--connections", "60", "--at-once", "2"];
        let traffic = on_one_cpu(|| traffic::run(&[&work[..], &place[..]].concat()))?;
        sleep(Duration::from_millis(500));
        let (run, left_out) = states.stop_counting()?;
        tcpstates.signal(Signal::SIGINT)?;
        tcpstates.wait(patience(30))?;
        let theirs = lives(said.iter().filter_map(|line| theirs(&line)));
        let ours = lives(run.lines.iter().map(ours));
        ensure!(run.lost.is_empty(), "{tier}: {:?}", run.lost);
        ensure!(ours.len() >= traffic.lives.len(), "{tier}: {} lives of {}", ours.len(), traffic.lives.len());
        let only = |these: &Lives, those: &Lives| -> Lives {
            these.iter().filter(|life| !those.contains(life)).cloned().collect()
        };
        let (only_ours, only_theirs) = (only(&ours, &theirs), only(&theirs, &ours));
        // Both have a program at the tracepoint's record, and where the kernel skips one it skips the other, but only ours has a second.
        let differing = only_ours.len().max(only_theirs.len()).max(ours.len().abs_diff(theirs.len()));
        ensure!(
            u64::try_from(differing)? <= left_out,
            "{tier}: {} lives in ours, {} in theirs, {left_out} runs left out; only in ours {only_ours:?}, only in theirs {only_theirs:?}",
            ours.len(),
            theirs.len(),
        );
        bystanders(&run.lines).with_context(|| format!("{tier}"))?;
    }
    Ok(())
}

/// Each end's transitions are of one process, whoever the kernel happened to run.
fn bystanders(lines: &[StateLine]) -> Result<()> {
    for line in lines {
        let expected = if line.role.as_deref() == Some("client") { "ow-cli" } else { "ow-srv" };
        ensure!(line.comm.as_deref() == Some(expected), "{line:?} is not of {expected}");
    }
    Ok(())
}
