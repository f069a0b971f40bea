//! What TCP states mean to the model.

pub(super) use overwatch_common::connection::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV,
};

/// True for the states that a socket can have before a process has accepted it. In all others this end has closed it, or
/// has opened it.
pub(super) fn before_accept(state: u32) -> bool {
    matches!(state, LISTEN | SYN_RECV | ESTABLISHED | CLOSE_WAIT | CLOSE)
}
