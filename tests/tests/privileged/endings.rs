//! How a connection ended: `overwatch life` names it as the calls of its ends did, also in the unusual cases.

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{Host, Tier};
use overwatch_tests::harness::lives::{Tolerance, judge};
use overwatch_tests::harness::netns::Joined;
use overwatch_tests::harness::stream;
use overwatch_tests::harness::traffic;
use overwatch_tests::traffic::lives;

/// Lives through each of the scenarios by itself, under one overwatch.
fn measure(tier: Tier, scenarios: &[&str]) -> Result<()> {
    let joined = Joined::new("ends")?;
    let life = stream::life(Some(tier), &[])?;
    let mut recorded = Vec::new();
    for scenario in scenarios {
        let more = ["--device", Joined::DEVICE, "--scenarios", scenario];
        let traffic =
            traffic::run(&[&["lives"], &joined.place()[..], &more].concat()).with_context(|| (*scenario).to_owned())?;
        for skipped in &traffic.skipped {
            println!("skipped: {}: {}", skipped.op, skipped.skipped);
        }
        recorded.extend(traffic.lives);
    }
    let (run, left_out) = life.stop_counting()?;
    let mut problems = judge(&run.lines, &recorded, Tolerance::here());
    for lost in &run.lost {
        problems.wrong(format!("lost: {lost:?}"));
    }
    problems.judge(left_out).with_context(|| tier.to_string())
}

fn in_every_tier(scenarios: &[&str]) -> Result<()> {
    let host = Host::take()?;
    let failed: Vec<_> = host.tiers()?.into_iter().filter_map(|tier| measure(tier, scenarios).err()).collect();
    let texts: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{}", texts.join("\n"));
    Ok(())
}

#[test]
fn each_common_ending_is_named() -> Result<()> {
    in_every_tier(&lives::common_scenarios())
}

#[test]
fn each_special_ending_is_named() -> Result<()> {
    in_every_tier(&lives::special_scenarios())
}
