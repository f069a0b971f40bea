//! `overwatch check`: whether this host can run the main job, and in which tier.

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::{Host, Tier, demanded_tiers};
use overwatch_tests::harness::overwatch;

#[test]
fn says_that_this_host_can_run_it() -> Result<()> {
    let _host = Host::take()?;
    let output = overwatch::output(&["check", "-o", "json"])?;
    ensure!(output.code == Some(0), "exit {:?}; stderr:\n{}", output.code, output.stderr);
    let answer: serde_json::Value = serde_json::from_str(output.stdout.trim())?;
    ensure!(answer["can_run"] == true, "can_run is {}", answer["can_run"]);
    let chosen = answer["tier"].as_str().unwrap_or_default();
    ensure!(Tier::ALL.iter().any(|tier| tier.name() == chosen), "the tier is {chosen:?}");
    if let Some(demanded) = demanded_tiers()? {
        // The first that is there is the cheapest, and the one to take.
        let best = demanded.iter().min().map(|tier| tier.name());
        ensure!(best == Some(chosen), "of {demanded:?} it chose {chosen}");
    }
    Ok(())
}

#[test]
fn says_it_for_people_too() -> Result<()> {
    let _host = Host::take()?;
    let output = overwatch::output(&["check"])?;
    ensure!(output.code == Some(0), "exit {:?}; stderr:\n{}", output.code, output.stderr);
    ensure!(output.stdout.lines().count() > 3, "facts, plan and outcome are more than this:\n{}", output.stdout);
    ensure!(output.stdout.contains("BTF"), "what this kernel offers is told:\n{}", output.stdout);
    Ok(())
}

#[test]
fn every_tier_that_is_here_can_be_forced() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        let output = overwatch::output(&["check", "-o", "json", "--attach", tier.name()])?;
        ensure!(output.code == Some(0), "{tier}: exit {:?}; stderr:\n{}", output.code, output.stderr);
        let answer: serde_json::Value = serde_json::from_str(output.stdout.trim())?;
        ensure!(answer["tier"] == tier.name(), "asked for {tier}, got {}", answer["tier"]);
    }
    Ok(())
}
