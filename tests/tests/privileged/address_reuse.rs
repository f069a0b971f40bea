//! The kernel uses socket addresses, ports and memory again, hundreds of thousands of times: no line has anything of the
//! connection that had them before. Whose a connection is, how many bytes it moved and how it ended follow from its ports.

use std::collections::BTreeMap;
use std::env;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{Host, Tier, in_guest};
use overwatch_tests::harness::lines::{Item, LifeItem, LifeLine};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::problems::Problems;
use overwatch_tests::harness::stream::{Stream, arguments};
use overwatch_tests::harness::traffic;
use overwatch_tests::traffic::churn::{resets, to_client, to_server};
use overwatch_tests::traffic::report::Sums;

/// So many sockets are closed when there is time for it.
const MANY: &str = "500000";
/// The first server's port.
const FIRST_SERVER: u16 = 9_000;
/// Servers, clients, and threads of each.
const SIZE: u16 = 2;
/// Times are printed in millionths of a second, and each batch of lines takes the clocks' difference anew.
const CLOCKS: f64 = 0.001;

/// What one end of the connections of one client's port came to.
#[derive(Clone, Debug, Default)]
struct Port {
    lines: u64,
    /// When the last one ended.
    ended: f64,
    /// The process of all of them.
    process: Option<(u32, String)>,
    /// The server's port of all of them.
    server_port: u16,
}

/// What was shown of one namespace. There are too many lines to keep them.
#[derive(Debug, Default)]
struct Shown {
    /// By role and client's port.
    ports: BTreeMap<(String, u16), Port>,
    problems: Problems,
    lost: Vec<String>,
}

impl Shown {
    fn take(&mut self, netns: u64, item: LifeItem) {
        match item {
            Item::Line(line) if line.netns == netns => {
                let found = self.judge(&line);
                if !found.is_empty() {
                    self.problems.of_one(&format!("{line:?}"), found);
                }
            }
            Item::Lost(lost) => self.lost.push(format!("{lost:?}")),
            Item::Line(_) => {}
        }
    }

    fn judge(&mut self, line: &LifeLine) -> Problems {
        let mut problems = Problems::default();
        let (Some(role), Some(local), Some(remote)) = (&line.role, line.local_port, line.remote_port) else {
            problems.missing("the tuple or the role");
            return problems;
        };
        let is_client = role == "client";
        let (client_port, server_port) = if is_client { (local, remote) } else { (remote, local) };
        let (up, down) = (to_server(client_port), to_client(client_port));
        let (sent, received) = if is_client { (up, down) } else { (down, up) };
        let shown = (line.sent_bytes, line.received_bytes);
        let less = shown.0 <= sent && shown.1 <= received;
        if less && shown != (sent, received) && (line.partial || line.kernel_sent_bytes.is_none()) {
            problems.missing(format!("{shown:?} bytes of {:?}", (sent, received)));
        } else {
            problems.must(shown == (sent, received), || format!("{:?} bytes are right", (sent, received)));
        }
        if !line.partial {
            problems.must_be("kernel's bytes sent", line.kernel_sent_bytes.as_ref(), &sent);
            problems.must_be("kernel's bytes received", line.kernel_received_bytes.as_ref(), &received);
        }
        let (ended, error) = match (resets(client_port), is_client) {
            (true, true) => ("reset_by_us", None),
            (true, false) => ("reset_by_peer", Some("ECONNRESET")),
            (false, true) => ("closed_by_peer", None),
            (false, false) => ("closed_by_us", None),
        };
        problems.must_be("end", line.ended.as_deref().as_ref(), &ended);
        problems.must(line.error.as_deref() == error || line.ended.is_none(), || format!("error {:?}", line.error));
        let own = self.ports.entry((role.clone(), client_port)).or_default();
        of_port(own, line, server_port, &mut problems);
        problems
    }
}

/// What must be the same for all connections of a port.
fn of_port(port: &mut Port, line: &LifeLine, server_port: u16, problems: &mut Problems) {
    let process = line.pid.zip(line.comm.clone());
    if port.lines == 0 {
        port.server_port = server_port;
        port.process.clone_from(&process);
    }
    problems.must(port.server_port == server_port, || format!("{} was the server's port before", port.server_port));
    match (&port.process, &process) {
        (Some(before), Some(now)) => problems.must(before == now, || format!("{before:?} before")),
        (None, Some(_)) => port.process = process,
        (_, None) => problems.missing("the process"),
    }
    let begun = line.syn_time.or(line.established_time).or(line.accepted_time);
    problems.must(begun.is_none_or(|begun| begun + CLOCKS > port.ended), || {
        format!("began before {}, when the last one with these ports ended", port.ended)
    });
    match line.duration_seconds {
        Some(duration) => problems.must((line.time - duration - begun.unwrap_or_default()).abs() < CLOCKS, || {
            "its duration is not the time between its beginning and its end".to_owned()
        }),
        None => problems.missing("the duration"),
    }
    port.lines += 1;
    port.ended = line.time;
}

/// The server's port that the client process with that index uses from that port.
fn server_port(index: u16, first: u16, port: u16) -> u16 {
    FIRST_SERVER + (index + (port - first) % SIZE) % SIZE
}

/// Holds what was shown against what the processes counted.
fn judge(shown: &mut Shown, sums: &[Sums]) -> Result<()> {
    let problems = &mut shown.problems;
    let mut lines: BTreeMap<(u32, String), u64> = BTreeMap::new();
    for port in shown.ports.values() {
        if let Some(process) = &port.process {
            *lines.entry(process.clone()).or_default() += port.lines;
        }
    }
    for sums in sums {
        let shown = lines.remove(&(sums.pid, sums.comm.clone())).unwrap_or_default();
        problems.must(shown <= sums.connections, || {
            format!("{shown} lines of {} {}, which had {} connections", sums.comm, sums.pid, sums.connections)
        });
        for _ in shown..sums.connections {
            problems.missing(format!("a line of {} {}: {shown} of {}", sums.comm, sums.pid, sums.connections));
        }
    }
    problems.must(lines.is_empty(), || format!("lines of processes that had no connections: {lines:?}"));

    let mut clients: Vec<&Sums> = sums.iter().filter(|sums| sums.flood == "client").collect();
    clients.sort_by_key(|sums| sums.ports.as_ref().map(|ports| ports.start));
    for (index, client) in clients.into_iter().enumerate() {
        let ports = client.ports.clone().context("a client has ports of its own")?;
        for thread in 0..SIZE {
            // A thread uses its ports in turn, so none of them has two connections more than another one.
            let counts = ports.clone().skip(thread.into()).step_by(SIZE.into()).map(|port| {
                let of = |role: &str| shown.ports.get(&(role.to_owned(), port)).cloned().unwrap_or_default();
                (port, of("client"), of("server"))
            });
            let counts: Vec<_> = counts.collect();
            let most = counts.iter().map(|(_, client, _)| client.lines).max().unwrap_or_default();
            for (port, at_client, at_server) in counts {
                let few = at_client.lines.min(at_server.lines);
                problems.must(at_server.lines <= most, || format!("port {port}: {} lines of {most}", at_server.lines));
                if at_client.lines != at_server.lines || few + 1 < most {
                    let counts = (at_client.lines, at_server.lines);
                    problems.missing(format!(
                        "port {port}: {counts:?} lines at the client and the server, {most} at others"
                    ));
                }
                if few == 0 {
                    continue;
                }
                let expected = (client.pid, client.comm.clone());
                problems.must_be(&format!("process of port {port}"), at_client.process.as_ref(), &expected);
                let server_port = server_port(index as u16, ports.start, port);
                let server = sums.iter().find(|sums| sums.ports == Some(server_port..server_port + 1));
                let server = server.context("somebody listens on every port")?;
                let expected = (server.pid, server.comm.clone());
                problems.must_be(&format!("process of the server of {port}"), at_server.process.as_ref(), &expected);
            }
        }
    }
    Ok(())
}

fn measure(tier: Tier) -> Result<()> {
    let netns = NetNs::new("reuse")?;
    let inode = netns.inode();
    // Room for all that happens while others keep overwatch from the CPUs.
    let room: &[&str] = if in_guest() { &[] } else { &["--ring-buffer-bytes", "33554432"] };
    let command = overwatch::command(&arguments("life", Some(tier), room));
    let life = Stream::start(command, Shown::default(), move |all: &mut Shown, item: LifeItem| all.take(inode, item))?;
    let text = SIZE.to_string();
    let size = ["--servers", &text, "--clients", &text, "--threads", &text];
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let long = env::var_os("OVERWATCH_LONG").is_some_and(|value| value == "1");
    let seconds = if in_guest() { "4" } else { "20" };
    let length = if long { ["--connections", MANY] } else { ["--seconds", seconds] };
    let traffic = traffic::run(&[&["churn"], &size[..], &place, &length].concat())?;
    let (mut shown, left_out) = life.stop_counting()?;
    judge(&mut shown, &traffic.sums)?;
    let ends: u64 = traffic.sums.iter().map(|sums| sums.connections).sum();
    println!("{tier}: {ends} ends");
    ensure!(shown.lost.is_empty(), "{tier}: lost: {:?}", shown.lost);
    shown.problems.judge(left_out).with_context(|| format!("{tier}: {ends} ends"))
}

#[test]
fn no_connection_has_anything_of_the_one_before_it() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(measure)
}
