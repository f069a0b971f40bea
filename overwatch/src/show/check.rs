//! What `overwatch check` prints.

use std::io::{self, Write};

use serde_json::{Value as Json, json};

use super::{capabilities, json::write_line, text::bytes, text::printable};
use crate::{
    kernel::host::HostFacts,
    probes::{
        attach::{Attached, Attempt, Degradation, Outcome},
        capabilities::{self as probes, Capabilities, Level, Verb},
        object::{Capacity, Interest},
        plan::{self, Attach, Refusal, TierPlan},
        seed::Seeded,
    },
};

pub mod details;

/// All that is known after a try.
#[derive(Debug)]
pub struct Report<'a> {
    /// What the host offers.
    pub host: &'a HostFacts,
    /// Sizes that were asked for.
    pub capacity: &'a Capacity,
    /// Memory of this process, once everything is attached and seeded.
    pub resident_memory_bytes: Option<u64>,
    /// What `--attach` said.
    pub wanted: Attach,
    /// The verb that the answer is for; `None` for all.
    pub verb: Option<Verb>,
    /// What came of it.
    pub verdict: Verdict<'a>,
}

impl Report<'_> {
    /// What overwatch can do on this host.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::of(degradations(self))
    }

    /// Why overwatch, or the verb that the answer is for, cannot run here; `None` when it can.
    pub fn refusal(&self) -> Option<Refusal> {
        let missing = self.verb.and_then(Verb::needs);
        let is_there = missing.is_some_and(|missing| self.capabilities().level(missing) > Level::None);
        match &self.verdict {
            _ if is_there => None,
            Verdict::Runs { attached, .. } => Some(probes::refusal(missing?, &attached.degradations)),
            Verdict::Cannot { refusal, .. } => Some((*refusal).clone()),
        }
    }
}

/// What came of the try.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// The main job can run.
    Runs {
        /// What was attached.
        attached: &'a Attached,
        /// What was seeded.
        seeded: &'a Seeded,
        /// Connections that were open already.
        seeded_connections: u64,
    },
    /// It cannot.
    Cannot {
        /// Why.
        refusal: &'a Refusal,
        /// What was tried.
        attempts: &'a [Attempt],
        /// What is missing without programs.
        degradations: &'a [Degradation],
    },
}

impl<'a> Verdict<'a> {
    /// What was tried.
    pub fn attempts(&self) -> &'a [Attempt] {
        match self {
            Self::Runs { attached, .. } => &attached.attempts,
            Self::Cannot { attempts, .. } => attempts,
        }
    }
}

/// A fact with its meaning for the user.
struct Line {
    key: &'static str,
    title: &'static str,
    text: String,
    value: Json,
}

fn line(key: &'static str, title: &'static str, text: impl Into<String>, value: impl Into<Json>) -> Line {
    Line { key, title, text: text.into(), value: value.into() }
}

fn facts(report: &Report<'_>) -> Vec<Line> {
    let host = report.host;
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let unknown = || "unknown".to_owned();
    let tracepoints = |name: &str| host.btf.as_ref().is_ok_and(|facts| facts.has_tracepoint(name));
    vec![
        line("kernel_release", "kernel", &host.kernel_release, host.kernel_release.clone()),
        line(
            "btf",
            "type information (BTF)",
            host.btf.as_ref().map_or_else(ToString::to_string, |_| yes(true).into()),
            host.btf.is_ok(),
        ),
        line(
            "length_tracepoints",
            "tracepoints sock_send_length and sock_recv_length",
            yes(tracepoints("sock_send_length") && tracepoints("sock_recv_length")),
            tracepoints("sock_send_length") && tracepoints("sock_recv_length"),
        ),
        line("kprobes", "kprobes", yes(host.kprobes), host.kprobes),
        line(
            "initial_user_namespace",
            "in the initial user namespace, where bpf(2) is permitted",
            yes(host.initial_user_namespace),
            host.initial_user_namespace,
        ),
        line(
            "seccomp_filter",
            "a seccomp filter may forbid system calls",
            host.seccomp_filter.map_or_else(unknown, |filter| yes(filter).to_owned()),
            host.seccomp_filter,
        ),
        line(
            "open_files_limit",
            "limit on open files",
            host.open_files_limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
            host.open_files_limit,
        ),
        line("lockdown", "kernel lockdown", host.lockdown.clone().unwrap_or_else(unknown), host.lockdown.clone()),
        line("may_load", "may load BPF programs (CAP_BPF, CAP_PERFMON)", yes(host.may_load), host.may_load),
        line(
            "may_inspect",
            "may look into other processes and namespaces (CAP_SYS_PTRACE, CAP_SYS_ADMIN)",
            yes(host.may_inspect),
            host.may_inspect,
        ),
        line(
            "initial_pid_namespace",
            "sees the host's own process numbers",
            yes(host.initial_pid_namespace),
            host.initial_pid_namespace,
        ),
        line(
            "memlock_bytes",
            "limit on locked memory (matters before Linux 5.11)",
            host.memlock_bytes.map_or_else(|| "none".to_owned(), |limit| bytes(limit as f64)),
            host.memlock_bytes,
        ),
        line(
            "bpf_stats_enabled",
            "run-time statistics of BPF programs",
            host.bpf_stats_enabled.map_or_else(unknown, |on| {
                if on { "on: every event costs a little more".into() } else { "off".into() }
            }),
            host.bpf_stats_enabled,
        ),
        line(
            "max_connections",
            "connections known at one time",
            report.capacity.connections.to_string(),
            report.capacity.connections,
        ),
        line(
            "map_memory_bytes",
            "kernel memory for the maps, about",
            bytes(report.capacity.bytes() as f64),
            report.capacity.bytes(),
        ),
        line(
            "resident_memory_bytes",
            "memory of this process",
            report.resident_memory_bytes.map_or_else(unknown, |memory| bytes(memory as f64)),
            report.resident_memory_bytes,
        ),
    ]
}

/// Plans of this host, for the interest that needs most; empty when it fails the prerequisites.
fn plans(report: &Report<'_>) -> Vec<TierPlan> {
    plan::prerequisites(report.host)
        .map_or_else(|_| Vec::new(), |facts| plan::plan(report.host, facts, report.wanted, Interest::Service))
}

pub(super) fn degradations<'a>(report: &'a Report<'a>) -> &'a [Degradation] {
    match &report.verdict {
        Verdict::Runs { attached, .. } => &attached.degradations,
        Verdict::Cannot { degradations, .. } => degradations,
    }
}

/// For people.
pub fn write_text(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    writeln!(out, "This host")?;
    for fact in facts(report) {
        writeln!(out, "  {}: {}", fact.title, printable(&fact.text))?;
    }
    capabilities::write_block(out, report)?;
    let planned = plans(report);
    if !planned.is_empty() {
        let order: Vec<_> = planned.iter().map(|plan| plan.tier.name()).collect();
        writeln!(out, "\nPlan: the first of {} that loads and attaches", order.join(", "))?;
    }
    for attempt in report.verdict.attempts() {
        let result = attempt.failure.as_ref().map_or("works".to_owned(), |why| format!("does not work: {why}"));
        writeln!(out, "\n{} tier: {}", attempt.tier, printable(&result))?;
        for (hook, outcome) in &attempt.hooks {
            let outcome = match outcome {
                Outcome::Attached | Outcome::Raw(_) | Outcome::Limited(_) if attempt.failure.is_some() => {
                    "attached, taken back"
                }
                Outcome::Raw(_) => "attached as raw_tp",
                Outcome::Attached => "attached",
                Outcome::Limited(_) => "attached, limited",
                Outcome::Refused(cause) => &cause.line,
            };
            writeln!(out, "  {:<44} {:<15} {}", hook.target.to_string(), hook.signal, printable(outcome))?;
        }
    }
    if !degradations(report).is_empty() {
        writeln!(out, "\nDegraded")?;
        for degradation in degradations(report) {
            writeln!(out, "  {}: {}", degradation.what, printable(&degradation.why))?;
            writeln!(out, "    you lose: {}", degradation.loss)?;
        }
    }
    if let Verdict::Runs { seeded, seeded_connections, .. } = &report.verdict {
        let unreachable = match seeded.unreachable.len() {
            0 => String::new(),
            unreachable => format!(", {unreachable} more could not be entered"),
        };
        let namespaces = seeded.namespaces.map_or(String::new(), |count| format!(" in {count} network namespaces"));
        writeln!(out, "\n{seeded_connections} connections were open{namespaces}{unreachable}.")?;
    }
    capabilities::write_conclusion(out, report)
}

/// For scripts: one object.
pub fn write_json(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    let host: serde_json::Map<String, Json> =
        facts(report).into_iter().map(|fact| (fact.key.to_owned(), fact.value)).collect();
    let refusal = report.refusal();
    let (tier, seeded) = match &report.verdict {
        Verdict::Runs { attached, seeded, seeded_connections } => (
            Some(attached.tier.name()),
            Some(json!({
                "connections": seeded_connections,
                "network_namespaces": seeded.namespaces,
                "unreachable_network_namespaces": seeded.unreachable.len(),
            })),
        ),
        Verdict::Cannot { .. } => (None, None),
    };
    let plan: Vec<_> = plans(report)
        .iter()
        .map(|plan| {
            json!({
                "tier": plan.tier.name(),
                "hooks": plan.hooks.iter().map(|hook| hook.target.to_string()).collect::<Vec<_>>(),
                "absent": plan.absent.iter().map(|(hook, why)| json!({"hook": hook.target.to_string(), "why": why.to_string()})).collect::<Vec<_>>(),
                "impossible": plan.impossible.as_ref().map(|(hook, why)| format!("{}: {why}", hook.target)),
            })
        })
        .collect();
    let attempts: Vec<_> = report
        .verdict
        .attempts()
        .iter()
        .map(|attempt| {
            json!({
                "tier": attempt.tier.name(),
                "works": attempt.failure.is_none(),
                "failure": attempt.failure,
                "hooks": attempt.hooks.iter().map(|(hook, outcome)| json!({
                    "hook": hook.target.to_string(),
                    "program": hook.program,
                    "raw_program": hook.raw_program,
                    "signal": hook.signal,
                    "attached": attempt.failure.is_none() && !matches!(outcome, Outcome::Refused(_)),
                    "error": match outcome {
                        Outcome::Attached => None,
                        Outcome::Raw(cause) | Outcome::Limited(cause) | Outcome::Refused(cause) => Some(&cause.line),
                    },
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let degraded: Vec<_> = degradations(report)
        .iter()
        .map(|degradation| json!({"what": degradation.what, "why": degradation.why, "loss": degradation.loss}))
        .collect();
    write_line(
        out,
        &json!({
            "can_run": refusal.is_none(),
            "verb": report.verb.map(Verb::name),
            "tier": tier,
            "reason": refusal.as_ref().map(|refusal| &refusal.reason),
            "help": refusal.as_ref().map(|refusal| &refusal.help),
            "host": report.host.host,
            "facts": host,
            "capabilities": capabilities::json(report.capabilities()),
            "plan": plan,
            "attempts": attempts,
            "degraded": degraded,
            "seeded": seeded,
        }),
    )
}
