//! Telling the user side what changed in state or owner.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use overwatch_common::{
    connection::{Connection, Listener, role},
    counter::Counter,
    event::{self, Change, want},
};

use crate::{
    kernel::{self, Address, read},
    maps::{EVENTS, count},
    sockets,
};

/// From one state to another, or to the same where something else has changed.
pub(crate) struct Transition {
    pub(crate) old: u32,
    pub(crate) new: u32,
    /// When it came into the old state; 0 where nobody knows.
    pub(crate) since_ns: u64,
    pub(crate) time_ns: u64,
}

impl Transition {
    /// None at all. The state is read once: packets may change it meanwhile, and two readings would make a transition.
    #[inline(always)]
    pub(crate) fn none(connection: &Connection, time_ns: u64) -> Self {
        // SAFETY: a live reference; volatile because another CPU may write it.
        let state = unsafe { core::ptr::read_volatile(&raw const connection.state) };
        Self { old: state, new: state, since_ns: connection.state_ns, time_ns }
    }
}

/// Both directions (include/net/sock.h).
const SHUTDOWN_MASK: u8 = 3;

/// True when a process has begun to serve a client, or may have stopped.
#[inline(always)]
fn is_of_serving(connection: &Connection, transition: &Transition) -> bool {
    let new = transition.new;
    let may_end =
        new == kernel::TCP_FIN_WAIT1.load() || new == kernel::TCP_LAST_ACK.load() || new == kernel::TCP_CLOSE.load();
    connection.role == role::SERVER && (transition.old == new || may_end)
}

/// Tells of a connection, if anybody wants to know.
#[inline(always)]
pub(crate) fn tell(sock: Address, connection: &Connection, transition: &Transition) {
    let wanted = kernel::WANT_CHANGES.load();
    if wanted == want::NOTHING || wanted == want::SERVING && !is_of_serving(connection, transition) {
        return;
    }
    send(sock, connection, transition);
}

/// Not inlined, since those who tell have other calls to make, and the stack has 512 bytes for all that is on it at a time.
#[inline(never)]
fn send(sock: Address, connection: &Connection, transition: &Transition) {
    let Some(mut entry) = EVENTS.reserve::<Change>(0) else {
        count(Counter::ChangeLost, 1);
        return;
    };
    entry.write(Change {
        kind: event::CHANGE,
        tgid: connection.tgid,
        sock,
        created_ns: connection.created_ns,
        time_ns: transition.time_ns,
        since_ns: transition.since_ns,
        cgroup_id: connection.cgroup_id,
        listener: connection.listener,
        // Whose accept nobody saw has its owner by its first bytes, which says nothing of how long it waited.
        established_ns: if connection.accepted_ns == 0 { 0 } else { connection.established_ns },
        local_addr: connection.local_addr,
        remote_addr: connection.remote_addr,
        comm: connection.comm,
        netns: connection.netns,
        local_port: connection.local_port,
        remote_port: connection.remote_port,
        queued_behind: sockets::queued_behind(sock),
        old: transition.old as u8,
        new: transition.new as u8,
        role: connection.role,
        let_go: u8::from(read::<u8>(sock, kernel::SOCK_SHUTDOWN.load()) == SHUTDOWN_MASK),
    });
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Tells of a listening socket.
#[inline(always)]
pub(crate) fn tell_of_listener(sock: Address, listener: &Listener, old: u32, new: u32, time_ns: u64) {
    let Some(mut entry) = EVENTS.reserve::<Change>(0) else {
        count(Counter::ChangeLost, 1);
        return;
    };
    let was_listening = old == kernel::TCP_LISTEN.load();
    entry.write(Change {
        kind: event::CHANGE,
        tgid: listener.tgid,
        sock,
        created_ns: listener.since_ns,
        time_ns,
        since_ns: if was_listening { listener.since_ns } else { 0 },
        cgroup_id: listener.cgroup_id,
        listener: 0,
        established_ns: 0,
        local_addr: listener.local_addr,
        remote_addr: [0; 16],
        comm: listener.comm,
        netns: listener.netns,
        local_port: listener.local_port,
        remote_port: 0,
        queued_behind: 0,
        old: old as u8,
        new: new as u8,
        role: role::UNKNOWN,
        let_go: 0,
    });
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}
