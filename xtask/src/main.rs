//! Everything that builds, checks and tests overwatch: `cargo xtask VERB`, one file per verb.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

mod apt;
mod bench;
mod build_ebpf;
mod cases;
mod console;
mod cut_btf;
mod dist;
mod durations;
mod failures;
mod fuzz;
mod guest;
mod initramfs;
mod kernels;
mod lint;
mod lint_dist;
mod modules;
mod native;
mod parts;
mod probe;
mod programs;
mod qemu;
#[cfg(test)]
mod queries;
mod screenshots;
mod setup;
mod shell;
mod sources;
mod stages;
mod test;
mod toolchain;
mod vm;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
enum Verb {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Lint(lint::Args),
    Test(test::Args),
    Native(native::Args),
    Vm(vm::Args),
    Guest(probe::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Screenshots(screenshots::Args),
    CutBtf(cut_btf::Args),
    Dist(dist::Args),
}

fn main() -> ExitCode {
    match run(Verb::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf(args) => build_ebpf::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Native(args) => native::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Guest(args) => probe::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Screenshots(args) => screenshots::run(&args),
        Verb::CutBtf(args) => cut_btf::run(&args),
        Verb::Dist(args) => dist::run(&args),
    }
}
