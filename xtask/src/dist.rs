//! `cargo xtask dist`: the Debian package, with man pages and completions made from the declaration of the arguments.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Write man pages and completions, and build the Debian package with them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only write man pages and completions.
    #[arg(long)]
    no_package: bool,
}

const WRITER: &str = "overwatch-dist";
const INSTALL: &str = "cargo install --locked cargo-deb";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // The package names this place, wherever cargo builds.
    let directory = shell::cache_dir().join("dist");
    if directory.exists() {
        // A verb that has been renamed would leave its page behind.
        std::fs::remove_dir_all(&directory).with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--package", "overwatch", "--features", "dist", "--bin", WRITER, "--"]);
    shell::run(cargo.arg(&directory))?;
    println!("{}: man pages and completions", directory.display());
    if args.no_package {
        return Ok(ExitCode::SUCCESS);
    }
    if shell::find("cargo-deb").is_none() {
        bail!("cargo-deb is missing, which builds the package: install it with `{INSTALL}`, then run this again");
    }
    shell::run(shell::cargo().args(["deb", "--package", "overwatch", "--locked"]))?;
    Ok(ExitCode::SUCCESS)
}
