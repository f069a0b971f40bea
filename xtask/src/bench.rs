//! `cargo xtask bench`: what overwatch costs, counted in guests, beside tcptop of libbpf-tools in the same guest.
//!
//! Under QEMU's `-icount shift=0` an instruction takes a nanosecond, so the kernel's own run-time statistics of BPF
//! programs count instructions, and two runs agree.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::guest::Guest;
use crate::kernels;
use crate::programs;
use crate::shell;

/// Measure instructions per event, memory, size and start-up, beside tcptop
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

const SCRIPT: &str = include_str!("../guest/bench.sh");
const TOOLS: [&str; 4] = ["bpftool", "tcptop", "date", "dd"];
/// The oldest kernel of the fentry and kprobe tiers that distributions ship widely, and the first here with the third tier.
const RUNS: [(&str, &str); 2] = [("6.1", "fentry kprobe"), ("6.12", "fentry kprobe tracepoint")];

pub(crate) fn run(_args: &Args) -> Result<ExitCode> {
    let programs = programs::build()?;
    println!("| what | value |\n|---|--:|");
    println!("| release binary, bytes | {} |", size(&programs.overwatch)?);
    for (name, tiers) in RUNS {
        let mut guest = Guest::new(kernels::by_name(name)?.fetch()?, format!("TIERS='{tiers}'\n{SCRIPT}"));
        guest.icount = true;
        guest.timeout = Duration::from_secs(1200);
        guest.programs.push((programs.overwatch.clone(), "/usr/bin/overwatch".to_owned()));
        guest.programs.push((programs.traffic.clone(), "/usr/bin/traffic".to_owned()));
        for tool in TOOLS {
            let path = shell::find(tool).with_context(|| format!("{tool} is missing: run `cargo xtask setup`"))?;
            guest.programs.push((path, format!("/usr/bin/{tool}")));
        }
        let report = guest.boot(|_| {})?;
        if let Some(problem) = report.problem() {
            bail!("guest {name}: {problem}\n{}", report.tail());
        }
        let said = report.script();
        let measures: Vec<_> = said.lines().filter_map(measure).collect();
        if measures.is_empty() {
            bail!("guest {name} measured nothing:\n{}", report.tail());
        }
        for (what, value) in measures {
            println!("| {name} {what} | {value} |");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn size(path: &Path) -> Result<u64> {
    Ok(path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len())
}

/// `measure fentry/sendmsg_exit 269` is a measure.
fn measure(line: &str) -> Option<(&str, i64)> {
    let (what, value) = line.trim().strip_prefix("measure ")?.split_once(' ')?;
    Some((what, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::measure;

    #[test]
    fn only_whole_measures_count() {
        for (line, wanted) in [
            ("measure fentry/sendmsg_exit 269\r", Some(("fentry/sendmsg_exit", 269))),
            ("measure x ", None),
            ("measured x 1", None),
            ("", None),
        ] {
            assert_eq!(measure(line), wanted, "{line:?}");
        }
    }
}
