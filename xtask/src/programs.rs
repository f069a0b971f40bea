//! Our own programs that a guest runs: overwatch, the privileged tests, their `traffic`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// Where they are built.
pub(crate) struct Programs {
    pub(crate) overwatch: PathBuf,
    pub(crate) traffic: PathBuf,
    /// One per file of tests.
    pub(crate) tests: Vec<PathBuf>,
}

/// The page that says which operation is exact in which tier; the tests compare what they measure with it.
pub(crate) fn operations_table() -> PathBuf {
    shell::root().join("docs/operations.md")
}

/// `target/release/deps/bytes-0123abcd` is `bytes`.
pub(crate) fn test_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned())
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
    let (tests, traffic) = executables(&messages);
    if tests.is_empty() {
        bail!("the package overwatch-tests has no tests");
    }
    let traffic = traffic.context("the package overwatch-tests has no program `traffic`")?;
    Ok(Programs { overwatch, traffic, tests })
}

/// The test programs and `traffic`, out of cargo's messages.
fn executables(messages: &str) -> (Vec<PathBuf>, Option<PathBuf>) {
    let (mut tests, mut traffic) = (Vec::new(), None);
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else {
            continue;
        };
        let target = &message["target"];
        let kind = target["kind"][0].as_str();
        let is_test = message["profile"]["test"].as_bool() == Some(true);
        match (kind, is_test) {
            (Some("test"), true) => tests.push(path),
            (Some("bin"), false) if target["name"] == "traffic" => traffic = Some(path),
            _ => {}
        }
    }
    tests.sort();
    (tests, traffic)
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
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"bytes"},"profile":{"test":true},"executable":"/t/bytes-2"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"profile":{"test":false},"executable":null}"#,
            "\nnot JSON\n",
        );
        let (tests, traffic) = executables(messages);
        assert_eq!(tests, [PathBuf::from("/t/bytes-2")]);
        assert_eq!(traffic, Some(PathBuf::from("/t/traffic")));
        assert_eq!(test_name(&tests[0]), "bytes");
    }
}
