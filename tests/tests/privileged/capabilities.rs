//! On a host where a capability is missing, overwatch reports it: in `check`, in the log and the
//! metrics of `serve`, and by exit code 3 of the verb that cannot run. `OVERWATCH_REFUSE` turns any
//! host into such a host.

use std::net::SocketAddr;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;
use overwatch_tests::harness::daemon::{Daemon, Scrape, get};
use overwatch_tests::harness::host::{Host, Tier, patience};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::proc::{Output, Proc, run};
use overwatch_tests::harness::sockets::{backlog, connections};
use serde_json::Value;

const NO_PROGRAM: &str = "scan_listener";
const BLIND: &str = "scan_listener,sock_diag";
const METRIC: &str = "overwatch_capability";

/// overwatch on a kernel that refuses these programs, in one tier.
fn command(refused: &str, tier: Tier, arguments: &[&str]) -> Command {
    let mut command = overwatch::command(arguments);
    command.args(["--attach", tier.name()]).env("OVERWATCH_REFUSE", refused);
    command
}

fn output(refused: &str, tier: Tier, arguments: &[&str]) -> Result<Output> {
    run(command(refused, tier, arguments), patience(60))
}

/// The answer of `check -o json`, which ends with exit code 0.
fn checked(refused: &str, tier: Tier) -> Result<Value> {
    let output = output(refused, tier, &["check", "-o", "json"])?;
    assert_eq!(output.code, Some(0), "{refused:?} in the {tier} tier: {}", output.stderr);
    Ok(serde_json::from_str(&output.stdout)?)
}

/// What was tried, without the entries that the refused programs add.
fn the_rest(checked: &Value) -> (Value, Vec<Value>) {
    let of_scan = |entry: &&Value| BLIND.split(',').any(|way| entry["what"] == way);
    let degraded = checked["degraded"].as_array().into_iter().flatten().filter(|entry| !of_scan(entry));
    (checked["attempts"].clone(), degraded.cloned().collect())
}

#[test]
fn without_our_scan_the_queues_are_those_of_ss_and_listeners_are_partial() {
    let host = Host::take().unwrap();
    let netns = NetNs::new("partial").unwrap();
    let server = Party::serve(&netns, 1, &["--accept", "never", "--backlog", "8"]).unwrap();
    let port = server.port().unwrap();
    let _clients = Party::call(&netns, port, &["--count", "3", "--request-bytes", "81"]).unwrap();
    let deadline = Instant::now() + patience(10);
    while backlog(&netns, port).unwrap().queue < 3 {
        assert!(Instant::now() < deadline, "three clients must be queued: {:?}", backlog(&netns, port));
        sleep(Duration::from_millis(20));
    }
    let of_ss = backlog(&netns, port).unwrap();
    let queued = connections(&netns).unwrap().into_iter().filter(|row| row.local.port() == port && row.inode == 0);
    let mut queued: Vec<_> = queued.map(|row| u64::from(row.remote.port())).collect();
    queued.sort_unstable();

    for tier in host.tiers().unwrap() {
        let plain = checked("", tier).unwrap();
        let answer = checked(NO_PROGRAM, tier).unwrap();
        assert_eq!(answer["capabilities"]["listeners"], "partial", "{tier}: {answer}");
        for capability in ["bytes", "life"] {
            assert_eq!(answer["capabilities"][capability], plain["capabilities"][capability], "{tier}");
        }
        let degraded = answer["degraded"].as_array().unwrap();
        assert!(degraded.iter().any(|entry| entry["what"] == NO_PROGRAM), "{tier}: {degraded:?}");
        assert_eq!(the_rest(&answer), the_rest(&plain), "{tier}");

        let shown = output(NO_PROGRAM, tier, &["listeners", "-o", "json", "1", "1"]).unwrap();
        assert_eq!(shown.code, Some(0), "{tier}: {}", shown.stderr);
        let interval: Value = serde_json::from_str(&shown.stdout).unwrap();
        let rows = interval["listeners"].as_array().unwrap();
        let rows: Vec<_> =
            rows.iter().filter(|row| row["netns"] == netns.inode() && row["local_port"] == port).collect();
        assert_eq!(rows.len(), 1, "{tier}: {interval}");
        let row = rows[0];
        assert_eq!((&row["accept_queue"], &row["backlog_limit"]), (&of_ss.queue.into(), &of_ss.limit.into()), "{row}");
        assert_eq!((&row["waiting_total"], &row["syn_queue"]), (&of_ss.queue.into(), &Value::Null), "{row}");
        let waiting = row["waiting"].as_array().unwrap().iter();
        let mut waiting: Vec<_> = waiting.map(|client| client["remote_port"].as_u64().unwrap()).collect();
        waiting.sort_unstable();
        assert_eq!(waiting, queued, "{tier}: {row}");
    }
}

#[test]
fn where_listeners_cannot_be_read_check_says_so_and_listeners_end_with_exit_code_3() {
    let host = Host::take().unwrap();
    for tier in host.tiers().unwrap() {
        let plain = checked("", tier).unwrap();
        let answer = checked(BLIND, tier).unwrap();
        assert_eq!(answer["can_run"], true, "{tier}");
        assert_eq!(answer["capabilities"]["listeners"], "none", "{tier}: {answer}");
        for capability in ["bytes", "life"] {
            assert_eq!(answer["capabilities"][capability], plain["capabilities"][capability], "{tier}");
        }
        assert_eq!(the_rest(&answer), the_rest(&plain), "{tier}");

        let text = output(BLIND, tier, &["check"]).unwrap();
        let last = text.stdout.lines().next_back().unwrap();
        let level = |capability: &str| plain["capabilities"][capability].as_str().unwrap();
        let (bytes, life) = (level("bytes"), level("life"));
        let expected = format!(
            "overwatch can run here, in the {tier} tier: bytes {bytes}, life {life}, listeners none. \
             \"overwatch listeners\" would end with exit code 3."
        );
        assert_eq!(last, expected);

        for verb in ["top", "life", "states", "open", "serve"] {
            let checked = output(BLIND, tier, &["check", verb]).unwrap();
            assert_eq!(checked.code, Some(0), "check {verb} in the {tier} tier: {}", checked.stderr);
            let last = checked.stdout.lines().next_back().unwrap();
            assert!(last.starts_with(&format!("\"overwatch {verb}\" can run here, in the {tier} tier: ")), "{last}");
        }
        let checked = output(BLIND, tier, &["check", "listeners"]).unwrap();
        assert_eq!(checked.code, Some(3), "{tier}: {}", checked.stderr);
        let last = checked.stdout.lines().next_back().unwrap();
        assert!(last.starts_with("\"overwatch listeners\" cannot run here (exit code 3): "), "{last}");
        let seeing = output("", tier, &["check", "listeners"]).unwrap();
        assert_eq!(seeing.code, Some(0), "{tier}: {}", seeing.stderr);

        let listeners = output(BLIND, tier, &["listeners", "1", "1"]).unwrap();
        assert_eq!((listeners.code, listeners.stdout.as_str()), (Some(3), ""), "{tier}: {}", listeners.stderr);
        assert_eq!(listeners.stderr, checked.stderr, "the verb fails for the reason that check has");
    }
}

/// The levels of a capability that are 1 on a page.
fn exported(scrape: &Scrape, capability: &str) -> Vec<String> {
    let levels = scrape.of(METRIC, &[]).filter(|(labels, value)| labels["capability"] == capability && *value == 1.0);
    levels.map(|(labels, _)| labels["level"].clone()).collect()
}

#[test]
fn where_listeners_cannot_be_read_serve_warns_and_exports_it() {
    let host = Host::take().unwrap();
    let tier = host.tiers().unwrap()[0];
    let seeing = Daemon::start(Some(tier), &[]).unwrap();
    assert!(!seeing.stderr().contains("WARNING"), "{}", seeing.stderr());
    let plain = seeing.scrape().unwrap();
    let levels = exported(&plain, "listeners");
    assert!(levels == ["full"] || levels == ["partial"], "{levels:?}");
    seeing.stop().unwrap();

    // Without -v.
    let mut blind = Proc::start(command(BLIND, tier, &["serve", "--web.listen-address", "127.0.0.1:0"])).unwrap();
    blind.close_stdin();
    blind.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: WARNING: listeners none: ")).unwrap();
    let log = blind.stderr();
    let address = log.lines().find_map(|line| line.strip_prefix("overwatch: listening at ")).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let scrape = Scrape::parse(&get(address, "/metrics").unwrap().body).unwrap();
    assert_eq!(scrape.series(METRIC), 9, "{}", scrape.text);
    assert_eq!(exported(&scrape, "listeners"), ["none"]);
    for capability in ["bytes", "life"] {
        assert_eq!(exported(&scrape, capability), exported(&plain, capability), "{capability}");
    }
    blind.signal(Signal::SIGTERM).unwrap();
    let output = blind.finish(patience(60)).unwrap();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stderr.matches("WARNING").count(), 1, "{}", output.stderr);
    let warning = output.stderr.lines().find(|line| line.contains("WARNING")).unwrap();
    for part in ["scan_listener: refused", "sock_diag: refused", "no queues", "modprobe tcp_diag"] {
        assert!(warning.contains(part), "{part} is not in {warning}");
    }
}
