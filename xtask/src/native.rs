//! `cargo xtask native`: the privileged tests on the kernel that runs here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::cases::{self, CaseFile};
use crate::console::Tally;
use crate::durations::Durations;
use crate::programs::{self, Programs};
use crate::shell;

/// Run the privileged tests on this machine's own kernel, as root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only tests with this in their names.
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// Only those in files with this in their names.
    #[arg(long, value_name = "FILTER")]
    file: Option<String>,
    /// Only files that take all processors, or only the others.
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Files that take all processors.
    Storms,
    /// The others.
    Others,
}

/// Files that make as many connections as the host can, and lose no event: `cargo xtask test` runs
/// them before the first guest begins, which would take the processors away from overwatch.
const STORMS: [&str; 4] = ["address_reuse", "bursts", "nothing_lost", "open_counts"];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let programs = programs::build()?;
    let mut files = cases::list(&programs.tests)?;
    if let Some(unknown) = STORMS.iter().find(|name| !files.iter().any(|file| file.name == **name)) {
        bail!("there are no tests {unknown}");
    }
    files.retain(|file| is_wanted(&file.name, args.only));
    let files = cases::select(files, args.file.as_deref(), args.test.as_deref())?;
    let mut total = Tally::default();
    let mut durations = Durations::new(Instant::now());
    if args.file.is_none() && args.test.is_none() && args.only != Some(Kind::Storms) {
        for program in &programs.unit_tests {
            println!("== {}", program.file_name().unwrap_or_default().to_string_lossy());
            total.add(attempt(&mut Command::new(program), None, &mut durations)?);
        }
    }
    for file in &files {
        println!("== {}", file.name);
        durations.line(&format!("== {}", file.name), Instant::now());
        total.add(attempt(&mut command(&programs, file), Some(file.cases.len()), &mut durations)?);
    }
    println!("{}{total}", durations.report());
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_wanted(file: &str, only: Option<Kind>) -> bool {
    only.is_none_or(|only| STORMS.contains(&file) == (only == Kind::Storms))
}

/// Each file is a process of its own, as in a guest: what it does to its process does not reach the
/// next one.
fn command(programs: &Programs, file: &CaseFile) -> Command {
    let mut command = Command::new(&programs.tests);
    command.args(file.arguments());
    command.env("OVERWATCH_BIN", &programs.overwatch).env("OVERWATCH_TRAFFIC_BIN", &programs.traffic);
    // The tests find the documents that they validate against beside their sources.
    command.current_dir(shell::root().join("tests"));
    command
}

/// Runs a test program and passes its output on. A program that gives fewer results than it has
/// tests has failed.
fn attempt(command: &mut Command, expected: Option<usize>, durations: &mut Durations) -> Result<Tally> {
    let program = Path::new(command.get_program()).display().to_string();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {program}"))?;
    let mut out = BufReader::new(child.stdout.take().context("a test program has no output")?);
    let (mut line, mut lines) = (Vec::new(), Vec::new());
    while out.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        durations.line(&text, Instant::now());
        std::io::stdout().write_all(&line)?;
        line.clear();
        lines.push(text);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    let mut tally = Tally::of(lines.iter().map(String::as_str));
    let results = tally.passed + tally.failed;
    if expected.is_some_and(|expected| u32::try_from(expected) != Ok(results)) {
        println!("{program}: {} tests, {results} results, {status}", expected.unwrap_or_default());
        tally.failed = tally.failed.max(1);
    } else if !status.success() {
        tally.failed = tally.failed.max(1);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_storm_or_not() {
        for (file, storm) in [("bursts", true), ("endings", false)] {
            assert!(is_wanted(file, None));
            assert_eq!(is_wanted(file, Some(Kind::Storms)), storm, "{file}");
            assert_eq!(is_wanted(file, Some(Kind::Others)), !storm, "{file}");
        }
    }
}
