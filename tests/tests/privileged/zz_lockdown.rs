//! Kernel lockdown: what the kernel's own lock forbids is said as such.
//!
//! Locking down cannot be undone in one boot, so this is done in guests only, and last: the file's name sorts last.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use overwatch_tests::harness::host::{Host, in_guest};
use overwatch_tests::harness::overwatch;

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

#[test]
fn a_locked_down_kernel_is_named() -> Result<()> {
    if !in_guest() {
        eprintln!("skipped: locking down the kernel cannot be undone, so it is done in guests only");
        return Ok(());
    }
    let _host = Host::take()?;
    if !Path::new(LOCKDOWN).exists() {
        // A guest may not have mounted it. When there is no such file system, neither is there a lock.
        mount(Some("securityfs"), "/sys/kernel/security", Some("securityfs"), MsFlags::empty(), None::<&str>)
            .context("mounting securityfs")?;
    }
    let before = fs::read_to_string(LOCKDOWN).context("these kernels have the lockdown module")?;
    fs::write(LOCKDOWN, "confidentiality").with_context(|| format!("locking down from {before:?}"))?;
    let output = overwatch::output(&["top", "-o", "json", "1", "1"])?;
    ensure!(output.code == Some(3), "exit {:?} instead of 3; stderr:\n{}", output.code, output.stderr);
    let lines = output.stderr.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(lines == 1, "one line on stderr, not {lines}:\n{}", output.stderr);
    ensure!(output.stderr.to_lowercase().contains("lockdown"), "lockdown is not named: {}", output.stderr);
    Ok(())
}
