//! The servers, clients and handshakes of the traffic program that `listener_scenarios` is made of, without overwatch: the kernel
//! says of them, by `ss` and by the counters of the namespace, what they are supposed to be.

use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::cgroup::CGroup;
use overwatch_tests::harness::host::{self, Host, in_guest, patience};
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::proc::must;
use overwatch_tests::harness::servers::{self, HTTP_REQUEST, RealServer};
use overwatch_tests::harness::sockets::{Backlog, backlog, backlogs, counted, within};
use overwatch_tests::harness::visits::visits;
use overwatch_tests::traffic::queue::step;

/// Waits until the only listener's queue is that long.
fn queue_is(netns: &NetNs, port: u16, wanted: u64) -> Result<Backlog> {
    let deadline = Instant::now() + patience(10);
    loop {
        let found = backlog(netns, port)?;
        if found.queue == wanted {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{wanted} must be queued: {found:?}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_never_accepts_is_full_with_one_more_than_its_backlog() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("deaf")?;
    let server = Party::serve(&netns, 1, &["--accept", "never", "--backlog", "2"])?;
    let port = server.port()?;
    let clients = Party::call(&netns, port, &["--count", "20", "--request-bytes", "123"])?;
    clients.wait_for(step::CONNECTING, 20, 10)?;
    let found = queue_is(&netns, port, 3)?;
    assert_eq!(found.limit, 2);
    assert!(counted(&netns, "ListenOverflows")? >= 17);
    assert!(clients.of(step::CONNECTED).iter().all(|step| step.bytes == 123));
    assert_eq!(server.of(step::ACCEPTED).len(), 0);
    Ok(())
}

#[test]
fn workers_serve_one_client_each() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("five")?;
    let how = ["--processes", "5", "--at-most", "1", "--backlog", "511", "--then", "answer"];
    let answer = ["--answer-bytes", "4000", "--answer-rate", "2000"];
    let server = Party::serve(&netns, 1, &[&how[..], &answer].concat())?;
    let port = server.port()?;
    let clients = Party::call(&netns, port, &["--count", "8", "--request-bytes", "81"])?;
    server.wait_for(step::ACCEPTED, 5, 10)?;
    queue_is(&netns, port, 3)?;
    // Two seconds each.
    let ended = clients.wait_for(step::ENDED, 8, 10)?;
    assert!(ended.iter().all(|step| step.bytes == 4_000), "{ended:?}");
    server.wait_for(step::CLOSED, 8, 10)?;
    let mut pids: Vec<u32> = server.of(step::ACCEPTED).iter().map(|step| step.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 5, "five processes");
    let visits = visits(&server.steps(), &clients.steps());
    assert!(visits.len() == 8 && visits.iter().all(|visit| visit.accepted.is_some() && visit.closed.is_some()));
    Ok(())
}

#[test]
fn one_process_serves_at_most_so_many() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("ten")?;
    let how = ["--at-most", "10", "--then", "answer", "--think-ms", "3000", "--answer-bytes", "500"];
    let server = Party::serve(&netns, 1, &how)?;
    let visit = ["--count", "25", "--request-bytes", "81", "--again-ms", "0"];
    let clients = Party::call(&netns, server.port()?, &visit)?;
    server.wait_for(step::ACCEPTED, 10, 10)?;
    queue_is(&netns, server.port()?, 15)?;
    clients.wait_for(step::ENDED, 10, 10)?;
    clients.wait_for(step::CONNECTED, 35, 10)?;
    queue_is(&netns, server.port()?, 15)?;
    Ok(())
}

#[test]
fn a_server_without_descriptors_says_so() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("files")?;
    let server = Party::serve(&netns, 1, &["--open-files", "32", "--then", "keep"])?;
    let clients = Party::call(&netns, server.port()?, &["--count", "60", "--request-bytes", "5"])?;
    let failed = server.wait_for(step::NOT_ACCEPTED, 1, 10)?;
    assert_eq!(failed[0].error.as_deref(), Some("EMFILE"));
    clients.wait_for(step::CONNECTED, 60, 10)?;
    let accepted = server.of(step::ACCEPTED).len() as u64;
    // Three standard streams, the listener, and what this process may have been started with: the limit is of numbers, not of a count.
    assert!((20..=28).contains(&accepted), "{accepted} accepted");
    let numbers = fs::read_dir(format!("/proc/{}/fd", server.id()))?
        .filter_map(|file| file.ok()?.file_name().to_str()?.parse::<u32>().ok());
    assert_eq!(numbers.filter(|number| *number < 32).count(), 32, "none is free");
    queue_is(&netns, server.port()?, 60 - accepted)?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id()))?;
    let files = limits.lines().find(|line| line.starts_with("Max open files")).context("a limit")?;
    assert_eq!(files.split_whitespace().nth(3), Some("32"), "{files}");
    Ok(())
}

#[test]
fn a_burst_is_refused_and_then_over() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("burst")?;
    let server = Party::serve(&netns, 1, &["--accept", "refused", "--backlog", "5", "--then", "answer"])?;
    let count = host::scale(300)?;
    let visit = ["--count", &count.to_string(), "--request-bytes", "10", "--give-up-ms", "2500"];
    let clients = Party::call(&netns, server.port()?, &visit)?;
    clients.wait_for(step::CONNECTING, count, 10)?;
    sleep(patience(3));
    let (ended, gave_up) = (clients.of(step::ENDED).len(), clients.of(step::GAVE_UP).len());
    assert!(ended >= 6 && ended + gave_up == count, "{ended} were served, {gave_up} gave up");
    let refused = counted(&netns, "ListenOverflows")?;
    assert!(refused > 0 && refused >= gave_up as u64, "{refused} refused, {gave_up} gave up");
    queue_is(&netns, server.port()?, 0)?;
    sleep(patience(1));
    assert_eq!(counted(&netns, "ListenOverflows")?, refused, "it is over");
    Ok(())
}

#[test]
fn clients_that_give_up_stay_in_the_queue() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("gone")?;
    let server = Party::serve(&netns, 1, &["--address", "::1", "--accept", "never", "--backlog", "16"])?;
    let port = server.port()?;
    for (by, count) in [("close", 3), ("reset", 2)] {
        let visit = ["--address", "::1", "--count", &count.to_string(), "--give-up-ms", "300", "--by", by];
        let clients = Party::call(&netns, port, &visit)?;
        clients.wait_for(step::GAVE_UP, count, 10)?;
    }
    let found = backlog(&netns, port)?;
    assert_eq!((found.queue, found.limit), (5, 16));
    Ok(())
}

#[test]
fn silent_clients_of_a_deferring_server_are_not_queued() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("defer")?;
    let server = Party::serve(&netns, 1, &["--defer-seconds", "30", "--then", "answer"])?;
    let clients = Party::call(&netns, server.port()?, &["--count", "50"])?;
    clients.wait_for(step::CONNECTED, 50, 10)?;
    sleep(patience(1));
    assert_eq!(backlog(&netns, server.port()?)?.queue, 0);
    assert_eq!(server.of(step::ACCEPTED).len(), 0);
    let talking = Party::call(&netns, server.port()?, &["--count", "1", "--request-bytes", "1"])?;
    talking.wait_for(step::ENDED, 1, 10)?;
    Ok(())
}

#[test]
fn an_acceptor_is_as_slow_as_it_was_told() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("delay")?;
    let late = if in_guest() { 0.1 } else { 0.02 };
    for delay in [0.0, 0.01, 0.1, 1.0] {
        let accept = format!("after:{}", delay * 1_000.0);
        let server = Party::serve(&netns, 1, &["--accept", &accept, "--then", "close"])?;
        let clients = Party::call(&netns, server.port()?, &["--count", "5"])?;
        clients.wait_for(step::ENDED, 5, 10)?;
        // A client may be heard of before the server that let it go.
        server.wait_for(step::ACCEPTED, 5, 10)?;
        for visit in visits(&server.steps(), &clients.steps()) {
            let accepted = visit.accepted.context("it was accepted")?;
            let (least, most) = (accepted.from - visit.connected.until, accepted.until - visit.connected.from);
            assert!(most >= delay - late && least <= delay + late, "{delay} s: {least} to {most}");
            println!("{delay} s: {least:.6} to {most:.6}");
        }
    }
    let server = Party::serve(&netns, 1, &["--accept", "one-per:200", "--then", "close"])?;
    let clients = Party::call(&netns, server.port()?, &["--count", "40", "--rate", "20"])?;
    clients.wait_for(step::CONNECTED, 40, 10)?;
    let accepted = server.of(step::ACCEPTED).len();
    assert!((5..=20).contains(&accepted), "{accepted} accepted in two seconds");
    Ok(())
}

#[test]
fn siblings_have_a_queue_each() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let netns = NetNs::new("four")?;
    let how = ["--port", "8007", "--processes", "4", "--reuseport", "yes", "--then", "answer"];
    let server = Party::serve(&netns, 4, &how)?;
    let listeners = server.of(step::LISTENING);
    let clients = Party::call(&netns, 8007, &["--count", "80", "--request-bytes", "5"])?;
    clients.wait_for(step::ENDED, 80, 10)?;
    for listener in &listeners {
        let own = server.of(step::ACCEPTED).iter().filter(|step| step.pid == listener.pid).count();
        assert!(own > 3, "{own} of 80 came to {listener:?}");
    }
    server.signal_one(listeners[2].pid, Signal::SIGSTOP)?;
    let more = Party::call(&netns, 8007, &["--count", "80", "--request-bytes", "5"])?;
    more.wait_for(step::CONNECTED, 80, 10)?;
    sleep(patience(1));
    let queues: Vec<u64> = backlogs(&netns, 8007)?.iter().map(|backlog| backlog.queue).collect();
    assert_eq!((queues.len(), queues.iter().filter(|queue| **queue > 3).count()), (4, 1), "{queues:?}");
    assert_eq!(queues.iter().filter(|queue| **queue == 0).count(), 3, "{queues:?}");
    Ok(())
}

const NOBODIES: [&str; 4] = ["--address", Joined::SERVER, "--from", Joined::NOBODY];

#[test]
fn half_open_connections_fill_the_queue_of_syns() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    for (cookies, counter) in [("1", "TCPReqQFullDoCookies"), ("0", "TCPReqQFullDrop")] {
        let joined = Joined::with_nobodies(&format!("flood{cookies}"))?;
        within(&joined.server, || Ok(fs::write("/proc/sys/net/ipv4/tcp_syncookies", cookies)?))?;
        let server = Party::serve(&joined.server, 1, &["--address", Joined::SERVER, "--backlog", "16"])?;
        let visit = [&NOBODIES[..], &["--count", "100", "--rate", "100"]].concat();
        let knocks = Party::knock(&joined.client, server.port()?, &visit)?;
        knocks.wait_for(step::KNOCKED, 100, 10)?;
        sleep(patience(1) / 4);
        let happened = counted(&joined.server, counter)?;
        assert!((80..=90).contains(&happened), "{counter}: {happened}");
        let offered = knocks.of(step::OFFERED).len();
        let expected = if cookies == "1" { 100 } else { 100 - happened as usize };
        assert_eq!(offered, expected, "cookies {cookies}: SYN-ACKs");
        assert_eq!(counted(&joined.server, "ListenOverflows")?, 0);
        let found = backlog(&joined.server, server.port()?)?;
        assert_eq!((found.queue, server.of(step::ACCEPTED).len()), (0, 0));
    }
    Ok(())
}

#[test]
fn handshakes_are_refused_at_the_last_ack() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let joined = Joined::with_nobodies("ack")?;
    let server =
        Party::serve(&joined.server, 1, &["--address", Joined::SERVER, "--accept", "never", "--backlog", "4"])?;
    let port = server.port()?;
    let mut knocks = Party::knock(&joined.client, port, &[&NOBODIES[..], &["--count", "3"]].concat())?;
    knocks.wait_for(step::OFFERED, 3, 10)?;
    let clients = Party::call(&joined.client, port, &["--address", Joined::SERVER, "--count", "5"])?;
    clients.wait_for(step::CONNECTED, 5, 10)?;
    queue_is(&joined.server, port, 5)?;
    assert_eq!(counted(&joined.server, "ListenOverflows")?, 0);
    knocks.tell("complete")?;
    knocks.wait_for(step::COMPLETED, 3, 10)?;
    sleep(patience(1) / 4);
    assert_eq!(counted(&joined.server, "ListenOverflows")?, 3);
    let found = backlog(&joined.server, port)?;
    assert_eq!((found.queue, found.limit, found.drops), (5, 4, 6), "the drops count each twice");
    Ok(())
}

#[test]
fn handshakes_by_hand_are_accepted_where_there_is_room() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let joined = Joined::with_nobodies("room")?;
    let server = Party::serve(&joined.server, 1, &["--address", Joined::SERVER, "--backlog", "4"])?;
    let mut knocks = Party::knock(&joined.client, server.port()?, &[&NOBODIES[..], &["--count", "3"]].concat())?;
    knocks.wait_for(step::OFFERED, 3, 10)?;
    knocks.tell("complete")?;
    let accepted = server.wait_for(step::ACCEPTED, 3, 10)?;
    assert!(accepted.iter().all(|step| step.client.is_some_and(|client| client.port() == 40_000)), "{accepted:?}");
    Ok(())
}

#[test]
fn a_group_without_processor_time_is_slow() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    let Some(cgroup) = CGroup::with_processor_limit("slow", 2)? else {
        println!("skipped: no hierarchy of control groups limits processor time here");
        return Ok(());
    };
    let netns = NetNs::new("cpu")?;
    let how = ["--cgroup", cgroup.path_text(), "--burn-ms", "20", "--then", "answer"];
    let server = Party::serve(&netns, 1, &how)?;
    let clients = Party::call(&netns, server.port()?, &["--count", "40", "--rate", "10", "--request-bytes", "5"])?;
    clients.wait_for(step::CONNECTED, 40, 10)?;
    let accepted = server.of(step::ACCEPTED).len();
    assert!((1..=8).contains(&accepted), "{accepted} accepted in four seconds at one per second");
    Ok(())
}

#[test]
fn real_apache_serves_five_and_lets_three_wait() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    if !servers::installed(&["apache2"])? {
        return Ok(());
    }
    let joined = Joined::new("apache")?;
    joined.server.limit(&["rate", "1mbit", "burst", "32kbit", "latency", "400ms"])?;
    let _server = RealServer::apache(&joined.server, SocketAddr::new(Joined::SERVER.parse()?, 8003))?;
    let visit = ["--address", Joined::SERVER, "--count", "8", "--request", HTTP_REQUEST];
    let clients = Party::call(&joined.client, 8003, &visit)?;
    clients.wait_for(step::ANSWERED, 5, 10)?;
    let found = queue_is(&joined.server, 8003, 3)?;
    assert_eq!(found.limit, 511);
    sleep(patience(2));
    assert_eq!((clients.of(step::CONNECTED).len(), clients.of(step::ANSWERED).len()), (8, 5));
    Ok(())
}

#[test]
fn real_haproxy_has_ten_connections_at_most() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    if !servers::installed(&["haproxy"])? {
        return Ok(());
    }
    let netns = NetNs::new("haproxy")?;
    let slow = ["--then", "answer", "--think-ms", "3000", "--answer-bytes", "500", "--backlog", "511"];
    let backend = Party::serve(&netns, 1, &slow)?;
    let _server = RealServer::haproxy(&netns, SocketAddr::from(([127, 0, 0, 1], 8004)), backend.port()?)?;
    let visit = ["--count", "25", "--request-bytes", "81", "--again-ms", "0"];
    let clients = Party::call(&netns, 8004, &visit)?;
    backend.wait_for(step::ACCEPTED, 10, 10)?;
    queue_is(&netns, 8004, 15)?;
    let ended = clients.wait_for(step::ENDED, 10, 10)?;
    assert!(ended.iter().all(|step| step.bytes == 500), "{ended:?}");
    queue_is(&netns, 8004, 15)?;
    Ok(())
}

#[test]
fn real_nginx_answers_all() -> Result<()> {
    let _host = Host::take_for_traffic()?;
    if !servers::installed(&["nginx", "wrk"])? {
        return Ok(());
    }
    let netns = NetNs::new("nginx")?;
    let _server = RealServer::nginx(&netns, SocketAddr::from(([127, 0, 0, 1], 8002)))?;
    let load = netns.command(&["wrk", "-t", "1", "-c", "50", "-d", "2s", "http://127.0.0.1:8002/"]);
    let output = must(load, patience(20))?;
    assert!(output.stdout.contains("requests in") && !output.stdout.contains("Non-2xx"), "{}", output.stdout);
    Ok(())
}
