//! Moves bytes over TCP in every way there is, and prints what the calls returned.

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};
use overwatch_tests::traffic::args::Args;
use overwatch_tests::traffic::{
    churn, crowd, flood, hold, lives, other, pair, process, queue, sandbox, shared, storm, stream,
};

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
        Some("lives") => lives::run(&Args::parse(words, lives::OPTIONS)?),
        Some("churn") => churn::run(&Args::parse(words, churn::OPTIONS)?),
        Some("crowd") => crowd::run(&Args::parse(words, crowd::OPTIONS)?),
        Some("flood") => flood::run(&Args::parse(words, flood::OPTIONS)?),
        Some("storm") => storm::run(&Args::parse(words, storm::OPTIONS)?),
        Some("stream") => stream::run(&Args::parse(words, stream::OPTIONS)?),
        Some("other") => other::run(&Args::parse(words, other::OPTIONS)?),
        Some("serve") => queue::serve::run(&Args::parse(words, queue::serve::OPTIONS)?),
        Some("call") => queue::call::run(&Args::parse(words, queue::call::OPTIONS)?),
        Some("knock") => queue::knock::run(&Args::parse(words, queue::knock::OPTIONS)?),
        Some("sandbox") => sandbox::run(words),
        _ => bail!(
            "usage: traffic pair|shared|hold|lives|churn|crowd|flood|storm|stream|other|serve|call|knock [--OPTION VALUE]... | \
             traffic sandbox root|btf PROGRAM..."
        ),
    }
}
