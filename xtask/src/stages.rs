//! Runs a list of commands, each with its output in a file, and sums up.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::console::Tally;
use crate::{failures, shell};

/// One step on the way.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// Stages without whose success this one is pointless.
    pub(crate) needs: &'static [&'static str],
    pub(crate) command: Command,
}

impl Stage {
    pub(crate) fn needs(self, needs: &'static [&'static str]) -> Stage {
        Stage { needs, ..self }
    }
}

struct Done {
    name: &'static str,
    took: Duration,
    tally: Tally,
    result: Outcome,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// Not run, because this one failed.
    Skipped(&'static str),
}

/// Runs the stages in order; says at the end how each went, and for a failed one what failed.
///
/// A stage without tests of its own counts as one. Returns whether everything passed.
pub(crate) fn run(stages: Vec<Stage>) -> Result<bool> {
    let logs = logs()?;
    let mut done: Vec<Done> = Vec::new();
    for mut stage in stages {
        let blocked = stage
            .needs
            .iter()
            .find(|need| done.iter().any(|other| other.name == **need && other.result != Outcome::Passed));
        let start = Instant::now();
        let (tally, result) = match blocked {
            Some(need) => (Tally { passed: 0, failed: 1 }, Outcome::Skipped(need)),
            None => {
                println!("==> {}", stage.name);
                attempt(stage.name, &mut stage.command, &logs)?
            }
        };
        let now = Done { name: stage.name, took: start.elapsed(), tally, result };
        println!("{}", line(&now));
        done.push(now);
    }
    let mut total = Tally::default();
    for stage in done.iter().filter(|stage| stage.result == Outcome::Failed) {
        println!("\n==== {}: what failed ====", stage.name);
        println!("{}", failures::of(&log(&logs, stage.name)).trim_end());
    }
    println!("\n==== summary ====");
    for stage in &done {
        println!("{}", line(stage));
        total.add(stage.tally);
    }
    println!("{total}");
    Ok(total.failed == 0)
}

/// Where the output of stages and guests goes.
pub(crate) fn logs() -> Result<std::path::PathBuf> {
    let logs = shell::cache_dir().join("xtask-logs");
    shell::create_dir(&logs)?;
    Ok(logs)
}

fn attempt(name: &str, command: &mut Command, logs: &Path) -> Result<(Tally, Outcome)> {
    let path = logs.join(format!("{name}.log"));
    let out = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let err = out.try_clone().with_context(|| format!("cannot write {}", path.display()))?;
    let status = command.stdout(out).stderr(err).status().with_context(|| format!("cannot start the stage {name}"))?;
    let mut tally = Tally::of_log(&log(logs, name));
    if tally == Tally::default() && status.success() {
        tally.passed = 1;
    }
    if status.success() && tally.failed == 0 {
        return Ok((tally, Outcome::Passed));
    }
    // It may have failed before its first test, or between two.
    tally.failed = tally.failed.max(1);
    Ok((tally, Outcome::Failed))
}

fn log(logs: &Path, name: &str) -> String {
    let bytes = fs::read(logs.join(format!("{name}.log"))).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn line(stage: &Done) -> String {
    let Done { name, took, tally, result } = stage;
    match result {
        Outcome::Passed => format!("{name:<14} ok      {:>5} s  {tally}", took.as_secs()),
        Outcome::Failed => format!("{name:<14} FAILED  {:>5} s  {tally}", took.as_secs()),
        Outcome::Skipped(need) => format!("{name:<14} not run, because {need} failed"),
    }
}
