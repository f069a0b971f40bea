//! `cargo xtask test`: everything that CI runs.

use std::path::Path;
use std::process::ExitCode;

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
        // cargo builds one thing at a time in target/debug.
        unit().after(&["clippy"]),
    ])
}

/// The guests and the tests on this kernel take longest, so what they need comes first; style and
/// unit tests run beside them, and give way.
fn full() -> Result<Vec<Stage>> {
    // What is tested is what the sources give today, with today's compiler.
    let object = shell::target_dir().join("ebpf/overwatch.bpf.o");
    let binary = shell::target_dir().join("release/overwatch");
    let object_arg = object.to_string_lossy();
    let tested = |stage: Stage| rebuilt(stage, &object, &binary);
    Ok(vec![
        xtask("setup", &["setup"])?,
        cargo("build-tests", &["test", "--profile", "tests", "--package", "overwatch-tests", "--no-run"]),
        // Mostly the network. A kernel that cannot be had fails again in `vm`, so that the others
        // are still tested.
        xtask("kernels", &["vm", "--fetch"])?.after(&["setup"]),
        xtask("build-ebpf", &["build-ebpf", "--output", &object_arg])?.after(&["setup"]),
        tested(cargo("build", &["build", "--release", "--package", "overwatch"]).needs(&["build-ebpf"])),
        tested(xtask("native-storms", &["native", "--only", "storms"])?.needs(&["build", "build-tests"])),
        tested(guests("vm", "untimed")?),
        tested(guests("vm-timed", "timed")?),
        tested(
            xtask("native-tests", &["native", "--only", "others"])?
                .needs(&["build", "build-tests"])
                .after(&["native-storms", "vm-timed"]),
        ),
        // It checks the object in the tree, not the new one.
        xtask("lint", &["lint"])?.after(&["build-ebpf"]).gently(),
        tested(unit().needs(&["build-ebpf"]).after(&["lint"]).gently()),
    ])
}

/// The guests of one kind, when nothing else takes all processors.
fn guests(name: &'static str, only: &str) -> Result<Stage> {
    let stage = xtask(name, &["vm", "--keep-log", "--only", only])?;
    Ok(stage.needs(&["build", "build-tests"]).after(&["kernels", "native-storms"]))
}

/// Unit tests: no root, no kernel.
fn unit() -> Stage {
    cargo(
        "unit-tests",
        &["test", "--no-fail-fast", "--package", "overwatch", "--package", "overwatch-common", "--package", "xtask"],
    )
}

/// A stage that takes the new object and the program that has it, not what is in the tree.
fn rebuilt(mut stage: Stage, object: &Path, binary: &Path) -> Stage {
    stage.command.env("OVERWATCH_EBPF_OBJECT", object).env("OVERWATCH_BIN", binary);
    stage.command.env("OVERWATCH_OPERATIONS_TABLE", programs::operations_table());
    stage
}

fn cargo(name: &'static str, args: &[&str]) -> Stage {
    let mut command = shell::cargo();
    command.args(args);
    Stage { name, needs: &[], after: &[], command }
}

fn xtask(name: &'static str, args: &[&str]) -> Result<Stage> {
    let mut command = shell::this_program()?;
    command.args(args);
    Ok(Stage { name, needs: &[], after: &[], command })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_wait_only_for_stages_that_there_are() {
        for stages in [quick().unwrap(), full().unwrap()] {
            for stage in &stages {
                for name in stage.needs.iter().chain(stage.after) {
                    assert!(stages.iter().any(|other| other.name == *name), "{} waits for {name}", stage.name);
                }
            }
        }
    }
}
