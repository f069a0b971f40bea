//! Connects that fail at once: no route, no port left, forbidden. The socket changes no state then, or says no reason.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fexit, kprobe, kretprobe, tracepoint},
    programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use overwatch_common::connection::{Connecting, flag};

use crate::{
    ends,
    kernel::{self, Address, argument, read_into, read_user, register},
    maps::{CONNECTING, CONNECTIONS},
    sockets::{self, V4_MAPPED_PREFIX},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Errors of a connect that are no connection that failed but a mistake of the caller's.
const EINVAL: u32 = 22;
const EAFNOSUPPORT: u32 = 97;
/// Errors that connect(2) gives before it has sent anything. Others come with a change of state, which has told.
const EPERM: u32 = 1;
const EACCES: u32 = 13;
const EADDRNOTAVAIL: u32 = 99;
const ENETDOWN: u32 = 100;
const ENETUNREACH: u32 = 101;
const EHOSTUNREACH: u32 = 113;

/// Where a connect was to go.
struct Target {
    addr: [u8; 16],
    port: u16,
}

/// Reads a `struct sockaddr_in` or `sockaddr_in6`, whose layout is part of the kernel's interface to users, by `read`.
#[inline(always)]
fn target(read: impl Fn(&mut [u8], u64)) -> Option<Target> {
    let (mut family, mut port) = ([0; 2], [0; 2]);
    read(&mut family, 0);
    read(&mut port, 2);
    let mut target = Target { addr: [0; 16], port: u16::from_be_bytes(port) };
    match u16::from_ne_bytes(family) {
        AF_INET => {
            target.addr[..12].copy_from_slice(&V4_MAPPED_PREFIX);
            read(&mut target.addr[12..], 4);
        }
        AF_INET6 => read(&mut target.addr, 8),
        _ => return None,
    }
    Some(target)
}

/// True when the failure needs a record of its own: the table has no entry for this attempt, nor had one.
#[inline(never)]
fn needs_record(sock: Address, error: u32) -> bool {
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock) else {
        return true;
    };
    // SAFETY: the pointer is from the lookup; in connect(2) the socket is locked, or was until a moment ago.
    let connection = unsafe { &mut *connection };
    if connection.flags & flag::CLOSED == 0 {
        // Connected or connecting already.
        return false;
    }
    if connection.flags & (flag::ESTABLISHED | flag::HANDED_OVER) == 0 {
        // It got as far as SYN_SENT and back, and the socket says no reason: no port was left.
        connection.error = error;
        ends::connect_failed(sock, connection);
        return false;
    }
    // What a change of state has told is not told again.
    connection.flags & flag::HANDED_OVER == 0 || connection.error != error
}

/// The kernel's function has returned; `address` is in the kernel's memory.
#[inline(never)]
fn returned(sock: Address, address: Address, result: i32) {
    let error = result.unsigned_abs();
    if result >= 0 || sock == 0 || error == EINVAL || error == EAFNOSUPPORT || !sockets::is_tcp(sock) {
        return;
    }
    let Some(target) = target(|part, offset| read_into(part, address, offset as u32)) else { return };
    if needs_record(sock, error) {
        ends::failed_at_once(sock, &target.addr, target.port, error);
    }
}

/// fexit of `int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "tcp_v4_connect")]
pub(crate) fn connect_v4_exit(context: FExitContext) -> i32 {
    let context = context.as_ptr();
    returned(
        argument(context, &kernel::CONNECT_V4_SK),
        argument(context, &kernel::CONNECT_V4_ADDRESS),
        argument(context, &kernel::CONNECT_V4_RETURN) as i32,
    );
    0
}

/// fexit of `int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "tcp_v6_connect")]
pub(crate) fn connect_v6_exit(context: FExitContext) -> i32 {
    let context = context.as_ptr();
    let address = argument(context, &kernel::CONNECT_V6_ADDRESS);
    let mut prefix = [0; 12];
    read_into(&mut prefix, address, 8);
    // An IPv4 address behind it: tcp_v4_connect, which does the work, has told.
    if prefix != V4_MAPPED_PREFIX {
        returned(
            argument(context, &kernel::CONNECT_V6_SK),
            address,
            argument(context, &kernel::CONNECT_V6_RETURN) as i32,
        );
    }
    0
}

/// Remembers the call until it returns. Not in the slot of the thread's send, within which it may be (TCP Fast Open).
#[inline(always)]
fn entered(sock: Address, address: Address) {
    let _full = CONNECTING.insert(bpf_get_current_pid_tgid(), &Connecting { sock, address }, u64::from(BPF_ANY));
}

/// kprobe of tcp_v4_connect
#[kprobe]
pub(crate) fn connect_v4_enter(context: ProbeContext) -> u32 {
    entered(
        register(context.as_ptr(), &kernel::CONNECT_V4_SK),
        register(context.as_ptr(), &kernel::CONNECT_V4_ADDRESS),
    );
    0
}

/// kprobe of tcp_v6_connect
#[kprobe]
pub(crate) fn connect_v6_enter(context: ProbeContext) -> u32 {
    entered(
        register(context.as_ptr(), &kernel::CONNECT_V6_SK),
        register(context.as_ptr(), &kernel::CONNECT_V6_ADDRESS),
    );
    0
}

/// kretprobe of tcp_v4_connect and tcp_v6_connect. Where one calls the other, the inner return takes the slot, and the outer finds none.
#[kretprobe]
pub(crate) fn connect_return(context: RetProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if let Some(call) = CONNECTING.get_ptr(thread) {
        // SAFETY: the pointer is from the lookup, and only this thread uses its slot.
        let Connecting { sock, address } = unsafe { *call };
        let _was_there = CONNECTING.remove(thread);
        returned(sock, address, context.ret::<i32>());
    }
    0
}

/// tracepoint syscalls/sys_exit_connect, where the other tiers are not to be had
#[tracepoint]
pub(crate) fn connect_syscall(context: TracePointContext) -> u32 {
    // SAFETY: BTF told where the result stands in the record; the verifier checks the bound.
    let result: i64 = unsafe { context.read_at(kernel::SYSCALL_EXIT_RET.load() as usize) }.unwrap_or_default();
    let error = result.unsigned_abs() as u32;
    let before_the_syn = matches!(error, EPERM | EACCES | EADDRNOTAVAIL | ENETDOWN | ENETUNREACH | EHOSTUNREACH);
    if result < 0 && before_the_syn {
        syscall_failed(error);
    }
    0
}

/// The record of a system call's end has none of its arguments; the registers that it was called with still do.
#[inline(never)]
fn syscall_failed(error: u32) {
    let (descriptor, address) = kernel::syscall_arguments();
    let Some(sock) = sockets::of_descriptor(descriptor) else { return };
    if !sockets::is_tcp(sock) {
        return;
    }
    let Some(target) = target(|part, offset| read_user(part, address + offset)) else { return };
    if needs_record(sock, error) {
        ends::failed_at_once(sock, &target.addr, target.port, error);
    }
}
