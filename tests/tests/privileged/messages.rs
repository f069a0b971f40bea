//! Messages of hosts that cannot run overwatch: each names the cause where the facts show it, and no other.

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{Host, overwatch_binary, patience};
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::proc::{self, Output};
use overwatch_tests::harness::traffic;

/// Runs overwatch with something taken away.
fn without(what: &str, arguments: &[&str]) -> Result<Output> {
    let program = overwatch_binary();
    let program = program.to_str().context("a path in UTF-8")?;
    proc::run(traffic::command(&[&["sandbox", what, program][..], arguments].concat())?, patience(60))
}

/// What is taken away; words of the one line on stderr; words that would name another cause.
const CASES: &[(&str, &[&str], &[&str])] = &[
    (
        "host",
        &["cannot create the maps", "EPERM", "user namespace", "root of the host"],
        &["5.11", "memory", "sudo", "seccomp"],
    ),
    ("files", &["EMFILE", "limit is 20", "ulimit -n", "LimitNOFILE="], &["5.11", "memory", "fentry"]),
    ("proc", &["/proc/self/status", "mount -t proc"], &["CAP_BPF", "sudo"]),
    ("sys", &["no sysfs", "mount -t sysfs"], &["CONFIG_DEBUG_INFO_BTF"]),
    ("bpf", &["EPERM", "gives no reason", "Likely reasons: ", "seccomp filter"], &["fentry"]),
];

#[test]
fn each_names_its_cause_and_no_other() -> Result<()> {
    let _host = Host::take()?;
    for (what, has, has_not) in CASES {
        let output = without(what, &["top", "-o", "json", "1", "1"])?;
        ensure!(output.code == Some(3), "{what}: exit {:?}; stderr:\n{}", output.code, output.stderr);
        ensure!(output.stdout.is_empty(), "{what}: stdout: {}", output.stdout);
        ensure!(output.stderr.trim().lines().count() == 1, "{what}: one line, not:\n{}", output.stderr);
        for word in *has {
            ensure!(output.stderr.contains(word), "{what}: {word:?} is not in: {}", output.stderr);
        }
        for word in *has_not {
            ensure!(!output.stderr.contains(word), "{what}: {word:?} is in: {}", output.stderr);
        }
        println!("{what}: {}", output.stderr);
    }
    Ok(())
}

#[test]
fn check_shows_the_facts_that_a_cause_rests_on() -> Result<()> {
    let _host = Host::take()?;
    for (what, fact, value) in [
        ("host", "initial_user_namespace", serde_json::json!(false)),
        ("files", "open_files_limit", serde_json::json!(20)),
        ("bpf", "seccomp_filter", serde_json::json!(true)),
    ] {
        let output = without(what, &["check", "-o", "json"])?;
        ensure!(output.code == Some(3), "{what}: exit {:?}; stderr:\n{}", output.code, output.stderr);
        let answer: serde_json::Value = serde_json::from_str(output.stdout.trim())?;
        ensure!(answer["facts"][fact] == value, "{what}: {fact} is {}", answer["facts"][fact]);
        ensure!(answer["can_run"] == false, "{what}: {answer}");
    }
    Ok(())
}

#[test]
fn check_says_more_when_it_is_asked_to() -> Result<()> {
    let _host = Host::take()?;
    let [brief, verbose] = [overwatch::output(&["check"])?, overwatch::output(&["check", "-v"])?];
    ensure!(brief.code == Some(0) && verbose.code == Some(0), "{}\n{}", brief.stderr, verbose.stderr);
    for words in [
        "\nSources of the facts\n",
        "/proc/self/status",
        "\nHooks that are not attached\n",
        "\nIn the kernel, while this ran\n",
        "program state_changed ",
        "map     CONNECTIONS ",
    ] {
        ensure!(verbose.stdout.contains(words), "check -v does not say {words:?}:\n{}", verbose.stdout);
        ensure!(!brief.stdout.contains(words), "check says {words:?}:\n{}", brief.stdout);
    }
    let objects = verbose.stdout.lines().filter(|line| line.contains(" id ")).count();
    ensure!(objects > 20, "{objects} programs and maps:\n{}", verbose.stdout);
    Ok(())
}
