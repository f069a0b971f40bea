//! Running the verbs of overwatch that print as things happen.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::bpf;
use super::host::{Tier, patience};
use super::lines::{Item, LifeItem, LifeLine, LifeLoss, OpenInterval, StateItem, StateLine, StateLoss, parse};
use super::overwatch;
use super::proc::Proc;

/// A running `overwatch life` or `states`, whose lines go into a `T` as they come.
#[derive(Debug)]
pub struct Stream<T> {
    process: Proc,
    reader: JoinHandle<Result<T>>,
}

/// All that a run printed.
#[derive(Debug)]
pub struct Printed<L, M> {
    /// The lines.
    pub lines: Vec<L>,
    /// What is missing among them.
    pub lost: Vec<M>,
}

/// All that `life` printed.
pub type Lives = Printed<LifeLine, LifeLoss>;
/// All that `states` printed.
pub type States = Printed<StateLine, StateLoss>;

impl<L, M> Default for Printed<L, M> {
    fn default() -> Self {
        Self { lines: Vec::new(), lost: Vec::new() }
    }
}

impl<L, M> Printed<L, M> {
    fn take(&mut self, item: Item<L, M>) {
        match item {
            Item::Line(line) => self.lines.push(*line),
            Item::Lost(lost) => self.lost.push(lost),
        }
    }
}

/// The arguments for a verb in `tier`, or in the best there is.
#[must_use]
pub fn arguments<'a>(verb: &'a str, tier: Option<Tier>, extra: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![verb, "-o", "json", "-v", "--attach", tier.map_or("auto", Tier::name)];
    all.extend(extra);
    all
}

/// Starts `life` and keeps all that it prints.
pub fn life(tier: Option<Tier>, extra: &[&str]) -> Result<Stream<Lives>> {
    let command = overwatch::command(&arguments("life", tier, extra));
    Stream::start(command, Lives::default(), |all, item: LifeItem| all.take(item))
}

/// Starts `states` and keeps all that it prints.
pub fn states(tier: Option<Tier>, extra: &[&str]) -> Result<Stream<States>> {
    let command = overwatch::command(&arguments("states", tier, extra));
    Stream::start(command, States::default(), |all, item: StateItem| all.take(item))
}

/// Overwatch with these arguments, behind everybody else on this host.
#[must_use]
pub fn nice(arguments: &[&str]) -> Command {
    let mut command = overwatch::command(arguments);
    // Not by nice(1): a guest has no such program.
    // SAFETY: no memory is involved; 0 is the process that calls.
    let behind = || match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the only call between fork and exec is a system call.
    unsafe { command.pre_exec(behind) };
    command
}

impl<T: Send + 'static> Stream<T> {
    /// Starts `command` and waits until it sees everything. `each` puts what it prints into `state`.
    pub fn start<L, M>(
        command: Command,
        state: T,
        mut each: impl FnMut(&mut T, Item<L, M>) + Send + 'static,
    ) -> Result<Self>
    where
        L: DeserializeOwned,
        M: DeserializeOwned,
    {
        let mut process = Proc::start(command)?;
        process.close_stdin();
        let lines = process.take_lines();
        let reader = thread::spawn(move || {
            let mut state = state;
            let mut outcome = Ok(());
            // To the end, also after a line that cannot be read: nobody else empties the pipe.
            for line in lines {
                match Item::parse(&line) {
                    Ok(item) => each(&mut state, item),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            outcome.map(|()| state)
        });
        process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
        Ok(Self { process, reader })
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

    /// Ends it as a user does. What it printed comes back.
    pub fn stop(self) -> Result<T> {
        Ok(self.stop_counting()?.0)
    }

    /// The same, with how many runs of its programs the kernel left out.
    pub fn stop_counting(self) -> Result<(T, u64)> {
        // Connections that were closed a moment ago are still saying goodbye.
        sleep(patience(1) / 3);
        let left_out = say_what_was_left_out(self.process.id());
        self.process.signal(Signal::SIGINT)?;
        Ok((self.end()?, left_out))
    }

    /// Waits until it ends by itself. What it printed comes back.
    pub fn end(self) -> Result<T> {
        let what = self.process.what().to_owned();
        let output = self.process.finish(patience(120))?;
        ensure!(output.code == Some(0), "{what} ended with {:?}; stderr:\n{}", output.code, output.stderr);
        self.reader.join().unwrap_or_else(|_| bail!("the reader panicked")).with_context(|| what)
    }
}

fn say_what_was_left_out(pid: u32) -> u64 {
    let left_out = bpf::runs_left_out(pid).unwrap_or_default();
    if left_out > 0 {
        println!("the kernel left out {left_out} runs of overwatch's programs");
    }
    left_out
}

/// A running `overwatch open`.
#[derive(Debug)]
pub struct Open {
    process: Proc,
    intervals: Vec<OpenInterval>,
}

impl Open {
    /// Starts it with an interval of a second.
    pub fn start(tier: Option<Tier>, extra: &[&str]) -> Result<Self> {
        Self::start_every("1", tier, extra)
    }

    /// Starts it with an interval of so many seconds.
    pub fn start_every(seconds: &str, tier: Option<Tier>, extra: &[&str]) -> Result<Self> {
        let mut all = arguments("open", tier, extra);
        all.push(seconds);
        let mut process = Proc::start(overwatch::command(&all))?;
        process.close_stdin();
        process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
        Ok(Self { process, intervals: Vec::new() })
    }

    /// Reads intervals until `enough` is satisfied by the last one.
    pub fn read_until(&mut self, seconds: u64, enough: impl Fn(&OpenInterval) -> bool) -> Result<&OpenInterval> {
        let deadline = Instant::now() + patience(seconds);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = self.process.line(left.max(Duration::from_millis(1)))? else {
                bail!("{} ended; its stderr:\n{}", self.process.what(), self.process.stderr());
            };
            let interval = parse(&line)?;
            let done = enough(&interval);
            self.intervals.push(interval);
            if done {
                return self.intervals.last().context("one was read just now");
            }
            ensure!(Instant::now() < deadline, "not after {seconds} seconds; the last one was {line}");
        }
    }

    /// How many runs of its programs the kernel has left out.
    #[must_use]
    pub fn runs_left_out(&self) -> u64 {
        bpf::runs_left_out(self.process.id()).unwrap_or_default()
    }

    /// The intervals that were read.
    #[must_use]
    pub fn seen(&self) -> &[OpenInterval] {
        &self.intervals
    }

    /// Ends it as a user does, and takes the rest of what it prints.
    pub fn stop(self) -> Result<Vec<OpenInterval>> {
        say_what_was_left_out(self.process.id());
        self.process.signal(Signal::SIGINT)?;
        let Self { process, mut intervals } = self;
        let output = process.finish(patience(60))?;
        ensure!(output.code == Some(0), "SIGINT: ended with {:?}; stderr:\n{}", output.code, output.stderr);
        for line in output.stdout.lines() {
            intervals.push(parse(line)?);
        }
        Ok(intervals)
    }
}
