//! What a row of `connections` consists of: one table, from which JSON, CSV and their documentation are made.

use crate::model::snapshot::{Row, state_name};

/// A value in an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Not known.
    Null,
    /// Text, perhaps chosen by another user of the host.
    Text(String),
    /// A number.
    Number(u64),
}

/// One key of a row.
#[derive(Clone, Copy)]
pub struct Column {
    /// JSON key and CSV heading.
    pub key: &'static str,
    /// What it says, for the documentation.
    pub help: &'static str,
    /// Finds it in a row; the second argument is the path of the process's control group, where known.
    pub value: fn(&Row, Option<&str>) -> Value,
}

impl std::fmt::Debug for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

const fn column(key: &'static str, help: &'static str, value: fn(&Row, Option<&str>) -> Value) -> Column {
    Column { key, help, value }
}

fn text(text: &(impl ToString + ?Sized)) -> Value {
    Value::Text(text.to_string())
}

fn optional<T>(value: Option<T>, show: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, show)
}

/// The keys of a row, in order.
pub const CONNECTION: &[Column] = &[
    column(
        "connection",
        "number of the connection in this run; rows with the same number belong to one connection",
        |row, _| Value::Number(row.connection),
    ),
    column(
        "pid",
        "process that made the calls (thread group id in the initial pid namespace); null when nobody can know",
        |row, _| optional(row.process.as_ref(), |process| Value::Number(process.pid.into())),
    ),
    column("comm", "name of the process, of its main thread", |row, _| {
        optional(row.process.as_ref(), |process| text(&process.comm))
    }),
    column(
        "netns",
        "network namespace of the socket: the inode number that `ls -L -i /proc/PID/ns/net` shows",
        |row, _| optional((row.netns != 0).then_some(row.netns), |netns| Value::Number(netns.into())),
    ),
    column(
        "cgroup",
        "path of the process's control group (version 2); null when there is none or it has gone",
        |_, cgroup| optional(cgroup, text),
    ),
    column("local_addr", "local address; IPv4 over an IPv6 socket is shown as IPv4", |row, _| text(&row.local_addr)),
    column("local_port", "local port", |row, _| Value::Number(row.local_port.into())),
    column("remote_addr", "remote address", |row, _| text(&row.remote_addr)),
    column("remote_port", "remote port", |row, _| Value::Number(row.remote_port.into())),
    column(
        "role",
        "`server` when this end was accepted, `client` when it connected, null when that is not known",
        |row, _| optional(row.role, |role| text(role.name())),
    ),
    column("state", "TCP state at the end of the interval, CLOSE when the connection has ended", |row, _| {
        optional(state_name(row.state), text)
    }),
    column("sent_bytes", "bytes that the process's calls sent in this interval", |row, _| {
        Value::Number(row.sent_bytes)
    }),
    column("received_bytes", "bytes that the process's calls received in this interval", |row, _| {
        Value::Number(row.received_bytes)
    }),
    column(
        "sent_bytes_total",
        "bytes sent by this process on this connection since it began, or since overwatch did",
        |row, _| Value::Number(row.sent_bytes_total),
    ),
    column("received_bytes_total", "bytes received, likewise", |row, _| Value::Number(row.received_bytes_total)),
    column("reconciled_sent_bytes", "of sent_bytes: what no hook saw, known from the kernel's counters", |row, _| {
        Value::Number(row.reconciled_sent_bytes)
    }),
    column("reconciled_received_bytes", "of received_bytes: likewise", |row, _| {
        Value::Number(row.reconciled_received_bytes)
    }),
    column(
        "kernel_sent_bytes_total",
        "the kernel's own count for the connection since it began, or since overwatch did; null until it has ended",
        |row, _| optional(row.kernel_totals, |totals| Value::Number(totals.sent_bytes)),
    ),
    column("kernel_received_bytes_total", "likewise, what the application took from the socket", |row, _| {
        optional(row.kernel_totals, |totals| Value::Number(totals.received_bytes))
    }),
];

/// The keys beside the rows, with what they say.
pub const INTERVAL: &[(&str, &str)] = &[
    ("time", "end of the interval, RFC 3339, UTC"),
    ("interval_seconds", "length of the interval"),
    ("host", "name of this host"),
    ("connections", "one object per connection and process that moved bytes, the busiest first"),
    (
        "unattributed_sent_bytes",
        "bytes sent in this interval that could be put on no row: a table was full, or the kernel skipped every program that could have told",
    ),
    ("unattributed_received_bytes", "bytes received, likewise"),
    (
        "skipped_runs",
        "how often the kernel ran a program not at all in this interval, since the same program was interrupted on that CPU; what \
         rows miss by it is made good from the kernel's counters; null before Linux 5.12, which does not tell",
    ),
    ("lost_events", "ended connections whose last record was lost; their last bytes are among the unattributed"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/json.md is for people; this keeps it complete.
    #[test]
    fn every_key_is_documented_with_its_help() {
        let document = include_str!("../../../docs/json.md");
        let columns = CONNECTION.iter().map(|column| (column.key, column.help));
        for (key, help) in columns.chain(INTERVAL.iter().copied()) {
            let line = format!("| `{key}` | {help} |");
            assert!(document.contains(&line), "docs/json.md lacks the line\n{line}");
        }
    }
}
