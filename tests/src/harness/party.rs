//! Servers and clients of the traffic program, and the steps that they tell of.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::patience;
use super::netns::NetNs;
use super::proc::Proc;
use super::traffic::command;
use crate::traffic::queue::step;
use crate::traffic::report::{Line, Step};

/// A running `serve`, `call` or `knock`; it ends when this goes away.
#[derive(Debug)]
pub struct Party {
    process: Proc,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Party {
    fn start(mode: &str, netns: &NetNs, arguments: &[&str]) -> Result<Self> {
        let place = [mode, "--netns", netns.path_text()];
        let mut process = Proc::start(command(&[&place, arguments].concat())?)?;
        let lines = process.take_lines();
        let steps = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&steps);
        thread::spawn(move || {
            for line in lines {
                // A line that is no step is missed where it is waited for.
                if let Ok(Line::Step(step)) = serde_json::from_str(&line) {
                    to.lock().unwrap_or_else(PoisonError::into_inner).push(step);
                }
            }
        });
        Ok(Self { process, steps })
    }

    /// A server, which listens. See the mode for its arguments.
    pub fn serve(netns: &NetNs, listeners: usize, arguments: &[&str]) -> Result<Self> {
        let party = Self::start("serve", netns, arguments)?;
        party.wait_for(step::LISTENING, listeners, 20)?;
        Ok(party)
    }

    /// Clients of the server at that port.
    pub fn call(netns: &NetNs, port: u16, arguments: &[&str]) -> Result<Self> {
        Self::start("call", netns, &[&["--port", &port.to_string()], arguments].concat())
    }

    /// Handshakes by hand with the server at that port.
    pub fn knock(netns: &NetNs, port: u16, arguments: &[&str]) -> Result<Self> {
        Self::start("knock", netns, &[&["--port", &port.to_string()], arguments].concat())
    }

    /// All steps so far.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of that name.
    #[must_use]
    pub fn of(&self, name: &str) -> Vec<Step> {
        self.steps().into_iter().filter(|step| step.step == name).collect()
    }

    /// Waits until there are as many of that name.
    pub fn wait_for(&self, name: &str, count: usize, seconds: u64) -> Result<Vec<Step>> {
        let deadline = Instant::now() + patience(seconds);
        loop {
            let found = self.of(name);
            if found.len() >= count {
                return Ok(found);
            }
            ensure!(
                Instant::now() < deadline,
                "{}: {} times {name}, not {count}, after {seconds} seconds; stderr:\n{}",
                self.process.what(),
                found.len(),
                self.process.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The port of a server.
    pub fn port(&self) -> Result<u16> {
        let steps = self.of(step::LISTENING);
        Ok(steps.first().context("a server listens")?.server.port())
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Writes a line to its stdin.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        self.process.tell(line)
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Sends a signal to one of its processes.
    pub fn signal_one(&self, pid: u32, signal: Signal) -> Result<()> {
        ensure!(self.steps().iter().any(|step| step.pid == pid), "{pid} is none of {}", self.process.what());
        kill(Pid::from_raw(i32::try_from(pid)?), signal).with_context(|| format!("{signal} to {pid}"))
    }
}
