//! Resets: the same two tracepoints in every tier. A state transition does not say whose RST it was.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use overwatch_common::{
    connection::flag,
    event::{self, Reset},
};

use crate::{
    kernel::{self, argument, at_tracepoint},
    maps::{CONNECTIONS, EVENTS},
    sockets,
};

at_tracepoint!("tcp_send_reset", reset_sent, reset_sent_raw, sent);
at_tracepoint!("tcp_receive_reset", reset_received, reset_received_raw, received);

/// `(const struct sock *sk, ...)`; without a socket when the RST answers a stray packet.
#[inline(always)]
fn sent(context: *const core::ffi::c_void) {
    let sock = argument(context, &kernel::SEND_RESET_SK);
    if sock == 0 {
        return;
    }
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock) {
        // SAFETY: the pointer is from the lookup; flags are written under the socket's lock.
        unsafe { (*connection).flags |= flag::RESET_SENT };
    } else if sockets::is_tcp(sock)
        && sockets::state_of(sock) == kernel::TCP_CLOSE.load()
        // When it is lost, the end of a connection that nobody held any more is taken for the peer's doing.
        && let Some(mut entry) = EVENTS.reserve::<Reset>(0)
    {
        entry.write(Reset { kind: event::RESET, pad: 0, sock });
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
}

/// `(struct sock *sk)`
#[inline(always)]
fn received(context: *const core::ffi::c_void) {
    let sock = argument(context, &kernel::RECEIVE_RESET_SK);
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock) {
        // SAFETY: as above.
        unsafe { (*connection).flags |= flag::RESET_RECEIVED };
    }
}
