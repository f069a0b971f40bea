//! Whole lives: connections of all kinds that come about and end in all ways, and both ends' accounts of them.
//!
//! A server process and a client process, each with as many threads as connections are open at a time. A thread of one
//! and a thread of the other make a lane and agree on each step, so that what happens is the same every time.

mod abort;
mod connects;
mod endings;
mod handshakes;
mod lane;
mod living;
mod place;
mod silence;
mod table;

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use super::args::Args;
use super::process::{enter_netns, fork_child, wait_all};
use super::report::{Line, Skipped};
use lane::{Lane, Place};
use place::Silence;
use table::Scenario;

/// The options of this mode.
pub const OPTIONS: &[&str] = &[
    "scenarios",
    "connections",
    "at-once",
    "address",
    "device",
    "server-netns",
    "client-netns",
    "server-comm",
    "client-comm",
];

struct Plan {
    place: Place,
    /// They come one after the other, again and again.
    scenarios: Vec<&'static Scenario>,
    connections: usize,
    lanes: usize,
}

/// The names of the scenarios that a mix is made of.
#[must_use]
pub fn common_scenarios() -> Vec<&'static str> {
    table::TABLE.iter().filter(|scenario| scenario.share > 0).map(|scenario| scenario.name).collect()
}

/// The names of the scenarios that are run one at a time: they are slow, or change the place they are in.
#[must_use]
pub fn special_scenarios() -> Vec<&'static str> {
    table::TABLE.iter().filter(|scenario| scenario.share == 0).map(|scenario| scenario.name).collect()
}

/// The first kernel, major and minor, that can certainly do the scenario of that name.
#[must_use]
pub fn since(name: &str) -> Option<(u32, u32)> {
    table::by_name(name).map(|scenario| scenario.since)
}

/// Lives through all connections. Both ends print what they have done.
pub fn run(args: &Args) -> Result<()> {
    let device = args.path("device").map(|name| name.to_string_lossy().into_owned());
    let scenarios = match args.text("scenarios", "mixed") {
        "mixed" => table::mix(device.is_some()),
        names => named(names, device.is_some())?,
    };
    let place = Place { address: args.address("address")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), device };
    let connections = args.value("connections", scenarios.len())?;
    let lanes = args.value("at-once", 1_usize)?.clamp(1, 256);
    let plan = Plan { place, scenarios, connections, lanes };
    if plan.scenarios.is_empty() {
        return Ok(());
    }
    let pairs = (0..plan.lanes).map(|_| UnixStream::pair()).collect::<std::io::Result<Vec<_>>>()?;
    // A thread must see that its partner is gone, so neither process may hold the other one's ends.
    let mut ends: Option<(Vec<_>, Vec<_>)> = Some(pairs.into_iter().unzip());
    let server = fork_child(args.text("server-comm", "ow-srv"), || {
        let (ends, _) = ends.take().context("taken once")?;
        enter_netns(args.path("server-netns").as_deref())?;
        in_lanes(&plan, ends, Lane::server)
    })?;
    let client = fork_child(args.text("client-comm", "ow-cli"), || {
        let (_, ends) = ends.take().context("taken once")?;
        enter_netns(args.path("client-netns").as_deref())?;
        let silence = |device: &String| Silence::of(place::silent(plan.place.address), device);
        let _silence = plan.place.device.as_ref().map(silence).transpose()?;
        in_lanes(&plan, ends, Lane::client)
    })?;
    drop(ends);
    wait_all(vec![server, client])
}

fn named(names: &str, with_device: bool) -> Result<Vec<&'static Scenario>> {
    let mut scenarios = Vec::new();
    for name in names.split(',') {
        let scenario = table::by_name(name).with_context(|| format!("no scenario {name:?}"))?;
        ensure!(with_device || !scenario.needs_device, "{name} needs --device");
        match (scenario.cannot)() {
            None => scenarios.push(scenario),
            Some(why) => Line::Skipped(Skipped { op: name.to_owned(), skipped: why }).print()?,
        }
    }
    Ok(scenarios)
}

type Half<'a> = fn(&'a Place, &'a Scenario, UnixStream) -> Result<Lane<'a>>;

/// Every lane takes its share of the connections: both halves know which.
fn in_lanes<'a>(plan: &'a Plan, ends: Vec<UnixStream>, half: Half<'a>) -> Result<()> {
    thread::scope(|scope| {
        let work = |(first, other)| {
            scope.spawn(move || {
                let mut lane = half(&plan.place, plan.scenarios[0], other)?;
                for number in (first..plan.connections).step_by(plan.lanes) {
                    lane.live(number as u64, plan.scenarios[number % plan.scenarios.len()])?;
                }
                Ok(())
            })
        };
        let threads: Vec<_> = ends.into_iter().enumerate().map(work).collect();
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| bail!("a thread panicked"));
            outcome = outcome.and(ended);
        }
        outcome
    })
}
