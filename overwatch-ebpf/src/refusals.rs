//! What a listening socket refuses because a queue of its is full. The kernel says so by numbers of the whole network namespace only, so
//! its own tests are made again where it is about to make them. Nobody waits here for a lock, so that another CPU may change a queue
//! in between.

use aya_ebpf::{EbpfContext as _, macros::kprobe, programs::ProbeContext};

use crate::{
    kernel::{self, Address, argument, at_tracepoint, follow, read, register},
    maps::{LISTENERS, add},
};

/// `ETH_P_IP` (linux/if_ether.h).
const ETH_P_IP: u16 = 0x0800;
/// `net.ipv4.tcp_syncookies`: none, and always.
const NO_COOKIES: u8 = 0;
const ALWAYS_COOKIES: u8 = 2;

/// `sk_acceptq_is_full` (include/net/sock.h).
#[inline(always)]
fn accept_queue_is_full(sock: Address) -> bool {
    let length: u32 = read(sock, kernel::SOCK_ACK_BACKLOG.load());
    let limit: u32 = read(sock, kernel::SOCK_MAX_ACK_BACKLOG.load());
    length > limit
}

/// kprobe of `int tcp_conn_request(..., struct sock *sk, struct sk_buff *skb)`: a SYN has come. Its tests in their order
/// (net/ipv4/tcp_input.c).
#[kprobe]
pub(crate) fn syn_received(context: ProbeContext) -> u32 {
    let sock = register(context.as_ptr(), &kernel::CONN_REQUEST_SK);
    let Some(net) = follow(sock, kernel::SOCK_NET.load()) else { return 0 };
    let cookies: u8 = read(net, kernel::NET_SYNCOOKIES.load());
    let accept_queue_full = accept_queue_is_full(sock);
    // `inet_csk_reqsk_queue_is_full` (include/net/inet_connection_sock.h): from the limit on or beyond it, which changed, in stable
    // series too. The limit of the accept queue is that of the SYN queue.
    let length: u32 = read(sock, kernel::QUEUE_SYN_LENGTH.load());
    let limit: u32 = read(sock, kernel::SOCK_MAX_ACK_BACKLOG.load());
    let syn_queue_full = length > limit;
    if !accept_queue_full && length < limit && cookies != ALWAYS_COOKIES {
        return 0;
    }
    let Some(listener) = LISTENERS.get_ptr_mut(sock) else { return 0 };
    // SAFETY: the pointer is from the lookup, to aligned counters of a live map value.
    unsafe {
        if syn_queue_full && cookies == NO_COOKIES {
            add(&raw mut (*listener).syn_queue_overflows, 1);
        } else if accept_queue_full {
            add(&raw mut (*listener).overflows_syn, 1);
        } else if !syn_queue_full && cookies != ALWAYS_COOKIES {
            add(&raw mut (*listener).syn_queue_at_limit, 1);
        } else {
            add(&raw mut (*listener).syn_cookies, 1);
        }
    }
    0
}

/// The last ACK of a handshake has come: the kernel's first test is whether there is room.
#[inline(always)]
fn last_ack(sock: Address) {
    if accept_queue_is_full(sock) {
        refused(sock);
    }
}

#[inline(always)]
fn refused(sock: Address) {
    if let Some(listener) = LISTENERS.get_ptr_mut(sock) {
        // SAFETY: as above.
        add(unsafe { &raw mut (*listener).overflows_ack }, 1);
    }
}

/// kprobe of `struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, ...)`
#[kprobe]
pub(crate) fn last_ack_v4(context: ProbeContext) -> u32 {
    last_ack(register(context.as_ptr(), &kernel::SYN_RECV_V4_SK));
    0
}

/// kprobe of `struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, ...)`, which has the other one do the work
/// for clients over IPv4
#[kprobe]
pub(crate) fn last_ack_v6(context: ProbeContext) -> u32 {
    let packet = register(context.as_ptr(), &kernel::SYN_RECV_V6_SKB);
    let protocol = u16::from_be(read(packet, kernel::SKB_PROTOCOL.load()));
    if protocol != ETH_P_IP {
        last_ack(register(context.as_ptr(), &kernel::SYN_RECV_V6_SK));
    }
    0
}

at_tracepoint!("kfree_skb", packet_dropped, packet_dropped_raw, dropped);

/// `(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)`, for kernels without kprobes. It shows refusals at the
/// last ACK only: a SYN that is refused is not dropped but consumed.
#[inline(always)]
fn dropped(context: *const core::ffi::c_void) {
    if argument(context, &kernel::KFREE_SKB_REASON) as u32 == kernel::SKB_DROP_REASON_TCP_LISTEN_OVERFLOW.load() {
        refused(argument(context, &kernel::KFREE_SKB_SK));
    }
}
