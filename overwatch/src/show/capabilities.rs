//! What `overwatch check` prints of capabilities: a block, an object, and the last line.

use std::io::{self, Write};

use serde_json::{Map, Value as Json};

use super::{
    check::{Report, Verdict, degradations},
    text::printable,
};
use crate::probes::{
    attach::Attached,
    capabilities::{Capabilities, Level, Verb, reasons, refusal},
};

/// The block: each capability with its level, and a sentence for each reason.
pub(super) fn write_block(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    writeln!(out, "\nCapabilities")?;
    for (capability, level) in report.capabilities().each() {
        writeln!(out, "  {}: {}", capability.name(), level.name())?;
        for reason in reasons(capability, degradations(report)) {
            writeln!(out, "    {} ({})", reason.loss, printable(&reason.sources()))?;
        }
    }
    Ok(())
}

/// The object, of levels by capability.
pub(super) fn json(capabilities: Capabilities) -> Json {
    let levels = capabilities.each().map(|(capability, level)| (capability.name().to_owned(), level.name().into()));
    levels.collect::<Map<_, _>>().into()
}

/// The last line: what can run here and what cannot.
pub(super) fn write_conclusion(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    let asked = report.verb.map_or_else(|| "overwatch".to_owned(), |verb| format!("\"overwatch {}\"", verb.name()));
    let capabilities = report.capabilities();
    if let Some(refusal) = report.refusal() {
        let (reason, help) = (printable(&refusal.reason), &refusal.help);
        write!(out, "\n{asked} cannot run here (exit code 3): {reason}. What would help: {help}.")?;
        if report.verb.is_none() && Verb::Listeners.can_run(capabilities) {
            write!(out, " \"overwatch {}\" can run, without BPF programs.", Verb::Listeners.name())?;
        }
        return writeln!(out);
    }
    let how = match &report.verdict {
        Verdict::Runs { attached, .. } => format!("in the {} tier", attached.tier),
        Verdict::Cannot { .. } => "without BPF programs".to_owned(),
    };
    write!(out, "\n{asked} can run here, {how}: {capabilities}.")?;
    for verb in Verb::ALL.into_iter().filter(|verb| report.verb.is_none() && !verb.can_run(capabilities)) {
        write!(out, " \"overwatch {}\" would end with exit code 3.", verb.name())?;
    }
    writeln!(out)
}

/// A line for each capability of which nothing is left: what is missing, what is lost, why, and
/// what to do.
pub fn warnings(attached: &Attached) -> impl Iterator<Item = String> {
    attached.capabilities().missing().map(|capability| {
        let refusal = refusal(capability, &attached.degradations);
        printable(&format!("WARNING: {} {}: {refusal}", capability.name(), Level::None.name()))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        kernel::{facts::KernelFacts, fixtures::KERNELS, host::HostFacts},
        probes::{
            attach::{Attempt, Cause, Degradation, Outcome},
            capabilities::{Capability, without_programs},
            catalogue::{HOOKS, Tier},
            object::Capacity,
            plan::{Attach, Refusal},
            seed::Seeded,
        },
        show::check::{write_json, write_text},
    };

    fn degradation(what: &str, loss: &'static str, concerns: &'static [Capability], leaves: Level) -> Degradation {
        Degradation { what: what.to_owned(), why: "EPERM".to_owned(), loss, concerns, leaves }
    }

    fn partial() -> Vec<Degradation> {
        vec![degradation("tracepoint tier", "splice(2) comes late", &[Capability::Bytes], Level::Partial)]
    }

    fn blind() -> Vec<Degradation> {
        let missing = |what| degradation(what, "no queues", &[Capability::Listeners], Level::None);
        partial().into_iter().chain([missing("scan_listener"), missing("sock_diag")]).collect()
    }

    fn attached(degradations: Vec<Degradation>) -> Attached {
        let refused = Outcome::Refused(Cause { line: "EPERM".to_owned(), verifier_log: String::new(), errno: None });
        let hooks = vec![(HOOKS[0], Outcome::Attached), (HOOKS[4], refused)];
        let attempts = vec![Attempt { tier: Tier::Tracepoint, hooks, failure: None }];
        Attached::fixture(Tier::Tracepoint, attempts, degradations)
    }

    /// Text and JSON of a report on a kernel that is not this one.
    fn reported(verb: Option<Verb>, verdict: Verdict<'_>) -> (String, Json) {
        let facts = KernelFacts::from_btf(KERNELS[0].btf).unwrap();
        let host = HostFacts {
            btf: Ok(facts),
            may_load: true,
            proc_error: None,
            ..HostFacts::read(Path::new("/nonexistent"))
        };
        let capacity = Capacity::new(65_536, Capacity::DEFAULT_RING_BYTES);
        let report = Report {
            host: &host,
            capacity: &capacity,
            wanted: Attach::Auto,
            resident_memory_bytes: None,
            verb,
            verdict,
        };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        write_text(&mut text, &report).unwrap();
        write_json(&mut json, &report).unwrap();
        (String::from_utf8(text).unwrap(), serde_json::from_slice(&json).unwrap())
    }

    fn reported_of(verb: Option<Verb>, degradations: Vec<Degradation>) -> (String, Json) {
        let seeded = Seeded { namespaces: Some(3), unreachable: Vec::new() };
        let attached = attached(degradations);
        reported(verb, Verdict::Runs { attached: &attached, seeded: &seeded, seeded_connections: 5 })
    }

    #[test]
    fn the_last_line_is_what_can_run_and_what_cannot() {
        let help = Capability::Listeners.help();
        let blind_line = "overwatch can run here, in the tracepoint tier: bytes partial, life full, listeners none. \
             \"overwatch listeners\" would end with exit code 3.";
        let refused = format!(
            "\"overwatch listeners\" cannot run here (exit code 3): no queues (scan_listener: EPERM; sock_diag: EPERM). \
             What would help: {help}."
        );
        for (verb, degradations, can_run, expected) in [
            (
                None,
                vec![],
                true,
                "overwatch can run here, in the tracepoint tier: bytes full, life full, listeners full.",
            ),
            (None, blind(), true, blind_line),
            (
                Some(Verb::Serve),
                blind(),
                true,
                "\"overwatch serve\" can run here, in the tracepoint tier: bytes partial, life full, listeners none.",
            ),
            (Some(Verb::Listeners), blind(), false, refused.as_str()),
            (
                Some(Verb::Listeners),
                partial(),
                true,
                "\"overwatch listeners\" can run here, in the tracepoint tier: bytes partial, life full, listeners full.",
            ),
        ] {
            let (text, json) = reported_of(verb, degradations);
            assert_eq!(text.lines().next_back(), Some(expected), "{verb:?}");
            assert_eq!(json["can_run"], can_run, "{verb:?}");
            assert_eq!(json["verb"], verb.map_or(Json::Null, |verb| verb.name().into()));
            assert_eq!(json["reason"].is_null(), can_run, "{verb:?}");
        }
    }

    #[test]
    fn the_block_has_each_level_with_a_sentence_for_each_reason() {
        let (text, json) = reported_of(None, blind());
        let block = "\nCapabilities\n  bytes: partial\n    splice(2) comes late (tracepoint tier)\n  life: full\n  listeners: none\n    \
                     no queues (scan_listener, sock_diag)\n\n";
        assert!(text.contains(block), "{text}");
        assert_eq!(json["capabilities"], serde_json::json!({"bytes": "partial", "life": "full", "listeners": "none"}));
    }

    #[test]
    fn where_nothing_attaches_only_listeners_may_be_left() {
        let refusal = Refusal::new("no tier attaches", "another kernel");
        let cannot = |verb, listeners| {
            let degradations = without_programs(&refusal, listeners);
            reported(verb, Verdict::Cannot { refusal: &refusal, attempts: &[], degradations: &degradations })
        };
        let (text, json) = cannot(Some(Verb::Serve), Err("no tcp_diag".to_owned()));
        assert!(text.contains("\n  listeners: none\n    listening sockets cannot be read (BPF programs)\n"), "{text}");
        let last =
            "\"overwatch serve\" cannot run here (exit code 3): no tier attaches. What would help: another kernel.\n";
        assert!(text.ends_with(last), "{text}");
        assert_eq!(json["capabilities"], serde_json::json!({"bytes": "none", "life": "none", "listeners": "none"}));

        let (text, json) = cannot(Some(Verb::Listeners), Ok("no accepts"));
        let last =
            "\"overwatch listeners\" can run here, without BPF programs: bytes none, life none, listeners partial.\n";
        assert!(text.ends_with(last), "{text}");
        assert_eq!(json["can_run"], true);
        let (text, json) = cannot(None, Ok("no accepts"));
        assert!(text.ends_with(" \"overwatch listeners\" can run, without BPF programs.\n"), "{text}");
        assert_eq!(json["can_run"], false);
    }

    #[test]
    fn only_what_is_missing_is_a_warning_of_one_line() {
        assert_eq!(warnings(&attached(partial())).count(), 0);
        let warnings: Vec<_> = warnings(&attached(blind())).collect();
        let help = Capability::Listeners.help();
        let expected = format!("WARNING: listeners none: no queues (scan_listener: EPERM; sock_diag: EPERM); {help}");
        assert_eq!(warnings, [expected]);
    }

    fn keys(of: &Json, found: &mut Vec<String>) {
        match of {
            Json::Object(object) => object.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            Json::Array(values) => values.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_of_check_is_documented() {
        let document = include_str!("../../../docs/json.md");
        let (_, section) = document.split_once("\n## `overwatch check -o json`\n").unwrap();
        let (_, json) = reported_of(None, blind());
        let mut found = Vec::new();
        keys(&json, &mut found);
        assert!(
            ["absent", "impossible", "error", "network_namespaces"]
                .iter()
                .all(|key| found.contains(&(*key).to_owned()))
        );
        for key in found {
            assert!(section.contains(&format!("\n| `{key}` | ")), "docs/json.md lacks the key {key} of check");
        }
    }
}
