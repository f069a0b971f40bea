//! A real Prometheus: it takes the page without a complaint, and the alert for a listener in trouble fires with its labels and clears.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_tests::harness::daemon::{Daemon, get};
use overwatch_tests::harness::host::{Host, patience};
use overwatch_tests::harness::netns::Joined;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::proc::{Proc, must};
use overwatch_tests::harness::servers::{HTTP_REQUEST, RealServer, installed};
use serde_json::Value;

const PORT: u16 = 8005;

/// Where the rules are that are handed out.
fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../overwatch/dist/prometheus")
}

/// A running Prometheus that scrapes the daemon every second.
struct Prometheus {
    _process: Proc,
    _directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Prometheus {
    fn start(daemon: &Daemon) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let place = directory.path();
        // The alerts that are handed out, only sooner: nobody wants to wait for half a minute here.
        let alerts = fs::read_to_string(rules().join("alerts.yml"))?;
        fs::write(
            place.join("alerts.yml"),
            alerts.replace("for: 30s", "for: 2s").replace("interval: 15s", "interval: 1s"),
        )?;
        fs::write(
            place.join("prometheus.yml"),
            format!(
                "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [alerts.yml]\n\
                 scrape_configs:\n  - job_name: overwatch\n    static_configs: [{{targets: [\"{}\"]}}]\n",
                daemon.address()
            ),
        )?;
        // The port is free again when Prometheus takes it, and nobody else asks for one here.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", place.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", place.join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let mut process = Proc::start(command)?;
        process.close_stdin();
        let deadline = Instant::now() + patience(30);
        while !get(address, "/-/ready").is_ok_and(|reply| reply.status == 200) {
            ensure!(Instant::now() < deadline, "Prometheus is not ready:\n{}", process.stderr());
            sleep(Duration::from_millis(100));
        }
        Ok(Self { _process: process, _directory: directory, address })
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        let reply = overwatch_tests::harness::daemon::exchange(self.address, request.as_bytes())?;
        ensure!(reply.status == 200, "{path}: {reply:?}");
        Ok(serde_json::from_str(&reply.body)?)
    }

    /// The alerts that fire, with their labels.
    fn firing(&self) -> Result<Vec<Value>> {
        let answer = self.ask("/api/v1/alerts")?;
        let alerts = answer["data"]["alerts"].as_array().context("a list of alerts")?;
        let fires = |alert: &&Value| alert["state"] == "firing";
        Ok(alerts.iter().filter(fires).map(|alert| alert["labels"].clone()).collect())
    }

    fn wait(&self, seconds: u64, what: &str, enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let deadline = Instant::now() + patience(seconds);
        loop {
            let firing = self.firing()?;
            if enough(&firing) {
                return Ok(firing);
            }
            if Instant::now() > deadline {
                bail!("{what}: not after {seconds} s; firing: {firing:#?}");
            }
            sleep(Duration::from_millis(500));
        }
    }
}

fn is_saturated(alert: &Value) -> bool {
    alert["alertname"] == "OverwatchListenerSaturated"
}

#[test]
fn the_alert_for_a_full_apache_fires_with_its_labels_and_clears() -> Result<()> {
    if !installed(&["prometheus", "apache2"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let daemon = Daemon::start(None, &[])?;
    let prometheus = Prometheus::start(&daemon)?;
    let joined = Joined::new("svprom")?;
    joined.server.limit(&["rate", "1mbit", "burst", "32kbit", "latency", "400ms"])?;
    let _server = RealServer::apache(&joined.server, SocketAddr::new(Joined::SERVER.parse()?, PORT))?;
    let visit = ["--address", Joined::SERVER, "--count", "8", "--request", HTTP_REQUEST];
    let clients = Party::call(&joined.client, PORT, &visit)?;
    let firing = prometheus.wait(30, "saturated", |firing| firing.iter().any(is_saturated))?;
    let alert = firing.iter().find(|alert| is_saturated(alert)).context("it fires")?;
    let listener = format!("{}:{PORT}", Joined::SERVER);
    for (label, value) in [
        ("listener", listener.as_str()),
        ("netns", &joined.server.inode().to_string()),
        ("cause", "worker_limit"),
        ("processes", "apache2"),
        ("socket", "1"),
        ("job", "overwatch"),
    ] {
        ensure!(alert[label] == value, "{label} is {}, not {value}: {alert:#}", alert[label]);
    }
    // Nothing is wrong with overwatch itself.
    let own = firing.iter().find(|alert| !alert["alertname"].as_str().is_some_and(|name| name.contains("Listener")));
    ensure!(own.is_none(), "{own:?}");
    drop(clients);
    prometheus.wait(30, "cleared", |firing| !firing.iter().any(is_saturated))?;
    let targets = prometheus.ask("/api/v1/targets")?;
    let target = &targets["data"]["activeTargets"][0];
    ensure!(target["health"] == "up" && target["lastError"] == "", "{target:#}");
    daemon.stop().map(drop)
}

#[test]
fn promtool_has_nothing_to_say() -> Result<()> {
    if !installed(&["promtool"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let daemon = Daemon::start(None, &[])?;
    let page = daemon.scrape()?.text;
    daemon.stop()?;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let mut process = Proc::start(promtool)?;
    for line in page.lines() {
        process.tell(line)?;
    }
    process.close_stdin();
    let output = process.finish(patience(20))?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(output.code == Some(0) && said.trim().is_empty(), "promtool check metrics:\n{said}");
    let rules = rules();
    for file in ["alerts.yml", "recording.yml"] {
        let mut command = Command::new("promtool");
        command.args(["check", "rules"]).arg(rules.join(file));
        must(command, patience(20))?;
    }
    for test in fs::read_dir(rules.join("tests"))? {
        let mut command = Command::new("promtool");
        command.args(["test", "rules"]).arg(test?.path());
        must(command, patience(60))?;
    }
    Ok(())
}
