//! Listening sockets: which there are, since when, and who listens.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_cgroup_id, bpf_ktime_get_ns},
};
use overwatch_common::{
    connection::{COMM_LEN, Listener, Owner},
    counter::Counter,
};

use crate::{
    changes, entry,
    kernel::{self, Address, process_name},
    maps::{LISTENERS, audit, count, note_listeners_changed},
    sockets,
};

/// In listen(2), so the current process is the one that listens. `program` is a bit of [`overwatch_common::connection::seen`].
#[inline(never)]
pub(crate) fn began(sock: Address, old: u32, program: u8) {
    if let Some(listener) = LISTENERS.get_ptr_mut(sock) {
        // SAFETY: the pointer is from the lookup; only listen and close of this socket write it, under its lock.
        let listener = unsafe { &mut *listener };
        if listener.seen & program == 0 {
            // The other program was here (see `states`). One that this program has seen before was left behind: its end was not seen.
            listener.seen |= program;
            return;
        }
    }
    let mut owner = Owner { comm: [0; COMM_LEN], tgid: entry::current_tgid(), pad: 0, cgroup_id: 0 };
    process_name(&mut owner.comm);
    // SAFETY: no arguments.
    let now = unsafe {
        owner.cgroup_id = bpf_get_current_cgroup_id();
        bpf_ktime_get_ns()
    };
    note(sock, &owner, now, program);
    if let Some(listener) = LISTENERS.get_ptr(sock) {
        // SAFETY: as above.
        changes::tell_of_listener(sock, unsafe { &*listener }, old, kernel::TCP_LISTEN.load(), now);
    }
}

/// Puts a listener into the map.
#[inline(never)]
pub(crate) fn note(sock: Address, owner: &Owner, since_ns: u64, seen: u8) {
    let mut listener = Listener {
        since_ns,
        cgroup_id: owner.cgroup_id,
        inode: sockets::inode_of(sock),
        overflows_syn: 0,
        overflows_ack: 0,
        syn_queue_overflows: 0,
        syn_queue_at_limit: 0,
        syn_cookies: 0,
        local_addr: [0; 16],
        comm: owner.comm,
        tgid: owner.tgid,
        netns: sockets::netns_of(sock),
        local_port: sockets::local_port_of(sock),
        audit: audit(),
        seen,
        pad: [0; 3],
    };
    sockets::read_local_addr(&mut listener.local_addr, sock);
    if LISTENERS.insert(sock, &listener, u64::from(BPF_ANY)).is_err() {
        count(Counter::ListenersFull, 1);
    }
    note_listeners_changed();
}

/// LISTEN -> CLOSE.
#[inline(never)]
pub(crate) fn closed(sock: Address, new: u32) {
    if let Some(listener) = LISTENERS.get_ptr(sock) {
        // SAFETY: as above; no arguments.
        unsafe { changes::tell_of_listener(sock, &*listener, kernel::TCP_LISTEN.load(), new, bpf_ktime_get_ns()) };
    }
    let _unknown = ended(sock);
}

/// Takes a listener out whose close was not seen; false when the socket is none.
#[inline(always)]
pub(crate) fn ended(sock: Address) -> bool {
    let is_listener = LISTENERS.remove(sock).is_ok();
    if is_listener {
        note_listeners_changed();
    }
    is_listener
}
