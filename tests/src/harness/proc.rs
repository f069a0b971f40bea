//! Programs that tests run: bounded in time, read in the background, killed by id when the test is over.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// Resident memory of a process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A running program.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    what: String,
    lines: Receiver<String>,
    errors: Arc<Mutex<Vec<String>>>,
    errors_end: Receiver<()>,
}

/// What a program left.
#[derive(Debug)]
pub struct Output {
    /// Exit code, or nothing when a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to stdout, with invalid UTF-8 replaced.
    pub stdout: String,
    /// All that it wrote to stderr.
    pub stderr: String,
}

fn lines_of(source: impl Read + Send + 'static, mut each: impl FnMut(String) + Send + 'static) {
    thread::spawn(move || {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            each(String::from_utf8_lossy(text).into_owned());
            line.clear();
        }
    });
}

fn hang_up_by_default() -> nix::Result<()> {
    // SAFETY: no handler of this program is replaced that it relies on: the process is about to execute another program.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }.map(drop)
}

impl Proc {
    /// Starts `command` with all of its standard streams as pipes.
    pub fn start(mut command: Command) -> Result<Self> {
        let what = format!("{command:?}");
        // The tests may have been started by nohup(1), which ignores SIGHUP for all that it starts.
        // SAFETY: between fork and exec it makes one system call, which is safe there (signal-safety(7)), and allocates nothing.
        unsafe { command.pre_exec(|| hang_up_by_default().map_err(Into::into)) };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {what}"))?;
        let (to_lines, lines) = channel();
        let (at_end, errors_end) = channel();
        let errors = Arc::new(Mutex::new(Vec::new()));
        if let Some(out) = child.stdout.take() {
            lines_of(out, move |line| drop(to_lines.send(line)));
        }
        if let Some(err) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            lines_of(err, move |line| {
                let _alive_until_the_end = &at_end;
                errors.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            });
        }
        Ok(Self { child, what, lines, errors, errors_end })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The command, for messages.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The next line of stdout; none when there will be no more.
    pub fn line(&self, patience: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("no line within {patience:?} from {}; its stderr:\n{}", self.what, self.stderr())
            }
        }
    }

    /// Hands over the lines of stdout, those that came and those to come.
    pub fn take_lines(&mut self) -> Receiver<String> {
        let (_, nothing) = channel();
        std::mem::replace(&mut self.lines, nothing)
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until a line of stderr satisfies `wanted`.
    pub fn wait_for_stderr(&mut self, patience: Duration, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| wanted(line)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                // What it said last may still be on its way.
                thread::sleep(Duration::from_millis(100));
                bail!("{} ended with {status} before it was ready; its stderr:\n{}", self.what, self.stderr());
            }
            ensure!(
                Instant::now() < deadline,
                "{} was not ready after {patience:?}; its stderr:\n{}",
                self.what,
                self.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a line to the program's stdin.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is a pipe until it is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("telling {}", self.what))
    }

    /// Closes the program's stdin.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Sends a signal to this very process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.what))
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} still runs after {patience:?}; its stderr:\n{}",
                self.what,
                self.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end and takes everything that was not read yet.
    pub fn finish(mut self, patience: Duration) -> Result<Output> {
        let status = self.wait(patience)?;
        let mut stdout = String::new();
        while let Some(line) = self.line(patience)? {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        // Disconnected when the reader has reached the end; a grandchild may keep the pipe open for ever.
        let _ = self.errors_end.recv_timeout(Duration::from_secs(2));
        Ok(Output { code: status.code(), stdout, stderr: self.stderr() })
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // A stopped process, too, dies of SIGKILL. One that was waited for already is left alone by both calls.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end.
pub fn run(command: Command, patience: Duration) -> Result<Output> {
    let mut process = Proc::start(command)?;
    process.close_stdin();
    process.finish(patience)
}

/// Runs `command` to its end, which must be a good one.
pub fn must(command: Command, patience: Duration) -> Result<Output> {
    let what = format!("{command:?}");
    let output = run(command, patience)?;
    ensure!(output.code == Some(0), "{what} ended with {:?}:\n{}", output.code, output.stderr);
    Ok(output)
}
