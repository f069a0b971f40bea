//! Servers that have come to a limit of their own, imitated: workers, connections, descriptors, processor time.

use anyhow::{Result, ensure};
use overwatch_tests::harness::cgroup::CGroup;
use overwatch_tests::harness::host::patience;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::traffic::queue::step;

use super::scene::{Scene, find, holds, is_at_limit, is_true, now, only, queue_agrees, says, soon};

/// Like Apache with five processes: each serves one client, and that takes long.
pub(crate) fn preforked(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("five")?;
    let rate = ["--answer-bytes", "32000000", "--answer-rate", "20000"];
    let how = ["--comm", "apache2", "--processes", "5", "--at-most", "1", "--backlog", "511", "--then", "answer"];
    let server = Party::serve(&netns, 1, &[&how[..], &rate].concat())?;
    let (view, port) = (scene.view(&netns, server.port()?), server.port()?);
    view.find(now(), patience(5), "five processes that listen", |sight| sight.row.processes.len() >= 5)?;
    let begin = now();
    let clients = Party::call(&netns, port, &["--count", "8", "--request-bytes", "81"])?;
    let judged = [("saturated", "worker_limit")];
    find(&view, begin, soon(), &judged)?;
    for sight in holds(&view, 5, &judged)? {
        let row = &sight.row;
        ensure!((row.accept_queue, row.waiting_total, row.backlog_limit) == (3, 3, 511), "three of 511: {row:#?}");
        ensure!((row.serving, row.serving_ceiling) == (Some(5), Some(5)), "five are served: {row:#?}");
        ensure!(says(&row.advice, "MaxRequestWorkers"), "the advice: {row:#?}");
    }
    queue_agrees(&view, &netns, port)?;
    is_true(&view, &server, &[&clients], false)?;
    only(&view, "worker_limit")
}

/// Like HAProxy with maxconn 10 before a slow backend: what it has is served by and by, and others come.
pub(crate) fn at_most(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("ten")?;
    let how = ["--comm", "haproxy", "--at-most", "10", "--backlog", "511"];
    let work = ["--then", "answer", "--think-ms", "4000", "--answer-bytes", "500"];
    let server = Party::serve(&netns, 1, &[&how[..], &work].concat())?;
    let (view, port) = (scene.view_of(&netns, &server)?, server.port()?);
    let begin = now();
    let clients = Party::call(&netns, port, &["--count", "25", "--request-bytes", "81", "--again-ms", "0"])?;
    // Ten are answered meanwhile, and ten others come.
    is_at_limit(&view, begin, 10, "maxconn")?;
    queue_agrees(&view, &netns, port)?;
    is_true(&view, &server, &[&clients], false)?;
    only(&view, "worker_limit")
}

/// Sixty clients and 32 descriptors, four of which are no connections.
pub(crate) fn descriptors(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("files")?;
    let server = Party::serve(&netns, 1, &["--open-files", "32", "--then", "keep"])?;
    let (view, port) = (scene.view_of(&netns, &server)?, server.port()?);
    let begin = now();
    let clients = Party::call(&netns, port, &["--count", "60", "--request-bytes", "5"])?;
    server.wait_for(step::NOT_ACCEPTED, 1, 5)?;
    let judged = [("saturated", "fd_limit")];
    find(&view, begin, patience(4), &judged)?;
    let accepted = server.of(step::ACCEPTED).len() as u64;
    for sight in holds(&view, 5, &judged)? {
        let row = &sight.row;
        ensure!((row.accept_queue, row.serving) == (60 - accepted, Some(accepted)), "{accepted} accepted: {row:#?}");
        // The limit is one of numbers, not of how many there are: with one that was handed down and is above it, there are 33.
        ensure!(row.evidence.iter().any(|line| line.contains(" of 32 descriptors")), "all of 32: {row:#?}");
    }
    queue_agrees(&view, &netns, port)?;
    is_true(&view, &server, &[&clients], false)?;
    only(&view, "fd_limit")
}

/// Each connection takes 20 ms of processor time, of which there are 2 ms in 100.
pub(crate) fn throttled(scene: &Scene) -> Result<()> {
    let Some(cgroup) = CGroup::with_processor_limit("slow", 2)? else {
        println!("skipped: no hierarchy of control groups limits processor time here");
        return Ok(());
    };
    let netns = NetNs::new("cpu")?;
    let how = ["--cgroup", cgroup.path_text(), "--burn-ms", "20", "--then", "answer", "--backlog", "2000"];
    let server = Party::serve(&netns, 1, &how)?;
    let (view, port) = (scene.view_of(&netns, &server)?, server.port()?);
    let begin = now();
    let clients = Party::call(&netns, port, &["--count", "1000", "--rate", "10", "--request-bytes", "50"])?;
    let judged = [("saturated", "cpu_throttled")];
    find(&view, begin, patience(6), &judged)?;
    for sight in holds(&view, 6, &judged)? {
        ensure!(says(&sight.row.evidence, "throttled"), "the evidence: {:#?}", sight.row);
    }
    is_true(&view, &server, &[&clients], false)?;
    only(&view, "cpu_throttled")
}
