//! Running overwatch.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::bpf;
use super::host::{Tier, overwatch_binary, patience};
use super::proc::{Output, Proc, run};
use super::rows::Interval;

/// `overwatch top -o json 1`, attached and seeded.
#[derive(Debug)]
pub struct Top {
    process: Proc,
    intervals: Vec<Interval>,
}

/// What a run of overwatch left.
#[derive(Debug)]
pub struct Run {
    /// Everything that it printed.
    pub intervals: Vec<Interval>,
    /// Its stderr.
    pub stderr: String,
}

/// A command that runs overwatch.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(overwatch_binary());
    command.args(arguments);
    command
}

/// Runs overwatch to its own end.
pub fn output(arguments: &[&str]) -> Result<Output> {
    run(command(arguments), patience(60))
}

/// What `overwatch check -o json` says, whatever its exit code.
pub fn check(arguments: &[&str]) -> Result<serde_json::Value> {
    let mut all = vec!["check", "-o", "json"];
    all.extend(arguments);
    let output = output(&all)?;
    serde_json::from_str(output.stdout.trim())
        .with_context(|| format!("overwatch check printed {:?}, and on stderr {:?}", output.stdout, output.stderr))
}

impl Top {
    /// Starts it in `tier`, or in the best there is, and waits until it sees everything.
    pub fn start(tier: Option<Tier>, extra: &[&str]) -> Result<Self> {
        let mut arguments = vec!["top", "-o", "json", "-v", "--attach", tier.map_or("auto", Tier::name)];
        arguments.extend(extra);
        arguments.push("1");
        Self::start_command(command(&arguments))
    }

    /// The same with a command of the caller's.
    pub fn start_command(command: Command) -> Result<Self> {
        let mut process = Proc::start(command)?;
        process.close_stdin();
        process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
        Ok(Self { process, intervals: Vec::new() })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Reads intervals until `enough` is satisfied by all that came so far.
    pub fn read_until(&mut self, seconds: u64, enough: impl Fn(&[Interval]) -> bool) -> Result<&[Interval]> {
        let deadline = Instant::now() + patience(seconds);
        while !enough(&self.intervals) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = self.process.line(left)? else {
                bail!("{} ended; its stderr:\n{}", self.process.what(), self.process.stderr());
            };
            self.intervals.push(parse(&line)?);
        }
        Ok(&self.intervals)
    }

    /// Ends it as a user does, and takes the rest of what it prints.
    pub fn stop(self) -> Result<Run> {
        // Connections that were closed a moment ago are still saying goodbye.
        std::thread::sleep(Duration::from_millis(300));
        let left_out = bpf::runs_left_out(self.process.id()).unwrap_or_default();
        if left_out > 0 {
            println!("the kernel left out {left_out} runs of overwatch's programs");
        }
        self.process.signal(Signal::SIGINT)?;
        let Self { process, mut intervals } = self;
        let output = process.finish(patience(60))?;
        ensure!(output.code == Some(0), "SIGINT: ended with {:?}; stderr:\n{}", output.code, output.stderr);
        for line in output.stdout.lines() {
            intervals.push(parse(line)?);
        }
        Ok(Run { intervals, stderr: output.stderr })
    }

    /// Ends it at once, so that it cannot clean up.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(patience(30))?;
        Ok(())
    }
}

/// Reads one line of output.
pub fn parse(line: &str) -> Result<Interval> {
    serde_json::from_str(line).with_context(|| format!("not an interval of `top -o json`: {line}"))
}
