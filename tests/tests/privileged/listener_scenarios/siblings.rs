//! Listeners that look alike, of which one does badly.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::cgroup::CGroup;
use overwatch_tests::harness::host::patience;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::traffic::queue::step;

use super::scene::{OK, Scene, WELL, find, holds, is_true, natively_or_guest, now, only};

/// Four sockets at one port, each with a process of its own, one of which is stopped.
pub(crate) fn one_stopped(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("four")?;
    let how = ["--port", "8007", "--processes", "4", "--reuseport", "yes", "--then", "answer", "--backlog", "511"];
    let server = Party::serve(&netns, 4, &how)?;
    let listeners = server.of(step::LISTENING);
    let inodes: BTreeSet<u64> = listeners.iter().filter_map(|step| step.inode).collect();
    ensure!(inodes.len() == 4, "four sockets: {listeners:?}");
    let all = scene.view(&netns, 8007);
    let visit = ["--count", "2000", "--rate", natively_or_guest("40", "12"), "--request-bytes", "50"];
    let clients = Party::call(&netns, 8007, &visit)?;
    clients.wait_for(step::ENDED, 20, 10)?;
    let begin = now();
    for &inode in &inodes {
        find(&all.only(inode), begin, patience(5), WELL)?;
    }
    let sick = &listeners[1];
    let sick_inode = sick.inode.context("an inode")?;
    let view = all.only(sick_inode);
    let stopped = now();
    server.signal_one(sick.pid, Signal::SIGSTOP)?;
    let judged = [("saturated", "one_worker_stuck")];
    let sight = find(&view, stopped, patience(4), &judged)?;
    let pids: Vec<u32> = sight.row.processes.iter().map(|process| process.pid).collect();
    ensure!(pids == [sick.pid], "{} holds it: {sight:#?}", sick.pid);
    holds(&view, 4, &judged)?;
    server.signal_one(sick.pid, Signal::SIGCONT)?;
    find(&view, now(), patience(6), &[OK])?;
    for &inode in inodes.iter().filter(|inode| **inode != sick_inode) {
        let other = all.only(inode);
        other.judged_only(0.0, f64::INFINITY, WELL)?;
        other.adds_up()?;
        let accepted = other.sights().last().map_or(0, |sight| sight.row.accepts_total);
        ensure!(accepted > 5, "{accepted} connections came to a healthy sibling");
    }
    only(&view, "one_worker_stuck")
}

/// The same address and port in two namespaces.
pub(crate) fn two_places(scene: &Scene) -> Result<()> {
    let (sick_netns, well_netns) = (NetNs::new("sick")?, NetNs::new("well")?);
    let cgroup = CGroup::new("sick")?;
    let place = ["--port", "8014", "--backlog", "50"];
    let sick_how = ["--accept", "never", "--comm", "ow-sick", "--cgroup", cgroup.path_text()];
    let sick = Party::serve(&sick_netns, 1, &[&place[..], &sick_how].concat())?;
    let well = Party::serve(&well_netns, 1, &[&place[..], &["--then", "answer"]].concat())?;
    let (sick_view, well_view) = (scene.view_of(&sick_netns, &sick)?, scene.view_of(&well_netns, &well)?);
    let begin = now();
    let waiting = Party::call(&sick_netns, 8014, &["--count", "6", "--request-bytes", "9"])?;
    let coming = Party::call(&well_netns, 8014, &["--count", "500", "--rate", natively_or_guest("10", "4")])?;
    let judged = [("saturated", "not_accepting")];
    let sight = find(&sick_view, begin, patience(4), &judged)?;
    ensure!(sight.row.netns == sick_netns.inode(), "{sight:#?}");
    let shown = sight.row.cgroup.as_deref().unwrap_or_default();
    ensure!(shown.rsplit('/').next() == Some(cgroup.name()), "cgroup {shown:?}, not {}", cgroup.name());
    ensure!(sight.row.processes.iter().all(|process| process.comm == "ow-sick"), "{sight:#?}");
    holds(&sick_view, 4, &judged)?;
    is_true(&sick_view, &sick, &[&waiting], false)?;
    is_true(&well_view, &well, &[&coming], false)?;
    well_view.judged_only(0.0, f64::INFINITY, WELL)?;
    well_view.adds_up()?;
    only(&sick_view, "not_accepting")
}
