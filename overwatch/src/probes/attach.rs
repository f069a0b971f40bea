//! The act of attaching: tier after tier, until one has everything that it needs.

use std::path::Path;

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint},
};
use nix::errno::Errno;

use crate::kernel::{
    host::HostFacts,
    tracefs::{TracefsError, with_tracefs},
};

use super::{
    capabilities::{Capabilities, Capability, Level},
    catalogue::{FEW_RETURNS, Hook, Need, TIER_LIMITS, Target, Tier, concerns},
    kretprobe::Kretprobes,
    plan::{Attach, Refusal, TierPlan},
    refusal::{self, Operation},
    refuse::{Forced, Refuse},
};

const ROOT: &str = "/";

/// What became of one hook.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Attached.
    Attached,
    /// Attached as raw_tp, and why the first program was not. Nothing is lost by it.
    Raw(Cause),
    /// Attached, but it follows only a number of calls at a time, and why.
    Limited(Cause),
    /// Not attached.
    Refused(Cause),
}

/// Why something was not attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// In one line.
    pub line: String,
    /// What the kernel's verifier said, for `-v`; empty when it said nothing.
    pub verifier_log: String,
    /// The error's number, where it has one.
    pub errno: Option<Errno>,
}

/// What became of one tier.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The tier.
    pub tier: Tier,
    /// Each hook that was tried.
    pub hooks: Vec<(Hook, Outcome)>,
    /// Why the tier does not work here; `None` when it does.
    pub failure: Option<String>,
}

/// Something that the user has to do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degradation {
    /// What is missing.
    pub what: String,
    /// Why.
    pub why: String,
    /// What the user loses.
    pub loss: &'static str,
    /// The capabilities that are not full for it.
    pub concerns: &'static [Capability],
    /// What it leaves of them.
    pub leaves: Level,
}

/// The result of attaching.
#[derive(Debug)]
pub struct Attached {
    /// The tier that works.
    pub tier: Tier,
    /// All that was tried, the last one being the one that works.
    pub attempts: Vec<Attempt>,
    /// What is missing all the same.
    pub degradations: Vec<Degradation>,
    /// Held for their lives' sake.
    _kretprobes: Kretprobes,
}

impl Attached {
    /// What overwatch can do here, of what its session was started for.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::of(&self.degradations)
    }

    /// True when every hook with this signal that the tier has is attached.
    pub fn sees(&self, signal: &str) -> bool {
        let works = self.attempts.iter().filter(|attempt| attempt.failure.is_none());
        let mut hooks = works.flat_map(|attempt| &attempt.hooks).filter(|(hook, _)| hook.signal == signal).peekable();
        hooks.peek().is_some() && hooks.all(|(_, outcome)| !matches!(outcome, Outcome::Refused(_)))
    }
}

#[cfg(test)]
impl Attached {
    /// As after attaching, without a program.
    pub(crate) fn fixture(tier: Tier, attempts: Vec<Attempt>, degradations: Vec<Degradation>) -> Self {
        Self { tier, attempts, degradations, _kretprobes: Kretprobes::default() }
    }
}

/// Tries the plans in order. What an attempt attached is taken back when it fails.
pub fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    plans: &[TierPlan],
    wanted: Attach,
    host: &HostFacts,
    kretprobes: &Kretprobes,
    refuse: &Refuse,
) -> Result<Attached, (Refusal, Vec<Attempt>)> {
    let mut attempts = Vec::new();
    for plan in plans {
        let attempt = try_tier(ebpf, btf, plan, kretprobes, refuse);
        let works = attempt.failure.is_none();
        attempts.push(attempt);
        if works {
            let degradations = degradations(plan, attempts.last());
            return Ok(Attached { tier: plan.tier, attempts, degradations, _kretprobes: kretprobes.clone() });
        }
        drop(kretprobes.close());
        if attempts.last().and_then(exhausted).is_some() {
            break;
        }
    }
    Err((refusal_of(&attempts, wanted, host), attempts))
}

fn try_tier(ebpf: &mut Ebpf, btf: &Btf, plan: &TierPlan, kretprobes: &Kretprobes, refuse: &Refuse) -> Attempt {
    let mut attempt = Attempt { tier: plan.tier, hooks: Vec::new(), failure: None };
    if let Some((hook, absence)) = &plan.impossible {
        attempt.failure = Some(format!("{}: {absence}", hook.target));
        return attempt;
    }
    for hook in &plan.hooks {
        let outcome = attach_in_turn(ebpf, btf, hook, kretprobes, refuse);
        if let (Outcome::Refused(cause), Need::Required | Need::WhereItExists) = (&outcome, hook.need) {
            attempt.failure = Some(format!("{}: {}", hook.target, cause.line));
        }
        if let Some((hook, cause)) = refused(hook, &outcome).filter(|(_, cause)| refusal::is_exhausted(cause.errno)) {
            // Also where the hook is only wanted: what is lost next is not foreseeable.
            attempt.failure = Some(format!("{}: {}", hook.target, cause.line));
        }
        attempt.hooks.push((*hook, outcome));
        if attempt.failure.is_some() {
            take_back(ebpf, &attempt);
            return attempt;
        }
    }
    if let Some((hook, cause)) = unseen(&attempt) {
        attempt.failure = Some(format!("{} and all other ways to see {}: {}", hook.target, hook.signal, cause.line));
        take_back(ebpf, &attempt);
    }
    attempt
}

/// A hook without which its tier sees nothing of a signal: none of those with its need and signal was attached.
fn unseen(attempt: &Attempt) -> Option<(&Hook, &Cause)> {
    let mut ways = attempt.hooks.iter().filter(|(hook, _)| hook.need == Need::OneOf);
    ways.find_map(|(hook, outcome)| {
        let Outcome::Refused(cause) = outcome else { return None };
        let others = attempt.hooks.iter().filter(|(of, _)| of.need == Need::OneOf && of.signal == hook.signal);
        others.into_iter().all(|(_, outcome)| matches!(outcome, Outcome::Refused(_))).then_some((hook, cause))
    })
}

/// Attaches the hook's program, or the same program as raw_tp where the kernel refuses that.
fn attach_in_turn(ebpf: &mut Ebpf, btf: &Btf, hook: &Hook, kretprobes: &Kretprobes, refuse: &Refuse) -> Outcome {
    let first = match attach_hook(ebpf, btf, hook, kretprobes, refuse) {
        Ok(None) => return Outcome::Attached,
        Ok(Some(limited)) => return Outcome::Limited(limited),
        Err(error) => cause(&error),
    };
    let Some(program) = hook.raw_program else { return Outcome::Refused(first) };
    let raw = Hook { program, target: Target::RawTracepoint(hook.target.name()), ..*hook };
    match attach_hook(ebpf, btf, &raw, kretprobes, refuse) {
        Ok(_) => Outcome::Raw(first),
        Err(error) => {
            let second = cause(&error);
            Outcome::Refused(Cause { line: format!("{}; as raw_tp: {}", first.line, second.line), ..first })
        }
    }
}

/// Attaches one hook; what limits it, if anything does.
fn attach_hook(
    ebpf: &mut Ebpf,
    btf: &Btf,
    hook: &Hook,
    kretprobes: &Kretprobes,
    refuse: &Refuse,
) -> Result<Option<Cause>, AttachError> {
    refuse.check(hook.program)?;
    let program = ebpf.program_mut(hook.program).ok_or(AttachError::NoProgram(hook.program))?;
    // A program that goes to several places is loaded for the first of them.
    let loaded = program.fd().is_ok();
    match hook.target {
        Target::Fexit(function) => {
            let program: &mut FExit = program.try_into()?;
            if !loaded {
                program.load(function, btf)?;
            }
            program.attach()?;
        }
        Target::Kprobe(function) => {
            let program: &mut KProbe = program.try_into()?;
            if !loaded {
                program.load()?;
            }
            program.attach(function, 0)?;
        }
        Target::Kretprobe(function) => {
            let program: &mut KProbe = program.try_into()?;
            if !loaded {
                program.load()?;
            }
            if let Err(error) = kretprobes.attach(Path::new(ROOT), program.fd()?, function) {
                program.attach(function, 0)?;
                return Ok(Some(Cause { line: format!("tracefs: {error}"), ..cause(&error) }));
            }
        }
        Target::BtfTracepoint(name) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            if !loaded {
                program.load(name, btf)?;
            }
            program.attach()?;
        }
        Target::RawTracepoint(name) => {
            let program: &mut RawTracePoint = program.try_into()?;
            if !loaded {
                program.load()?;
            }
            program.attach(name)?;
        }
        Target::Tracepoint(category, name) => {
            let program: &mut TracePoint = program.try_into()?;
            if !loaded {
                program.load()?;
            }
            with_tracefs(Path::new(ROOT), |_| program.attach(category, name))??;
        }
    }
    Ok(None)
}

/// Why a hook could not be attached.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error("the object has no program {0}")]
    NoProgram(&'static str),
    #[error("{0}")]
    Tracefs(#[from] TracefsError),
    #[error(transparent)]
    Forced(#[from] Forced),
    // Not transparent: `cause` looks for the library's error among the sources.
    #[error("{0}")]
    Program(#[from] ProgramError),
}

/// The verifier's last lines are statistics; what it objects to stands before them.
const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];

/// What an error says, with its causes. For one of the verifier's: what it objects to.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> Cause {
    let errno = refusal::errno(error);
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let program = causes.find_map(|error| error.downcast_ref::<ProgramError>());
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = program {
        let verifier_log = verifier_log.to_string();
        let says_something = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
        let said = verifier_log.lines().rev().find(says_something);
        let said = said.map_or_else(String::new, |said| format!(" ({said})"));
        return Cause { line: format!("the kernel refused to load it: {io_error}{said}"), verifier_log, errno };
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        cause = error.source();
    }
    Cause { line: text.lines().next().unwrap_or_default().to_owned(), verifier_log: String::new(), errno }
}

/// Unloads what the attempt loaded, which detaches it too.
fn take_back(ebpf: &mut Ebpf, attempt: &Attempt) {
    let names = attempt.hooks.iter().flat_map(|(hook, _)| [Some(hook.program), hook.raw_program]);
    for name in names.flatten() {
        let Some(program) = ebpf.program_mut(name) else {
            continue;
        };
        // Fails for a program that was not loaded, which is what is wanted.
        let _not_loaded = match program {
            Program::FExit(program) => program.unload(),
            Program::KProbe(program) => program.unload(),
            Program::BtfTracePoint(program) => program.unload(),
            Program::TracePoint(program) => program.unload(),
            Program::RawTracePoint(program) => program.unload(),
            _ => Ok(()),
        };
    }
}

fn degradations(plan: &TierPlan, attempt: Option<&Attempt>) -> Vec<Degradation> {
    let partial =
        |what: String, why: String, loss, concerns| Degradation { what, why, loss, concerns, leaves: Level::Partial };
    let of_hook = |hook: &Hook, why: String| partial(hook.target.to_string(), why, hook.loss, concerned(plan, hook));
    let absent = plan.absent.iter().map(|(hook, absence)| of_hook(hook, absence.to_string()));
    let refused = attempt.into_iter().flat_map(|attempt| &attempt.hooks).filter_map(|(hook, outcome)| match outcome {
        Outcome::Attached | Outcome::Raw(_) | Outcome::Limited(_) => None,
        Outcome::Refused(cause) => Some(of_hook(hook, cause.line.clone())),
    });
    let limited = attempt.into_iter().flat_map(|attempt| &attempt.hooks).filter_map(|(hook, outcome)| match outcome {
        Outcome::Limited(cause) => {
            Some(partial(hook.target.to_string(), cause.line.clone(), FEW_RETURNS, concerned(plan, hook)))
        }
        Outcome::Attached | Outcome::Raw(_) | Outcome::Refused(_) => None,
    });
    let limits = TIER_LIMITS
        .iter()
        .filter(|limit| limit.tier == plan.tier && limit.interest.is_none_or(|of| plan.interest.includes(of)));
    let limits = limits.map(|limit| {
        let what = format!("{} tier", limit.tier);
        partial(what, "a limit of this way to attach".to_owned(), limit.loss, limit.concerns)
    });
    absent.chain(refused).chain(limited).chain(limits).collect()
}

/// The capabilities that a missing hook leaves partial. What another hook sees, too, is lost only on
/// a kernel that skips programs by default. Where `preempt=full` makes another kernel skip programs,
/// `overwatch_program_skipped_runs_total` counts the runs.
fn concerned(plan: &TierPlan, hook: &Hook) -> &'static [Capability] {
    match hook.doubled {
        Some([skipping, _]) if plan.skips => skipping,
        Some([_, otherwise]) => otherwise,
        None => concerns(hook.signal),
    }
}

fn refused<'a>(hook: &'a Hook, outcome: &'a Outcome) -> Option<(&'a Hook, &'a Cause)> {
    match outcome {
        Outcome::Refused(cause) => Some((hook, cause)),
        Outcome::Attached | Outcome::Raw(_) | Outcome::Limited(_) => None,
    }
}

/// What has ended the attempt.
fn last_refused(attempt: &Attempt) -> Option<(&Hook, &Cause)> {
    attempt.hooks.last().and_then(|(hook, outcome)| refused(hook, outcome))
}

/// The same where it is no fault of the hook, and another tier would end alike.
fn exhausted(attempt: &Attempt) -> Option<(&Hook, &Cause)> {
    last_refused(attempt).filter(|(_, cause)| refusal::is_exhausted(cause.errno))
}

fn refusal_of(attempts: &[Attempt], wanted: Attach, host: &HostFacts) -> Refusal {
    let explain = |(hook, cause): (&Hook, &Cause)| {
        refusal::explain(&Operation::Attach(hook.target.to_string()), cause.errno, &cause.line, host)
    };
    if let Some(exhausted) = attempts.last().and_then(exhausted) {
        return explain(exhausted);
    }
    let reasons: Vec<String> = attempts
        .iter()
        .filter_map(|attempt| Some(format!("{} tier: {}", attempt.tier, attempt.failure.as_ref()?)))
        .collect();
    let tried: Vec<_> = attempts.iter().filter_map(last_refused).collect();
    let is_forbidden = |(_, cause): &(&Hook, &Cause)| cause.errno == Some(Errno::EPERM);
    let help = match wanted {
        // More than a kernel that lacks one way.
        Attach::Auto if !tried.is_empty() && tried.iter().all(is_forbidden) => {
            let help = explain(tried[0]).help;
            return Refusal::new(format!("cannot attach here: {}", reasons.join("; ")), help);
        }
        Attach::Auto => {
            "overwatch needs a kernel with fentry or kprobes, or Linux 6.3 or later for the tracepoint tier"
        }
        Attach::Only(_) => "use --attach auto to take what this host offers; overwatch check shows what that is",
    };
    Refusal::new(format!("cannot attach here: {}", reasons.join("; ")), help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::{catalogue::HOOKS, object::Interest};

    #[test]
    fn what_is_missing_leaves_the_capabilities_partial_that_it_concerns() {
        let refused = || Outcome::Refused(Cause { line: "EPERM".to_owned(), verifier_log: String::new(), errno: None });
        let hook = |program: &str| *HOOKS.iter().find(|hook| hook.program == program).unwrap();
        for (tier, interest, skips, program, expected) in [
            (Tier::Fentry, Interest::Service, true, None, "bytes full, life full, listeners full"),
            (Tier::Fentry, Interest::Service, false, Some("destroyed_again"), "bytes full, life full, listeners full"),
            (
                Tier::Fentry,
                Interest::Service,
                true,
                Some("destroyed_again"),
                "bytes full, life partial, listeners full",
            ),
            (Tier::Fentry, Interest::Service, false, Some("state_changed"), "bytes full, life full, listeners full"),
            (Tier::Fentry, Interest::Service, false, Some("destroyed"), "bytes partial, life full, listeners full"),
            (Tier::Fentry, Interest::Service, true, Some("destroyed"), "bytes partial, life partial, listeners full"),
            (Tier::Fentry, Interest::Service, false, Some("reset_sent"), "bytes full, life partial, listeners full"),
            (
                Tier::Fentry,
                Interest::Service,
                false,
                Some("splice_read_exit"),
                "bytes partial, life full, listeners full",
            ),
            (
                Tier::Fentry,
                Interest::Service,
                false,
                Some("accept_exit"),
                "bytes full, life partial, listeners partial",
            ),
            (Tier::Fentry, Interest::Service, false, Some("last_ack_v4"), "bytes full, life full, listeners partial"),
            (Tier::Tracepoint, Interest::Service, false, None, "bytes partial, life full, listeners partial"),
            (Tier::Tracepoint, Interest::Rows, false, None, "bytes partial, life full, listeners full"),
        ] {
            let plan = TierPlan { tier, interest, skips, hooks: Vec::new(), absent: Vec::new(), impossible: None };
            let hooks = program.into_iter().map(|program| (hook(program), refused())).collect();
            let attempt = Attempt { tier, hooks, failure: None };
            let found = degradations(&plan, Some(&attempt));
            assert_eq!(Capabilities::of(&found).to_string(), expected, "{tier}, {program:?}, {skips}");
            let is_listed = |target: Target| found.iter().any(|entry| entry.what == target.to_string());
            assert!(program.is_none_or(|program| is_listed(hook(program).target)), "{tier}, {program:?}: {found:?}");
        }
    }
}
