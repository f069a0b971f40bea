//! What `overwatch check -v` prints below the report.

use std::io::{self, Write};

use super::{Report, Verdict, facts, plans};
use crate::{
    collect::KernelObject,
    probes::{
        attach::{Attempt, Outcome},
        catalogue::{HOOKS, Hook, Need},
        plan,
    },
    show::text::{bytes, printable},
};

/// Where each fact comes from, by its key.
const SOURCES: &[(&str, &str)] = &[
    ("kernel_release", "/proc/sys/kernel/osrelease"),
    ("btf", "/sys/kernel/btf/vmlinux"),
    ("length_tracepoints", "/sys/kernel/btf/vmlinux"),
    ("kprobes", "/sys/bus/event_source/devices/kprobe/type"),
    ("initial_user_namespace", "/proc/self/ns/user"),
    ("seccomp_filter", "Seccomp in /proc/self/status"),
    ("open_files_limit", "Max open files in /proc/self/limits"),
    ("lockdown", "/sys/kernel/security/lockdown"),
    ("may_load", "CapEff in /proc/self/status"),
    ("may_inspect", "CapEff in /proc/self/status"),
    ("initial_pid_namespace", "/proc/self/ns/pid"),
    ("memlock_bytes", "Max locked memory in /proc/self/limits"),
    ("bpf_stats_enabled", "/proc/sys/kernel/bpf_stats_enabled"),
    ("max_connections", "--max-connections"),
    ("map_memory_bytes", "computed from --max-connections and --ring-buffer-bytes"),
    ("resident_memory_bytes", "/proc/self/statm"),
];

/// Writes sources, hooks that are missing with their second ways, namespaces, and what is in the kernel.
pub fn write(out: &mut impl Write, report: &Report<'_>, objects: &[KernelObject]) -> io::Result<()> {
    writeln!(out, "\nSources of the facts")?;
    for fact in facts(report) {
        let source = SOURCES.iter().find(|(key, _)| *key == fact.key).map_or("-", |(_, source)| source);
        writeln!(out, "  {}: {source}", fact.title)?;
    }
    missing_hooks(out, report)?;
    if let Verdict::Runs { seeded, .. } = &report.verdict
        && !seeded.unreachable.is_empty()
    {
        writeln!(out, "\nNetwork namespaces that could not be entered")?;
        for namespace in &seeded.unreachable {
            writeln!(out, "  net:[{}], found at {}", namespace.inode, printable(&namespace.path.to_string_lossy()))?;
        }
    }
    if !objects.is_empty() {
        writeln!(out, "\nIn the kernel, while this ran")?;
    }
    for object in objects {
        let name = object.name.as_deref().map_or("-".into(), printable);
        let memory = object.memory_bytes.map_or_else(|| "-".to_owned(), |memory| bytes(memory as f64));
        let instructions = object.instructions.map(|count| format!(", {count} instructions verified"));
        let entries = object.max_entries.map(|count| format!(", room for {count} entries"));
        let more = instructions.or(entries).unwrap_or_default();
        writeln!(out, "  {:<7} {:<20} id {}, {memory}{more}", object.kind, name, object.id)?;
    }
    Ok(())
}

fn missing_hooks(out: &mut impl Write, report: &Report<'_>) -> io::Result<()> {
    let Ok(kernel) = plan::prerequisites(report.host) else { return Ok(()) };
    let planned = plans(report);
    writeln!(out, "\nHooks that are not attached")?;
    for plan in &planned {
        let attempt = report.verdict.attempts().iter().find(|attempt| attempt.tier == plan.tier);
        let of_tier = HOOKS.iter().filter(|hook| hook.tier.is_none_or(|tier| tier == plan.tier));
        for hook in of_tier {
            let refused = attempt.and_then(|attempt| {
                attempt.hooks.iter().find(|(tried, _)| is_same(tried, hook)).map(|(_, outcome)| outcome)
            });
            let why = match (refused, plan::absence(report.host, kernel, hook)) {
                (Some(Outcome::Refused(cause)), _) => cause.line.clone(),
                (None, Some(absence)) => absence.to_string(),
                _ => continue,
            };
            writeln!(out, "  {} tier, {} ({}): {}", plan.tier, hook.target, hook.signal, printable(&why))?;
            // Of a tier that does not work, nothing else is of use.
            let Some(works) = attempt.filter(|attempt| attempt.failure.is_none()) else { continue };
            match second_way(works, hook) {
                Some(other) => writeln!(out, "    {} is attached for the same signal", other.target)?,
                None if hook.need == Need::Wanted => writeln!(out, "    you lose: {}", hook.loss)?,
                None => {}
            }
        }
    }
    Ok(())
}

/// The attached hook that has the same signal.
fn second_way<'a>(works: &'a Attempt, missing: &Hook) -> Option<&'a Hook> {
    let attached = works.hooks.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::Refused(_)));
    attached.map(|(hook, _)| hook).find(|hook| hook.signal == missing.signal && !is_same(hook, missing))
}

fn is_same(one: &Hook, other: &Hook) -> bool {
    (one.program, one.target) == (other.program, other.target)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        kernel::host::HostFacts,
        probes::{
            object::Capacity,
            plan::{Attach, Refusal},
        },
    };

    #[test]
    fn every_fact_has_a_source_and_what_is_in_the_kernel_is_listed() {
        let host = HostFacts::read(Path::new("/nonexistent"));
        let refusal = Refusal::new("no", "help");
        let capacity = Capacity::new(1_000, 4_096);
        let verdict = Verdict::Cannot { refusal: &refusal, attempts: &[], degradations: &[] };
        let report = Report {
            host: &host,
            capacity: &capacity,
            resident_memory_bytes: None,
            wanted: Attach::Auto,
            verb: None,
            verdict,
        };
        for fact in facts(&report) {
            assert!(SOURCES.iter().any(|(key, _)| *key == fact.key), "{} has no source", fact.key);
        }
        assert_eq!(SOURCES.len(), facts(&report).len());
        let objects = [
            KernelObject::read("prog_type:\t26\nmemlock:\t4096\nprog_id:\t7\nverified_insns:\t90\n").unwrap(),
            KernelObject::read("map_type:\t1\nmax_entries:\t16\nmemlock:\t8192\nmap_id:\t3\n").unwrap(),
        ];
        let mut out = Vec::new();
        write(&mut out, &report, &objects).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\n  program -                    id 7, 4.0Ki, 90 instructions verified\n"), "{text}");
        assert!(text.contains("\n  map     -                    id 3, 8.0Ki, room for 16 entries\n"), "{text}");
    }
}
