//! Moves bytes over TCP in every way there is, and prints what the calls returned.

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};
use overwatch_tests::traffic::args::Args;
use overwatch_tests::traffic::{flood, hold, other, pair, process, sandbox, shared, stream};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    process::bound_lifetime();
    let mut words = env::args().skip(1);
    match words.next().as_deref() {
        Some("pair") => pair::run(&Args::parse(words, pair::OPTIONS)?),
        Some("shared") => shared::run(&Args::parse(words, shared::OPTIONS)?),
        Some("hold") => hold::run(&Args::parse(words, hold::OPTIONS)?),
        Some("flood") => flood::run(&Args::parse(words, flood::OPTIONS)?),
        Some("stream") => stream::run(&Args::parse(words, stream::OPTIONS)?),
        Some("other") => other::run(&Args::parse(words, other::OPTIONS)?),
        Some("sandbox") => sandbox::run(words),
        _ => bail!(
            "usage: traffic pair|shared|hold|flood|stream [--OPTION VALUE]... | traffic sandbox root|btf PROGRAM..."
        ),
    }
}
