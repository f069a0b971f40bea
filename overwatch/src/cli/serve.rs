//! `overwatch serve`: the daemon.

use std::process::ExitCode;

use super::{Failure, args, settings};

pub(super) fn run(global: &args::Global, arguments: &args::Serve) -> Result<ExitCode, Failure> {
    settings::resolve(global, &arguments.settings)?;
    Err(Failure::Running(anyhow::anyhow!("not built yet")))
}
