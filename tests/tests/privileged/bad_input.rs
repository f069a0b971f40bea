//! Bad input: what this host lacks and what the user mistyped end in the right exit code and a line that helps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{Host, overwatch_binary, patience};
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::proc::{self, Output};
use overwatch_tests::harness::traffic;

/// Exit 3, nothing on stdout, and one line on stderr in which one of `words` says what is missing.
fn cannot_run(output: &Output, words: &[&str]) -> Result<()> {
    ensure!(output.code == Some(3), "exit {:?} instead of 3; stderr:\n{}", output.code, output.stderr);
    ensure!(output.stdout.is_empty(), "nothing belongs on stdout: {:?}", output.stdout);
    let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(lines.len() == 1, "one line on stderr, not {}:\n{}", lines.len(), output.stderr);
    let line = lines[0].to_lowercase();
    ensure!(words.iter().any(|word| line.contains(&word.to_lowercase())), "none of {words:?} in: {}", lines[0]);
    Ok(())
}

/// `check` cannot run either, and says so where a program reads it.
fn check_says_no(output: &Output) -> Result<()> {
    ensure!(output.code == Some(3), "check: exit {:?} instead of 3; stderr:\n{}", output.code, output.stderr);
    let answer: serde_json::Value =
        serde_json::from_str(output.stdout.trim()).with_context(|| format!("check printed {:?}", output.stdout))?;
    ensure!(answer["can_run"] == false, "can_run is {}", answer["can_run"]);
    ensure!(answer["tier"].is_null(), "tier is {}", answer["tier"]);
    Ok(())
}

/// Runs overwatch with something taken away.
fn without(what: &str, program: &str, arguments: &[&str]) -> Result<Output> {
    let sandboxed = [&["sandbox", what, program][..], arguments].concat();
    proc::run(traffic::command(&sandboxed)?, patience(60))
}

#[test]
fn not_root() -> Result<()> {
    let _host = Host::take()?;
    // A copy that everybody may run, wherever the original is.
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("overwatch");
    fs::copy(overwatch_binary(), &program)?;
    for path in [directory.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let program = program.to_str().context("a path in UTF-8")?;
    cannot_run(&without("root", program, &["top", "-o", "json", "1", "1"])?, &["root", "sudo", "CAP_"])?;
    check_says_no(&without("root", program, &["check", "-o", "json"])?)
}

#[test]
fn no_type_information() -> Result<()> {
    let _host = Host::take()?;
    let program = overwatch_binary();
    let program = program.to_str().context("a path in UTF-8")?;
    cannot_run(&without("btf", program, &["top", "-o", "json", "1", "1"])?, &["BTF"])?;
    check_says_no(&without("btf", program, &["check", "-o", "json"])?)
}

#[test]
fn a_tier_that_is_not_there() -> Result<()> {
    let host = Host::take()?;
    let Some(tier) = host.missing_tier()? else {
        eprintln!("skipped: this kernel has every tier");
        return Ok(());
    };
    cannot_run(&overwatch::output(&["top", "-o", "json", "--attach", tier.name(), "1", "1"])?, &[tier.name()])?;
    check_says_no(&overwatch::output(&["check", "-o", "json", "--attach", tier.name()])?)
}

#[test]
fn bad_arguments() -> Result<()> {
    let _host = Host::take()?;
    let bad: &[&[&str]] = &[
        &["top", "--no-such-flag"],
        &["top", "0"],
        &["top", "-1"],
        &["top", "abc"],
        &["top", "1e99"],
        &["top", "NaN"],
        &["top", "inf"],
        &["top", "1", "x"],
        &["top", "1", "-3"],
        &["top", "1", "2", "3"],
        &["top", "--addr", "10.0.0.0/33", "1", "1"],
        &["top", "--addr", "::/129", "1", "1"],
        &["top", "--addr", "here", "1", "1"],
        &["top", "--addr", "10.0.0.256", "1", "1"],
        &["top", "--port", "65536", "1", "1"],
        &["top", "--lport", "http", "1", "1"],
        &["top", "--pid", "x", "1", "1"],
        &["top", "--max-connections", "0", "1", "1"],
        &["top", "--max-connections", "many", "1", "1"],
        &["top", "-o", "xml", "1", "1"],
        &["top", "--attach", "magic", "1", "1"],
        &["top", "-4", "-6", "1", "1"],
        &["top", "--config", "/dev/null", "1", "1"],
        &["check", "--no-such-flag"],
        &["check", "--config", "/no/such/file"],
        &["check", "--config", "/proc/version"],
        &["serve", "--config", "/no/such/file"],
        &["serve", "--web.listen-address", "9752"],
        &["serve", "--series.ports", "0"],
        &["no-such-verb"],
    ];
    let mut problems = Vec::new();
    for arguments in bad {
        let output = overwatch::output(arguments)?;
        if output.code != Some(2) || output.stderr.trim().is_empty() || output.stderr.contains("panicked") {
            problems.push(format!("{arguments:?}: exit {:?}, stderr {:?}", output.code, output.stderr));
        }
    }
    ensure!(problems.is_empty(), "these must end with 2 and say why:\n{}", problems.join("\n"));
    Ok(())
}
