//! Start-up, which ends by a signal at any moment.
//!
//! Loading programs takes minutes on an overloaded host, and the thread that does it is in bpf(2) for most of that time. So another
//! thread waits for the signals meanwhile, and ends the process where it stands: the kernel then ends the system call and releases
//! programs, maps and links with their descriptors. What would stay is a definition in tracefs, so these are taken away before
//! ([`Kretprobes::close`]). To start up on the other thread and to ask it to stop would need a question between any two steps,
//! and would still have to wait for a program load.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::net::UnixStream,
    pin::pin,
    process,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::signal::{SigSet, SigmaskHow};
use sd_notify::NotifyState;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use super::{Failure, say::say};
use crate::probes::kretprobe::Kretprobes;

/// A start-up that takes longer is announced on a terminal.
const SLOW: Duration = Duration::from_secs(1);

/// Whether it is said that this attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announce {
    /// At once, for `-v`.
    Always,
    /// When it is slow and standard error is a terminal: scripts get nothing that they have not asked for.
    WhenSlow,
    Never,
}

impl Announce {
    pub(super) fn new(verbose: bool) -> Self {
        if verbose { Self::Always } else { Self::WhenSlow }
    }
}

/// What SIGHUP means to a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// The terminal has gone: end. Unless it was ignored at the start, as nohup(1) does.
    Ends,
    /// To read the configuration again, of a daemon.
    Reloads,
}

/// The signals that end a verb.
#[derive(Debug)]
pub(super) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl EndSignals {
    /// From here on they do not end the process by themselves.
    pub(super) fn new(hangup: Hangup) -> io::Result<Self> {
        let hangup = hangup == Hangup::Ends && !ignores_hangup();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn received(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

fn ignores_hangup() -> bool {
    // Once a handler of ours is there, it is not ignored any more; the first question counts.
    static IGNORED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *IGNORED.get_or_init(|| fs::read_to_string("/proc/self/status").is_ok_and(|status| hangup_is_ignored(&status)))
}

fn hangup_is_ignored(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    ignored >> (nix::sys::signal::Signal::SIGHUP as u32 - 1) & 1 == 1
}

/// A runtime of one thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    // The library panics where it cannot open files for the signals of the first one: a pair of sockets, a copy, and two of its own.
    let room = [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
    drop(room);
    Builder::new_current_thread().enable_all().build()
}

/// Runs `work`, which attaches, and ends the process with exit code 0 when a signal asks for it meanwhile. When this returns, the thread
/// that waited has ended: see [`crate::privileges::keep_to_collect`].
pub(super) fn guarded<T>(
    announce: Announce,
    hangup: Hangup,
    work: impl FnOnce(&Kretprobes) -> T,
) -> Result<T, Failure> {
    let cannot = "cannot wait for signals";
    if announce == Announce::Always {
        say("attaching...");
    }
    let kretprobes = Kretprobes::default();
    let (done, is_done) = oneshot::channel::<()>();
    let (ready, is_ready) = mpsc::channel::<io::Result<()>>();
    thread::scope(|scope| {
        let guard = thread::Builder::new().name("signals".to_owned()).spawn_scoped(scope, || {
            if is_ended(&ready, is_done, hangup, announce) {
                let _locked = kretprobes.close();
                if hangup == Hangup::Reloads {
                    let _no_systemd = sd_notify::notify(false, &[NotifyState::Stopping]);
                }
                process::exit(0);
            }
        });
        guard.context(cannot).map_err(Failure::Running)?;
        // From here on no signal is missed.
        let is_ready = is_ready.recv().unwrap_or_else(|error| Err(io::Error::other(error)));
        is_ready.context(cannot).map_err(Failure::Running)?;
        let undisturbed = Undisturbed::begin();
        let result = work(&kretprobes);
        drop(undisturbed);
        drop(done);
        Ok(result)
    })
}

/// True when a signal comes before the work is done. Has a runtime of its own, since that of the verb stands still.
fn is_ended(
    ready: &mpsc::Sender<io::Result<()>>,
    is_done: oneshot::Receiver<()>,
    hangup: Hangup,
    announce: Announce,
) -> bool {
    let begin = || {
        let runtime = runtime()?;
        let signals = {
            let _inside = runtime.enter();
            EndSignals::new(hangup)?
        };
        Ok((runtime, signals))
    };
    let (begun, result) = match begin() {
        Ok(begun) => (Some(begun), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let _is_awaited = ready.send(result);
    begun.is_some_and(|(runtime, signals)| runtime.block_on(wait(signals, is_done, announce)))
}

async fn wait(mut signals: EndSignals, is_done: oneshot::Receiver<()>, announce: Announce) -> bool {
    let mut ended = pin!(async {
        tokio::select! {
            biased;
            () = signals.received() => true,
            _ = is_done => false,
        }
    });
    match timeout(SLOW, &mut ended).await {
        Ok(ended) => ended,
        Err(_) => {
            if announce == Announce::WhenSlow && io::stderr().is_terminal() {
                say("attaching...");
            }
            ended.await
        }
    }
}

/// While it lives no signal reaches this thread, nor a thread that it starts: the verifier gives up with EAGAIN when one is pending
/// (`do_check`, kernel/bpf/verifier.c, v5.10 to v6.18), and a hook would be lost to a SIGHUP or to a window that changed its size.
struct Undisturbed(Option<SigSet>);

impl Undisturbed {
    fn begin() -> Self {
        Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok())
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Fails for an unknown operation only.
            let _set = before.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_does_not_end() {
        for (status, is_ignored) in [
            ("SigIgn:\t0000000000000001\n", true),
            ("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n", true),
            ("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n", false),
            ("SigIgn:\tnonsense\n", false),
            ("", false),
        ] {
            assert_eq!(hangup_is_ignored(status), is_ignored, "{status}");
        }
    }

    #[test]
    fn the_work_is_undisturbed_and_the_thread_beside_it_ends() {
        let threads = || fs::read_dir("/proc/self/task").unwrap().flatten().filter(is_guard).count();
        let is_blocked = || SigSet::thread_get_mask().unwrap().contains(nix::sys::signal::Signal::SIGTERM);
        // In a runtime, as verbs are.
        let verb = async { guarded(Announce::Never, Hangup::Reloads, |_| (threads(), is_blocked())) };
        let during = runtime().unwrap().block_on(verb).unwrap();
        assert_eq!(during, (1, true));
        assert!(!is_blocked());
        // A thread that was waited for may still be on the list for a moment.
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while threads() > 0 {
            assert!(std::time::Instant::now() < end, "the thread that waits for signals goes on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_guard(task: &fs::DirEntry) -> bool {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "signals")
    }
}
