//! Our own programs that a guest runs: overwatch, the privileged tests, their `traffic`.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// Where they are built.
pub(crate) struct Programs {
    pub(crate) overwatch: PathBuf,
    pub(crate) traffic: PathBuf,
    /// All privileged tests.
    pub(crate) tests: PathBuf,
    /// The tests of the harness and of `traffic` themselves, which need neither root nor overwatch.
    pub(crate) unit_tests: Vec<PathBuf>,
}

/// The page that says which operation is exact in which tier; the tests compare what they measure with it.
pub(crate) fn operations_table() -> PathBuf {
    shell::root().join("docs/operations.md")
}

/// Builds overwatch and its tests, unless `OVERWATCH_BIN` names a built overwatch.
pub(crate) fn build() -> Result<Programs> {
    let overwatch = match env::var_os("OVERWATCH_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            shell::run(shell::cargo().args(["build", "--release", "--package", "overwatch"]))?;
            shell::target_dir().join("release/overwatch")
        }
    };
    let mut cargo = shell::cargo();
    cargo.args(["test", "--profile", "tests", "--package", "overwatch-tests", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = shell::output(&mut cargo)?;
    let built = executables(&messages);
    // A file beside the directory `privileged` would be a program of its own, which nothing runs.
    let [tests] = built.tests.as_slice() else {
        bail!("the package overwatch-tests must have one test program, not {:?}", built.tests);
    };
    let tests = tests.clone();
    let traffic = built.traffic.context("the package overwatch-tests has no program `traffic`")?;
    Ok(Programs { overwatch, traffic, tests, unit_tests: built.unit_tests })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Executables {
    tests: Vec<PathBuf>,
    traffic: Option<PathBuf>,
    unit_tests: Vec<PathBuf>,
}

/// What was built, out of cargo's messages.
fn executables(messages: &str) -> Executables {
    let mut built = Executables::default();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else {
            continue;
        };
        let target = &message["target"];
        let is_test = message["profile"]["test"].as_bool() == Some(true);
        match (target["kind"][0].as_str(), is_test) {
            (Some("test"), true) => built.tests.push(path),
            (Some("bin"), false) if target["name"] == "traffic" => built.traffic = Some(path),
            (_, true) => built.unit_tests.push(path),
            _ => {}
        }
    }
    built.unit_tests.sort();
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_the_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"overwatch_tests"},"profile":{"test":true},"executable":"/t/lib-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"traffic"},"profile":{"test":true},"executable":"/t/traffic-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"traffic"},"profile":{"test":false},"executable":"/t/traffic"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"privileged"},"profile":{"test":true},"executable":"/t/privileged-2"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"profile":{"test":false},"executable":null}"#,
            "\nnot JSON\n",
        );
        let path = |name: &str| PathBuf::from("/t").join(name);
        let expected = Executables {
            tests: vec![path("privileged-2")],
            traffic: Some(path("traffic")),
            unit_tests: vec![path("lib-1"), path("traffic-1")],
        };
        assert_eq!(executables(messages), expected);
    }
}
