//! Runs another program where something is missing: `sandbox WHAT PROGRAM ARGUMENT...`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Someone who is not root.
const NOBODY: u32 = 65_534;

/// Becomes the program, with `what` taken away. Returns only when that fails.
pub fn run(mut words: impl Iterator<Item = String>) -> Result<()> {
    let what = words.next().context("sandbox needs to know what to take away: root, btf")?;
    let program = words.next().context("sandbox needs a program to run")?;
    let mut command = Command::new(&program);
    command.args(words);
    match what.as_str() {
        "root" => {
            command.uid(NOBODY).gid(NOBODY);
        }
        "btf" => hide_btf()?,
        other => bail!("nothing called {other:?} can be taken away"),
    }
    Err(command.exec()).with_context(|| format!("running {program}"))
}

/// An empty file system over the kernel's type information, for this process alone.
fn hide_btf() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making the mounts private")?;
    mount(Some("none"), "/sys/kernel/btf", Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .context("an empty file system over /sys/kernel/btf")
}
