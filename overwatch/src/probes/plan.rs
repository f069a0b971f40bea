//! From facts to a plan. Pure: no I/O, so that plans for other kernels are tested here.

use std::fmt;

use super::{
    catalogue::{HOOKS, Hook, Need, Target, Tier},
    object::Interest,
    refusal::{self, Operation},
};
use crate::kernel::{
    facts::KernelFacts,
    host::{BtfUnavailable, HostFacts},
};

#[cfg(test)]
mod tests;

/// What `--attach` asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The first tier that works.
    Auto,
    /// This one or none.
    Only(Tier),
}

/// Why this host cannot run overwatch, and what would help. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {help}")]
pub struct Refusal {
    /// What is missing.
    pub reason: String,
    /// What would help.
    pub help: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: help.into() }
    }
}

/// Why a hook is not in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// This kernel has no such function or tracepoint.
    NotInKernel,
    /// It has, with a prototype that we do not understand.
    StrangePrototype(Vec<&'static str>),
    /// This kernel cannot place kprobes.
    NoKprobes,
    /// It has, without a fact that the hook would be of no use without.
    NoFact(&'static str),
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInKernel => f.write_str("not in this kernel"),
            Self::StrangePrototype(arguments) => {
                write!(f, "this kernel's prototype has no argument {}", arguments.join(", "))
            }
            Self::NoKprobes => f.write_str("this kernel is built without kprobes"),
            Self::NoFact(fact) => write!(f, "this kernel has no {fact}"),
        }
    }
}

/// What to try for one tier.
#[derive(Clone, Debug)]
pub struct TierPlan {
    /// The tier.
    pub tier: Tier,
    /// What it is for.
    pub interest: Interest,
    /// This kernel skips programs, so that a hook is needed that sees what another one sees.
    pub skips: bool,
    /// Hooks to attach, in order.
    pub hooks: Vec<Hook>,
    /// Hooks that this host cannot have, although the tier may work.
    pub absent: Vec<(Hook, Absence)>,
    /// The hook without which the tier is not worth trying.
    pub impossible: Option<(Hook, Absence)>,
}

/// Checks what does not depend on a tier.
pub fn prerequisites(host: &HostFacts) -> Result<&KernelFacts, Refusal> {
    if let Some(error) = &host.proc_error {
        return Err(Refusal::new(
            format!("cannot read /proc/self/status, so that neither rights nor processes are known: {error}"),
            "mount a proc file system: mount -t proc proc /proc; in a container, give it the host's /proc and pid namespace",
        ));
    }
    if !host.may_load {
        return Err(Refusal::new(
            "not allowed to load BPF programs: CAP_BPF and CAP_PERFMON are missing",
            if host.initial_user_namespace { "run it as root, for instance with sudo" } else { refusal::OUTSIDE },
        ));
    }
    if host.lockdown.as_deref() == Some("confidentiality") {
        return Err(Refusal::new(
            "the kernel is locked down (confidentiality): BPF programs may not read kernel memory",
            "boot without lockdown=confidentiality; lockdown=integrity is enough for overwatch",
        ));
    }
    let facts = host.btf.as_ref().map_err(|error| match error {
        BtfUnavailable::NoSysfs(_) => Refusal::new(
            error.to_string(),
            "mount it: mount -t sysfs sysfs /sys; in a container, give it the host's /sys",
        ),
        BtfUnavailable::Unreadable { path, line, errno } => {
            refusal::explain(&Operation::Read(path.clone()), *errno, line, host)
        }
        BtfUnavailable::Absent(_) | BtfUnavailable::Malformed(..) => Refusal::new(
            error.to_string(),
            "overwatch needs a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian 11, Ubuntu 22.04, RHEL 9 and later have",
        ),
    })?;
    match facts.missing.as_slice() {
        [] => Ok(facts),
        missing => Err(Refusal::new(
            format!("kernel {} is not one that this version knows: no {}", host.kernel_release, missing.join(", no ")),
            "please report this kernel's version",
        )),
    }
}

/// The tiers to try, in order, with the hooks that this interest needs.
pub fn plan(host: &HostFacts, facts: &KernelFacts, attach: Attach, interest: Interest) -> Vec<TierPlan> {
    let wanted = |tier: &Tier| attach == Attach::Auto || attach == Attach::Only(*tier);
    Tier::ALL.into_iter().filter(wanted).map(|tier| plan_tier(host, facts, tier, interest)).collect()
}

fn plan_tier(host: &HostFacts, facts: &KernelFacts, tier: Tier, interest: Interest) -> TierPlan {
    let mut plan = TierPlan {
        tier,
        interest,
        skips: host.may_skip_programs(),
        hooks: Vec::new(),
        absent: Vec::new(),
        impossible: None,
    };
    let wanted =
        |hook: &&Hook| hook.tier.is_none_or(|of| of == tier) && hook.interest.is_none_or(|of| interest.includes(of));
    for hook in HOOKS.iter().filter(wanted) {
        match (absence(host, facts, hook), hook.need) {
            (None, _) => plan.hooks.push(*hook),
            (Some(Absence::NotInKernel), Need::WhereItExists) => {}
            (Some(absence), Need::Wanted | Need::OneOf) => plan.absent.push((*hook, absence)),
            (Some(absence), Need::Required | Need::WhereItExists) => {
                plan.impossible.get_or_insert((*hook, absence));
            }
        }
    }
    plan
}

/// Why this host cannot have the hook.
pub fn absence(host: &HostFacts, facts: &KernelFacts, hook: &Hook) -> Option<Absence> {
    let (prototype, exists) = match hook.target {
        Target::Kprobe(_) | Target::Kretprobe(_) if !host.kprobes => return Some(Absence::NoKprobes),
        Target::Fexit(name) | Target::Kprobe(name) | Target::Kretprobe(name) => {
            (name.to_owned(), facts.has_function(name))
        }
        Target::BtfTracepoint(name) | Target::RawTracepoint(name) => {
            (format!("btf_trace_{name}"), facts.has_tracepoint(name))
        }
        // Whether the record exists shows when it is attached; BTF has only its layout.
        Target::Tracepoint(..) => return None,
    };
    if !exists {
        return Some(Absence::NotInKernel);
    }
    if let Some(fact) = hook.fact
        && !facts.has(fact)
    {
        return Some(Absence::NoFact(fact));
    }
    let strange = facts.strange_arguments(&prototype);
    (!strange.is_empty()).then_some(Absence::StrangePrototype(strange))
}
