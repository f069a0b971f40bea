//! Giving up privileges, each when it has done its work. What they are needed for: docs/systemd.md.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::sys::{prctl, signal::Signal};

/// What the collecting process needs as long as it runs: system calls on maps (BPF; before Linux 5.8 SYS_ADMIN), descriptors of other
/// users' processes (SYS_PTRACE, DAC_READ_SEARCH), other network namespaces (SYS_ADMIN), and taking its kprobes out of tracefs
/// when it ends (DAC_OVERRIDE).
const TO_COLLECT: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_DAC_OVERRIDE,
];

/// How long a thread that has ended may still be seen.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up privileges: {0}")]
pub struct PrivilegesError(String);

impl From<CapsError> for PrivilegesError {
    fn from(error: CapsError) -> Self {
        Self(error.to_string())
    }
}

impl From<nix::Error> for PrivilegesError {
    fn from(error: nix::Error) -> Self {
        Self(io::Error::from(error).to_string())
    }
}

/// Once everything is attached: keeps what is needed to collect. An error when there are other threads.
pub fn keep_to_collect() -> Result<(), PrivilegesError> {
    be_the_only_thread()?;
    keep(&TO_COLLECT.into_iter().collect())
}

/// Before the first request is read: keeps none, and ends when the parent ends. Nothing that it starts can get one again. An error when there are
/// other threads.
pub fn keep_none() -> Result<(), PrivilegesError> {
    be_the_only_thread()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Nobody of the same user may look into its memory, where keys are, nor into its parent's by way of it.
    prctl::set_dumpable(false)?;
    keep(&CapsHashSet::new())
}

/// Privileges are of threads: one that is there already would keep what this one gives up, and only those that this one starts have no more.
fn be_the_only_thread() -> Result<(), PrivilegesError> {
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task");
        tasks.map(Iterator::count).map_err(|error| PrivilegesError(format!("/proc/self/task: {error}")))
    };
    // The kernel lets those who wait for a thread go a moment before it takes the thread off this list.
    let end = Instant::now() + LAST_MOMENTS;
    while threads()? > 1 && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    match threads()? {
        0 | 1 => Ok(()),
        count => Err(PrivilegesError(format!("there are {count} threads already"))),
    }
}

fn keep(wanted: &CapsHashSet) -> Result<(), PrivilegesError> {
    prctl::set_no_new_privs()?;
    let has = caps::read(None, CapSet::Permitted)?;
    if has.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(wanted) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    let kept: CapsHashSet = has.intersection(wanted).copied().collect();
    // In this order: what is ambient must be inheritable, and what is effective permitted.
    for capability in caps::all().difference(&kept) {
        if caps::has_cap(None, CapSet::Ambient, *capability).unwrap_or(false) {
            caps::drop(None, CapSet::Ambient, *capability)?;
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_given_up_by_one_of_several_threads() {
        let before = caps::read(None, CapSet::Bounding).unwrap();
        let tried = thread::spawn(|| {
            let errors = [keep_none(), keep_to_collect()].map(|result| result.unwrap_err().to_string());
            (errors, caps::read(None, CapSet::Bounding).unwrap())
        });
        let (errors, after) = tried.join().unwrap();
        for error in errors {
            assert!(
                error.starts_with("cannot give up privileges: there are ") && error.ends_with(" threads already"),
                "{error}"
            );
        }
        assert_eq!(before, after);
    }
}
