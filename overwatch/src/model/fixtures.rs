//! Rows, connections and samples for tests.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use overwatch_common::{
    connection::{Connection, Listener, role},
    event::{self, Change},
};

use super::{
    ending::Ending,
    life::{AtClose, Line},
    snapshot::{KernelTotals, Process, Role, Row},
    states::Transition,
};
use crate::collect::{Counters, RefusalsSeen, Sample};

/// A second in which nothing happened.
pub(crate) fn sample() -> Sample {
    Sample {
        time: SystemTime::UNIX_EPOCH,
        elapsed: Duration::from_secs(1),
        closed: Vec::new(),
        open: Vec::new(),
        orphans: Vec::new(),
        skipped_runs: None,
        counters: Counters::default(),
        present: None,
        monotonic_ns: 0,
        changes: Vec::new(),
        resets: Vec::new(),
        listeners: None,
        table: None,
        queues: None,
        namespaces: Vec::new(),
        lost: Vec::new(),
        holders: std::collections::HashMap::new(),
        refusals: RefusalsSeen::default(),
        accepts_seen: true,
        old_sockets_known: true,
    }
}

/// An address as the kernel side has it.
pub(crate) fn bytes(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A transition of a connection that nginx (pid 42) accepted, 10.0.0.1:80 -> 10.0.0.2:50000.
pub(crate) fn change(sock: u64, created_ns: u64, time_ns: u64, (old, new): (u8, u8)) -> Change {
    Change {
        kind: event::CHANGE,
        tgid: 42,
        sock,
        created_ns,
        time_ns,
        since_ns: 0,
        cgroup_id: 9,
        listener: 0,
        established_ns: 0,
        local_addr: bytes("10.0.0.1"),
        remote_addr: bytes("10.0.0.2"),
        comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
        netns: 7,
        local_port: 80,
        remote_port: 50_000,
        queued_behind: 0,
        old,
        new,
        role: role::SERVER,
        let_go: 0,
    }
}

/// nginx (pid 42) listens on port 80.
pub(crate) fn listener(since_ns: u64, local_addr: &str) -> Listener {
    Listener {
        since_ns,
        cgroup_id: 9,
        inode: 0,
        overflows_syn: 0,
        overflows_ack: 0,
        syn_queue_overflows: 0,
        syn_queue_at_limit: 0,
        syn_cookies: 0,
        local_addr: bytes(local_addr),
        comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
        tgid: 42,
        netns: 7,
        local_port: 80,
        audit: 0,
        seen: 0,
        pad: [0; 3],
    }
}

/// A listening socket begins (CLOSE to LISTEN) or ends (LISTEN to CLOSE).
pub(crate) fn listening(sock: u64, listener: &Listener, time_ns: u64, (old, new): (u8, u8)) -> Change {
    Change {
        tgid: listener.tgid,
        local_addr: listener.local_addr,
        remote_addr: [0; 16],
        netns: listener.netns,
        local_port: listener.local_port,
        remote_port: 0,
        role: role::UNKNOWN,
        ..change(sock, listener.since_ns, time_ns, (old, new))
    }
}

pub(crate) fn row() -> Row {
    Row {
        connection: 1,
        key: (1, 1),
        process: Some(Process { pid: 42, comm: "nginx".into(), cgroup_id: 9 }),
        netns: 7,
        local_addr: [10, 0, 0, 1].into(),
        local_port: 80,
        remote_addr: [10, 0, 0, 2].into(),
        remote_port: 50_000,
        role: Some(Role::Server),
        state: 1,
        sent_bytes: 1000,
        received_bytes: 10,
        sent_bytes_total: 3000,
        received_bytes_total: 30,
        reconciled_sent_bytes: 0,
        reconciled_received_bytes: 0,
        kernel_totals: None,
    }
}

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
}

/// nginx was slow to accept 10.0.0.2, which then reset it.
pub(crate) fn life_line() -> Line {
    let row = row();
    Line {
        time: at(1500),
        process: row.process,
        netns: row.netns,
        local_addr: row.local_addr,
        local_port: row.local_port,
        remote_addr: Some(row.remote_addr),
        remote_port: Some(row.remote_port),
        role: row.role,
        listener: Some(([0, 0, 0, 0], 80).into()),
        syn_time: Some(at(998)),
        established_time: Some(at(1000)),
        accepted_time: Some(at(1040)),
        duration: Some(Duration::from_millis(502)),
        connect: None,
        handshake: Some(Duration::from_millis(2)),
        accept_wait: Some(Duration::from_millis(40)),
        sent_bytes: 3000,
        received_bytes: 30,
        reconciled_sent_bytes: 20,
        reconciled_received_bytes: 0,
        at_close: Some(AtClose {
            totals: KernelTotals { sent_bytes: 3000, received_bytes: 30 },
            unread_bytes: 3,
            segments_sent: 4,
            segments_received: 5,
            retransmits: 6,
            lost_segments: 7,
            smoothed_rtt: Some(Duration::from_micros(250)),
        }),
        ended: Some(Ending::ResetByPeer),
        error: Some("ECONNRESET".into()),
        partial: false,
    }
}

/// As little as can be known of it.
pub(crate) fn unknown_life_line() -> Line {
    Line {
        process: None,
        netns: 0,
        local_port: 0,
        remote_addr: None,
        remote_port: None,
        role: None,
        listener: None,
        syn_time: None,
        established_time: None,
        accepted_time: None,
        duration: None,
        handshake: None,
        accept_wait: None,
        at_close: None,
        ended: None,
        error: None,
        partial: true,
        ..life_line()
    }
}

/// The final ACK of 10.0.0.2 arrives for nginx.
pub(crate) fn transition() -> Transition {
    let row = row();
    Transition {
        time: at(1000),
        connection: 3,
        process: row.process,
        netns: row.netns,
        local_addr: row.local_addr,
        local_port: row.local_port,
        remote_addr: Some(row.remote_addr),
        remote_port: Some(row.remote_port),
        role: row.role,
        old_state: 3,
        new_state: 1,
        old_state_time: Some(Duration::from_micros(1250)),
    }
}

/// As little as can be known of it.
pub(crate) fn unknown_transition() -> Transition {
    Transition {
        process: None,
        netns: 0,
        local_port: 0,
        remote_addr: None,
        remote_port: None,
        role: None,
        old_state: 0,
        new_state: 99,
        old_state_time: None,
        ..transition()
    }
}

pub(crate) fn connection(tgid: u32, sent: u64, received: u64) -> Connection {
    Connection {
        created_ns: 5,
        sent,
        received,
        marked_sent: 0,
        marked_received: 0,
        unattributed_sent: 0,
        unattributed_received: 0,
        base_sent: 0,
        base_received: 0,
        live_sent: 0,
        live_received: 0,
        kernel_sent: 0,
        kernel_received: 0,
        established_ns: 0,
        accepted_ns: 0,
        closed_ns: 0,
        state_ns: 0,
        cgroup_id: 9,
        shares: 0,
        listener: 0,
        local_addr: [0; 16],
        remote_addr: [0; 16],
        comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
        tgid,
        netns: 7,
        epoch: 1,
        flags: 0,
        handshake_us: 0,
        smoothed_rtt_us: 0,
        segments_sent: 0,
        segments_received: 0,
        retransmits: 0,
        lost_segments: 0,
        error: 0,
        unread: 0,
        local_port: 80,
        remote_port: 50_000,
        state: 1,
        role: role::SERVER,
        closed_from: 0,
        audit: 0,
        generation: 5,
    }
}
