//! `overwatch life` against the two ends: every connection of a mixed lot has one line, and the line says what both ends
//! recorded themselves.

use anyhow::{Context as _, Result};
use overwatch_tests::harness::host::{Host, Tier, in_guest};
use overwatch_tests::harness::lives::{Tolerance, judge};
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::stream;
use overwatch_tests::harness::traffic;

fn measure(tier: Tier, place: &[&str], connections: usize) -> Result<()> {
    let life = stream::life(Some(tier), &[])?;
    let text = connections.to_string();
    let traffic = traffic::run(&[&["lives"], place, &["--connections", &text, "--at-once", "8"]].concat())?;
    let (run, left_out) = life.stop_counting()?;
    let mut problems = judge(&run.lines, &traffic.lives, Tolerance::here());
    for lost in &run.lost {
        problems.wrong(format!("lost: {lost:?}"));
    }
    problems.judge(left_out).with_context(|| format!("{tier}: {} lives", traffic.lives.len()))
}

#[test]
fn ten_thousand_mixed_connections_between_two_namespaces() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        let joined = Joined::new("life")?;
        let place = [&joined.place()[..], &["--device", Joined::DEVICE]].concat();
        measure(tier, &place, if in_guest() { 600 } else { 10_000 })?;
    }
    Ok(())
}

#[test]
fn mixed_connections_over_ipv6_within_one_namespace() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        let netns = NetNs::new("life-six")?;
        let place = ["--address", "::1", "--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
        measure(tier, &place, if in_guest() { 100 } else { 1_000 })?;
    }
    Ok(())
}
