//! Processes, their names, namespaces and bounds.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork};

/// No process of the traffic program lives longer than this, whatever it waits for.
pub const LIFETIME_SECONDS: u32 = 900;

/// Ends this process by SIGALRM when it has lived too long: no test leaves anything behind.
pub fn bound_lifetime() {
    alarm::set(LIFETIME_SECONDS);
}

/// Names the calling thread, and with it the process if it is the main thread.
pub fn set_comm(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    prctl::set_name(&name)?;
    Ok(())
}

/// The name of this process: of its main thread, whichever thread asks.
pub fn comm() -> io::Result<String> {
    let raw = fs::read(format!("/proc/{}/comm", std::process::id()))?;
    let name = raw.strip_suffix(b"\n").unwrap_or(&raw);
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Inode number of the network namespace that this thread is in.
pub fn netns_inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// Moves the calling thread to the network namespace that is at `path`, if there is one.
pub fn enter_netns(path: Option<&Path>) -> io::Result<()> {
    if let Some(path) = path {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}

/// A forked process: waited for, or killed by its id when the handle goes away.
#[derive(Debug)]
pub struct Forked {
    pid: Option<Pid>,
}

/// Runs `work` in a forked process and ends that process with it.
///
/// Only for a process with one thread: what other threads hold would stay locked in the child.
pub fn fork_child(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> io::Result<Forked> {
    // SAFETY: the callers have a single thread, so the child may use everything that the parent may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Forked { pid: Some(child) }),
        ForkResult::Child => {
            let outcome = start(name).map_err(Into::into).and_then(|()| work());
            if let Err(error) = &outcome {
                // In one piece: other processes write to the same pipe.
                let _ = io::stderr().write_all(format!("traffic: {name}: {error:#}\n").as_bytes());
            }
            std::process::exit(i32::from(outcome.is_err()))
        }
    }
}

fn start(name: &str) -> io::Result<()> {
    // A dead parent must not leave children that hold ports and namespaces.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    bound_lifetime();
    set_comm(name)
}

impl Forked {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.pid.map_or(0, Pid::as_raw)
    }

    /// Waits for the end of the process; an error when it did not end well.
    pub fn wait(mut self) -> anyhow::Result<()> {
        let Some(pid) = self.pid.take() else {
            return Ok(());
        };
        loop {
            match waitpid(pid, None) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(other) => anyhow::bail!("process {pid} ended badly: {other:?}"),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => anyhow::bail!("waiting for process {pid}: {error}"),
            }
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

/// Waits for all of `children`; the first failure ends the others.
pub fn wait_all(children: Vec<Forked>) -> anyhow::Result<()> {
    let mut left = children;
    while !left.is_empty() {
        let status = match waitpid(None, None) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let Some(ended) = status.pid() else { continue };
        let Some(at) = left.iter().position(|child| child.pid == Some(ended)) else {
            continue;
        };
        left.remove(at).pid = None;
        anyhow::ensure!(matches!(status, WaitStatus::Exited(_, 0)), "process {ended} ended badly: {status:?}");
    }
    Ok(())
}
