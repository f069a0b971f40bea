//! The traffic program by itself, without overwatch: what one end sent is what the other received, in every
//! operation and family. Only when this holds is it worth comparing anything with it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{self, Host};
use overwatch_tests::harness::traffic::{self, Flood, Hold, Traffic};
use overwatch_tests::traffic::family::Family;
use overwatch_tests::traffic::ops;
use overwatch_tests::traffic::report::Report;

/// Operations that no kernel may be without from the version on that the table names. Outside a guest, something
/// else than the kernel's age may be the reason (a seccomp profile, a sysctl): there it is only said aloud.
fn skips_are_justified(traffic: &Traffic) -> Result<()> {
    let kernel = host::kernel_version()?;
    for skip in &traffic.skipped {
        let op = ops::by_name(&skip.op).context("skips name operations")?;
        eprintln!("skipped: {}: {}", skip.op, skip.skipped);
        let excused = kernel < op.since || host::demanded_tiers()?.is_none();
        ensure!(excused, "{} was left out, but Linux {:?} has it: {}", skip.op, op.since, skip.skipped);
    }
    Ok(())
}

#[test]
fn both_ends_agree_in_every_operation_and_family() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let traffic = traffic::run(&["pair"])?;
    skips_are_justified(&traffic)?;
    let mut pairs: BTreeMap<(&str, &str), BTreeMap<&str, &Report>> = BTreeMap::new();
    for report in &traffic.reports {
        let roles = pairs.entry((&report.op, &report.family)).or_default();
        ensure!(roles.insert(&report.role, report).is_none(), "two reports of one end: {report:?}");
    }
    let done = ops::table().len() - traffic.skipped.len();
    assert_eq!(pairs.len(), done * Family::ALL.len(), "every operation in every family");
    for ((op, family), ends) in &pairs {
        let client = ends.get("client").context("a client")?;
        let server = ends.get("server").context("a server")?;
        let asked = ops::by_name(op).context("reports name operations")?;
        assert_eq!(client.sent, asked.to_server as u64, "{op} {family}: client sent");
        assert_eq!(server.sent, asked.to_client as u64, "{op} {family}: server sent");
        assert_eq!(client.received, server.sent, "{op} {family}: to the client");
        if *op == "close_with_unread" {
            assert_eq!(server.received, client.sent / 2, "{op} {family}: half was read");
        } else {
            assert_eq!(server.received, client.sent, "{op} {family}: to the server");
        }
        assert_eq!((client.comm.as_str(), server.comm.as_str()), ("ow-cli", "ow-srv"), "{op} {family}");
        assert_ne!(client.pid, server.pid, "{op} {family}");
        assert_eq!(
            (&client.local_addr, client.local_port, &client.remote_addr, client.remote_port),
            (&server.remote_addr, server.remote_port, &server.local_addr, server.local_port),
            "{op} {family}: both ends name the same connection"
        );
        for end in [client, server] {
            match *op {
                "nonblocking_write" => assert!(end.again > 0 && end.partial > 0, "nothing was partial: {end:?}"),
                "peek_then_recv" => assert!(end.peeked > 0, "nothing was looked at: {end:?}"),
                "error_queue" => assert!(end.error_queue > 0, "nothing came through the error queue: {end:?}"),
                _ => {}
            }
        }
    }
    Ok(())
}

#[test]
fn sizes_tell_operations_and_directions_apart() {
    let mut sizes: Vec<usize> = ops::table().iter().flat_map(|op| [op.to_server, op.to_client]).collect();
    assert!(sizes.iter().all(|size| size % 2 == 1), "odd: {sizes:?}");
    sizes.sort_unstable();
    let all = sizes.len();
    sizes.dedup();
    assert_eq!(sizes.len(), all, "all different");
}

#[test]
fn shared_sockets_add_up() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    for (how, workers) in [("fork", 1), ("scm", 1), ("turns", 2), ("thread", 1)] {
        let traffic = traffic::run(&["shared", "--how", how, "--bytes", "50021"])?;
        let sum = |role: &str, of: fn(&Report) -> u64| -> u64 {
            traffic.reports.iter().filter(|report| report.role == role).map(of).sum()
        };
        assert_eq!((sum("client", |r| r.sent), sum("server", |r| r.received)), (50_021, 50_021), "{how}");
        assert_eq!((sum("server", |r| r.sent), sum("client", |r| r.received)), (51_024, 51_024), "{how}");
        let busy = traffic.reports.iter().filter(|r| r.role == "server" && r.sent > 0).count();
        assert_eq!(busy, workers, "{how}: server processes that moved bytes");
    }
    Ok(())
}

#[test]
fn floods_add_up() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let count = host::scale(2_000)?;
    let flood = Flood::start(&["--connections", &count.to_string(), "--at-once", "504", "--progress-every", "8"])?;
    flood.wait_for_progress()?;
    let sums = flood.finish()?;
    for role in ["client", "server"] {
        let of_role: Vec<_> = sums.iter().filter(|sums| sums.flood == role).collect();
        assert_eq!(of_role.len(), 2, "{role}: processes");
        assert_eq!(of_role.iter().map(|sums| sums.connections).sum::<u64>(), count as u64, "{role}: connections");
        assert_eq!(of_role.iter().map(|sums| sums.sent).sum::<u64>(), count as u64 * 1024, "{role}: sent");
        assert_eq!(of_role.iter().map(|sums| sums.received).sum::<u64>(), count as u64 * 1024, "{role}: received");
    }
    Ok(())
}

#[test]
fn a_held_connection_moves_what_it_is_told() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let mut hold = Hold::open(&["--family", "v6", "--client-comm", "a b\n,\"\x1b[31m"])?;
    hold.send(10_007, 333)?;
    hold.send_by(20_011, 20_013, "splice_from_socket")?;
    let pushed = hold.push(3_001)?;
    assert_eq!(pushed.iter().map(|end| end.received).sum::<u64>(), 10_340 + 40_024, "pushed is not received");
    hold.pull(3_001)?;
    let ends = hold.send(1, 2)?;
    let client = ends.iter().find(|end| end.role == "client").context("a client")?;
    let server = ends.iter().find(|end| end.role == "server").context("a server")?;
    assert_eq!((client.sent, client.received), (33_020, 20_348));
    assert_eq!((server.sent, server.received), (20_348, 33_020));
    assert_eq!(client.comm, "a b\n,\"\x1b[31m");
    hold.close()?;

    let mut late = Hold::open(&["--accept", "late", "--close", "by-reset"])?;
    assert_eq!(late.push(5_003)?.len(), 1, "only the client has a socket yet");
    late.accept()?;
    late.pull(5_003)?;
    assert_eq!(late.send(1, 1)?.iter().map(|end| end.sent).sum::<u64>(), 5_005);
    late.close()
}

#[test]
fn other_sockets_work() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    traffic::run(&["other", "--times", "3"]).map(drop)
}
