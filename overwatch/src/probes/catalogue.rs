//! Every hook that overwatch knows, as data.

use std::fmt;

use super::{
    capabilities::Capability::{self, Bytes, Life, Listeners},
    object::Interest,
};

/// A way to see the bytes. All tiers give the same answers; they differ in cost and in what the kernel must offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// fexit programs: the cheapest.
    Fentry,
    /// kprobes and kretprobes.
    Kprobe,
    /// BTF tracepoints (Linux 6.3 and later), where the kernel has no kprobes and refuses fentry.
    Tracepoint,
}

impl Tier {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// The name in flags and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The return of a kernel function, by fexit.
    Fexit(&'static str),
    /// The entry of a kernel function.
    Kprobe(&'static str),
    /// The return of a kernel function.
    Kretprobe(&'static str),
    /// A tracepoint, with its arguments as the kernel has them.
    BtfTracepoint(&'static str),
    /// The same, for kernels that refuse programs with typed arguments.
    RawTracepoint(&'static str),
    /// A tracepoint by its record: category and name.
    Tracepoint(&'static str, &'static str),
}

impl Target {
    /// Function or tracepoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fexit(name)
            | Self::Kprobe(name)
            | Self::Kretprobe(name)
            | Self::BtfTracepoint(name)
            | Self::RawTracepoint(name)
            | Self::Tracepoint(_, name) => name,
        }
    }

    /// How the program is attached.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Fexit(_) => "fexit",
            Self::Kprobe(_) => "kprobe",
            Self::Kretprobe(_) => "kretprobe",
            Self::BtfTracepoint(_) => "tp_btf",
            Self::RawTracepoint(_) => "raw_tp",
            Self::Tracepoint(..) => "tracepoint",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracepoint(category, name) => write!(f, "tracepoint:{category}:{name}"),
            _ => write!(f, "{}:{}", self.kind(), self.name()),
        }
    }
}

/// What happens when a hook cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its tier does not work without it.
    Required,
    /// Required on kernels that have the function, and not missed on others.
    WhereItExists,
    /// Its tier does not work without one of the hooks that have this need and the same signal.
    OneOf,
    /// Its tier works without it, and the user is told what is lost.
    Wanted,
}

/// One program at one place.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The tier it belongs to; `None` for those that every tier has.
    pub tier: Option<Tier>,
    /// The interest that it is for; `None` for those that everybody needs.
    pub interest: Option<Interest>,
    /// The program's name in the object.
    pub program: &'static str,
    /// The same program as raw_tp, for the same tracepoint: attached when the kernel refuses the first.
    pub raw_program: Option<&'static str>,
    /// Where it goes.
    pub target: Target,
    /// What if it cannot go there.
    pub need: Need,
    /// The fact about the kernel without which it would be of no use (`overwatch_common::kernel`), beside its arguments.
    pub fact: Option<&'static str>,
    /// What it tells.
    pub signal: &'static str,
    /// What the user loses without it.
    pub loss: &'static str,
    /// Where another hook sees the same: the capabilities that are partial without this one, on a
    /// kernel that skips programs (`HostFacts::may_skip_programs`) and on one that does not.
    pub doubled: Option<[&'static [Capability]; 2]>,
}

const NO_SPLICE: &str = "bytes taken by splice(2) are not seen as calls; they are made good from the kernel's counters, \
    one or two intervals late while the process also makes calls that are seen, else at close";
const NO_ACCEPT: &str = "accepted connections get their owner from the first read or write instead of accept; how many listening sockets accept \
    and serve is not known, so listeners names no cause that rests on it";
const NOT_AGAIN: &str =
    "on a preemptible kernel, which skips programs now and then, some transitions and ends are found seconds late";
const NO_UNKNOWN_ENDS: &str = "bytes of a connection that began before overwatch and that it did not find are not counted when it ends; and on a \
    preemptible kernel, which skips programs now and then, some ends are found seconds late";
const NO_RESETS: &str = "a reset of data for a socket that its process had closed is taken for the peer's";
const NO_CONNECT: &str =
    "connects that fail before anything is sent (no route, no port left) are not seen, or without a reason";
const NO_LISTENER: &str = "which of several listening sockets at one address an accepted connection is of is not known";
const NO_SYN_REFUSALS: &str = "connections that a listening socket refuses at their first packet are worked out from the drops of the \
    socket and the overflows of its network namespace, and its SYN cookies are not counted";
const NO_ACK_REFUSALS: &str = "connections that a listening socket refuses at the last packet of the handshake are worked out from the \
    drops of the socket and the overflows of its network namespace";
const ALL: &str = "nothing works without it";

/// The signal of the hooks that see accepts.
pub const ACCEPTED: &str = "accepted";
/// The signal of the hooks that see what a listening socket refuses at the first packet of a handshake.
pub const REFUSED_SYNS: &str = "refused SYNs";
/// Likewise at the last one.
pub const REFUSED_ACKS: &str = "refused ACKs";

const fn hook(
    tier: Tier,
    program: &'static str,
    target: Target,
    need: Need,
    signal: &'static str,
    loss: &'static str,
) -> Hook {
    Hook { tier: Some(tier), ..common(program, target, need, signal, loss) }
}

const fn common(program: &'static str, target: Target, need: Need, signal: &'static str, loss: &'static str) -> Hook {
    Hook {
        tier: None,
        interest: None,
        program,
        raw_program: None,
        target,
        need,
        fact: None,
        signal,
        loss,
        doubled: None,
    }
}

/// A hook at a tracepoint that has its program as raw_tp, too.
const fn or_raw(raw_program: &'static str, hook: Hook) -> Hook {
    Hook { raw_program: Some(raw_program), ..hook }
}

/// A hook that only those pay for who ask for queues.
const fn queues(hook: Hook) -> Hook {
    Hook { interest: Some(Interest::Queues), ..hook }
}

/// A hook that sees what another one sees, too.
const fn doubled(concerns: [&'static [Capability]; 2], hook: Hook) -> Hook {
    Hook { doubled: Some(concerns), ..hook }
}

const fn needing(fact: &'static str, hook: Hook) -> Hook {
    Hook { fact: Some(fact), ..hook }
}

use Need::{OneOf, Required, Wanted, WhereItExists};
use Target::{BtfTracepoint, Fexit, Kprobe, Kretprobe, Tracepoint};

/// Entry probes stand before their return probes, so that no return finds its call missing.
#[rustfmt::skip]
pub const HOOKS: &[Hook] = &[
    doubled([&[Bytes, Life], &[Bytes]], or_raw("destroyed_raw",
        common("destroyed", BtfTracepoint("tcp_destroy_sock"), OneOf, "end of a socket", NO_UNKNOWN_ENDS))),
    doubled([&[Life], &[]], or_raw("state_changed_raw",
        common("state_changed", BtfTracepoint("inet_sock_set_state"), OneOf, "states", NOT_AGAIN))),
    doubled([&[Life], &[]],
        common("destroyed_again", Tracepoint("tcp", "tcp_destroy_sock"), OneOf, "end of a socket", NOT_AGAIN)),
    doubled([&[Life], &[]],
        common("state_changed_again", Tracepoint("sock", "inet_sock_set_state"), OneOf, "states", NOT_AGAIN)),
    or_raw("reset_sent_raw", common("reset_sent", BtfTracepoint("tcp_send_reset"), Wanted, "resets", NO_RESETS)),
    or_raw("reset_received_raw",
        common("reset_received", BtfTracepoint("tcp_receive_reset"), Wanted, "resets", NO_RESETS)),

    hook(Tier::Fentry, "sendmsg_exit", Fexit("tcp_sendmsg"), Required, "bytes sent", ALL),
    hook(Tier::Fentry, "sendpage_exit", Fexit("tcp_sendpage"), WhereItExists, "bytes sent", ALL),
    hook(Tier::Fentry, "recvmsg_exit", Fexit("tcp_recvmsg"), Required, "bytes received", ALL),
    hook(Tier::Fentry, "splice_read_exit", Fexit("tcp_splice_read"), Wanted, "bytes received", NO_SPLICE),
    hook(Tier::Fentry, "accept_exit", Fexit("inet_csk_accept"), Wanted, ACCEPTED, NO_ACCEPT),
    hook(Tier::Fentry, "connect_v4_exit", Fexit("tcp_v4_connect"), Wanted, "failed connects", NO_CONNECT),
    hook(Tier::Fentry, "connect_v6_exit", Fexit("tcp_v6_connect"), Wanted, "failed connects", NO_CONNECT),
    queues(hook(Tier::Fentry, "syn_received", Kprobe("tcp_conn_request"), Wanted, REFUSED_SYNS, NO_SYN_REFUSALS)),
    queues(hook(Tier::Fentry, "last_ack_v4", Kprobe("tcp_v4_syn_recv_sock"), Wanted, REFUSED_ACKS, NO_ACK_REFUSALS)),
    queues(hook(Tier::Fentry, "last_ack_v6", Kprobe("tcp_v6_syn_recv_sock"), Wanted, REFUSED_ACKS, NO_ACK_REFUSALS)),

    or_raw("thread_ended_raw",
        hook(Tier::Kprobe, "thread_ended", BtfTracepoint("sched_process_exit"), Required, "end of a thread", ALL)),
    hook(Tier::Kprobe, "sendmsg_enter", Kprobe("tcp_sendmsg"), Required, "bytes sent", ALL),
    hook(Tier::Kprobe, "send_return", Kretprobe("tcp_sendmsg"), Required, "bytes sent", ALL),
    hook(Tier::Kprobe, "sendpage_enter", Kprobe("tcp_sendpage"), WhereItExists, "bytes sent", ALL),
    hook(Tier::Kprobe, "send_return", Kretprobe("tcp_sendpage"), WhereItExists, "bytes sent", ALL),
    hook(Tier::Kprobe, "recvmsg_enter", Kprobe("tcp_recvmsg"), Required, "bytes received", ALL),
    hook(Tier::Kprobe, "recvmsg_return", Kretprobe("tcp_recvmsg"), Required, "bytes received", ALL),
    hook(Tier::Kprobe, "splice_read_enter", Kprobe("tcp_splice_read"), Wanted, "bytes received", NO_SPLICE),
    hook(Tier::Kprobe, "splice_read_return", Kretprobe("tcp_splice_read"), Wanted, "bytes received", NO_SPLICE),
    queues(hook(Tier::Kprobe, "accept_enter", Kprobe("inet_csk_accept"), Wanted, ACCEPTED, NO_LISTENER)),
    hook(Tier::Kprobe, "accept_return", Kretprobe("inet_csk_accept"), Wanted, ACCEPTED, NO_ACCEPT),
    hook(Tier::Kprobe, "connect_v4_enter", Kprobe("tcp_v4_connect"), Wanted, "failed connects", NO_CONNECT),
    hook(Tier::Kprobe, "connect_return", Kretprobe("tcp_v4_connect"), Wanted, "failed connects", NO_CONNECT),
    hook(Tier::Kprobe, "connect_v6_enter", Kprobe("tcp_v6_connect"), Wanted, "failed connects", NO_CONNECT),
    hook(Tier::Kprobe, "connect_return", Kretprobe("tcp_v6_connect"), Wanted, "failed connects", NO_CONNECT),
    queues(hook(Tier::Kprobe, "syn_received", Kprobe("tcp_conn_request"), Wanted, REFUSED_SYNS, NO_SYN_REFUSALS)),
    queues(hook(Tier::Kprobe, "last_ack_v4", Kprobe("tcp_v4_syn_recv_sock"), Wanted, REFUSED_ACKS, NO_ACK_REFUSALS)),
    queues(hook(Tier::Kprobe, "last_ack_v6", Kprobe("tcp_v6_syn_recv_sock"), Wanted, REFUSED_ACKS, NO_ACK_REFUSALS)),

    or_raw("send_length_raw",
        hook(Tier::Tracepoint, "send_length", BtfTracepoint("sock_send_length"), Required, "bytes sent", ALL)),
    or_raw("recv_length_raw",
        hook(Tier::Tracepoint, "recv_length", BtfTracepoint("sock_recv_length"), Required, "bytes received", ALL)),
    hook(Tier::Tracepoint, "accept_syscall", Tracepoint("syscalls", "sys_exit_accept4"), Wanted, ACCEPTED, NO_ACCEPT),
    hook(Tier::Tracepoint, "accept_syscall", Tracepoint("syscalls", "sys_exit_accept"), Wanted, ACCEPTED, NO_ACCEPT),
    hook(Tier::Tracepoint, "connect_syscall", Tracepoint("syscalls", "sys_exit_connect"), Wanted, "failed connects", NO_CONNECT),
    queues(needing("SKB_DROP_REASON_TCP_LISTEN_OVERFLOW",
        or_raw("packet_dropped_raw",
            hook(Tier::Tracepoint, "packet_dropped", BtfTracepoint("kfree_skb"), Wanted, REFUSED_ACKS, NO_ACK_REFUSALS)))),
];

/// The capabilities that are only partial without a hook of this signal.
pub fn concerns(signal: &str) -> &'static [Capability] {
    match signal {
        "bytes sent" | "bytes received" | "end of a thread" => &[Bytes],
        "states" | "end of a socket" | "resets" | "failed connects" => &[Life],
        "accepted" => &[Life, Listeners],
        REFUSED_SYNS | REFUSED_ACKS => &[Listeners],
        _ => &Capability::ALL,
    }
}

/// What a tier cannot see, whatever attaches.
#[derive(Clone, Copy, Debug)]
pub struct TierLimit {
    /// The tier.
    pub tier: Tier,
    /// The interest that it matters to; `None` for all.
    pub interest: Option<Interest>,
    /// The capabilities that it leaves partial.
    pub concerns: &'static [Capability],
    /// What the user loses.
    pub loss: &'static str,
}

/// The limits of all tiers.
#[rustfmt::skip]
pub const TIER_LIMITS: &[TierLimit] = &[
    TierLimit { tier: Tier::Tracepoint, interest: None, concerns: &[Bytes], loss: NO_SPLICE },
    TierLimit { tier: Tier::Tracepoint, interest: Some(Interest::Queues), concerns: &[Listeners], loss: NO_SYN_REFUSALS },
];

/// What a kretprobe loses that could not be given more than the kernel's usual number of calls.
pub const FEW_RETURNS: &str = "of one function at most max(10, 2 x CPUs) calls are followed at a time; the bytes of calls \
    beyond that are made good from the kernel's counters at close";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_catalogue_names_its_capabilities() {
        for hook in HOOKS {
            let concerned = concerns(hook.signal);
            assert!(!concerned.is_empty() && concerned != Capability::ALL, "{}: {}", hook.program, hook.signal);
        }
        assert_eq!(concerns("accepted"), [Life, Listeners]);
        assert_eq!(concerns(REFUSED_SYNS), [Listeners]);
        assert_eq!(concerns("a signal without a line in the table"), Capability::ALL);
    }
}
