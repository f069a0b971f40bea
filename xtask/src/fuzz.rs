//! `cargo xtask fuzz`: tries what strangers and files may say to `overwatch serve`, guided by what the code does with it.
//!
//! The package is `tests/fuzz`, with libFuzzer. The compiler's own coverage is enough for it, so that stable Rust is, too: no sanitizer.
//! What makes a target panic, hang or take too much memory is kept, and belongs into `tests/fuzz/corpus` once it is mended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{shell, stages};

/// Fuzz what `overwatch serve` reads: needs a C++ compiler.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target; one after the other without any.
    #[arg(value_enum)]
    target: Option<Target>,
    /// How long each of them runs.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    /// A client's connection to the HTTP server.
    Request,
    /// The TOML file of `--config`.
    Settings,
    /// The YAML file of `--web.config.file`.
    WebConfig,
    /// Frames between the two processes of the daemon.
    Link,
}

const ALL: [Target; 4] = [Target::Request, Target::Settings, Target::WebConfig, Target::Link];

impl Target {
    /// Of its file, its program and its directories.
    fn name(self) -> &'static str {
        match self {
            Target::Request => "request",
            Target::Settings => "settings",
            Target::WebConfig => "web_config",
            Target::Link => "link",
        }
    }
}

/// As `cargo fuzz --sanitizer none` has them: counters at every edge of the code, and the operands of comparisons.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// For libFuzzer itself, which the package builds.
const COMPILER: &str = "c++";
/// An input that takes longer is a finding, in seconds: most take less than a thousandth of one.
const LONGEST_SECONDS: u32 = 10;
/// So is one that takes more memory, in MiB.
const MOST_MEMORY_MIB: u32 = 1024;
/// Longest input, in bytes: more than a head may have, and more than anybody writes into a file.
const LONGEST_BYTES: u32 = 20_000;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if std::env::var_os("CXX").is_none() && shell::find(COMPILER).is_none() {
        bail!(
            "{COMPILER} is missing, which libFuzzer is built with: `cargo xtask setup fuzz` installs it (package g++)"
        );
    }
    let targets = args.target.as_ref().map_or(&ALL[..], std::slice::from_ref);
    let programs = build()?;
    let logs = stages::logs()?;
    let mut clean = true;
    for target in targets {
        let name = target.name();
        println!("==> {name}");
        let outcome = fuzz(name, args.seconds, &programs.join(name), &logs)?;
        println!("{name:<14} {outcome}");
        clean &= outcome.found.is_none();
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds all targets; returns where they are.
fn build() -> Result<PathBuf> {
    let directory = work().join("build");
    let version = shell::output(shell::cargo().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo does not name its host")?;
    let mut cargo = shell::cargo();
    cargo.args(["build", "--quiet", "--release", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml"]);
    // With a target named, what only runs while building does not get the flags.
    cargo.args(["--target", host, "--target-dir"]).arg(&directory);
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"));
    shell::run(&mut cargo)?;
    Ok(directory.join(host).join("release"))
}

/// Where all of it is kept: programs, inputs that reach what no other reaches, and findings.
fn work() -> PathBuf {
    shell::target_dir().join("fuzz")
}

fn fuzz(name: &str, seconds: u32, program: &Path, logs: &Path) -> Result<Outcome> {
    let seeds = shell::root().join("tests/fuzz/corpus").join(name);
    let [inputs, findings] = ["inputs", "findings"].map(|kind| work().join(kind).join(name));
    for directory in [&inputs, &findings] {
        shell::create_dir(directory)?;
    }
    let log = logs.join(format!("fuzz-{name}.log"));
    let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(findings.join(""));
    let mut command = shell::dying_with_us(program);
    command.arg(prefix).args(["-print_final_stats=1".to_owned(), format!("-max_total_time={seconds}")]);
    command.args([format!("-timeout={LONGEST_SECONDS}"), format!("-rss_limit_mb={MOST_MEMORY_MIB}")]);
    // What is new goes to the first; the seeds are only read.
    command.arg(format!("-max_len={LONGEST_BYTES}")).arg(inputs).arg(seeds);
    let passed = run_into(&mut command, file)?;
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let outcome = Outcome::of(&String::from_utf8_lossy(&said), passed);
    outcome.with_context(|| format!("{name} has not begun: {} says why", log.display()))
}

/// What it prints goes to a file. True for success.
fn run_into(command: &mut Command, file: File) -> Result<bool> {
    let output = file.try_clone().context("cannot share a file")?;
    let status = command.stdout(output).stderr(file).status().context("cannot start the target")?;
    Ok(status.success())
}

/// How a run went.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    runs: u64,
    /// Edges of the code that were reached by the seeds, and in the end.
    reached: (u64, u64),
    found: Option<Finding>,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: String,
    /// `None` when it could not be kept.
    input: Option<String>,
}

impl Outcome {
    /// From what libFuzzer has printed; `None` when it did not get as far as its first run.
    fn of(said: &str, passed: bool) -> Option<Self> {
        // `#123	NEW    cov: 45 ft: 67 corp: ...`
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with('#')).collect();
        let after = |line: &str, what: &str| line.split_once(what)?.1.split_whitespace().next()?.parse::<u64>().ok();
        let reached = |line: &&str| after(line, " cov: ");
        let start = lines.iter().find(|line| line.contains("INITED")).and_then(reached);
        let end = lines.iter().rev().find_map(reached);
        let runs = said.lines().find_map(|line| after(line, "stat::number_of_executed_units:"));
        let runs = runs.or_else(|| lines.last().and_then(|line| after(line, "#")));
        let found = (!passed).then(|| Finding {
            what: what_is_wrong(said),
            input: said
                .lines()
                .find_map(|line| line.split_once("Test unit written to "))
                .map(|(_, path)| path.to_owned()),
        });
        // A seed may be the finding, before anything is counted.
        match (runs, &found) {
            (Some(runs), _) => Some(Self { runs, reached: (start.unwrap_or(0), end.unwrap_or(0)), found }),
            (None, Some(Finding { input: Some(_), .. })) => Some(Self { runs: 0, reached: (0, 0), found }),
            (None, _) => None,
        }
    }
}

/// The panic's own words, which stand below its place; or else libFuzzer's, of a hang or memory.
fn what_is_wrong(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    let panic = lines.iter().position(|line| line.contains(" panicked at "));
    let words = panic.map(|at| lines[at..].iter().take(2).map(|line| line.trim()).collect::<Vec<_>>().join(" "));
    let summary = || lines.iter().find_map(|line| line.strip_prefix("SUMMARY: ")).map(str::to_owned);
    words.or_else(summary).unwrap_or_else(|| "it ended without a word".to_owned())
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, reached: (start, end), found } = self;
        write!(f, "{runs} runs, coverage {start} -> {end}, ")?;
        match found {
            None => f.write_str("nothing found"),
            Some(Finding { what, input }) => {
                write!(f, "FOUND: {what}\n    input: {}", input.as_deref().unwrap_or("not kept"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str =
        "INFO: Seed: 1\n#24\tINITED cov: 300 ft: 900 corp: 20/2Kb\n#99\tNEW    cov: 310 ft: 950 corp: 21/2Kb\n";

    #[test]
    fn what_was_printed_is_understood() {
        let quiet = format!("{START}#500\tDONE   cov: 312 ft: 960\nstat::number_of_executed_units: 512\n");
        assert_eq!(Outcome::of(&quiet, true), Some(Outcome { runs: 512, reached: (300, 312), found: None }));
        let panic = "thread '<unnamed>' (7) panicked at overwatch/src/a.rs:1:2:\nit is wrong\nnote: run with\n";
        let kept = "artifact_prefix='/f/'; Test unit written to /f/crash-1\n";
        let found =
            |what: &str, input: Option<&str>| Some(Finding { what: what.to_owned(), input: input.map(str::to_owned) });
        let what = "thread '<unnamed>' (7) panicked at overwatch/src/a.rs:1:2: it is wrong";
        for (said, expected) in [
            (
                format!("{START}{panic}{kept}"),
                Outcome { runs: 99, reached: (300, 310), found: found(what, Some("/f/crash-1")) },
            ),
            // A seed.
            (format!("{panic}{kept}"), Outcome { runs: 0, reached: (0, 0), found: found(what, Some("/f/crash-1")) }),
            (
                format!("{START}SUMMARY: libFuzzer: timeout\n"),
                Outcome { runs: 99, reached: (300, 310), found: found("libFuzzer: timeout", None) },
            ),
        ] {
            assert_eq!(Outcome::of(&said, false), Some(expected), "{said}");
        }
        assert_eq!(Outcome::of("cannot open shared object\n", false), None);
    }

    #[test]
    fn every_target_has_a_file_and_seeds() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        for target in ALL {
            assert!(package.join(format!("src/bin/{}.rs", target.name())).is_file(), "{target:?}");
            assert!(package.join("corpus").join(target.name()).is_dir(), "{target:?}");
        }
        assert_eq!(fs::read_dir(package.join("src/bin")).unwrap().count(), ALL.len());
    }
}
