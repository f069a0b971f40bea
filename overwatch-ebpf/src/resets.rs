//! Resets: the same two tracepoints in every tier. A state transition does not say whose RST it was.

use aya_ebpf::{EbpfContext as _, bindings::BPF_RB_NO_WAKEUP, macros::btf_tracepoint, programs::BtfTracePointContext};
use overwatch_common::{
    connection::flag,
    event::{self, Reset},
};

use crate::{
    kernel::{self, argument},
    maps::{CONNECTIONS, EVENTS},
    sockets,
};

/// tp_btf/tcp_send_reset: `(const struct sock *sk, ...)`; without a socket when the RST answers a stray packet
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn reset_sent(context: BtfTracePointContext) -> i32 {
    let sock = argument(context.as_ptr(), &kernel::SEND_RESET_SK);
    if sock == 0 {
        return 0;
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
    0
}

/// tp_btf/tcp_receive_reset: `(struct sock *sk)`
#[btf_tracepoint(function = "tcp_receive_reset")]
pub(crate) fn reset_received(context: BtfTracePointContext) -> i32 {
    let sock = argument(context.as_ptr(), &kernel::RECEIVE_RESET_SK);
    if let Some(connection) = CONNECTIONS.get_ptr_mut(sock) {
        // SAFETY: as above.
        unsafe { (*connection).flags |= flag::RESET_RECEIVED };
    }
    0
}
