//! `cargo xtask screenshots`: the pictures in `docs/pictures`, drawn from the recordings in `docs/recordings`.

use std::process::ExitCode;

use anyhow::Result;

use crate::shell;

/// Draw the documentation's pictures of the screen anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    // The unit tests draw them, and would say that they are old: here they are to write them.
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "overwatch", "--lib", "show::screen"]).env("OVERWATCH_WRITE_SCREENS", "1");
    shell::run(&mut cargo)?;
    println!("docs/pictures and the pictures of the tests are new");
    Ok(ExitCode::SUCCESS)
}
