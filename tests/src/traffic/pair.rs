//! A server process and a client process that go through a list of operations, one connection for each.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::unistd::pipe;

use super::args::Args;
use super::end::End;
use super::family::Family;
use super::ops::{self, Op};
use super::process::{enter_netns, fork_child, wait_all};
use super::report::{Line, Report, Skipped};

/// The options of this mode.
pub const OPTIONS: &[&str] =
    &["ops", "families", "address", "server-netns", "client-netns", "server-comm", "client-comm"];

struct Plan {
    work: Vec<(Family, Op)>,
    families: Vec<Family>,
    address: Option<IpAddr>,
    server_netns: Option<PathBuf>,
    client_netns: Option<PathBuf>,
}

/// Runs the pair and waits for both ends.
pub fn run(args: &Args) -> Result<()> {
    let families = match args.text("families", "all") {
        "all" => Family::ALL.to_vec(),
        names => names
            .split(',')
            .map(|name| Family::from_name(name).with_context(|| format!("no family {name:?}")))
            .collect::<Result<Vec<_>>>()?,
    };
    let ops = match args.text("ops", "all") {
        "all" => ops::table(),
        names => names
            .split(',')
            .map(|name| ops::by_name(name).with_context(|| format!("no operation {name:?}")))
            .collect::<Result<Vec<_>>>()?,
    };
    let ops = possible(ops)?;
    let work = families.iter().flat_map(|&family| ops.iter().map(move |&op| (family, op))).collect();
    let plan = Plan {
        work,
        families,
        address: args.address("address")?,
        server_netns: args.path("server-netns"),
        client_netns: args.path("client-netns"),
    };

    let (ports_out, ports_in) = pipe()?;
    let mut ends = Some((ports_out, ports_in));
    let server = fork_child(args.text("server-comm", "ow-srv"), || {
        let (_, ports_in) = ends.take().context("taken once")?;
        serve(&plan, ports_in)
    })?;
    let client = fork_child(args.text("client-comm", "ow-cli"), || {
        let (ports_out, _) = ends.take().context("taken once")?;
        call(&plan, ports_out)
    })?;
    drop(ends);
    wait_all(vec![server, client])
}

/// Leaves out, aloud, what this kernel cannot do.
fn possible(ops: Vec<Op>) -> Result<Vec<Op>> {
    let mut kept = Vec::new();
    for op in ops {
        match (op.cannot)() {
            None => kept.push(op),
            Some(why) => Line::Skipped(Skipped { op: op.name.to_owned(), skipped: why }).print()?,
        }
    }
    Ok(kept)
}

fn serve(plan: &Plan, ports: OwnedFd) -> Result<()> {
    enter_netns(plan.server_netns.as_deref())?;
    let mut listeners: Vec<(Family, TcpListener)> = Vec::new();
    let mut line = String::new();
    for &family in &plan.families {
        let listener = family.listen(plan.address, 0)?;
        line += &format!("{} {}\n", family.name(), listener.local_addr()?.port());
        listeners.push((family, listener));
    }
    std::fs::File::from(ports).write_all(line.as_bytes())?;
    for (index, (family, op)) in plan.work.iter().enumerate() {
        let (_, listener) = listeners.iter().find(|(of, _)| of == family).context("a listener for each family")?;
        let mut end = End::new((op.accept)(listener)?, "server")?;
        op.run_server(&mut end).with_context(|| format!("{} {}, server", op.name, family.name()))?;
        finish(end, *family, op, index % 2 == 1)?;
    }
    Ok(())
}

fn call(plan: &Plan, ports: OwnedFd) -> Result<()> {
    enter_netns(plan.client_netns.as_deref())?;
    let mut text = String::new();
    std::fs::File::from(ports).read_to_string(&mut text)?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (name, port) = line.split_once(' ').context("a family and a port")?;
        found.insert(name.to_owned(), port.parse::<u16>()?);
    }
    for (index, (family, op)) in plan.work.iter().enumerate() {
        let port = *found.get(family.name()).context("the server listens for this family")?;
        let target = family.target(plan.address, port);
        let mut end = if op.connects_by_sending {
            let mut end = End::new(family.client(target, 0)?, "client")?;
            end.target = Some(target);
            end
        } else {
            End::new(family.connect(target, 0)?, "client")?
        };
        op.run_client(&mut end).with_context(|| format!("{} {}, client", op.name, family.name()))?;
        finish(end, *family, op, index % 2 == 0)?;
    }
    Ok(())
}

/// Ends the connection, the two sides taking turns in who goes first, and reports.
fn finish(mut end: End, family: Family, op: &Op, goes_first: bool) -> Result<()> {
    if op.ends_by_closing() && !goes_first {
        let before = end.received;
        end.receive_to_end()?;
        anyhow::ensure!(end.received == before, "{}: more came than was agreed", op.name);
    }
    let report = Report::of(&end, op.name, family.name())?;
    drop(end);
    report.print()?;
    Ok(())
}
