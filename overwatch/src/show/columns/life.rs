//! What `life` says.

use super::{
    CGROUP, Column, Kind, LOCAL_ADDR, NETNS, Value, column, nullable, number, optional, text, time, unless_zero,
};
use crate::model::{
    ending::Ending,
    life::{Line, Lost},
    snapshot::Role,
};

/// A connection that has ended.
pub const LIFE: &[Column<Line>] = &[
    column(
        "time",
        Kind::Time,
        "when it closed, RFC 3339, UTC; where that is not known, when overwatch heard of it",
        |line, _| time(line.time),
    ),
    nullable("netns", Kind::Integer, NETNS, |line, _| unless_zero(line.netns)),
    nullable(
        "pid",
        Kind::Integer,
        "process that connected or accepted (thread group id in the initial pid namespace), the one that listens when nobody \
         accepted; null when it is not known",
        |line, _| optional(line.process.as_ref(), |process| number(process.pid)),
    ),
    nullable("comm", Kind::Text, "name of that process, of its main thread", |line, _| {
        optional(line.process.as_ref(), |process| text(&process.comm))
    }),
    nullable("cgroup", Kind::Text, CGROUP, |_, cgroup| optional(cgroup, text)),
    column("local_addr", Kind::Text, LOCAL_ADDR, |line, _| text(&line.local_addr)),
    nullable("local_port", Kind::Integer, "local port; null when it is not known", |line, _| {
        unless_zero(line.local_port)
    }),
    nullable("remote_addr", Kind::Text, "remote address; null when it is not known", |line, _| {
        optional(line.remote_addr, |addr| text(&addr))
    }),
    nullable("remote_port", Kind::Integer, "remote port, likewise", |line, _| optional(line.remote_port, number)),
    nullable(
        "role",
        Kind::OneOf(Role::NAMES),
        "`server` when this end was or was to be accepted, `client` when it connected, null when that is not known",
        |line, _| optional(line.role, |role| text(role.name())),
    ),
    nullable(
        "listener_addr",
        Kind::Text,
        "address that the listener it came from is bound to, `0.0.0.0` or `::` for all; null for a client, and when it is not \
         known",
        |line, _| optional(line.listener, |listener| text(&listener.ip())),
    ),
    nullable("listener_port", Kind::Integer, "port of that listener, likewise", |line, _| {
        optional(line.listener, |listener| number(listener.port()))
    }),
    nullable(
        "syn_time",
        Kind::Time,
        "when the SYN was sent (client) or answered (server); null when nobody saw it",
        |line, _| optional(line.syn_time, time),
    ),
    nullable(
        "established_time",
        Kind::Time,
        "when the handshake was completed; null when it was not, or nobody saw it",
        |line, _| optional(line.established_time, time),
    ),
    nullable("accepted_time", Kind::Time, "when a process accepted it; null likewise", |line, _| {
        optional(line.accepted_time, time)
    }),
    nullable(
        "duration_seconds",
        Kind::Seconds,
        "from the SYN to the close, for a server whose SYN nobody saw from the birth of its socket; null when one end is not \
         known",
        |line, _| optional(line.duration, Value::Seconds),
    ),
    nullable(
        "connect_seconds",
        Kind::Seconds,
        "client: from the SYN to the end of the handshake, or to the end of a connect that failed; null when it is not known",
        |line, _| optional(line.connect, Value::Seconds),
    ),
    nullable(
        "handshake_seconds",
        Kind::Seconds,
        "server: from the SYN-ACK to the final ACK; null when it is not known",
        |line, _| optional(line.handshake, Value::Seconds),
    ),
    nullable(
        "accept_wait_seconds",
        Kind::Seconds,
        "server: how long it waited to be accepted, until the close when nobody accepted it; null when it is not known",
        |line, _| optional(line.accept_wait, Value::Seconds),
    ),
    column(
        "sent_bytes",
        Kind::Integer,
        "bytes that all processes sent on it since it began, or since overwatch did",
        |line, _| number(line.sent_bytes),
    ),
    column("received_bytes", Kind::Integer, "bytes received, likewise", |line, _| number(line.received_bytes)),
    column(
        "reconciled_sent_bytes",
        Kind::Integer,
        "of sent_bytes: what no hook saw, known from the kernel's counters",
        |line, _| number(line.reconciled_sent_bytes),
    ),
    column("reconciled_received_bytes", Kind::Integer, "of received_bytes: likewise", |line, _| {
        number(line.reconciled_received_bytes)
    }),
    nullable(
        "kernel_sent_bytes",
        Kind::Integer,
        "the kernel's own count, since it began or overwatch did; null when nobody saw the close",
        |line, _| optional(line.at_close, |at_close| number(at_close.totals.sent_bytes)),
    ),
    nullable(
        "kernel_received_bytes",
        Kind::Integer,
        "likewise, what the application took from the socket",
        |line, _| optional(line.at_close, |at_close| number(at_close.totals.received_bytes)),
    ),
    nullable(
        "unread_bytes",
        Kind::Integer,
        "bytes that had arrived and nobody had read at the close; null when nobody saw it",
        |line, _| optional(line.at_close, |at_close| number(at_close.unread_bytes)),
    ),
    nullable(
        "segments_sent",
        Kind::Integer,
        "segments sent in its whole life, by the kernel's count at the close; null when nobody saw it",
        |line, _| optional(line.at_close, |at_close| number(at_close.segments_sent)),
    ),
    nullable("segments_received", Kind::Integer, "segments received, likewise", |line, _| {
        optional(line.at_close, |at_close| number(at_close.segments_received))
    }),
    nullable("retransmits", Kind::Integer, "segments sent again, likewise", |line, _| {
        optional(line.at_close, |at_close| number(at_close.retransmits))
    }),
    nullable("lost_segments", Kind::Integer, "segments that the kernel took for lost, likewise", |line, _| {
        optional(line.at_close, |at_close| number(at_close.lost_segments))
    }),
    nullable(
        "smoothed_rtt_seconds",
        Kind::Seconds,
        "smoothed round-trip time at the close; null when none was measured",
        |line, _| optional(line.at_close.and_then(|at_close| at_close.smoothed_rtt), Value::Seconds),
    ),
    nullable("ended", Kind::OneOf(Ending::NAMES), "how it ended, see below; null when it is not known", |line, _| {
        optional(line.ended, |ended| text(ended.name()))
    }),
    nullable(
        "error",
        Kind::Text,
        "name of the socket's error, such as `ECONNRESET`; null when it had none",
        |line, _| optional(line.error.as_ref(), text),
    ),
    column(
        "partial",
        Kind::Bool,
        "true when its beginning was not seen: the bytes are then those since overwatch began",
        |line, _| Value::Bool(line.partial),
    ),
];

/// An object beside the connections: those of one process that are missing.
pub const LOST: &[Column<Lost>] = &[
    column("time", Kind::Time, "when overwatch heard of the loss", |lost, _| time(lost.time)),
    column("lost_events", Kind::Integer, "connections whose last record was lost", |lost, _| number(lost.lost_events)),
    nullable("pid", Kind::Integer, "their process; null when it is not known", |lost, _| {
        optional(lost.process.as_ref(), |process| number(process.pid))
    }),
    nullable("comm", Kind::Text, "name of that process", |lost, _| {
        optional(lost.process.as_ref(), |process| text(&process.comm))
    }),
    nullable("netns", Kind::Integer, "network namespace of their sockets", |lost, _| unless_zero(lost.netns)),
    nullable("role", Kind::OneOf(Role::NAMES), "their role; null when it is not known", |lost, _| {
        optional(lost.role, |role| text(role.name()))
    }),
    column("sent_bytes", Kind::Integer, "bytes sent on them in their whole lives", |lost, _| number(lost.sent_bytes)),
    column("received_bytes", Kind::Integer, "bytes received on them, likewise", |lost, _| number(lost.received_bytes)),
];
