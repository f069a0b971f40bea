//! How an entry of the connection table begins, and how it gets its owner.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
};
use overwatch_common::connection::{COMM_LEN, Connection, Owner, Share, ShareKey, flag};

use crate::{
    changes::{self, Transition},
    kernel::{self, Address, process_name},
    maps::{CONNECTIONS, SEEDED_NETNS, SHARES, audit, was_full},
    sockets,
    table::Moved,
    totals::{self, Sequence},
};

/// Owner of a socket that no process has open, as far as we could see.
pub(crate) static NOBODY: Owner = Owner { comm: [0; COMM_LEN], tgid: 0, pad: 0, cgroup_id: 0 };

/// The process in whose context the program runs.
#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Makes an entry unless there is one. Says nothing when the table is full: the bytes will.
///
/// Without an `owner` it belongs to the current process, so in softirq context there must be one.
#[inline(never)]
pub(crate) fn create(sock: Address, role: u8, flags: u32, before: &Moved, owner: Option<&Owner>) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut connection = Connection {
        created_ns: now,
        sent: 0,
        received: 0,
        marked_sent: 0,
        marked_received: 0,
        unattributed_sent: 0,
        unattributed_received: 0,
        base_sent: before.sent,
        base_received: before.received,
        live_sent: 0,
        live_received: 0,
        kernel_sent: 0,
        kernel_received: 0,
        established_ns: 0,
        accepted_ns: 0,
        closed_ns: 0,
        state_ns: 0,
        cgroup_id: 0,
        shares: 0,
        listener: 0,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        comm: [0; COMM_LEN],
        tgid: 0,
        netns: sockets::netns_of(sock),
        epoch: 0,
        flags,
        handshake_us: 0,
        smoothed_rtt_us: 0,
        segments_sent: 0,
        segments_received: 0,
        retransmits: 0,
        lost_segments: 0,
        error: 0,
        unread: 0,
        local_port: 0,
        remote_port: 0,
        state: sockets::state_of(sock),
        role,
        closed_from: 0,
        audit: audit(),
        generation: now as u32,
    };
    match owner {
        Some(owner) => {
            connection.comm = owner.comm;
            connection.tgid = owner.tgid;
            connection.cgroup_id = owner.cgroup_id;
        }
        None => own(&mut connection),
    }
    sockets::fill_addresses(&mut connection, sock);
    let _exists_or_full = CONNECTIONS.insert(sock, &connection, u64::from(BPF_NOEXIST));
}

/// Makes an entry for a socket whose beginning was out of our sight: the seed did not reach it, the kernel skipped a program, or there
/// was no room. `counted` is what will be put on it now and has left its traces in the kernel's counters already.
#[inline(never)]
pub(crate) fn create_late(sock: Address, role: u8, counted: &Moved, owner: Option<&Owner>) {
    create(sock, role, flag::PARTIAL, &Moved { sent: 0, received: 0 }, owner);
    let Some(connection) = CONNECTIONS.get_ptr_mut(sock) else { return };
    // Written here and not handed over: kernels up to 6.1 would follow each combination through all of `create`.
    // SAFETY: the pointer is from the lookup, and the entry is a moment old.
    let connection = unsafe { &mut *connection };
    connection.flags |= flags_of(sockets::state_of(sock));
    if !began_after_us(sock) {
        let now = totals::now(sock, Sequence::default());
        connection.base_sent = now.sent.saturating_sub(counted.sent);
        connection.base_received = now.received.saturating_sub(counted.received);
    }
}

/// What a state says about the states before it.
#[inline(always)]
pub(crate) fn flags_of(state: u32) -> u32 {
    if state == kernel::TCP_SYN_SENT.load() || state == kernel::TCP_SYN_RECV.load() || state == kernel::TCP_CLOSE.load()
    {
        return 0;
    }
    let closed_first = state == kernel::TCP_FIN_WAIT1.load() || state == kernel::TCP_FIN_WAIT2.load();
    let peer_closed = state == kernel::TCP_CLOSE_WAIT.load() || state == kernel::TCP_LAST_ACK.load();
    let both = state == kernel::TCP_CLOSING.load();
    flag::ESTABLISHED
        | if closed_first || both { flag::CLOSED_FIRST } else { 0 }
        | if peer_closed || both { flag::PEER_CLOSED } else { 0 }
}

/// True when a socket without an entry must be younger than overwatch: all older ones in its network namespace were seeded,
/// and there has always been room since.
#[inline(always)]
fn began_after_us(sock: Address) -> bool {
    // A socket in CLOSE is in none of the kernel's tables, so the seed could not find it.
    sockets::state_of(sock) != kernel::TCP_CLOSE.load() && all_were_seeded(sock)
}

/// True when every older socket in this one's network namespace was seeded, and there has always been room since.
#[inline(always)]
pub(crate) fn all_were_seeded(sock: Address) -> bool {
    SEEDED_NETNS.get_ptr(sockets::netns_of(sock)).is_some() && !was_full()
}

/// Gives a connection to the current process.
#[inline(always)]
pub(crate) fn own(connection: &mut Connection) {
    process_name(&mut connection.comm);
    // SAFETY: no arguments.
    connection.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    connection.tgid = current_tgid();
}

/// Gives a connection without an owner to the current process, which is the first to move bytes over it. False when another
/// process was faster.
#[inline(never)]
pub(crate) fn claim(sock: Address, connection: *mut Connection) -> bool {
    // SAFETY: the pointer is from a lookup of this program's.
    let connection = unsafe { &mut *connection };
    // Kernels before 5.12 have no compare-and-exchange; the table of shares decides who is first.
    let key = ShareKey { sock, tgid: 0, generation: connection.generation };
    let mark = Share { sent: 0, received: 0, cgroup_id: 0, comm: [0; COMM_LEN], epoch: 0, pad: 0 };
    if SHARES.insert(key, &mark, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    // SAFETY: the pointer is valid; volatile because another process may have been first.
    let free = unsafe { core::ptr::read_volatile(&raw const connection.tgid) } == 0;
    if free {
        own(connection);
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        changes::tell(sock, connection, &Transition::none(connection, now));
    }
    let _was_there = SHARES.remove(key);
    free
}
