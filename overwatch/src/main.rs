//! The program: arguments to a verb, its result to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use overwatch::cli;

fn main() -> ExitCode {
    // Usage errors end here with exit code 2, help and version with 0.
    cli::run(cli::args::Arguments::parse())
}
