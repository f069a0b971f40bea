//! What overwatch can do on this host, derived from what it has to do without.
//!
//! `full` means that no entry under "Degraded" concerns the capability. Every hook, every limit of
//! a tier and every other degradation names the capabilities that it concerns, so no level is
//! written down anywhere.

use std::fmt;

use super::{attach::Degradation, plan::Refusal};

/// A part of what overwatch is for, with the programs and sources that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Bytes of each process on each connection.
    Bytes,
    /// States, ends and failures of connections.
    /// `overwatch life`.
    Life,
    /// Queues, waiting clients and verdicts of listening sockets.
    /// `overwatch listeners`.
    Listeners,
}

impl Capability {
    /// In the order of the output.
    pub const ALL: [Self; 3] = [Self::Bytes, Self::Life, Self::Listeners];

    /// The name in output, in JSON and in the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Life => "life",
            Self::Listeners => "listeners",
        }
    }

    /// What gives it back to a host that lacks it.
    pub fn help(self) -> &'static str {
        match self {
            Self::Bytes | Self::Life => "run overwatch check to see which programs this kernel refuses, and why",
            Self::Listeners => {
                "load the module tcp_diag (modprobe tcp_diag), or let this kernel run BPF programs of type raw_tracepoint; \
                 until then, ss -tln shows the queues"
            }
        }
    }
}

/// How much of a capability this host leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing of it.
    #[default]
    None,
    /// It works, and a degradation concerns it.
    Partial,
    /// No degradation concerns it.
    Full,
}

impl Level {
    /// The best one first.
    pub const ALL: [Self; 3] = [Self::Full, Self::Partial, Self::None];

    /// The name in output, in JSON and in the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// The level of each capability. The default is a host on which nothing can be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    bytes: Level,
    life: Level,
    listeners: Level,
}

impl Capabilities {
    /// The levels that are left on a host with these degradations, once a tier is attached.
    pub fn of(degradations: &[Degradation]) -> Self {
        let level = |capability| {
            let concerned = degradations.iter().filter(|of| of.concerns.contains(&capability));
            concerned.map(|of| of.leaves).min().unwrap_or(Level::Full)
        };
        Self { bytes: level(Capability::Bytes), life: level(Capability::Life), listeners: level(Capability::Listeners) }
    }

    /// The level of one capability.
    pub fn level(self, capability: Capability) -> Level {
        match capability {
            Capability::Bytes => self.bytes,
            Capability::Life => self.life,
            Capability::Listeners => self.listeners,
        }
    }

    /// Each capability with its level, in the order of the output.
    pub fn each(self) -> impl Iterator<Item = (Capability, Level)> {
        Capability::ALL.into_iter().map(move |capability| (capability, self.level(capability)))
    }

    /// The capabilities of which nothing is left.
    pub fn missing(self) -> impl Iterator<Item = Capability> {
        self.each().filter(|(_, level)| *level == Level::None).map(|(capability, _)| capability)
    }
}

/// `bytes partial, life full, listeners none`.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (capability, level)) in self.each().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", capability.name(), level.name())?;
        }
        Ok(())
    }
}

/// Why a capability is not full: a loss, and the missing sources that cause it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// What is lost.
    pub loss: &'static str,
    /// The degradations with this loss, in the order in which they were found.
    pub causes: Vec<&'a Degradation>,
}

impl Reason<'_> {
    /// The missing sources, in one line.
    pub fn sources(&self) -> String {
        self.causes.iter().map(|cause| cause.what.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The reasons for the level of a capability, each loss once. Where nothing is left of the
/// capability, only the losses that caused it.
pub fn reasons(capability: Capability, degradations: &[Degradation]) -> Vec<Reason<'_>> {
    let level = Capabilities::of(degradations).level(capability);
    let mut reasons: Vec<Reason<'_>> = Vec::new();
    for cause in degradations.iter().filter(|of| of.concerns.contains(&capability) && of.leaves == level) {
        match reasons.iter_mut().find(|reason| reason.loss == cause.loss) {
            Some(reason) => reason.causes.push(cause),
            None => reasons.push(Reason { loss: cause.loss, causes: vec![cause] }),
        }
    }
    reasons
}

/// Why nothing is left of a capability on this host, and what would help.
pub fn refusal(capability: Capability, degradations: &[Degradation]) -> Refusal {
    let reasons = reasons(capability, degradations).into_iter().map(|reason| {
        let causes = reason.causes.iter().map(|cause| format!("{}: {}", cause.what, cause.why));
        format!("{} ({})", reason.loss, causes.collect::<Vec<_>>().join("; "))
    });
    Refusal::new(reasons.collect::<Vec<_>>().join("; "), capability.help())
}

/// What is missing on a host where no tier attaches. `listeners` is what is lost of listening
/// sockets where sock_diag reads them, or why it does not.
pub fn without_programs(refusal: &Refusal, listeners: Result<&'static str, String>) -> Vec<Degradation> {
    let missing =
        |loss, concerns, leaves, why| Degradation { what: "BPF programs".to_owned(), why, loss, concerns, leaves };
    let why = || refusal.reason.clone();
    let observed: &[Capability] = &[Capability::Bytes, Capability::Life];
    let listening: &[Capability] = &[Capability::Listeners];
    vec![
        missing("no bytes, states or ends of connections are observed", observed, Level::None, why()),
        match listeners {
            Ok(loss) => missing(loss, listening, Level::Partial, why()),
            Err(error) => {
                let why = format!("{}; {error}", refusal.reason);
                missing("listening sockets cannot be read", listening, Level::None, why)
            }
        },
    ]
}

/// A verb that `overwatch check` can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `overwatch top`.
    Top,
    /// `overwatch states`.
    States,
    /// `overwatch life`.
    Life,
    /// `overwatch open`.
    Open,
    /// `overwatch listeners`.
    Listeners,
    /// `overwatch serve`.
    Serve,
}

impl Verb {
    /// In the order of the help text.
    pub const ALL: [Self; 6] = [Self::Top, Self::States, Self::Life, Self::Open, Self::Listeners, Self::Serve];

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::States => "states",
            Self::Life => "life",
            Self::Open => "open",
            Self::Listeners => "listeners",
            Self::Serve => "serve",
        }
    }

    /// The capability without which the verb cannot run. `serve` needs none: it exports what can be
    /// observed, and warns of the rest.
    pub fn needs(self) -> Option<Capability> {
        match self {
            Self::Top => Some(Capability::Bytes),
            Self::States | Self::Life | Self::Open => Some(Capability::Life),
            Self::Listeners => Some(Capability::Listeners),
            Self::Serve => None,
        }
    }

    /// Returns true if the verb has what it needs.
    pub fn can_run(self, capabilities: Capabilities) -> bool {
        self.needs().is_none_or(|capability| capabilities.level(capability) > Level::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degradation(loss: &'static str, concerns: &'static [Capability], leaves: Level) -> Degradation {
        Degradation { what: format!("source of {loss}"), why: "EPERM".to_owned(), loss, concerns, leaves }
    }

    #[test]
    fn a_capability_is_as_good_as_the_worst_degradation_that_concerns_it_leaves_it() {
        use Capability::{Bytes, Life, Listeners};
        for (degradations, expected) in [
            (vec![], "bytes full, life full, listeners full"),
            (vec![degradation("a", &[], Level::Partial)], "bytes full, life full, listeners full"),
            (vec![degradation("a", &[Bytes], Level::Partial)], "bytes partial, life full, listeners full"),
            (vec![degradation("a", &[Life, Listeners], Level::Partial)], "bytes full, life partial, listeners partial"),
            (
                vec![
                    degradation("a", &[Listeners], Level::None),
                    degradation("b", &[Bytes, Listeners], Level::Partial),
                ],
                "bytes partial, life full, listeners none",
            ),
        ] {
            assert_eq!(Capabilities::of(&degradations).to_string(), expected, "{degradations:?}");
        }
        assert_eq!(Capabilities::default().to_string(), "bytes none, life none, listeners none");
        assert_eq!(Capabilities::default().missing().collect::<Vec<_>>(), Capability::ALL);
    }

    #[test]
    fn each_loss_is_a_reason_once_and_partial_losses_are_none_where_nothing_is_left() {
        use Capability::{Bytes, Listeners};
        let mut degradations = vec![
            degradation("SYNs", &[Listeners], Level::Partial),
            degradation("splice", &[Bytes], Level::Partial),
            degradation("SYNs", &[Listeners], Level::Partial),
        ];
        let losses = |degradations: &[Degradation]| -> Vec<(&'static str, usize)> {
            reasons(Listeners, degradations).iter().map(|reason| (reason.loss, reason.causes.len())).collect()
        };
        assert_eq!(losses(&degradations), [("SYNs", 2)]);
        degradations.push(degradation("all", &[Listeners], Level::None));
        assert_eq!(losses(&degradations), [("all", 1)]);
        assert_eq!(reasons(Capability::Life, &degradations), []);
    }

    #[test]
    fn a_verb_runs_while_something_of_its_capability_is_left() {
        let blind = [degradation("no queues", &[Capability::Listeners], Level::None)];
        let partial = [degradation("no SYN queue", &Capability::ALL, Level::Partial)];
        for verb in Verb::ALL {
            assert_eq!(verb.can_run(Capabilities::of(&blind)), verb != Verb::Listeners, "{}", verb.name());
            assert!(verb.can_run(Capabilities::of(&partial)), "{}", verb.name());
            assert_eq!(verb.can_run(Capabilities::default()), verb == Verb::Serve, "{}", verb.name());
        }
    }

    #[test]
    fn a_refusal_has_the_loss_once_every_cause_and_what_helps() {
        let degradations = [
            degradation("no queues", &[Capability::Listeners], Level::None),
            degradation("no SYN queue", &[Capability::Listeners], Level::Partial),
            degradation("no queues", &[Capability::Listeners], Level::None),
        ];
        let refusal = refusal(Capability::Listeners, &degradations);
        assert_eq!(refusal.reason, "no queues (source of no queues: EPERM; source of no queues: EPERM)");
        assert_eq!(refusal.help, Capability::Listeners.help());
    }
}
