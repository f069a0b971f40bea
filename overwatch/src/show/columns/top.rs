//! What `top` says.

use super::{
    CGROUP, Column, Key, Kind, LOCAL_ADDR, NETNS, column, key, keys, nullable, nullable_key, number, optional, text,
    unless_zero,
};
use crate::model::snapshot::{Role, Row, STATE_NAMES, state_name};

/// A row, of a connection and process.
pub const CONNECTION: &[Column<Row>] = &[
    column(
        "connection",
        Kind::Integer,
        "number of the connection in this run; rows with the same number belong to one connection",
        |row, _| number(row.connection),
    ),
    nullable(
        "pid",
        Kind::Integer,
        "process that made the calls (thread group id in the initial pid namespace); null when nobody can know",
        |row, _| optional(row.process.as_ref(), |process| number(process.pid)),
    ),
    nullable("comm", Kind::Text, "name of the process, of its main thread", |row, _| {
        optional(row.process.as_ref(), |process| text(&process.comm))
    }),
    nullable("netns", Kind::Integer, NETNS, |row, _| unless_zero(row.netns)),
    nullable("cgroup", Kind::Text, CGROUP, |_, cgroup| optional(cgroup, text)),
    column("local_addr", Kind::Text, LOCAL_ADDR, |row, _| text(&row.local_addr)),
    column("local_port", Kind::Integer, "local port", |row, _| number(row.local_port)),
    column("remote_addr", Kind::Text, "remote address", |row, _| text(&row.remote_addr)),
    column("remote_port", Kind::Integer, "remote port", |row, _| number(row.remote_port)),
    nullable(
        "role",
        Kind::OneOf(Role::NAMES),
        "`server` when this end was accepted, `client` when it connected, null when that is not known",
        |row, _| optional(row.role, |role| text(role.name())),
    ),
    nullable(
        "state",
        Kind::OneOf(STATE_NAMES),
        "TCP state at the end of the interval, CLOSE when the connection has ended",
        |row, _| optional(state_name(row.state), text),
    ),
    column("sent_bytes", Kind::Integer, "bytes that the process's calls sent in this interval", |row, _| {
        number(row.sent_bytes)
    }),
    column("received_bytes", Kind::Integer, "bytes that the process's calls received in this interval", |row, _| {
        number(row.received_bytes)
    }),
    column(
        "sent_bytes_total",
        Kind::Integer,
        "bytes sent by this process on this connection since it began, or since overwatch did",
        |row, _| number(row.sent_bytes_total),
    ),
    column("received_bytes_total", Kind::Integer, "bytes received, likewise", |row, _| {
        number(row.received_bytes_total)
    }),
    column(
        "reconciled_sent_bytes",
        Kind::Integer,
        "of sent_bytes: what no hook saw, known from the kernel's counters",
        |row, _| number(row.reconciled_sent_bytes),
    ),
    column("reconciled_received_bytes", Kind::Integer, "of received_bytes: likewise", |row, _| {
        number(row.reconciled_received_bytes)
    }),
    nullable(
        "kernel_sent_bytes_total",
        Kind::Integer,
        "the kernel's own count for the connection since it began, or since overwatch did; null until it has ended",
        |row, _| optional(row.kernel_totals, |totals| number(totals.sent_bytes)),
    ),
    nullable(
        "kernel_received_bytes_total",
        Kind::Integer,
        "likewise, what the application took from the socket",
        |row, _| optional(row.kernel_totals, |totals| number(totals.received_bytes)),
    ),
];

/// An interval, with its rows.
pub const INTERVAL: &[Key] = &[
    key("time", Kind::Time, "end of the interval, RFC 3339, UTC"),
    key("interval_seconds", Kind::Seconds, "length of the interval"),
    key("host", Kind::Text, "name of this host"),
    key(
        "connections",
        Kind::Objects(|| keys(CONNECTION)),
        "one object per connection and process that moved bytes, the busiest first",
    ),
    key(
        "unattributed_sent_bytes",
        Kind::Integer,
        "bytes sent in this interval that could be put on no row, since a table was full",
    ),
    key("unattributed_received_bytes", Kind::Integer, "bytes received, likewise"),
    nullable_key(
        "skipped_runs",
        Kind::Integer,
        "how often the kernel ran a program not at all in this interval, since the same program was interrupted on that CPU; what \
         rows miss by it is made good from the kernel's counters; null before Linux 5.12, which does not tell",
    ),
    key(
        "lost_events",
        Kind::Integer,
        "ended connections whose last record was lost; their last bytes are among the unattributed",
    ),
];
