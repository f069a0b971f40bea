//! Bytes sent and received: entry points of the three tiers. All count what the call returned, and a call that only
//! looked (MSG_PEEK) or read the error queue (MSG_ERRQUEUE) moved nothing.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use overwatch_common::{connection::InFlight, counter::Counter};

use crate::{
    kernel::{self, Address, argument, at_tracepoint, follow, register},
    maps::{IN_FLIGHT, count, may_have_skipped},
    table::{self, Moved},
};

const MSG_PEEK: u32 = 0x2;
const MSG_ERRQUEUE: u32 = 0x2000;

#[inline(always)]
fn sent(sock: Address, result: i64) {
    if result > 0 {
        table::account(sock, Moved { sent: result as u64, received: 0 });
    }
}

#[inline(always)]
fn received(sock: Address, result: i64, flags: u32) {
    if result > 0 && flags & (MSG_PEEK | MSG_ERRQUEUE) == 0 {
        table::account(sock, Moved { sent: 0, received: result as u64 });
    }
}

// fentry tier

/// fexit of `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[fexit(function = "tcp_sendmsg")]
pub(crate) fn sendmsg_exit(context: FExitContext) -> i32 {
    let context = context.as_ptr();
    sent(argument(context, &kernel::SENDMSG_SK), i64::from(argument(context, &kernel::SENDMSG_RETURN) as i32));
    0
}

/// fexit of `int tcp_sendpage(struct sock *sk, struct page *page, int offset, size_t size, int flags)`, up to Linux 6.4
#[fexit(function = "tcp_sendpage")]
pub(crate) fn sendpage_exit(context: FExitContext) -> i32 {
    let context = context.as_ptr();
    sent(argument(context, &kernel::SENDPAGE_SK), i64::from(argument(context, &kernel::SENDPAGE_RETURN) as i32));
    0
}

/// fexit of `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, ..., int flags, ...)`
#[fexit(function = "tcp_recvmsg")]
pub(crate) fn recvmsg_exit(context: FExitContext) -> i32 {
    let context = context.as_ptr();
    received(
        argument(context, &kernel::RECVMSG_SK),
        i64::from(argument(context, &kernel::RECVMSG_RETURN) as i32),
        argument(context, &kernel::RECVMSG_FLAGS) as u32,
    );
    0
}

/// fexit of `ssize_t tcp_splice_read(struct socket *sock, ...)`
#[fexit(function = "tcp_splice_read")]
pub(crate) fn splice_read_exit(context: FExitContext) -> i32 {
    let context = context.as_ptr();
    if let Some(sock) = follow(argument(context, &kernel::SPLICE_READ_SOCKET), kernel::SOCKET_SK.load()) {
        received(sock, argument(context, &kernel::SPLICE_READ_RETURN) as i64, 0);
    }
    0
}

// kprobe tier

/// Stands for a socket where the call is not to be counted. No kernel address is so low.
const NOT_COUNTED: Address = 1;

/// Remembers the socket until the call returns. Each thread keeps its slot for its life: finding one costs a third of
/// making and removing one.
#[inline(always)]
pub(crate) fn entered(sock: Address) {
    let thread = bpf_get_current_pid_tgid();
    match IN_FLIGHT.get_ptr_mut(thread) {
        // SAFETY: the pointer is from the lookup, and only this thread uses its own slot.
        Some(call) => unsafe {
            if (*call).sock != 0 {
                count(Counter::ReturnMissed, 1);
            }
            (*call).sock = sock;
        },
        // When there is no room the return will say so.
        None => {
            let _full = IN_FLIGHT.insert(thread, &InFlight { sock }, u64::from(BPF_ANY));
        }
    }
}

/// The socket of the call that returns; `None` for one that is not to be counted.
///
/// It may be that of an earlier call, where the kernel has skipped that one's return and this one's entry: a preemptible kernel skips all
/// such programs on a CPU where an interrupted task is inside one. See [`accounted`].
#[inline(always)]
pub(crate) fn returned() -> Option<Address> {
    let sock = IN_FLIGHT.get_ptr_mut(bpf_get_current_pid_tgid()).map_or(0, |call| {
        // SAFETY: as in `entered`.
        unsafe { core::mem::replace(&mut (*call).sock, 0) }
    });
    if sock == 0 {
        // Its entry found no room. The bytes are made good when the connection ends.
        count(Counter::ReturnUnmatched, 1);
    }
    (sock > NOT_COUNTED).then_some(sock)
}

at_tracepoint!("sched_process_exit", thread_ended, thread_ended_raw, leave_slot);

/// A thread that ends leaves its slot.
#[inline(always)]
fn leave_slot(_context: *const core::ffi::c_void) {
    let _none = IN_FLIGHT.remove(bpf_get_current_pid_tgid());
}

/// kprobe of tcp_sendmsg
#[kprobe]
pub(crate) fn sendmsg_enter(context: ProbeContext) -> u32 {
    entered(register(context.as_ptr(), &kernel::SENDMSG_SK));
    0
}

/// kprobe of tcp_sendpage
#[kprobe]
pub(crate) fn sendpage_enter(context: ProbeContext) -> u32 {
    entered(register(context.as_ptr(), &kernel::SENDPAGE_SK));
    0
}

/// Counts a call, unless the socket cannot have moved so much: then the bytes are another's, and are made good there.
#[inline(always)]
fn accounted(sock: Address, sent: u64, received: u64) {
    if !may_have_skipped() || table::is_possible(sock, sent, received) {
        table::account(sock, Moved { sent, received });
    } else {
        count(Counter::ReturnUnmatched, 1);
    }
}

/// kretprobe of tcp_sendmsg and of tcp_sendpage
#[kretprobe]
pub(crate) fn send_return(context: RetProbeContext) -> u32 {
    let result = context.ret::<i32>();
    if let Some(sock) = returned()
        && result > 0
    {
        accounted(sock, result as u64, 0);
    }
    0
}

/// kprobe of tcp_recvmsg
#[kprobe]
pub(crate) fn recvmsg_enter(context: ProbeContext) -> u32 {
    let flags = register(context.as_ptr(), &kernel::RECVMSG_FLAGS) as u32;
    let moves = flags & (MSG_PEEK | MSG_ERRQUEUE) == 0;
    entered(if moves { register(context.as_ptr(), &kernel::RECVMSG_SK) } else { NOT_COUNTED });
    0
}

/// kprobe of tcp_splice_read
#[kprobe]
pub(crate) fn splice_read_enter(context: ProbeContext) -> u32 {
    let socket = register(context.as_ptr(), &kernel::SPLICE_READ_SOCKET);
    entered(follow(socket, kernel::SOCKET_SK.load()).unwrap_or(NOT_COUNTED));
    0
}

/// kretprobe of tcp_recvmsg
#[kretprobe]
pub(crate) fn recvmsg_return(context: RetProbeContext) -> u32 {
    let result = context.ret::<i32>();
    if let Some(sock) = returned()
        && result > 0
    {
        accounted(sock, 0, result as u64);
    }
    0
}

/// kretprobe of tcp_splice_read
#[kretprobe]
pub(crate) fn splice_read_return(context: RetProbeContext) -> u32 {
    let result = context.ret::<i64>();
    if let Some(sock) = returned()
        && result > 0
    {
        accounted(sock, 0, result as u64);
    }
    0
}

// tracepoint tier

at_tracepoint!("sock_send_length", send_length, send_length_raw, sent_by_tracepoint);
at_tracepoint!("sock_recv_length", recv_length, recv_length_raw, received_by_tracepoint);

/// `(struct sock *sk, int ret, int flags)`, for sockets of every kind.
#[inline(always)]
fn sent_by_tracepoint(context: *const core::ffi::c_void) {
    let sock = argument(context, &kernel::SEND_LENGTH_SK);
    sent(sock, i64::from(argument(context, &kernel::SEND_LENGTH_RESULT) as i32));
}

/// `(struct sock *sk, int ret, int flags)`, for sockets of every kind.
#[inline(always)]
fn received_by_tracepoint(context: *const core::ffi::c_void) {
    received(
        argument(context, &kernel::RECV_LENGTH_SK),
        i64::from(argument(context, &kernel::RECV_LENGTH_RESULT) as i32),
        argument(context, &kernel::RECV_LENGTH_FLAGS) as u32,
    );
}
