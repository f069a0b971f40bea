//! `overwatch states`: the transitions of a connection are the ones that every textbook has, at both ends, each under the
//! right name; and those of many make chains without a gap.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::chains::{self, Chain, Ends};
use overwatch_tests::harness::host::{Host, Tier, in_guest, patience};
use overwatch_tests::harness::lines::StateLine;
use overwatch_tests::harness::lives::Tolerance;
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::problems::Problems;
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::stream;
use overwatch_tests::harness::traffic;
use overwatch_tests::traffic::report::{Life, Line, Sums};

const CLIENT_FIRST: [&str; 6] = ["CLOSE", "SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"];
const CLIENT_SECOND: [&str; 6] = ["CLOSE", "SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"];
const SERVER_FIRST: [&str; 6] = ["LISTEN", "SYN_RECV", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"];
const SERVER_SECOND: [&str; 6] = ["LISTEN", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE"];
const LISTENER: [&str; 3] = ["CLOSE", "LISTEN", "CLOSE"];

/// Who must be named on which line of a chain.
type Named<'a> = &'a dyn Fn(usize) -> (u32, &'a str);

/// The chain went through exactly these states, and each of its lines names who it should.
fn judge_chain(chain: &Chain<'_>, states: &[&str], role: Option<&str>, named: Named<'_>) -> Problems {
    let mut problems = chain.problems();
    if chain.lines().len() + 1 < states.len() {
        problems.missing(format!("{:?} instead of {states:?}", chain.states()));
        return problems;
    }
    problems.must(chain.states() == states, || format!("{:?} instead of {states:?}", chain.states()));
    for (index, line) in chain.lines().iter().enumerate() {
        let (pid, comm) = named(index);
        problems.must_be("pid", line.pid.as_ref(), &pid);
        problems.must_be("comm", line.comm.as_deref().as_ref(), &comm);
        problems.must(line.role.as_deref() == role, || format!("role {:?} in {line:?}", line.role));
        problems.must(role.is_none() == line.remote_port.is_none(), || format!("a peer or none: {line:?}"));
        let beginning = index == 0;
        problems.must(!beginning || line.old_state_seconds.is_none(), || {
            format!("{:?} seconds before its life", line.old_state_seconds)
        });
    }
    problems
}

/// The chains of what was a connection or a listening socket.
fn chains<'a>(lines: impl IntoIterator<Item = &'a StateLine>) -> Vec<Chain<'a>> {
    let mut found = chains::chains(lines);
    found.retain(|chain| !chain.is_twin());
    found
}

fn ends_of(life: &Life) -> Ends {
    let (local, remote) = ((life.local_addr, life.local_port), (life.remote_addr, life.remote_port));
    (life.netns, Some(local), Some(remote))
}

/// One connection that is closed in order, and its listener.
fn one_connection(tier: Tier, scenario: &str, expected: [&[&str]; 2]) -> Result<()> {
    let netns = NetNs::new("states")?;
    let states = stream::states(Some(tier), &["--netns", netns.name()])?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let traffic = traffic::run(&[&["lives", "--scenarios", scenario], &place[..]].concat())?;
    let (run, left_out) = states.stop_counting()?;
    let found = chains(&run.lines);
    let mut problems = Problems::default();
    problems.must(run.lost.is_empty(), || format!("lost: {:?}", run.lost));
    problems.must(found.len() == 3, || format!("{} chains instead of three: {found:#?}", found.len()));
    for life in &traffic.lives {
        let chain = found.iter().find(|chain| chain.ends() == ends_of(life)).context("a chain of each end")?;
        let states = expected[usize::from(life.role == "server")];
        let named = |_| (life.pid, life.comm.as_str());
        problems.of_one(&life.role, judge_chain(chain, states, Some(&life.role), &named));
        let Some((was, established)) = chain.seconds_in("ESTABLISHED").zip(life.established) else { continue };
        let expected = life.closed - established;
        problems.must((was - expected).abs() < Tolerance::here().most, || {
            format!("{}: {was} seconds established instead of {expected}", life.role)
        });
    }
    let server = traffic.lives.iter().find(|life| life.role == "server").context("a server")?;
    let listener = found.iter().find(|chain| chain.listens()).context("the listener's chain")?;
    let ends = (netns.inode(), Some((server.local_addr, server.local_port)), None);
    problems.must(listener.ends() == ends, || format!("{:?} instead of {ends:?}", listener.ends()));
    let named = |_| (server.pid, server.comm.as_str());
    problems.of_one("listener", judge_chain(listener, &LISTENER, None, &named));
    problems.judge(left_out).with_context(|| format!("{tier}, {scenario}"))
}

/// Before accept, a connection is the one's who listens; after it, the other one's who accepted.
fn another_one_accepts(tier: Tier) -> Result<()> {
    let netns = NetNs::new("accepts")?;
    let states = stream::states(Some(tier), &["--netns", netns.name()])?;
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    let churn = ["churn", "--threads", "1", "--connections", "1"];
    let mut parent = Proc::start(traffic::command(&[&churn, &place[..]].concat())?)?;
    parent.close_stdin();
    let pid = parent.id();
    let output = parent.finish(patience(60))?;
    ensure!(output.code == Some(0), "{}", output.stderr);
    let (run, left_out) = states.stop_counting()?;
    let mut sums = BTreeMap::new();
    for line in output.stdout.lines() {
        if let Line::Sums(one) = serde_json::from_str(line)? {
            sums.insert(one.flood.clone(), one);
        }
    }
    let of = |role: &str| -> Result<&Sums> { sums.get(role).with_context(|| format!("the {role}'s sums")) };
    let (client, server) = (of("client")?, of("server")?);
    let found = chains(&run.lines);
    let mut problems = Problems::default();
    problems.must(found.len() == 3, || format!("{} chains instead of three: {found:#?}", found.len()));
    for chain in &found {
        let role = chain.lines().last().and_then(|line| line.role.as_deref());
        let accepted = 2;
        let (states, who): (&[&str], Named<'_>) = match role {
            Some("client") => (&CLIENT_SECOND, &|_| (client.pid, "ow-ch-cli")),
            Some(_) => {
                (&SERVER_FIRST, &|line| if line < accepted { (pid, "traffic") } else { (server.pid, "ow-ch-srv") })
            }
            // Others hold it too, and one of them is the last.
            None => (&LISTENER, &|_| (pid, "traffic")),
        };
        problems.of_one(role.unwrap_or("listener"), judge_chain(chain, states, role, who));
    }
    problems.judge(left_out).with_context(|| tier.to_string())
}

/// Many of all kinds at a time: every end has one chain, and it holds.
fn many(tier: Tier) -> Result<()> {
    let joined = Joined::new("chains")?;
    let states = stream::states(Some(tier), &[])?;
    let count = if in_guest() { "150" } else { "600" };
    let more = ["--device", Joined::DEVICE, "--connections", count, "--at-once", "8"];
    let traffic = traffic::run(&[&["lives"], &joined.place()[..], &more].concat())?;
    let (run, left_out) = states.stop_counting()?;
    let found = chains(run.lines.iter().filter(|line| joined.has(line.netns)));
    let mut problems = Problems::default();
    problems.must(run.lost.is_empty(), || format!("lost: {:?}", run.lost));
    let mut connections: BTreeMap<Ends, i64> = BTreeMap::new();
    for life in &traffic.lives {
        *connections.entry(ends_of(life)).or_default() -= 1;
    }
    for chain in &found {
        let mut of_chain = chain.problems();
        if chain.listens() {
            of_chain.must(chain.states() == LISTENER, || "a listener with other states".to_owned());
        } else {
            *connections.entry(chain.ends()).or_default() += 1;
        }
        if let Some(life) = traffic.lives.iter().find(|life| ends_of(life) == chain.ends()) {
            for line in chain.lines() {
                let shown = line.pid.zip(line.comm.as_ref());
                of_chain.must_be("process", shown.as_ref(), &(life.pid, &life.comm));
            }
        }
        let times: Vec<f64> = chain.lines().iter().map(|line| line.time).collect();
        problems.of_one(&format!("{:?} {:?} at {times:?}", chain.ends(), chain.states()), of_chain);
    }
    for (ends, surplus) in connections {
        problems.must(surplus <= 0, || format!("{surplus} chains too many: {ends:?}"));
        (surplus..0).for_each(|_| problems.missing(format!("a chain of {ends:?}")));
    }
    problems.judge(left_out).with_context(|| format!("{tier}: {} lives, {} chains", traffic.lives.len(), found.len()))
}

#[test]
fn the_client_closes_first() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?
        .into_iter()
        .try_for_each(|tier| one_connection(tier, "client_closes_first", [&CLIENT_FIRST, &SERVER_SECOND]))
}

#[test]
fn the_server_closes_first() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?
        .into_iter()
        .try_for_each(|tier| one_connection(tier, "server_closes_first", [&CLIENT_SECOND, &SERVER_FIRST]))
}

#[test]
fn one_process_listens_and_another_accepts() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(another_one_accepts)
}

#[test]
fn the_chains_of_hundreds_have_no_gap() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(many)
}
