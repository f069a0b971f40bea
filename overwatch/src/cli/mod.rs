//! The command line: arguments (no I/O) and one file per verb.

pub mod args;
mod check;
mod intervals;
mod listeners;
mod open;
mod output;
mod say;
mod serve;
mod settings;
mod startup;
mod stream;
mod top;
mod watch;
mod web;

use std::{fmt, io, process::ExitCode};

use args::{Command, Global};
use say::say;

use crate::{
    collect::SessionError,
    probes::{attach, plan::Refusal, refusal},
};

/// What the program can end with.
#[derive(Debug)]
enum Failure {
    /// Failed while running: exit code 1.
    Running(anyhow::Error),
    /// Bad arguments that only show when they are used: exit code 2.
    Arguments(String),
    /// This host cannot run it: exit code 3.
    Host(Refusal),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(error) => {
                let cause = attach::cause(error.as_ref());
                f.write_str(&cause.line)?;
                refusal::advice(cause.errno).map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::Arguments(text) => f.write_str(text),
            Self::Host(refusal) => refusal.fmt(f),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused { refusal, .. } => Self::Host(refusal),
            other => Self::Running(other.into()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Running(error.into())
    }
}

/// Runs a parsed command line.
pub fn run(arguments: args::Arguments) -> ExitCode {
    let result = match arguments.command {
        command if arguments.global.config.is_some() && !command.takes_config() => Err(Failure::Arguments(format!(
            "--config is for serve and check: {} reads no configuration file",
            command.name()
        ))),
        Command::Top(top) => top::run(&arguments.global, &top),
        Command::States(states) => stream::states(&arguments.global, &states),
        Command::Life(life) => stream::life(&arguments.global, &life),
        Command::Open(open) => open::run(&arguments.global, &open),
        Command::Listeners(listeners) => listeners::run(&arguments.global, &listeners),
        Command::Serve(serve) => serve::run(&arguments.global, &serve),
        Command::ServeWeb(web) => web::run(&web),
        Command::Check(check) => match &arguments.global.config {
            Some(_) if check.verb.is_some() => Err(Failure::Arguments(
                "check --config looks at the file and not at this host: leave out the verb, or --config".to_owned(),
            )),
            Some(file) => settings::check(&arguments.global, file),
            None => check::run(&arguments.global, check.verb),
        },
    };
    match result {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(Failure::Running(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure);
            ExitCode::from(match failure {
                Failure::Running(_) => 1,
                Failure::Arguments(_) => 2,
                Failure::Host(_) => 3,
            })
        }
    }
}

/// Ends with what the argument parser has to say: help and version on standard output, an error in one line.
pub fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand) {
        let _closed = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    say(format_args!("{}; see overwatch --help", line.strip_prefix("error: ").unwrap_or(line)));
    ExitCode::from(2)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let pipes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    pipes.into_iter().any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// True when colour may be used on standard output.
fn color(global: &Global) -> bool {
    use io::IsTerminal as _;
    match global.color {
        args::Color::Always => true,
        args::Color::Never => false,
        // https://no-color.org
        args::Color::Auto => {
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}
