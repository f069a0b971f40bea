//! Real servers, of the host's distribution. A guest has none: there the imitations are judged by the same rules.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{in_guest, patience};
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::proc::must;
use overwatch_tests::harness::servers::{RealServer, Site, find as find_program};
use overwatch_tests::harness::visits::slack;
use overwatch_tests::harness::watch::Sight;
use overwatch_tests::traffic::queue::step;

use crate::scene::{Scene, WELL, find, holds, now, only, queue_agrees, says, soon};

/// A server may not run as root, and somebody must own its files.
const USER: &str = "www-data";
const FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Whether all of these are there; said aloud when not.
fn installed(programs: &[&str]) -> Result<bool> {
    if in_guest() {
        return Ok(false);
    }
    for program in programs {
        if find_program(program)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn apache_configuration(site: &Site<'_>, at: &str) -> Result<String> {
    let files = site.files()?;
    File::create(files.join("file"))?.set_len(FILE_BYTES)?;
    let (directory, files) = (site.directory.display(), files.display());
    Ok(format!(
        "ServerRoot {directory}
ServerName overwatch.test
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
DefaultRuntimeDir {directory}
PidFile {directory}/pid
ErrorLog {directory}/error.log
Listen {at}
User {USER}
Group {USER}
DocumentRoot {files}
<Directory {files}>
    Require all granted
</Directory>
StartServers 5
MinSpareServers 5
MaxSpareServers 5
ServerLimit 5
MaxRequestWorkers 5
"
    ))
}

/// The clients of a row are those that no answer has come to, with the ages that they had.
fn waiting_are_unanswered(sight: &Sight, clients: &Party, count: usize) -> Result<()> {
    let answered = clients.of(step::ANSWERED);
    let unanswered: Vec<_> = clients
        .of(step::CONNECTED)
        .into_iter()
        .filter(|step| answered.iter().all(|answer| answer.client != step.client))
        .collect();
    ensure!(unanswered.len() == count, "{} clients have no answer, not {count}", unanswered.len());
    for step in unanswered {
        let client = step.client.context("a client that is connected has an address")?;
        let is_client = |ip, port| SocketAddr::new(ip, port) == client;
        let shown = sight.row.waiting.iter().find(|shown| is_client(shown.remote_addr, shown.remote_port));
        let shown = shown.with_context(|| format!("{client} is not shown: {sight:#?}"))?;
        let (least, most) = (sight.time - step.until - slack(), sight.time - step.from + slack());
        let fits = shown.waiting_seconds.is_some_and(|age| age >= least && age <= most);
        ensure!(fits, "{client} has waited {least:.3} to {most:.3} s: {shown:?}");
        ensure!(shown.unread_bytes == step.bytes && !shown.gone, "{client} sent {} bytes: {shown:?}", step.bytes);
    }
    Ok(())
}

/// Five processes, eight clients, a file that takes minutes.
pub(crate) fn apache(scene: &Scene) -> Result<()> {
    const PORT: u16 = 8003;
    if !installed(&["apache2"])? {
        return Ok(());
    }
    let joined = Joined::new("apache")?;
    joined.server.limit(&["rate", "1mbit", "burst", "32kbit", "latency", "400ms"])?;
    let from = ["10.213.6.11", "10.213.6.12", "10.213.6.13"];
    for address in from {
        joined.client.add_address(&format!("{address}/24"), Joined::DEVICE)?;
    }
    let at = format!("{}:{PORT}", Joined::SERVER);
    let words = ["apache2", "-f", "CONFIG", "-D", "FOREGROUND"];
    let _server = RealServer::start(&joined.server, PORT, &words, |site| apache_configuration(site, &at))?;
    let view = scene.view(&joined.server, PORT);
    // All five must be there, or the first clients wait for them.
    view.find(now(), patience(10), "six processes", |sight| sight.row.processes.len() == 6)?;
    let begin = now();
    let request = "GET /file HTTP/1.1\\r\\nHost: overwatch.test\\r\\nUser-Agent: traffic\\r\\n\\r\\n";
    let visit = ["--address", Joined::SERVER, "--from", &from.join(","), "--count", "8", "--request", request];
    let clients = Party::call(&joined.client, PORT, &visit)?;
    let judged = [("saturated", "worker_limit")];
    find(&view, begin, soon(), &judged)?;
    for sight in holds(&view, 5, &judged)? {
        let row = &sight.row;
        ensure!((row.accept_queue, row.waiting_total, row.backlog_limit) == (3, 3, 511), "three of 511: {row:#?}");
        ensure!((row.serving, row.serving_ceiling) == (Some(5), Some(5)), "five are served: {row:#?}");
        ensure!(says(&row.advice, "MaxRequestWorkers"), "the advice: {row:#?}");
        waiting_are_unanswered(&sight, &clients, 3)?;
    }
    queue_agrees(&view, &joined.server, PORT)?;
    only(&view, "worker_limit")
}

fn haproxy_configuration(at: &str, backend: u16) -> String {
    format!(
        "defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind {at}
    maxconn 10
    default_backend slow
backend slow
    server one 127.0.0.1:{backend}
"
    )
}

/// Ten connections at most, a backend that thinks for four seconds, 25 clients that come again.
pub(crate) fn haproxy(scene: &Scene) -> Result<()> {
    const PORT: u16 = 8004;
    if !installed(&["haproxy"])? {
        return Ok(());
    }
    let netns = NetNs::new("haproxy")?;
    let slow = ["--then", "answer", "--think-ms", "4000", "--answer-bytes", "500", "--backlog", "511"];
    let backend = Party::serve(&netns, 1, &slow)?;
    let at = format!("127.0.0.1:{PORT}");
    let backend_port = backend.port()?;
    let words = ["haproxy", "-db", "-f", "CONFIG"];
    let _server = RealServer::start(&netns, PORT, &words, |_| Ok(haproxy_configuration(&at, backend_port)))?;
    let view = scene.view(&netns, PORT);
    view.next()?;
    let begin = now();
    let clients = Party::call(&netns, PORT, &["--count", "25", "--request-bytes", "81", "--again-ms", "0"])?;
    let judged = [("saturated", "worker_limit")];
    find(&view, begin, soon(), &judged)?;
    for sight in holds(&view, 8, &judged)? {
        let row = &sight.row;
        ensure!(row.serving_ceiling == Some(10), "the ceiling: {row:#?}");
        ensure!(says(&row.advice, "maxconn"), "the advice: {row:#?}");
    }
    queue_agrees(&view, &netns, PORT)?;
    let backend_view = scene.view(&netns, backend_port);
    backend_view.judged_only(0.0, f64::INFINITY, WELL)?;
    ensure!(!clients.of(step::ENDED).is_empty(), "clients are served by and by");
    only(&view, "worker_limit")
}

fn nginx_configuration(site: &Site<'_>, at: &str) -> Result<String> {
    let files = site.files()?;
    fs::write(files.join("index.html"), "x".repeat(600))?;
    let directory = site.directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {directory}/{name};\n"))
        .collect();
    Ok(format!(
        "daemon off;
user {USER};
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
{temporary}    keepalive_requests 100000000;
    server {{
        listen {at};
        root {files};
    }}
}}
",
        files = files.display()
    ))
}

/// A minute of as many requests as it can answer, over 200 connections.
pub(crate) fn nginx(scene: &Scene) -> Result<()> {
    const PORT: u16 = 8002;
    const SECONDS: u64 = 60;
    if !installed(&["nginx", "wrk"])? {
        return Ok(());
    }
    let netns = NetNs::new("nginx")?;
    let at = format!("127.0.0.1:{PORT}");
    // Before it has read its configuration it would write to the log of the distribution's server.
    let words = ["nginx", "-e", "stderr", "-c", "CONFIG"];
    let _server = RealServer::start(&netns, PORT, &words, |site| nginx_configuration(site, &at))?;
    let view = scene.view(&netns, PORT);
    view.next()?;
    let url = format!("http://{at}/");
    let load = netns.command(&["wrk", "-t", "1", "-c", "200", "-d", &format!("{SECONDS}s"), &url]);
    let output = must(load, Duration::from_secs(SECONDS) + patience(20))?;
    let summary = output.stdout.lines().find(|line| line.contains("requests in"));
    println!("wrk: {}", summary.context("wrk says how many requests it made")?.trim());
    let sights = view.sights();
    ensure!(sights.len() as u64 >= SECONDS - 5, "{} intervals", sights.len());
    let most = sights.iter().filter_map(|sight| sight.row.serving).max();
    ensure!(most == Some(200), "{most:?} connections served, not 200");
    view.judged_only(0.0, f64::INFINITY, WELL)?;
    view.adds_up()
}
