//! Runs commands in the order of their dependencies, in parallel where these allow it, each with its
//! output in a file, and sums up.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::console::Tally;
use crate::{failures, shell};

/// One command of a run.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// Stages without whose success this one is pointless.
    pub(crate) needs: &'static [&'static str],
    /// Stages that must have ended, in whatever way.
    pub(crate) after: &'static [&'static str],
    pub(crate) command: Command,
}

impl Stage {
    pub(crate) fn needs(self, needs: &'static [&'static str]) -> Stage {
        Stage { needs, ..self }
    }

    pub(crate) fn after(self, after: &'static [&'static str]) -> Stage {
        Stage { after, ..self }
    }

    /// Gives way to the stages that measure times.
    pub(crate) fn gently(self) -> Stage {
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(self.command.get_program()).args(self.command.get_args());
        if let Some(dir) = self.command.get_current_dir() {
            command.current_dir(dir);
        }
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Stage { command, ..self }
    }

    fn is_ready(&self, done: &[Done]) -> bool {
        self.needs.iter().chain(self.after).all(|name| done.iter().any(|other| other.name == *name))
    }

    /// A stage that this one needs and that did not pass.
    fn blocked_by(&self, done: &[Done]) -> Option<&'static str> {
        let failed = |need: &&&str| done.iter().any(|other| other.name == **need && other.result != Outcome::Passed);
        self.needs.iter().find(failed).copied()
    }
}

struct Done {
    name: &'static str,
    took: Duration,
    tally: Tally,
    result: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// Not run, because this one failed.
    Skipped(&'static str),
}

/// Runs the stages, each as soon as those before it have ended; prints at the end how each went,
/// and for a failed one what failed.
///
/// A stage without tests of its own counts as one. Returns whether everything passed.
pub(crate) fn run(stages: Vec<Stage>) -> Result<bool> {
    let logs = logs()?;
    let order: Vec<&str> = stages.iter().map(|stage| stage.name).collect();
    let start = Instant::now();
    let mut done = run_graph(stages, |stage| attempt(stage.name, &mut stage.command, &logs))?;
    done.sort_by_key(|stage| order.iter().position(|name| *name == stage.name));
    let mut total = Tally::default();
    for stage in done.iter().filter(|stage| stage.result == Outcome::Failed) {
        println!("\n==== {}: what failed ====", stage.name);
        println!("{}", failures::of(&log(&logs, stage.name)).trim_end());
    }
    println!("\n==== summary: {} s ====", start.elapsed().as_secs());
    for stage in &done {
        println!("{}", line(stage));
        total.add(stage.tally);
    }
    println!("{total}");
    Ok(total.failed == 0)
}

/// Runs each stage in a thread of its own, when its turn has come. Returns them in the order in
/// which they ended.
fn run_graph(
    mut waiting: Vec<Stage>,
    attempt: impl Fn(&mut Stage) -> Result<(Tally, Outcome)> + Sync,
) -> Result<Vec<Done>> {
    let mut done: Vec<Done> = Vec::new();
    let attempt = &attempt;
    thread::scope(|scope| {
        let (sender, ended) = mpsc::channel();
        let mut running = 0;
        loop {
            while let Some(index) = waiting.iter().position(|stage| stage.is_ready(&done)) {
                let mut stage = waiting.remove(index);
                if let Some(need) = stage.blocked_by(&done) {
                    let tally = Tally { passed: 0, failed: 1 };
                    let skipped =
                        Done { name: stage.name, took: Duration::ZERO, tally, result: Outcome::Skipped(need) };
                    println!("{}", line(&skipped));
                    done.push(skipped);
                    continue;
                }
                println!("==> {}", stage.name);
                running += 1;
                let sender = sender.clone();
                scope.spawn(move || {
                    let start = Instant::now();
                    let outcome = attempt(&mut stage);
                    // The receiver is there until every stage has ended, or one could not be
                    // started.
                    let _ = sender.send((stage.name, start.elapsed(), outcome));
                });
            }
            if running == 0 {
                break;
            }
            let (name, took, outcome) = ended.recv().context("a stage has vanished")?;
            running -= 1;
            let (tally, result) = outcome?;
            let now = Done { name, took, tally, result };
            println!("{}", line(&now));
            done.push(now);
        }
        if let Some(stage) = waiting.first() {
            bail!("the stage {} waits for one that never runs", stage.name);
        }
        Ok(done)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn stage(name: &'static str) -> Stage {
        Stage { name, needs: &[], after: &[], command: Command::new("true") }
    }

    fn outcome(name: &str) -> (Tally, Outcome) {
        if name == "bad" {
            (Tally { passed: 0, failed: 1 }, Outcome::Failed)
        } else {
            (Tally { passed: 1, failed: 0 }, Outcome::Passed)
        }
    }

    #[test]
    fn a_stage_runs_after_those_it_waits_for_and_not_without_those_it_needs() {
        let stages = vec![
            stage("last").needs(&["good"]).after(&["bad"]),
            stage("never").needs(&["good", "bad"]),
            stage("nor this").needs(&["never"]),
            stage("good"),
            stage("bad").after(&["good"]),
        ];
        let begun = Mutex::new(Vec::new());
        let done = run_graph(stages, |stage| {
            begun.lock().unwrap().push(stage.name);
            Ok(outcome(stage.name))
        })
        .unwrap();
        assert_eq!(*begun.lock().unwrap(), ["good", "bad", "last"]);
        let result = |name| &done.iter().find(|stage| stage.name == name).unwrap().result;
        assert_eq!(result("last"), &Outcome::Passed);
        assert_eq!(result("never"), &Outcome::Skipped("bad"));
        assert_eq!(result("nor this"), &Outcome::Skipped("never"));
    }

    #[test]
    fn stages_that_do_not_wait_for_each_other_run_at_the_same_time() {
        // Each of them ends only when the other has begun.
        let both = std::sync::Barrier::new(2);
        let done = run_graph(vec![stage("a"), stage("b")], |stage| {
            both.wait();
            Ok(outcome(stage.name))
        });
        assert_eq!(done.unwrap().len(), 2);
    }

    #[test]
    fn a_stage_that_waits_for_nothing_real_is_an_error() {
        assert!(run_graph(vec![stage("a").after(&["b"])], |stage| Ok(outcome(stage.name))).is_err());
    }
}
