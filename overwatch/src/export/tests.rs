use std::{fmt::Write as _, fs, path::Path};

use super::*;

/// docs/metrics.md as it has to be.
fn documentation() -> String {
    let mut text = "\
# Metrics

What `overwatch serve` exports. Bytes, seconds and counts are exact; where a number is not known there is no series, and never a 0 in its place.
Every family that has a label set for each of something is capped (`[series]` in docs/configuration.md): what is beyond the cap is in one series whose
labels are all `other`, so that sums over all series stay right. A service or port in which nothing is open and has changed for `series.idle_seconds` has no series any more;
what it had is not put on `other`, where rate() would take it for new. The standard `process_*` metrics are of the process that collects.

| label | what it is |
|---|---|
| `listener` | address and port that are listened at: `192.0.2.1:80`, `[::]:443` |
| `netns` | network namespace, inode number |
| `socket` | which of the sockets that share the address (SO_REUSEPORT), from 1; a socket keeps its number |
| `role` | `server` when this end accepted, `client` when it connected, `unknown` |
| `port` | the port of the service: the local one of a server, the remote one of a client; `ephemeral` for one that the kernel chooses for clients and at which nothing on this host listens; `unknown` |
| `process` | name of the process at this end; `unknown` |
| `cgroup` | path of its control group (version 2); `unknown` |
"
    .to_owned();
    for (subject, families) in declarations() {
        let _ = write!(text, "\n## {subject}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for Declared { name, kind, labels, help } in families {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(text, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
        }
    }
    text.push_str("\n## The process that collects\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in ProcessCollector::for_self().collect() {
        let kind = if family.name().ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        let _ = writeln!(text, "| `{}` | {} |  | {} |", family.name(), kind.name(), family.help());
    }
    text
}

#[test]
fn the_documentation_is_made_from_the_declarations() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("OVERWATCH_WRITE_SCHEMA").is_some() {
        fs::write(&path, documentation()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == documentation(),
        "docs/metrics.md is not what the declarations say: run this test with OVERWATCH_WRITE_SCHEMA=1"
    );
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let families: Vec<Declared> = declarations().into_iter().flat_map(|(_, families)| families).collect();
    let mut names: Vec<_> = families.iter().map(|family| family.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), families.len(), "a name stands twice");
    for Declared { name, kind, labels, help } in families {
        assert!(name.starts_with("overwatch_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        assert!(kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        for wrong in ["_milliseconds", "_ms", "_kb", "_percent", "_ratio_total"] {
            assert!(!name.contains(wrong), "{name}");
        }
        assert!(help.ends_with('.') && !help.contains(['|', '\n']), "{name}: {help}");
        for label in labels {
            // Nothing that every connection or process has anew.
            assert!(!["pid", "remote_addr", "peer", "client", "inode"].contains(&label), "{name}: {label}");
        }
    }
}
