//! `cargo xtask lint`: style, clippy on both sides, whether the object in the tree is the one of its sources, rules and units.

use std::process::ExitCode;

use anyhow::Result;

use crate::build_ebpf;
use crate::lint_dist;
use crate::shell;
use crate::toolchain::Toolchain;

/// Check style and lints; nothing that only warns passes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these parts; all of them without any.
    #[arg(value_enum)]
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// rustfmt.
    Fmt,
    /// clippy on all that runs in user space.
    Clippy,
    /// clippy on the kernel side.
    ClippyEbpf,
    /// The object in the tree.
    Object,
    /// Rules and units in `overwatch/dist`.
    Dist,
}

const ALL: [Part; 5] = [Part::Fmt, Part::Clippy, Part::ClippyEbpf, Part::Object, Part::Dist];

/// Whatever is built for this machine. The eBPF package goes apart, for another target and without std.
const USER_SIDE: [&str; 4] = ["overwatch", "overwatch-common", "overwatch-tests", "xtask"];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let parts = if args.parts.is_empty() { &ALL[..] } else { &args.parts };
    let mut failed = Vec::new();
    // All of them, so that one run shows everything.
    for part in parts {
        if let Err(error) = check(*part) {
            eprintln!("lint: {error:#}");
            failed.push(*part);
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("lint: failed: {failed:?}");
    Ok(ExitCode::FAILURE)
}

fn check(part: Part) -> Result<()> {
    let mut cargo = shell::cargo();
    match part {
        Part::Fmt => {
            // A workspace of its own.
            let mut fuzz = shell::cargo();
            shell::run(fuzz.args(["fmt", "--check", "--manifest-path", "tests/fuzz/Cargo.toml"]))?;
            cargo.args(["fmt", "--all", "--check"]);
        }
        Part::Clippy => {
            cargo.args(["clippy", "--all-targets", "--features", "overwatch/dist,overwatch/fuzz"]);
            for package in USER_SIDE {
                cargo.args(["--package", package]);
            }
            cargo.args(["--", "-D", "warnings"]);
        }
        Part::ClippyEbpf => {
            cargo = Toolchain::find()?.cargo("clippy");
            cargo.args(["--", "-D", "warnings"]);
        }
        Part::Object => return build_ebpf::check(&shell::root()),
        Part::Dist => return lint_dist::check(),
    }
    shell::run(&mut cargo)
}
