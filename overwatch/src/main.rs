//! The program: arguments to a verb, its result to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use overwatch::cli;

fn main() -> ExitCode {
    match cli::args::Arguments::try_parse() {
        Ok(arguments) => cli::run(arguments),
        Err(error) => cli::usage(&error),
    }
}
