//! Runs another program where something is missing: `sandbox WHAT PROGRAM ARGUMENT...`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};

/// Someone who is not root.
const NOBODY: u32 = 65_534;

/// Fewer than overwatch has maps and programs.
const FILES: u64 = 20;

/// Becomes the program, with `what` taken away. Returns only when that fails.
pub fn run(mut words: impl Iterator<Item = String>) -> Result<()> {
    let what =
        words.next().context("sandbox needs to know what to take away: root, btf, sys, proc, host, bpf, files")?;
    let program = words.next().context("sandbox needs a program to run")?;
    let mut command = Command::new(&program);
    command.args(words);
    match what.as_str() {
        "root" => {
            command.uid(NOBODY).gid(NOBODY);
        }
        "btf" => hide("/sys/kernel/btf")?,
        "sys" => hide("/sys")?,
        "proc" => hide("/proc")?,
        "host" => {
            unshare(CloneFlags::CLONE_NEWUSER).context("a user namespace of its own")?;
            // Root there, with all capabilities after the program is run.
            std::fs::write("/proc/self/uid_map", "0 0 1").context("a map of users")?;
        }
        "bpf" => forbid_bpf()?,
        "files" => {
            let limit = FILES;
            setrlimit(Resource::RLIMIT_NOFILE, limit, limit).context("a limit on open files")?;
        }
        other => bail!("nothing called {other:?} can be taken away"),
    }
    Err(command.exec()).with_context(|| format!("running {program}"))
}

/// An empty file system over a directory, for this process alone.
fn hide(directory: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("making the mounts private")?;
    mount(Some("none"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("an empty file system over {directory}"))
}

/// A seccomp filter as a container has it: bpf(2) ends with EPERM.
fn forbid_bpf() -> Result<()> {
    const fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    // The first field of `struct seccomp_data` is the number of the system call.
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is as long as it says, and the kernel copies it.
    let outcome = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    ensure!(outcome == 0, "a seccomp filter: {}", std::io::Error::last_os_error());
    Ok(())
}
