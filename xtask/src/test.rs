//! `cargo xtask test`: everything that CI runs.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::programs;
use crate::shell;
use crate::stages::{self, Stage};

/// Run all tests: unit tests, privileged tests on this kernel and on every kernel of the matrix.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what needs neither root nor time: style, clippy, the object in the tree, unit tests.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let stages = if args.quick { quick()? } else { full()? };
    let passed = stages::run(stages)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn quick() -> Result<Vec<Stage>> {
    Ok(vec![
        xtask("fmt", &["lint", "fmt"])?,
        xtask("clippy", &["lint", "clippy"])?,
        xtask("object", &["build-ebpf", "--check"])?,
        unit(),
    ])
}

fn full() -> Result<Vec<Stage>> {
    // What is tested is what the sources give today, with today's compiler.
    let object = shell::target_dir().join("ebpf/overwatch.bpf.o");
    let binary = shell::target_dir().join("release/overwatch");
    let object_arg = object.to_string_lossy();
    let mut stages = vec![
        xtask("setup", &["setup"])?,
        xtask("lint", &["lint"])?,
        xtask("build-ebpf", &["build-ebpf", "--output", &object_arg])?,
        unit().needs(&["build-ebpf"]),
        cargo("build", &["build", "--release", "--package", "overwatch"]).needs(&["build-ebpf"]),
        xtask("native-tests", &["native"])?.needs(&["build"]),
        xtask("vm", &["vm", "--keep-log"])?.needs(&["build"]),
    ];
    // Those before do not build the user side, or want the object of the tree.
    for stage in stages.iter_mut().skip(3) {
        rebuilt(&mut stage.command, &object, &binary);
    }
    Ok(stages)
}

/// Unit tests: no root, no kernel.
fn unit() -> Stage {
    cargo(
        "unit-tests",
        &["test", "--no-fail-fast", "--package", "overwatch", "--package", "overwatch-common", "--package", "xtask"],
    )
}

fn rebuilt(command: &mut Command, object: &Path, binary: &Path) {
    command.env("OVERWATCH_EBPF_OBJECT", object).env("OVERWATCH_BIN", binary);
    command.env("OVERWATCH_OPERATIONS_TABLE", programs::operations_table());
}

fn cargo(name: &'static str, args: &[&str]) -> Stage {
    let mut command = shell::cargo();
    command.args(args);
    Stage { name, needs: &[], command }
}

fn xtask(name: &'static str, args: &[&str]) -> Result<Stage> {
    let mut command = shell::this_program()?;
    command.args(args);
    Ok(Stage { name, needs: &[], command })
}
