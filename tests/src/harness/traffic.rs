//! Running the traffic program.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::host::{patience, traffic_binary};
use super::proc::{Proc, must};
use crate::traffic::report::{Life, Line, Report, Skipped, Sums};

/// What a run of the traffic program printed.
#[derive(Debug, Default)]
pub struct Traffic {
    /// The ends of connections.
    pub reports: Vec<Report>,
    /// The lives of ends of connections.
    pub lives: Vec<Life>,
    /// The processes of a flood.
    pub sums: Vec<Sums>,
    /// What this kernel cannot do.
    pub skipped: Vec<Skipped>,
}

/// A command that runs the traffic program.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(traffic_binary()?);
    command.args(arguments);
    Ok(command)
}

/// Runs the traffic program to its end.
pub fn run(arguments: &[&str]) -> Result<Traffic> {
    let mut traffic = Traffic::default();
    for line in must(command(arguments)?, patience(120))?.stdout.lines() {
        traffic.take(parse(line)?);
    }
    Ok(traffic)
}

fn parse(line: &str) -> Result<Line> {
    serde_json::from_str(line).with_context(|| format!("not a line of the traffic program: {line}"))
}

impl Traffic {
    fn take(&mut self, line: Line) {
        match line {
            Line::Report(report) => self.reports.push(report),
            Line::Life(life) => self.lives.push(life),
            Line::Sums(sums) => self.sums.push(sums),
            Line::Skipped(skipped) => self.skipped.push(skipped),
            Line::Step(_) | Line::Event(_) => {}
        }
    }
}

/// A flood that runs while the test does something else.
#[derive(Debug)]
pub struct Flood(Proc);

impl Flood {
    /// Starts it.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["flood"];
        all.extend(arguments);
        Ok(Self(Proc::start(command(&all)?)?))
    }

    /// Waits for its first sign of progress.
    pub fn wait_for_progress(&self) -> Result<()> {
        while let Some(line) = self.0.line(patience(60))? {
            if matches!(parse(&line)?, Line::Event(event) if event.event == "progress") {
                return Ok(());
            }
        }
        bail!("the flood ended too early: {}", self.0.stderr())
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Vec<Sums>> {
        let output = self.0.finish(patience(120))?;
        ensure!(output.code == Some(0), "the flood failed: {}", output.stderr);
        let mut traffic = Traffic::default();
        for line in output.stdout.lines() {
            traffic.take(parse(line)?);
        }
        Ok(traffic.sums)
    }
}

/// A connection that stays and moves bytes when it is told to.
#[derive(Debug)]
pub struct Hold {
    process: Proc,
    last: Vec<Report>,
}

impl Hold {
    /// Opens the connection.
    pub fn open(arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["hold"];
        all.extend(arguments);
        let mut hold = Self { process: Proc::start(command(&all)?)?, last: Vec::new() };
        hold.read_until("ready")?;
        Ok(hold)
    }

    fn read_until(&mut self, event: &str) -> Result<()> {
        self.last.clear();
        while let Some(line) = self.process.line(patience(60))? {
            match parse(&line)? {
                Line::Event(said) if said.event == event => return Ok(()),
                Line::Report(report) => self.last.push(report),
                other => bail!("the holder said {other:?} where {event} was expected"),
            }
        }
        bail!("the holder is gone: {}", self.process.stderr())
    }

    fn command(&mut self, command: &str) -> Result<Vec<Report>> {
        self.process.tell(command)?;
        self.read_until("done")?;
        Ok(self.last.clone())
    }

    /// Moves bytes to the server and back. What both ends have counted since the beginning comes back.
    pub fn send(&mut self, to_server: usize, to_client: usize) -> Result<Vec<Report>> {
        self.send_by(to_server, to_client, "")
    }

    /// The same by an operation of the table.
    pub fn send_by(&mut self, to_server: usize, to_client: usize, operation: &str) -> Result<Vec<Report>> {
        let reports = self.command(format!("send {to_server} {to_client} {operation}").trim_end())?;
        ensure!(reports.len() == 2, "two ends report, not {reports:?}");
        Ok(reports)
    }

    /// Sends bytes that the server does not receive yet.
    pub fn push(&mut self, bytes: usize) -> Result<Vec<Report>> {
        self.command(&format!("push {bytes}"))
    }

    /// Lets the server receive bytes that were pushed.
    pub fn pull(&mut self, bytes: usize) -> Result<Vec<Report>> {
        self.command(&format!("pull {bytes}"))
    }

    /// Lets the server accept, when it was opened with `--accept late`.
    pub fn accept(&mut self) -> Result<Vec<Report>> {
        self.command("accept")
    }

    /// Takes the client to another network namespace.
    pub fn move_client(&mut self, netns: &Path) -> Result<()> {
        self.command(&format!("move {}", netns.display())).map(drop)
    }

    /// Closes the connection.
    pub fn close(mut self) -> Result<()> {
        self.process.close_stdin();
        let output = self.process.finish(patience(30))?;
        ensure!(output.code == Some(0), "the holder failed: {}", output.stderr);
        // Both ends have closed; their goodbyes take a moment.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }
}

/// A process of a storm, which goes on until it is killed.
#[derive(Debug)]
pub struct Storm(Proc);

impl Storm {
    /// Starts it.
    pub fn start(part: &str, arguments: &[&str]) -> Result<Self> {
        let mut process = Proc::start(command(&[&["storm", "--part", part], arguments].concat())?)?;
        process.close_stdin();
        Ok(Self(process))
    }

    /// Waits until all of its connections are, or have been, under way.
    pub fn wait_until_ready(&self) -> Result<()> {
        match self.0.line(patience(20))? {
            Some(line) if matches!(parse(&line)?, Line::Event(event) if event.event == "ready") => Ok(()),
            other => bail!("{}: {other:?} where ready was expected; {}", self.0.what(), self.0.stderr()),
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills all of `storms`, and then waits for their ends.
    pub fn kill(storms: impl IntoIterator<Item = Self>) -> Result<()> {
        let mut killed = Vec::new();
        for storm in storms {
            storm.0.signal(Signal::SIGKILL)?;
            killed.push(storm.0);
        }
        killed.iter_mut().try_for_each(|process| process.wait(patience(20)).map(drop))
    }
}
