//! The scenarios: what each end does, and how the kernel then ends the connection.

use anyhow::{Result, ensure};
use nix::errno::Errno;

use super::lane::Lane;
use super::{abort, connects, endings, handshakes, silence};

/// One side of a scenario.
pub(super) type Side = fn(&mut Lane<'_>) -> Result<()>;

/// How a connection ends, seen from one end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// The ways that are right: the word for it, and the socket's error.
    pub(super) ways: &'static [(&'static str, Option<Errno>)],
    /// Whether what the calls returned is all that the kernel has moved.
    pub(super) exact: bool,
}

impl Outcome {
    /// Checks an error that a call returned.
    pub(super) fn expect(&self, error: Errno) -> Result<()> {
        ensure!(self.ways.iter().any(|way| way.1 == Some(error)), "ended with {error:?}, expected: {:?}", self.ways);
        Ok(())
    }
}

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    /// Its name in arguments and reports.
    pub(super) name: &'static str,
    /// How it ends for the client.
    pub(super) client: Outcome,
    /// How it ends for the server, if it comes to have a connection.
    pub(super) server: Option<Outcome>,
    /// What the client does.
    pub(super) client_side: Side,
    /// What the server does.
    pub(super) server_side: Side,
    /// How often it comes in a mix; 0 for those that are slow, or change the place they are in.
    pub(super) share: usize,
    /// Whether it needs two namespaces of its own, joined by a device.
    pub(super) needs_device: bool,
    /// Why this kernel cannot do it, if it cannot.
    pub(super) cannot: fn() -> Option<String>,
    /// The first kernel, major and minor, that certainly can: there, leaving the scenario out is a failure.
    pub(super) since: (u32, u32),
}

const fn outcome(ways: &'static [(&'static str, Option<Errno>)]) -> Outcome {
    Outcome { ways, exact: true }
}

pub(super) const CLOSED_BY_US: Outcome = outcome(&[("closed_by_us", None)]);
pub(super) const CLOSED_BY_PEER: Outcome = outcome(&[("closed_by_peer", None)]);
pub(super) const RESET_BY_US: Outcome = outcome(&[("reset_by_us", None)]);
pub(super) const RESET_BY_PEER: Outcome = outcome(&[("reset_by_peer", Some(Errno::ECONNRESET))]);
pub(super) const REFUSED: Outcome = outcome(&[("refused", Some(Errno::ECONNREFUSED))]);
const ABORTED_UNREAD: Outcome = outcome(&[("aborted_unread", None)]);
const NEVER_ACCEPTED: Outcome = outcome(&[("never_accepted", None)]);
/// Linux resets a socket that nobody holds any more when data come for it, as if it had been reset.
const CLOSED_TO_DATA: Outcome = outcome(&[("reset_by_us", Some(Errno::ECONNRESET))]);
/// A reset after the other end's FIN.
const SENT_LATE: Outcome = Outcome { exact: false, ..outcome(&[("reset_by_peer", Some(Errno::EPIPE))]) };
const TIMED_OUT: Outcome = outcome(&[("timed_out", Some(Errno::ETIMEDOUT))]);
const TIMED_OUT_SENDING: Outcome = Outcome { exact: false, ..TIMED_OUT };
/// Both ends' FINs cross, or not.
const CLOSED_BY_ANYONE: Outcome =
    Outcome { exact: false, ..outcome(&[("closed_by_us", None), ("closed_by_peer", None)]) };
const NO_ROUTE: Outcome = outcome(&[("unreachable", Some(Errno::ENETUNREACH))]);
const NO_HOST: Outcome = outcome(&[("unreachable", Some(Errno::EHOSTUNREACH))]);
const PROHIBITED: Outcome = outcome(&[("failed", Some(Errno::EACCES))]);
const NO_PORT: Outcome = outcome(&[("failed", Some(Errno::EADDRNOTAVAIL))]);
const ABORTED: Outcome = outcome(&[("reset_by_us", Some(Errno::ECONNABORTED))]);

const fn common(
    name: &'static str,
    share: usize,
    (client, client_side): (Outcome, Side),
    (server, server_side): (Outcome, Side),
) -> Scenario {
    Scenario {
        name,
        client,
        server: Some(server),
        client_side,
        server_side,
        share,
        needs_device: false,
        cannot: || None,
        since: (5, 10),
    }
}

const fn special(name: &'static str, client: (Outcome, Side), server: (Outcome, Side)) -> Scenario {
    Scenario { needs_device: true, ..common(name, 0, client, server) }
}

/// One that the server knows nothing of.
const fn alone(name: &'static str, outcome: Outcome, side: Side) -> Scenario {
    Scenario { server: None, ..special(name, (outcome, side), (outcome, connects::nothing)) }
}

/// Every scenario.
pub(super) const TABLE: &[Scenario] = &[
    common("client_closes_first", 4, (CLOSED_BY_US, endings::client_first), (CLOSED_BY_PEER, endings::server_second)),
    common("server_closes_first", 4, (CLOSED_BY_PEER, endings::client_second), (CLOSED_BY_US, endings::server_first)),
    common(
        "client_half_closes",
        2,
        (CLOSED_BY_US, endings::half_closing_client),
        (CLOSED_BY_PEER, endings::half_closed_server),
    ),
    common("client_resets", 1, (RESET_BY_US, endings::resetting_client), (RESET_BY_PEER, endings::reset_server)),
    common("server_resets", 1, (RESET_BY_PEER, endings::reset_client), (RESET_BY_US, endings::resetting_server)),
    common(
        "client_leaves_unread",
        1,
        (ABORTED_UNREAD, endings::client_leaving_unread),
        (RESET_BY_PEER, endings::server_not_heard),
    ),
    common(
        "server_leaves_unread",
        1,
        (RESET_BY_PEER, endings::client_not_heard),
        (ABORTED_UNREAD, endings::server_leaving_unread),
    ),
    common(
        "data_for_closed_client",
        1,
        (CLOSED_TO_DATA, endings::client_closed_to_data),
        (SENT_LATE, endings::server_sending_late),
    ),
    common(
        "data_for_closed_server",
        1,
        (SENT_LATE, endings::client_sending_late),
        (CLOSED_TO_DATA, endings::server_closed_to_data),
    ),
    common(
        "never_accepted",
        1,
        (RESET_BY_PEER, endings::client_not_accepted),
        (NEVER_ACCEPTED, endings::server_not_accepting),
    ),
    common(
        "gone_before_accept",
        1,
        (CLOSED_BY_US, endings::client_gone_before_accept),
        (NEVER_ACCEPTED, endings::server_not_accepting),
    ),
    Scenario {
        server: None,
        ..common("refused", 1, (REFUSED, connects::client_refused), (REFUSED, connects::server_keeping_a_port))
    },
    Scenario { share: 1, ..alone("given_up", CLOSED_BY_US, connects::client_giving_up) },
    special(
        "fast_open",
        (CLOSED_BY_US, handshakes::fast_opening_client),
        (CLOSED_BY_PEER, handshakes::fast_opened_server),
    ),
    Scenario {
        cannot: handshakes::cannot_use_multipath,
        since: (6, 1),
        ..special(
            "multipath",
            (CLOSED_BY_ANYONE, handshakes::multipath_client),
            (CLOSED_BY_ANYONE, handshakes::multipath_server),
        )
    },
    special(
        "syn_cookie",
        (CLOSED_BY_US, handshakes::client_with_cookie),
        (CLOSED_BY_PEER, handshakes::server_with_cookies),
    ),
    special(
        "simultaneous_open",
        (CLOSED_BY_US, handshakes::caller_not_heard),
        (CLOSED_BY_PEER, handshakes::caller_of_a_caller),
    ),
    alone("connected_to_itself", CLOSED_BY_US, handshakes::client_of_itself),
    special(
        "connected_again",
        (CLOSED_BY_US, handshakes::client_connecting_again),
        (CLOSED_BY_PEER, handshakes::server_called_again),
    ),
    special(
        "refused_first",
        (CLOSED_BY_US, connects::client_refused_first),
        (CLOSED_BY_PEER, connects::server_of_second_attempt),
    ),
    special(
        "keepalive_timeout",
        (TIMED_OUT, silence::client_keeping_alive),
        (RESET_BY_PEER, silence::server_left_behind),
    ),
    special(
        "user_timeout",
        (TIMED_OUT_SENDING, silence::client_with_user_timeout),
        (RESET_BY_PEER, silence::server_left_behind),
    ),
    alone("connect_timeout", TIMED_OUT, connects::client_never_answered),
    alone("no_neighbour", NO_HOST, connects::client_without_neighbour),
    alone("no_route", NO_ROUTE, connects::client_without_route),
    alone("unreachable_route", NO_HOST, connects::client_with_unreachable_route),
    alone("prohibited_route", PROHIBITED, connects::client_with_prohibited_route),
    Scenario {
        server: None,
        ..special("no_port", (NO_PORT, connects::client_without_port), (NO_PORT, connects::server_of_all_ports))
    },
    Scenario {
        cannot: abort::cannot_abort,
        ..special("aborted", (ABORTED, abort::client_aborted), (RESET_BY_PEER, abort::server_of_aborted))
    },
];

/// The scenario of that name.
pub(super) fn by_name(name: &str) -> Option<&'static Scenario> {
    TABLE.iter().find(|scenario| scenario.name == name)
}

/// The scenarios of a mix, in the order in which they come, again and again.
pub(super) fn mix(with_device: bool) -> Vec<&'static Scenario> {
    let most = TABLE.iter().map(|scenario| scenario.share).max().unwrap_or_default();
    let possible = |scenario: &&Scenario| with_device || !scenario.needs_device;
    let round = |round| TABLE.iter().filter(possible).filter(move |scenario| scenario.share > round);
    (0..most).flat_map(round).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mix_has_every_common_scenario_and_no_special_one() {
        let mix = mix(true);
        assert_eq!(mix.len(), TABLE.iter().map(|scenario| scenario.share).sum::<usize>());
        let names: BTreeSet<&str> = mix.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), 13);
        assert!(super::mix(false).iter().all(|scenario| !scenario.needs_device));
    }

    #[test]
    fn names_are_different() {
        let names: BTreeSet<&str> = TABLE.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }
}
