//! How a connection ended: from what the kernel side noted to one word. Pure.

use nix::errno::Errno;
use overwatch_common::connection::{
    Connection, flag,
    state::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_RECV, SYN_SENT, TIME_WAIT},
};

use super::snapshot::Role;

#[cfg(test)]
mod tests;

macro_rules! endings {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// How a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Ending { $($(#[$doc])* $name,)* }

        impl Ending {
            /// The names of all of them.
            pub const NAMES: &[&str] = &[$($text,)*];

            /// The name in output.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

endings! {
    /// In order, this end first; or the program gave up a connect.
    ClosedByUs = "closed_by_us",
    /// In order, the peer first.
    ClosedByPeer = "closed_by_peer",
    /// This end broke it off.
    ResetByUs = "reset_by_us",
    /// The peer broke it off.
    ResetByPeer = "reset_by_peer",
    /// The peer did not answer any more, or never did.
    TimedOut = "timed_out",
    /// Nobody listened there.
    Refused = "refused",
    /// There was no way to the peer.
    Unreachable = "unreachable",
    /// This end closed it although data had arrived that nobody read: the peer gets a RST.
    AbortedUnread = "aborted_unread",
    /// No process accepted it.
    NeverAccepted = "never_accepted",
    /// With another error.
    Failed = "failed",
}

/// How the connection ended; `None` when there is no evidence.
pub fn ending(connection: &Connection) -> Option<Ending> {
    let has = |bit| connection.flags & bit != 0;
    let role = Role::from_number(connection.role);
    let error = error_of(connection.error);
    if role == Some(Role::Server) && !connection.is_accepted() {
        return Some(Ending::NeverAccepted);
    }
    if role != Some(Role::Server) && !has(flag::ESTABLISHED) && u32::from(connection.closed_from) == SYN_SENT {
        return Some(ending_of_connect(error, has(flag::RESET_RECEIVED)));
    }
    match error {
        Some(error) => Some(ending_by_error(error, has(flag::RESET_SENT))),
        None if has(flag::RESET_RECEIVED) => Some(Ending::ResetByPeer),
        None => ending_in_order(connection),
    }
}

/// Not a connection: a socket that the kernel made when two packets completed one handshake at the same time, and that it threw away, since the
/// other one was faster (`inet_ehash_nolisten`, called by `tcp_v4_syn_recv_sock`). No process could ever have accepted it, and the
/// client knows of one connection only.
pub fn is_twin(connection: &Connection) -> bool {
    let had = flag::ESTABLISHED | flag::RESET_SENT | flag::RESET_RECEIVED;
    Role::from_number(connection.role) == Some(Role::Server)
        && u32::from(connection.closed_from) == SYN_RECV
        && connection.flags & had == 0
        && connection.error == 0
        && !connection.is_accepted()
        // With TCP Fast Open there can be data before the handshake is complete.
        && connection.kernel_received == 0
        && connection.unread == 0
}

/// A connect that came to nothing.
fn ending_of_connect(error: Option<Errno>, reset_received: bool) -> Ending {
    match error {
        Some(Errno::ECONNREFUSED) => Ending::Refused,
        Some(Errno::ETIMEDOUT) => Ending::TimedOut,
        Some(error) if is_unreachable(error) => Ending::Unreachable,
        _ if reset_received => Ending::Refused,
        Some(Errno::ECONNABORTED) => Ending::ResetByUs,
        Some(Errno::ECONNRESET) => Ending::ResetByPeer,
        Some(_) => Ending::Failed,
        None => Ending::ClosedByUs,
    }
}

fn ending_by_error(error: Errno, reset_sent: bool) -> Ending {
    match error {
        Errno::ETIMEDOUT => Ending::TimedOut,
        // What `ss -K` leaves.
        Errno::ECONNABORTED => Ending::ResetByUs,
        // Linux also ends a socket as if the peer's RST had come when it is itself who sends one, since data arrives
        // that nobody can take any more.
        Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNREFUSED if reset_sent => Ending::ResetByUs,
        Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNREFUSED => Ending::ResetByPeer,
        error if is_unreachable(error) => Ending::Unreachable,
        _ => Ending::Failed,
    }
}

/// Without an error and without a RST of the peer's.
fn ending_in_order(connection: &Connection) -> Option<Ending> {
    let has = |bit| connection.flags & bit != 0;
    let first = if has(flag::CLOSED_FIRST) {
        Some(Ending::ClosedByUs)
    } else {
        has(flag::PEER_CLOSED).then_some(Ending::ClosedByPeer)
    };
    match u32::from(connection.closed_from) {
        // Straight to CLOSE, before the peer had confirmed a FIN: by a RST of ours.
        ESTABLISHED | SYN_RECV | FIN_WAIT1 | CLOSE_WAIT if connection.unread > 0 => Some(Ending::AbortedUnread),
        ESTABLISHED | SYN_RECV | FIN_WAIT1 | CLOSE_WAIT => Some(Ending::ResetByUs),
        // It had ended its own direction before.
        FIN_WAIT2 if connection.unread > 0 && has(flag::RESET_SENT) => Some(Ending::AbortedUnread),
        // Only who closes first comes to these.
        FIN_WAIT2 | CLOSING | TIME_WAIT => first.or(Some(Ending::ClosedByUs)),
        LAST_ACK => first.or(Some(Ending::ClosedByPeer)),
        _ if has(flag::RESET_SENT) => Some(Ending::ResetByUs),
        _ => first,
    }
}

fn is_unreachable(error: Errno) -> bool {
    matches!(error, Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN | Errno::ENONET)
}

/// An unknown number is an error as well.
fn error_of(number: u32) -> Option<Errno> {
    (number != 0).then(|| i32::try_from(number).map_or(Errno::UnknownErrno, Errno::from_raw))
}

/// The name of an error number, such as `ECONNRESET`, or `errno 999` for one without a name; `None` for 0, which is none.
pub fn errno_name(number: u32) -> Option<String> {
    error_of(number).map(|error| match error {
        Errno::UnknownErrno => format!("errno {number}"),
        known => format!("{known:?}"),
    })
}
