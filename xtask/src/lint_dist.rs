//! The part of `cargo xtask lint` for what `overwatch/dist` has: rules by promtool, units by systemd-analyze. What the queries ask for is
//! checked by unit tests (`queries`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};

use crate::shell;

const DIST: &str = "overwatch/dist";
const UNITS: [&str; 2] = ["overwatch.service", "overwatch.socket"];
/// Highest exposure that is allowed, in tenths.
const EXPOSURE: &str = "20";

pub(crate) fn check() -> Result<()> {
    rules(&program("promtool", "package prometheus")?)?;
    units(&program("systemd-analyze", "package systemd")?)
}

fn program(name: &str, package: &str) -> Result<PathBuf> {
    shell::find(name).with_context(|| format!("{name} is missing ({package})"))
}

fn rules(promtool: &Path) -> Result<()> {
    let directory = shell::root().join(DIST).join("prometheus");
    shell::output(Command::new(promtool).args(["check", "rules"]).args(files(&directory)?))?;
    shell::output(Command::new(promtool).args(["test", "rules"]).args(files(&directory.join("tests"))?)).map(drop)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut files = list().with_context(|| format!("cannot read {}", directory.display()))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    Ok(files)
}

fn units(analyze: &Path) -> Result<()> {
    let directory = shell::root().join(DIST).join("systemd");
    // The program that the service starts need not be installed here.
    let copies = tempfile::tempdir().context("cannot make a directory")?;
    let mut paths = Vec::new();
    for unit in UNITS {
        let (from, to) = (directory.join(unit), copies.path().join(unit));
        let text = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        fs::write(&to, text.replace("ExecStart=/usr/bin/overwatch ", "ExecStart=/bin/true "))
            .with_context(|| format!("cannot write {}", to.display()))?;
        paths.push(to);
    }
    let verified = Command::new(analyze).args(["verify", "--man=no"]).args(&paths).output();
    let said = verified.context("cannot start systemd-analyze")?;
    // It succeeds with warnings.
    if !said.status.success() || !said.stderr.is_empty() {
        bail!("systemd-analyze verify: {}", String::from_utf8_lossy(&said.stderr).trim_end());
    }
    let mut security = Command::new(analyze);
    security.args(["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE}")]);
    shell::output(security.arg(directory.join(UNITS[0]))).map(drop).context("the service is exposed too much")
}
