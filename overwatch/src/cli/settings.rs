//! Settings from the command line and the file, and `overwatch check --config`: whether they can be used.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use super::{
    Failure,
    args::{Global, Output, SettingsArguments},
};
use crate::{
    config::{ConfigError, Settings},
    export::http,
    show::settings as show,
};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Arguments(error.to_string())
    }
}

/// What holds: flags over the file over the defaults. Asked again after a change of the file, it reads it again.
pub(super) fn resolve(global: &Global, arguments: &SettingsArguments) -> Result<Settings, Failure> {
    let mut flags = global.given();
    flags.extend(arguments.given.iter().cloned());
    Ok(Settings::resolve(global.config.as_deref(), &flags)?)
}

/// Attaches nothing: what is wrong on this host is another question.
pub(super) fn check(global: &Global, file: &Path) -> Result<ExitCode, Failure> {
    let settings = resolve(global, &SettingsArguments::default())?;
    if let Some(web) = &settings.web.config_file {
        http::check_config(web).map_err(|error| Failure::Arguments(error.to_string()))?;
    }
    let mut out = Vec::new();
    match global.output {
        Output::Table => show::write_text(&mut out, file, &settings)?,
        Output::Json => show::write_json(&mut out, file, &settings)?,
        Output::Csv => {
            return Err(Failure::Arguments("check has no CSV output: use -o table or -o json".to_owned()));
        }
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}
