//! Exact bytes: for each way to move them, in each tier and family, what overwatch shows for a connection equals, to
//! the byte, what its two ends counted themselves, with the right process and name.

use std::env;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{self, Host, Tier};
use overwatch_tests::harness::judge::{Expect, by_end, judge};
use overwatch_tests::harness::operations::{Outcome, Table};
use overwatch_tests::harness::overwatch::{Run, Top};
use overwatch_tests::harness::rows::{Bytes, Row, lost, rows, skipped, unattributed};
use overwatch_tests::harness::traffic::{self, Traffic};
use overwatch_tests::traffic::ops;

/// Where a tier does not see the call, the total must be right by the time the connection closes.
fn expectation(op: &str, tier: Tier) -> Expect {
    match (op, tier) {
        ("zerocopy_receive", _) | ("splice_from_socket", Tier::Tracepoint) => Expect::ExactAtClose,
        _ => Expect::Exact,
    }
}

/// One run of overwatch in `tier`, all operations in all families; what came out goes to the table.
fn measure(tier: Tier, table: &mut Table) -> Result<Vec<String>> {
    let top = Top::start(Some(tier), &[])?;
    let traffic = traffic::run(&["pair"])?;
    let run = top.stop()?;
    let mut problems = Vec::new();

    for op in ops::table() {
        if let Some(skip) = traffic.skipped.iter().find(|skip| skip.op == op.name) {
            eprintln!("{tier}: skipped: {}: {}", skip.op, skip.skipped);
            if host::demanded_tiers()?.is_some() && host::kernel_version()? >= op.since {
                problems.push(format!("{}: left out, but Linux {:?} has it: {}", op.name, op.since, skip.skipped));
            }
            table.note(op.name, tier, Outcome::KernelCannot);
        }
    }
    for end in by_end(&traffic.reports) {
        let Some(first) = end.first() else { continue };
        let expected = expectation(&first.op, tier);
        // Where the kernel skipped programs, any operation may have had to be made good, which says nothing about the tier.
        let expect = if skipped(&run.intervals) > 0 { Expect::ExactAtClose } else { expected };
        let finding = judge(&run.intervals, &end, expect);
        let outcome = match (finding.problems.is_empty(), finding.reconciled) {
            (false, _) => Outcome::Wrong,
            (true, true) if expect != expected => continue,
            (true, false) => Outcome::Exact,
            (true, true) => Outcome::ExactAtClose,
        };
        table.note(&first.op, tier, outcome);
        problems.extend(finding.problems);
    }
    problems.extend(left_over(&run, &traffic));
    Ok(problems.into_iter().map(|problem| format!("{tier}: {problem}")).collect())
}

/// Nothing may be left over, as far as this traffic is concerned: others of the host may have done as they like.
fn left_over(run: &Run, traffic: &Traffic) -> Vec<String> {
    let reported = |pid| traffic.reports.iter().any(|report| Some(report.pid) == pid);
    // The traffic program tries some operations on itself before it begins.
    let ours = |row: &Row| reported(row.pid) || row.comm.as_deref() == Some("traffic");
    if let Some(other) = rows(&run.intervals).find(|row| !ours(row)) {
        eprintln!("not alone on this host ({:?}): unattributed bytes and lost events are not judged", other.comm);
        return Vec::new();
    }
    let mut problems = Vec::new();
    if unattributed(&run.intervals) != Bytes::default() && skipped(&run.intervals) == 0 {
        problems.push(format!("{:?} unattributed", unattributed(&run.intervals)));
    }
    if lost(&run.intervals) != 0 {
        problems.push(format!("{} events lost", lost(&run.intervals)));
    }
    problems
}

#[test]
fn every_operation_in_every_tier_and_family() -> Result<()> {
    let host = Host::take()?;
    let mut table = Table::default();
    let mut problems = Vec::new();
    for tier in host.tiers()? {
        problems.extend(measure(tier, &mut table).with_context(|| format!("tier {tier}"))?);
    }
    if let Ok(path) = env::var("OVERWATCH_OPERATIONS_TABLE") {
        let text = fs::read_to_string(&path).with_context(|| format!("OVERWATCH_OPERATIONS_TABLE={path}"))?;
        problems.extend(table.contradictions(&Table::parse(&text)).into_iter().map(|line| format!("{path}: {line}")));
    }
    if let Ok(path) = env::var("OVERWATCH_WRITE_TABLE") {
        if let Ok(older) = fs::read_to_string(&path) {
            table.complete_from(&Table::parse(&older));
        }
        fs::write(&path, table.markdown()).with_context(|| format!("OVERWATCH_WRITE_TABLE={path}"))?;
    }
    println!("{}", table.markdown());
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

#[test]
fn the_table_survives_being_written_and_read() {
    let mut table = Table::default();
    table.note("write", Tier::Fentry, Outcome::Exact);
    table.note("splice", Tier::Tracepoint, Outcome::Exact);
    table.note("splice", Tier::Tracepoint, Outcome::ExactAtClose);
    table.note("new", Tier::Kprobe, Outcome::KernelCannot);
    let read = Table::parse(&table.markdown());
    assert!(table.contradictions(&read).is_empty());
    assert_eq!(read.markdown(), table.markdown());

    let mut other = Table::default();
    other.note("write", Tier::Fentry, Outcome::ExactAtClose);
    other.note("write", Tier::Kprobe, Outcome::Exact);
    other.note("splice", Tier::Tracepoint, Outcome::KernelCannot);
    assert_eq!(other.contradictions(&read).len(), 2, "{:?}", other.contradictions(&read));
    other.complete_from(&read);
    assert!(other.markdown().contains("| `splice` |  |  | exact at close |"), "{}", other.markdown());
}
