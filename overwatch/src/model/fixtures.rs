//! Rows and connections for tests.

use overwatch_common::connection::{Connection, role};

use super::snapshot::{Process, Role, Row};

pub(crate) fn row() -> Row {
    Row {
        connection: 1,
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
