//! The traffic program by itself, without overwatch: what one end sent is what the other received, in every
//! operation and family. Only when this holds is it worth comparing anything with it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{self, Host};
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::traffic::{self, Flood, Hold, Traffic};
use overwatch_tests::traffic::family::Family;
use overwatch_tests::traffic::report::{Life, Report, Sums};
use overwatch_tests::traffic::{churn, lives, ops};

/// Operations that no kernel may be without from the version on that the table names. Outside a guest, something
/// else than the kernel's age may be the reason (a seccomp profile, a sysctl): there it is only said aloud.
fn skips_are_justified(traffic: &Traffic) -> Result<()> {
    let kernel = host::kernel_version()?;
    for skip in &traffic.skipped {
        let since = ops::by_name(&skip.op).map(|op| op.since).or_else(|| lives::since(&skip.op));
        let since = since.context("skips name operations or scenarios")?;
        eprintln!("skipped: {}: {}", skip.op, skip.skipped);
        let excused = kernel < since || host::demanded_tiers()?.is_none();
        ensure!(excused, "{} was left out, but Linux {since:?} has it: {}", skip.op, skip.skipped);
    }
    Ok(())
}

/// What must hold of the two ends of one connection, and of one end alone.
fn ends_agree(client: &Life, server: &Life) {
    let what = format!("{client:?}\n{server:?}");
    assert_eq!((client.local_addr, client.local_port), (server.remote_addr, server.remote_port), "{what}");
    assert_eq!((server.local_addr, server.local_port), (client.remote_addr, client.remote_port), "{what}");
    assert_ne!(client.pid, server.pid, "{what}");
    if client.exact {
        assert_eq!(client.sent, server.received + server.unread, "to the server: {what}");
    }
    if server.exact {
        assert_eq!(server.sent, client.received + client.unread, "to the client: {what}");
    }
}

fn life_is_plausible(life: &Life) {
    let begun = life.opened.or(life.established).unwrap_or(life.closed);
    assert!(begun <= life.closed && life.established.is_none_or(|at| at >= begun && at <= life.closed), "{life:?}");
    assert!(!life.fates.is_empty(), "{life:?}");
    // That the errors are those is checked where the calls return.
    let failed = ["reset_by_peer", "refused", "timed_out", "unreachable", "failed"];
    for fate in &life.fates {
        assert!(fate.error.is_some() || !failed.contains(&fate.ended.as_str()), "{life:?}");
    }
}

/// The lives of a run, by the addresses of their clients.
fn by_client(lives: &[Life]) -> BTreeMap<String, Vec<&Life>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for life in lives {
        life_is_plausible(life);
        let key = match life.role.as_str() {
            "client" => format!("{} {}:{}", life.number, life.local_addr, life.local_port),
            _ => format!("{} {}:{}", life.number, life.remote_addr, life.remote_port),
        };
        found.entry(key).or_default().push(life);
    }
    found
}

#[test]
fn both_ends_of_mixed_lives_agree() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let joined = Joined::new("mix")?;
    let count = host::scale(2_000)?;
    let text = count.to_string();
    let more = ["--device", Joined::DEVICE, "--connections", &text, "--at-once", "8"];
    let traffic = traffic::run(&[&["lives"], &joined.place()[..], &more].concat())?;
    let mut scenarios: BTreeMap<&str, usize> = BTreeMap::new();
    for ends in by_client(&traffic.lives).values() {
        *scenarios.entry(&ends[0].life).or_default() += 1;
        match ends.as_slice() {
            [alone] => assert!(["refused", "given_up"].contains(&alone.life.as_str()), "{alone:?}"),
            [a, b] if a.role == "client" => ends_agree(a, b),
            [a, b] => ends_agree(b, a),
            more => panic!("{} ends of one connection: {more:?}", more.len()),
        }
    }
    assert_eq!(scenarios.values().sum::<usize>(), count, "{scenarios:?}");
    let names: Vec<&str> = scenarios.into_keys().collect();
    let mut all = lives::common_scenarios();
    all.sort_unstable();
    assert_eq!(names, all, "every scenario");
    Ok(())
}

#[test]
fn mixed_lives_need_no_device_and_no_ipv4() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("six")?;
    let place = ["--address", "::1", "--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let traffic = traffic::run(&[&["lives"], &place[..], &["--at-once", "3"]].concat())?;
    let pairs = by_client(&traffic.lives);
    for ends in pairs.values().filter(|ends| ends.len() == 2) {
        let client = usize::from(ends[0].role != "client");
        ends_agree(ends[client], ends[1 - client]);
    }
    // One round of all that need no device: the server has no end where it refuses.
    assert_eq!(pairs.values().filter(|ends| ends.len() == 1).count(), 1);
    assert!(pairs.len() > 15, "{} connections", pairs.len());
    Ok(())
}

#[test]
fn every_special_life_is_what_it_is_called() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let joined = Joined::new("special")?;
    for name in lives::special_scenarios() {
        let more = ["--device", Joined::DEVICE, "--scenarios", name];
        let traffic = traffic::run(&[&["lives"], &joined.place()[..], &more].concat()).context(name)?;
        skips_are_justified(&traffic)?;
        assert_ne!(traffic.lives.is_empty(), traffic.skipped.is_empty(), "{name} was run or left out");
        traffic.lives.iter().for_each(life_is_plausible);
        assert!(traffic.lives.iter().all(|life| life.life == name && joined.has(life.netns)), "{name}");
    }
    Ok(())
}

#[test]
fn churning_connections_add_up() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let joined = Joined::new("churn")?;
    let count = host::scale(8_000)?.next_multiple_of(12);
    let text = count.to_string();
    let more = ["--connections", &text, "--servers", "2", "--clients", "3", "--threads", "4"];
    let sums = traffic::run(&[&["churn"], &joined.place()[..], &more].concat())?.sums;
    let of =
        |role: &str, what: fn(&Sums) -> u64| -> u64 { sums.iter().filter(|sums| sums.flood == role).map(what).sum() };
    assert_eq!((sums.len(), of("client", |s| s.connections), of("server", |s| s.connections)), {
        (5, count as u64, count as u64)
    });
    assert_eq!(of("client", |s| s.sent), of("server", |s| s.received));
    assert_eq!(of("server", |s| s.sent), of("client", |s| s.received));
    // Few connections, so each client's threads are still at their first ports.
    for sums in sums.iter().filter(|sums| sums.flood == "client") {
        let ports = sums.ports.clone().context("a client has ports of its own")?.take(sums.connections as usize);
        let bytes = ports.fold((0, 0), |(up, down), port| (up + churn::to_server(port), down + churn::to_client(port)));
        assert_eq!((sums.sent, sums.received), bytes);
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
