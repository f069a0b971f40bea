//! What a session has to do without since this process may not see all of the host.

use crate::probes::{
    attach::Degradation,
    capabilities::{Capability, Level},
};

/// What [`not_entered`] is about.
pub const NETWORK_NAMESPACES: &str = "network namespaces";

pub(super) fn other_pid_namespace() -> Degradation {
    Degradation {
        what: "/proc".to_owned(),
        why: "overwatch runs in a pid namespace of its own, as in a container without the host's".to_owned(),
        loss: "pids are those of the host, connections that were open already have no owner until their next bytes, and listening sockets \
               have no processes",
        concerns: &[Capability::Life, Capability::Listeners],
        leaves: Level::Partial,
    }
}

pub(super) fn may_not_inspect() -> Degradation {
    Degradation {
        what: "CAP_SYS_PTRACE, CAP_SYS_ADMIN".to_owned(),
        why: "overwatch runs without one of these privileges".to_owned(),
        loss: "of other users' processes it is not known which sockets they hold: connections that were open already have no owner until \
               their next bytes, and listening sockets have no processes",
        concerns: &[Capability::Life, Capability::Listeners],
        leaves: Level::Partial,
    }
}

pub(super) fn not_entered(namespaces: usize) -> Degradation {
    Degradation {
        what: NETWORK_NAMESPACES.to_owned(),
        why: format!("{namespaces} could not be entered"),
        loss: "connections that were open there already are not known until their next bytes, and sockets that listened there already are \
               not known",
        concerns: &[Capability::Life, Capability::Listeners],
        leaves: Level::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::capabilities::Capabilities;

    #[test]
    fn what_cannot_be_looked_into_leaves_life_and_listeners_partial() {
        for degradation in [other_pid_namespace(), may_not_inspect(), not_entered(3)] {
            let capabilities = Capabilities::of(std::slice::from_ref(&degradation)).to_string();
            assert_eq!(capabilities, "bytes full, life partial, listeners partial", "{degradation:?}");
        }
        assert_eq!(not_entered(3).why, "3 could not be entered");
    }
}
