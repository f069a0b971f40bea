//! `cargo xtask vm`: the privileged tests on every kernel of the matrix, in guests.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cases::{self, CaseFile};
use crate::console::Tally;
use crate::durations::Durations;
use crate::guest::{End, Guest, Report};
use crate::kernels::{self, Kernel, Unpacked};
use crate::parts::{self, Kind, Part, Queue};
use crate::programs::{self, Programs};
use crate::{failures, shell, stages};

/// Run the privileged tests on other kernels, under QEMU.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernels: 5.10, 6.1, 6.12, 7.2; all of them without any.
    kernels: Vec<String>,
    /// Only tests with this in their names.
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// Only those in files with this in their names.
    #[arg(long, value_name = "FILTER")]
    file: Option<String>,
    /// Only guests whose tests hold times against a clock, or only the others.
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// Keep what a guest said also when all is well.
    #[arg(long)]
    keep_log: bool,
    /// Download the kernels that are missing, and run nothing.
    #[arg(long)]
    fetch: bool,
    /// Guests at a time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Seconds after which a guest is given up.
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernels = kernels::select(&args.kernels)?;
    let (fetched, total) = fetch(kernels);
    if args.fetch {
        return Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let programs = programs::build()?;
    let files = parts::for_guests(cases::list(&programs.tests)?, args.file.as_deref())?;
    let files = cases::select(files, None, args.test.as_deref())?;
    let logs = stages::logs()?;
    let queue = Queue::new(fetched, &files, args.only);
    let total = Mutex::new(total);
    thread::scope(|scope| {
        let (queue, total, programs, logs) = (&queue, &total, &programs, &logs);
        for worker in 0..args.jobs.max(1) {
            scope.spawn(move || {
                while let Some(part) = queue.next(worker) {
                    // Not in one statement, which would lock the sum for as long as the guest runs.
                    let tally = test(args, &part, programs, logs);
                    lock(total).add(tally);
                }
            });
        }
    });
    let total = *lock(&total);
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The unpacked kernels, and how many could not be had.
fn fetch(kernels: Vec<&'static Kernel>) -> (Vec<(&'static Kernel, Unpacked)>, Tally) {
    let (mut fetched, mut total) = (Vec::new(), Tally::default());
    // One after the other: apt locks its lists.
    for kernel in kernels {
        match kernel.fetch() {
            Ok(unpacked) => fetched.push((kernel, unpacked)),
            Err(error) => {
                println!("{:<10} FAILED  {error:#}", kernel.name);
                total.failed += 1;
            }
        }
    }
    (fetched, total)
}

/// Runs one guest, prints how it went and, if a test failed, what explains it.
fn test(args: &Args, part: &Part, programs: &Programs, logs: &Path) -> Tally {
    let release = &part.unpacked.release;
    let path = logs.join(format!("vm-{}.log", part.name));
    // One of an earlier run would only mislead.
    let _ = fs::remove_file(&path);
    let (report, durations) = match boot(args, part, programs, &path) {
        Ok(both) => both,
        Err(error) => {
            println!("{:<10} FAILED  {error:#}", part.name);
            return Tally { passed: 0, failed: 1 };
        }
    };
    let (tally, problem) = judge(&report, cases::count(&part.files));
    let kept = if problem.is_some() || args.keep_log {
        let said = format!("{}\n{}", report.console.join("\n"), durations.report());
        fs::write(&path, said).is_ok()
    } else {
        let _ = fs::remove_file(&path);
        false
    };
    let mut text = String::new();
    if let Some(problem) = &problem {
        let words = if matches!(report.end, End::Exit(_)) { failures::of(&report.script()) } else { report.tail() };
        let _ = writeln!(text, "---- kernel {release}: {problem} ----\n{words}\n---- end of {release} ----");
    }
    let verdict = if problem.is_some() { "FAILED" } else { "ok" };
    let seconds = report.took.as_secs();
    let _ = write!(text, "{:<10} {verdict:<7} {seconds:>5} s  {tally}  ({release})", part.name);
    if let Some(problem) = problem {
        let _ = write!(text, ": {problem}");
    }
    if kept {
        let _ = write!(text, ", log: {}", path.display());
    }
    // One call, since another guest may be ending just now.
    println!("{text}");
    tally
}

/// The tests that passed and failed, and what was wrong. A guest that did not come to its end has failed in itself.
fn judge(report: &Report, expected: usize) -> (Tally, Option<String>) {
    let mut tally = Tally::of(report.console.iter().map(String::as_str));
    let mut problem = report.problem();
    let results = tally.passed + tally.failed;
    if tally.failed > 0 {
        problem = Some(format!("{} failed", tally.failed));
    }
    if !matches!(report.end, End::Exit(_)) {
        problem = report.problem();
        tally.failed += 1;
    } else if u32::try_from(expected) != Ok(results) {
        problem = Some(format!("{expected} tests, {results} results"));
    }
    if problem.is_some() && tally.failed == 0 {
        tally.failed = 1;
    }
    (tally, problem)
}

fn boot(args: &Args, part: &Part, programs: &Programs, log: &Path) -> Result<(Report, Durations)> {
    let mut guest = Guest::new(part.unpacked.clone(), script(part.kernel, &part.files));
    guest.nice = part.nice;
    guest.timeout = Duration::from_secs(args.timeout);
    guest.programs.push((programs.overwatch.clone(), "/usr/bin/overwatch".to_owned()));
    guest.programs.push((programs.traffic.clone(), "/usr/bin/traffic".to_owned()));
    let tcpstates = shell::find("tcpstates").context("tcpstates is missing: run `cargo xtask setup`")?;
    guest.programs.push((tcpstates, "/usr/sbin/tcpstates".to_owned()));
    guest.programs.push((programs.tests.clone(), TESTS.to_owned()));
    guest.files.push((programs::operations_table(), "/operations.md".to_owned()));
    let mut durations = Durations::new(Instant::now());
    // Line by line, for people who watch, and for a run that is interrupted.
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let report = guest.boot(|line| {
        durations.line(line, Instant::now());
        // It is written again as a whole in the end.
        let _ = writeln!(log, "{line}");
    })?;
    Ok((report, durations))
}

/// Where the test program is in a guest.
const TESTS: &str = "/usr/bin/privileged";

fn script(kernel: &Kernel, files: &[CaseFile]) -> String {
    let mut script = format!(
        "export OVERWATCH_BIN=/usr/bin/overwatch OVERWATCH_TRAFFIC_BIN=/usr/bin/traffic\n\
         export OVERWATCH_GUEST_KERNEL={} OVERWATCH_TIERS={}\n\
         export OVERWATCH_OPERATIONS_TABLE=/operations.md\nstatus=0\n",
        kernel.name, kernel.tiers
    );
    for file in files {
        let arguments: Vec<&str> = file.arguments().collect();
        let _ = writeln!(script, "echo '== {}'\n{TESTS} {} || status=1", file.name, arguments.join(" "));
    }
    script.push_str("exit $status\n");
    script
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked while it held one is reported by the scope.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(end: End, lines: &[&str]) -> Report {
        let console = lines.iter().map(|line| (*line).to_owned()).collect();
        Report { end, console, took: Duration::ZERO }
    }

    const GOOD: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
    const BAD: &str = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn a_guest_is_judged_by_its_tests_and_by_its_end() {
        let (tally, problem) = judge(&report(End::Exit(0), &[GOOD, GOOD]), 6);
        assert_eq!((tally, problem), (Tally { passed: 6, failed: 0 }, None));

        let (tally, problem) = judge(&report(End::Exit(1), &[GOOD, BAD]), 6);
        assert_eq!((tally.passed, tally.failed), (4, 2));
        assert_eq!(problem.as_deref(), Some("2 failed"));

        // A test program that a signal ended has no result line.
        let (tally, problem) = judge(&report(End::Exit(1), &[GOOD]), 4);
        assert_eq!((tally.passed, tally.failed), (3, 1));
        assert!(problem.is_some());

        for end in [End::Timeout, End::NoVerdict, End::Hang("panic")] {
            let (tally, problem) = judge(&report(end, &[GOOD]), 3);
            assert_eq!((tally.passed, tally.failed), (3, 1));
            assert!(problem.is_some());
        }
    }

    #[test]
    fn a_guest_that_left_a_test_out_has_failed() {
        for (lines, expected) in [(&[] as &[&str], 1), (&[GOOD], 4)] {
            let (tally, problem) = judge(&report(End::Exit(0), lines), expected);
            assert_eq!(tally.failed, 1);
            assert!(problem.is_some());
        }
    }

    #[test]
    fn the_script_runs_each_file_in_a_process_of_its_own() {
        let file = |name: &str, cases: &[&str]| CaseFile {
            name: name.to_owned(),
            cases: cases.iter().map(|case| (*case).to_owned()).collect(),
        };
        let files = [file("bursts", &["bursts::a", "bursts::b"]), file("zz_lockdown", &["zz_lockdown::c"])];
        let script = script(kernels::by_name("6.1").unwrap(), &files);
        assert!(script.contains("OVERWATCH_GUEST_KERNEL=6.1 OVERWATCH_TIERS=fentry,kprobe\n"), "{script}");
        assert!(script.contains("echo '== bursts'\n/usr/bin/privileged --test-threads=1 "), "{script}");
        assert!(script.contains("--exact bursts::a bursts::b || status=1\necho '== zz_lockdown'\n"), "{script}");
    }
}
