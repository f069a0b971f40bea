//! Every kind of evidence.

use overwatch_common::connection::{
    flag::{ACCEPTED, CLOSED, CLOSED_FIRST, ESTABLISHED as WAS_ESTABLISHED, PEER_CLOSED, RESET_RECEIVED, RESET_SENT},
    role::{CLIENT, SERVER, UNKNOWN},
};

use super::*;
use crate::model::fixtures::connection;

/// Role, state before CLOSE, flags, error and unread bytes, and what they say.
type Case = (u8, u32, u32, u32, u32, Option<Ending>);

const OPENED: u32 = CLOSED | WAS_ESTABLISHED | ACCEPTED;
const NO_ERROR: u32 = 0;

fn number(error: Errno) -> u32 {
    u32::try_from(error as i32).unwrap()
}

fn check(cases: &[Case]) {
    for (role, closed_from, flags, error, unread, expected) in cases {
        let connection = Connection {
            role: *role,
            closed_from: u8::try_from(*closed_from).unwrap(),
            flags: *flags,
            error: *error,
            unread: *unread,
            tgid: 0,
            ..connection(42, 0, 0)
        };
        let what = (role, closed_from, format!("{flags:#b}"), errno_name(*error), unread);
        assert_eq!(ending(&connection), *expected, "{what:?}");
    }
}

#[test]
fn a_connect_that_came_to_nothing_ends_as_its_error_says() {
    for role in [CLIENT, UNKNOWN] {
        for (error, expected) in [
            (number(Errno::ECONNREFUSED), Ending::Refused),
            (number(Errno::ETIMEDOUT), Ending::TimedOut),
            (number(Errno::EHOSTUNREACH), Ending::Unreachable),
            (number(Errno::ENETUNREACH), Ending::Unreachable),
            (number(Errno::ENETDOWN), Ending::Unreachable),
            (number(Errno::EHOSTDOWN), Ending::Unreachable),
            (number(Errno::ENONET), Ending::Unreachable),
            (number(Errno::ECONNABORTED), Ending::ResetByUs),
            (number(Errno::ECONNRESET), Ending::ResetByPeer),
            (number(Errno::EPROTO), Ending::Failed),
            (999, Ending::Failed),
            (u32::MAX, Ending::Failed),
            (NO_ERROR, Ending::ClosedByUs),
        ] {
            check(&[(role, SYN_SENT, CLOSED, error, 0, Some(expected))]);
        }
        check(&[
            (role, SYN_SENT, CLOSED | RESET_RECEIVED, NO_ERROR, 0, Some(Ending::Refused)),
            (role, SYN_SENT, CLOSED | RESET_RECEIVED, number(Errno::ECONNREFUSED), 0, Some(Ending::Refused)),
            // What came first stands in the error.
            (role, SYN_SENT, CLOSED | RESET_RECEIVED, number(Errno::ETIMEDOUT), 0, Some(Ending::TimedOut)),
            (role, SYN_SENT, CLOSED | RESET_RECEIVED, number(Errno::EHOSTUNREACH), 0, Some(Ending::Unreachable)),
        ]);
    }
}

#[test]
fn what_no_process_accepted_is_that_whatever_else_happened_to_it() {
    for closed_from in 0..=12 {
        for error in [NO_ERROR, number(Errno::ECONNRESET), number(Errno::ETIMEDOUT)] {
            for flags in [0, CLOSED | WAS_ESTABLISHED, CLOSED | RESET_SENT, CLOSED | PEER_CLOSED | RESET_RECEIVED] {
                check(&[(SERVER, closed_from, flags, error, 7, Some(Ending::NeverAccepted))]);
            }
        }
    }
}

#[test]
fn an_error_decides_before_the_state() {
    for role in [CLIENT, SERVER, UNKNOWN] {
        for closed_from in [0, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK] {
            for more in [0, CLOSED_FIRST, PEER_CLOSED] {
                let flags = OPENED | more;
                for (error, expected) in [
                    (Errno::ETIMEDOUT, Ending::TimedOut),
                    (Errno::EHOSTUNREACH, Ending::Unreachable),
                    (Errno::ENETUNREACH, Ending::Unreachable),
                    (Errno::ENETDOWN, Ending::Unreachable),
                    (Errno::EHOSTDOWN, Ending::Unreachable),
                    (Errno::ENONET, Ending::Unreachable),
                    (Errno::ECONNABORTED, Ending::ResetByUs),
                    (Errno::EPROTO, Ending::Failed),
                ] {
                    check(&[
                        (role, closed_from, flags, number(error), 7, Some(expected)),
                        (role, closed_from, flags | RESET_SENT, number(error), 0, Some(expected)),
                    ]);
                }
                for error in [Errno::ECONNRESET, Errno::EPIPE, Errno::ECONNREFUSED].map(number) {
                    check(&[
                        (role, closed_from, flags, error, 7, Some(Ending::ResetByPeer)),
                        (role, closed_from, flags | RESET_RECEIVED, error, 0, Some(Ending::ResetByPeer)),
                        (role, closed_from, flags | RESET_SENT, error, 0, Some(Ending::ResetByUs)),
                    ]);
                }
            }
        }
    }
}

#[test]
fn straight_to_close_without_an_error_is_a_reset() {
    for role in [CLIENT, SERVER, UNKNOWN] {
        for closed_from in [ESTABLISHED, CLOSE_WAIT, SYN_RECV, FIN_WAIT1] {
            for more in [0, CLOSED_FIRST, PEER_CLOSED, RESET_SENT] {
                check(&[
                    (role, closed_from, OPENED | more, NO_ERROR, 0, Some(Ending::ResetByUs)),
                    (role, closed_from, OPENED | more, NO_ERROR, 1, Some(Ending::AbortedUnread)),
                ]);
            }
            check(&[(role, closed_from, OPENED | RESET_RECEIVED, NO_ERROR, 1, Some(Ending::ResetByPeer))]);
        }
    }
}

#[test]
fn after_both_fins_the_first_one_decides() {
    let us = Some(Ending::ClosedByUs);
    let peer = Some(Ending::ClosedByPeer);
    for role in [CLIENT, SERVER, UNKNOWN] {
        for (closed_from, without_flags) in [(FIN_WAIT2, us), (CLOSING, us), (TIME_WAIT, us), (LAST_ACK, peer)] {
            check(&[
                (role, closed_from, OPENED, NO_ERROR, 0, without_flags),
                (role, closed_from, OPENED | CLOSED_FIRST, NO_ERROR, 0, us),
                (role, closed_from, OPENED | CLOSED_FIRST | PEER_CLOSED, NO_ERROR, 0, us),
                (role, closed_from, OPENED | PEER_CLOSED, NO_ERROR, 0, peer),
            ]);
        }
        // The peer never closed, and this end waited no longer.
        check(&[(role, FIN_WAIT2, OPENED | RESET_SENT, NO_ERROR, 0, us)]);
    }
}

#[test]
fn without_the_last_state_the_flags_decide_and_without_flags_nothing() {
    for role in [CLIENT, SERVER, UNKNOWN] {
        check(&[
            (role, 0, OPENED, NO_ERROR, 0, None),
            (role, 0, OPENED, NO_ERROR, 9, None),
            (role, 0, OPENED | RESET_RECEIVED, NO_ERROR, 0, Some(Ending::ResetByPeer)),
            (role, 0, OPENED | RESET_RECEIVED | RESET_SENT, NO_ERROR, 0, Some(Ending::ResetByPeer)),
            (role, 0, OPENED | RESET_SENT | CLOSED_FIRST, NO_ERROR, 0, Some(Ending::ResetByUs)),
            (role, 0, OPENED | CLOSED_FIRST | PEER_CLOSED, NO_ERROR, 0, Some(Ending::ClosedByUs)),
            (role, 0, OPENED | PEER_CLOSED, NO_ERROR, 0, Some(Ending::ClosedByPeer)),
            // Numbers that no connection leaves for CLOSE.
            (role, 10, OPENED, NO_ERROR, 0, None),
            (role, 255, OPENED | PEER_CLOSED, NO_ERROR, 0, Some(Ending::ClosedByPeer)),
        ]);
    }
    check(&[(CLIENT, 0, 0, NO_ERROR, 0, None), (UNKNOWN, 0, 0, NO_ERROR, 0, None)]);
}

#[test]
fn an_error_number_has_the_name_that_programs_know_it_by() {
    for (number, name) in [
        (0, None),
        (104, Some("ECONNRESET")),
        (110, Some("ETIMEDOUT")),
        (111, Some("ECONNREFUSED")),
        (113, Some("EHOSTUNREACH")),
        (999, Some("errno 999")),
        (u32::MAX, Some("errno 4294967295")),
    ] {
        assert_eq!(errno_name(number).as_deref(), name);
    }
}

#[test]
fn every_ending_is_among_the_names() {
    for ending in [Ending::ClosedByUs, Ending::NeverAccepted, Ending::Failed] {
        assert!(Ending::NAMES.contains(&ending.name()));
    }
    assert_eq!(Ending::NAMES.len(), 10);
}

#[test]
fn a_child_that_lost_the_race_for_its_handshake_is_no_connection() {
    let twin = Connection {
        role: SERVER,
        closed_from: SYN_RECV as u8,
        flags: CLOSED,
        tgid: 0,
        accepted_ns: 0,
        ..connection(42, 0, 0)
    };
    assert!(is_twin(&twin));
    for other in [
        Connection { role: CLIENT, ..twin },
        Connection { role: UNKNOWN, ..twin },
        Connection { closed_from: ESTABLISHED as u8, ..twin },
        Connection { closed_from: SYN_SENT as u8, ..twin },
        Connection { flags: CLOSED | WAS_ESTABLISHED, ..twin },
        Connection { flags: CLOSED | RESET_SENT, ..twin },
        Connection { flags: CLOSED | RESET_RECEIVED, ..twin },
        Connection { flags: CLOSED | ACCEPTED, ..twin },
        Connection { error: number(Errno::ECONNRESET), ..twin },
        Connection { accepted_ns: 1, ..twin },
        Connection { tgid: 42, ..twin },
        Connection { kernel_received: 1, ..twin },
        Connection { unread: 1, ..twin },
    ] {
        assert!(!is_twin(&other), "{other:?}");
    }
}
