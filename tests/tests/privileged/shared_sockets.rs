//! Shared sockets: every byte is on the row of the process that made the call, under that process's name, and the
//! connection's total is the sum.

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::{Host, Tier};
use overwatch_tests::harness::judge::{Expect, by_end, judge, rows_of};
use overwatch_tests::harness::overwatch::Top;
use overwatch_tests::harness::traffic;

const WAYS: [&str; 4] = ["fork", "scm", "turns", "thread"];

fn measure(tier: Tier) -> Result<Vec<String>> {
    let top = Top::start(Some(tier), &[])?;
    let mut all = Vec::new();
    for (index, how) in WAYS.into_iter().enumerate() {
        let bytes = 50_021 + 1_110 * index;
        all.push(traffic::run(&["shared", "--how", how, "--bytes", &bytes.to_string()])?);
    }
    let run = top.stop()?;
    let mut problems = Vec::new();
    for traffic in &all {
        for end in by_end(&traffic.reports) {
            problems.extend(judge(&run.intervals, &end, Expect::Exact).problems);
            // A process that only accepted and handed on moved nothing, so it has no row.
            for idle in end.iter().filter(|report| report.sent + report.received == 0) {
                let row = rows_of(&run.intervals, idle).into_iter().find(|row| row.pid == Some(idle.pid));
                problems.extend(row.map(|row| format!("a row for {}, which moved nothing: {row:?}", idle.comm)));
            }
        }
    }
    Ok(problems.into_iter().map(|problem| format!("{tier}: {problem}")).collect())
}

#[test]
fn bytes_belong_to_the_process_that_made_the_call() -> Result<()> {
    let host = Host::take()?;
    let mut problems = Vec::new();
    for tier in host.tiers()? {
        problems.extend(measure(tier)?);
    }
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}
