//! Which port a connection's service is known by.

use std::{collections::HashSet, fmt, ops::RangeInclusive};

use crate::model::{listeners::Listeners, open::Ends, snapshot::Role};

/// The port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// This one.
    Number(u16),
    /// One that the kernel chooses for clients, and nothing listens at it here: each connection would have a port of its own.
    Ephemeral,
    /// It is not known which end is the service.
    Unknown,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Ephemeral => f.write_str("ephemeral"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What is listened at on this host.
#[derive(Debug, Default)]
pub(super) struct Listened {
    ports: HashSet<u16>,
    /// With their network namespaces.
    places: HashSet<(u32, u16)>,
}

impl Listened {
    pub(super) fn of(listeners: &Listeners) -> Self {
        let places: HashSet<_> = listeners.open().map(|listening| (listening.netns, listening.local_port)).collect();
        Self { ports: places.iter().map(|(_, port)| *port).collect(), places }
    }

    /// The port of the connection's service. The peer may be in another namespace of this host, this end is where it says.
    pub(super) fn port(&self, ends: &Ends, ephemeral: &RangeInclusive<u16>) -> Port {
        let Ends { netns, role, local_port, remote_port } = *ends;
        let known = |port| if port == 0 { Port::Unknown } else { Port::Number(port) };
        match role {
            Some(Role::Server) => known(local_port),
            Some(Role::Client) if ephemeral.contains(&remote_port) && !self.ports.contains(&remote_port) => {
                Port::Ephemeral
            }
            Some(Role::Client) => known(remote_port),
            None if self.places.contains(&(netns, local_port)) => known(local_port),
            None if self.ports.contains(&remote_port) => known(remote_port),
            None => Port::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collect::Sample,
        model::fixtures::{listener, sample},
    };
    use overwatch_common::connection::Listener;

    #[test]
    fn the_port_is_the_one_of_the_end_that_serves() {
        let at = |sock, netns, local_port| (sock, Listener { netns, local_port, ..listener(0, "10.0.0.1") });
        let mut listeners = Listeners::default();
        let told = vec![at(1, 7, 80), at(2, 8, 40_000), at(3, 7, 40_001)];
        listeners.update(&Sample { listeners: Some(told), ..sample() });
        let listened = Listened::of(&listeners);
        let (client, server) = (Some(Role::Client), Some(Role::Server));
        for (role, local_port, remote_port, expected) in [
            (server, 80, 50_000, "80"),
            (server, 50_000, 80, "50000"),
            (server, 0, 80, "unknown"),
            (client, 50_000, 443, "443"),
            (client, 50_000, 32_767, "32767"),
            (client, 50_000, 32_768, "ephemeral"),
            (client, 50_000, 60_999, "ephemeral"),
            (client, 50_000, 61_000, "61000"),
            // Somebody listens there, be it in another namespace.
            (client, 50_000, 40_000, "40000"),
            (client, 80, 50_000, "ephemeral"),
            (client, 50_000, 0, "unknown"),
            (None, 80, 50_000, "80"),
            (None, 50_000, 80, "80"),
            (None, 40_000, 40_001, "40001"),
            (None, 50_000, 443, "unknown"),
            (None, 0, 0, "unknown"),
        ] {
            let ends = Ends { netns: 7, role, local_port, remote_port };
            let port = listened.port(&ends, &(32_768..=60_999));
            assert_eq!(port.to_string(), expected, "{ends:?}");
        }
    }
}
