//! What `listeners` says.

use super::{
    CGROUP, Column, Key, Kind, NETNS, Value, column, fields, key, keys, nullable, number, objects, optional, text,
    time, unless_zero,
};
use crate::model::{
    queue::{BacklogOrigin, Holder, Row, Waiting, Waits},
    snapshot::{STATE_NAMES, state_name},
    verdict::{Cause, Level},
};

/// An interval.
pub const INTERVAL: &[Key] = &[
    key("time", Kind::Time, "end of the interval, RFC 3339, UTC"),
    key("interval_seconds", Kind::Seconds, "length of the interval"),
    key("host", Kind::Text, "name of this host"),
    key("listeners", Kind::Objects(|| keys(LISTENER)), "one object per listening socket, the worst first"),
    key(
        "lost_events",
        Kind::Integer,
        "changes that were lost in this interval, and accepted connections and listening sockets that there was no room for in the \
         tables; accepts among them are missing",
    ),
];

/// A listening socket. Those that share their address (`SO_REUSEPORT`) have a queue each, and so are objects of their own.
pub const LISTENER: &[Column<Row>] = &[
    column(
        "listener",
        Kind::Integer,
        "number of the listening socket in this run; objects with the same number are of the same socket",
        |row, _| number(row.queue.listener),
    ),
    column(
        "verdict",
        Kind::OneOf(Level::NAMES),
        "how bad it is: `ok`, `busy`, `saturated` or `overflowing`, see docs/listeners.md",
        |row, _| text(row.verdict.level.name()),
    ),
    column(
        "cause",
        Kind::OneOf(Cause::NAMES),
        "why, in one word, see docs/listeners.md; `none` when nothing is wrong",
        |row, _| text(row.verdict.cause.name()),
    ),
    nullable(
        "since",
        Kind::Time,
        "since when this verdict with this cause has held; null when all is well",
        |row, _| optional(row.verdict.since, time),
    ),
    column("evidence", Kind::Texts, "what the verdict rests on, in sentences with the numbers in them", |row, _| {
        Value::Texts(row.verdict.evidence.clone())
    }),
    column("advice", Kind::Texts, "what to change, in sentences, the most useful first", |row, _| {
        Value::Texts(row.verdict.advice.clone())
    }),
    nullable("netns", Kind::Integer, NETNS, |row, _| unless_zero(row.queue.netns)),
    nullable("cgroup", Kind::Text, CGROUP, |_, cgroup| optional(cgroup, text)),
    column("local_addr", Kind::Text, "address that it is bound to, `0.0.0.0` or `::` for all", |row, _| {
        text(&row.queue.local_addr)
    }),
    column("local_port", Kind::Integer, "port that it is bound to", |row, _| number(row.queue.local_port)),
    column(
        "processes",
        Kind::Objects(|| keys(PROCESS)),
        "one object per process that holds it, the lowest pid first; the one that `cgroup` is of is the first",
        |row, _| objects(PROCESS, &row.queue.holders),
    ),
    column(
        "siblings",
        Kind::Integer,
        "other sockets that listen at the same address in the same namespace (`SO_REUSEPORT`)",
        |row, _| number(row.queue.siblings),
    ),
    nullable(
        "inode",
        Kind::Integer,
        "inode number of the socket, as in /proc/PID/fd; null when it is not known",
        |row, _| optional(row.queue.inode, number),
    ),
    nullable(
        "listening_since",
        Kind::Time,
        "when it began to listen; null when that was before overwatch",
        |row, _| optional(row.queue.listening_since, time),
    ),
    column("accept_queue", Kind::Integer, "connections in the accept queue at the end of the interval", |row, _| {
        number(row.queue.accept_queue)
    }),
    column(
        "accept_queue_peak",
        Kind::Integer,
        "most connections in the accept queue at any time of the interval",
        |row, _| number(row.queue.accept_queue_peak),
    ),
    column(
        "accept_queue_full",
        Kind::Bool,
        "the accept queue takes no more: it holds one more than its limit, which is what fits",
        |row, _| Value::Bool(row.queue.is_full()),
    ),
    column("backlog_limit", Kind::Integer, "the kernel's limit of the accept queue", |row, _| {
        number(row.queue.backlog_limit)
    }),
    nullable(
        "backlog_origin",
        Kind::OneOf(BacklogOrigin::NAMES),
        "`somaxconn` when the limit is what net.core.somaxconn is now (the program may have asked for just that), `listen` when it is \
         another number: what the program gave to listen(), or somaxconn as it was then; null when somaxconn is not known",
        |row, _| optional(row.queue.backlog_origin(), |origin| text(origin.name())),
    ),
    nullable("somaxconn", Kind::Integer, "net.core.somaxconn of the namespace; null when it is not known", |row, _| {
        optional(row.queue.somaxconn, number)
    }),
    nullable("syn_queue", Kind::Integer, "half-open connections; null when the scan cannot read them", |row, _| {
        optional(row.queue.syn_queue, |of| number(of.length))
    }),
    nullable(
        "syn_queue_old",
        Kind::Integer,
        "half-open connections whose SYN-ACK was sent again, so that the client is slow, silent or not there; null in the same case",
        |row, _| optional(row.queue.syn_queue, |of| number(of.old)),
    ),
    nullable(
        "defers_accept",
        Kind::Bool,
        "TCP_DEFER_ACCEPT is set: clients that send nothing stay half-open; null when the scan cannot read it",
        |row, _| optional(row.queue.syn_queue, |of| Value::Bool(of.defers_accept)),
    ),
    nullable(
        "tcp_syncookies",
        Kind::Integer,
        "net.ipv4.tcp_syncookies of the namespace; null when it is not known",
        |row, _| optional(row.queue.syncookies, number),
    ),
    nullable(
        "arrivals",
        Kind::Integer,
        "connections that entered the accept queue in this interval; null when no program sees accepts",
        |row, _| optional(row.queue.by_accepts(row.queue.arrivals.interval), number),
    ),
    nullable(
        "arrivals_total",
        Kind::Integer,
        "connections that entered it since overwatch started or the socket began to listen, whichever was later; null in the same case",
        |row, _| optional(row.queue.by_accepts(row.queue.arrivals.total), number),
    ),
    nullable(
        "accepts",
        Kind::Integer,
        "connections that were accepted in this interval; null when no program sees accepts",
        |row, _| optional(row.queue.by_accepts(row.queue.accepts.interval), number),
    ),
    nullable(
        "accepts_total",
        Kind::Integer,
        "connections that were accepted since then; null in the same case",
        |row, _| optional(row.queue.by_accepts(row.queue.accepts.total), number),
    ),
    column(
        "overflows",
        Kind::Integer,
        "connections refused in this interval because the accept queue was full, at the SYN or at the final ACK",
        |row, _| number(row.queue.overflows().interval),
    ),
    column("overflows_total", Kind::Integer, "refused since then", |row, _| number(row.queue.overflows().total)),
    nullable(
        "overflows_syn",
        Kind::Integer,
        "of overflows: SYNs that were refused; null in a tier that does not see at which packet it was",
        |row, _| optional(row.queue.overflows_by_packet(), |(at_syn, _)| number(at_syn.interval)),
    ),
    nullable(
        "overflows_syn_total",
        Kind::Integer,
        "of overflows_total: SYNs that were refused; null likewise",
        |row, _| optional(row.queue.overflows_by_packet(), |(at_syn, _)| number(at_syn.total)),
    ),
    nullable(
        "overflows_ack",
        Kind::Integer,
        "of overflows: handshakes whose final ACK was refused; the client takes itself for connected; null likewise",
        |row, _| optional(row.queue.overflows_by_packet(), |(_, at_ack)| number(at_ack.interval)),
    ),
    nullable(
        "overflows_ack_total",
        Kind::Integer,
        "of overflows_total: handshakes whose final ACK was refused; null likewise",
        |row, _| optional(row.queue.overflows_by_packet(), |(_, at_ack)| number(at_ack.total)),
    ),
    column(
        "overflows_exact",
        Kind::Bool,
        "false when the tier does not see each overflow: they are then worked out from the drops of the socket and the overflows of \
         its namespace",
        |row, _| Value::Bool(row.queue.overflows_exact),
    ),
    column(
        "drops",
        Kind::Integer,
        "packets to this socket that were dropped in this interval and are not overflows, among them SYNs for which the SYN queue had \
         no room",
        |row, _| number(row.queue.other_drops.interval),
    ),
    column("drops_total", Kind::Integer, "dropped since then", |row, _| number(row.queue.other_drops.total)),
    nullable(
        "syn_cookies",
        Kind::Integer,
        "SYNs that were answered with a SYN cookie in this interval; null in a tier that does not see it",
        |row, _| optional(row.queue.syn_cookies, |count| number(count.interval)),
    ),
    nullable("syn_cookies_total", Kind::Integer, "answered with a cookie since then; null likewise", |row, _| {
        optional(row.queue.syn_cookies, |count| number(count.total))
    }),
    nullable(
        "syn_queue_overflows",
        Kind::Integer,
        "SYNs refused in this interval because the SYN queue was full and there are no cookies; null in a tier that does not see it",
        |row, _| optional(row.queue.syn_queue_overflows, |count| number(count.interval)),
    ),
    nullable("syn_queue_overflows_total", Kind::Integer, "refused for that since then; null likewise", |row, _| {
        optional(row.queue.syn_queue_overflows, |count| number(count.total))
    }),
    nullable(
        "serving",
        Kind::Integer,
        "connections that were accepted from it and that no process has closed yet; null when it is not known of which of several \
         sockets they are",
        |row, _| optional(row.queue.serving, number),
    ),
    nullable(
        "serving_ceiling",
        Kind::Integer,
        "the number of served connections that the server does not get beyond while clients wait; null when it is not known or none \
         waits",
        |row, _| optional(row.verdict.serving_ceiling, number),
    ),
    nullable(
        "served",
        Kind::Integer,
        "connections that a process has stopped serving in this interval; null when no program sees accepts",
        |row, _| optional(row.queue.by_accepts(row.queue.served), number),
    ),
    column(
        "waiting",
        Kind::Objects(|| keys(WAITING)),
        "one object per client in the accept queue, the one that has waited longest first, at most 64",
        |row, _| objects(WAITING, &row.queue.waiting),
    ),
    column("waiting_total", Kind::Integer, "how many clients there are in the accept queue", |row, _| {
        number(row.queue.waiting_total)
    }),
    nullable(
        "oldest_wait_seconds",
        Kind::Seconds,
        "how long the client has waited that came first; null when none waits or it is not known",
        |row, _| optional(row.queue.oldest_wait(), Value::Seconds),
    ),
    nullable(
        "accept_wait_seconds",
        Kind::Object(|| keys(WAITS)),
        "how long those had waited that were accepted in this interval, from queued to accepted, without the handshake; null when \
         there were none, or it is not known",
        |row, _| optional(row.queue.accept_waits, |waits| Value::Object(fields(WAITS, &waits))),
    ),
];

/// A process that holds a listening socket.
pub const PROCESS: &[Column<Holder>] = &[
    column("pid", Kind::Integer, "thread group id in the initial pid namespace", |holder, _| number(holder.pid)),
    column("comm", Kind::Text, "name of the process, of its main thread", |holder, _| text(&holder.comm)),
    nullable(
        "threads",
        Kind::Integer,
        "threads; null when nobody looked, which is done only where somebody waits",
        |holder, _| optional(holder.threads, |threads| number(threads.total)),
    ),
    nullable("running", Kind::Integer, "of these: on a CPU, or waiting for one (R); null likewise", |holder, _| {
        optional(holder.threads, |threads| number(threads.running))
    }),
    nullable("sleeping", Kind::Integer, "of these: waiting for something (S, I); null likewise", |holder, _| {
        optional(holder.threads, |threads| number(threads.sleeping))
    }),
    nullable(
        "uninterruptible",
        Kind::Integer,
        "of these: waiting for a disk or the like, not to be interrupted (D); null likewise",
        |holder, _| optional(holder.threads, |threads| number(threads.uninterruptible)),
    ),
    nullable(
        "stopped",
        Kind::Integer,
        "of these: stopped by a signal or a debugger (T, t); null likewise",
        |holder, _| optional(holder.threads, |threads| number(threads.stopped)),
    ),
    nullable(
        "on_cpu_seconds",
        Kind::Seconds,
        "time on a CPU in this interval, of all its threads; null when it is not known",
        |holder, _| optional(holder.on_cpu, Value::Seconds),
    ),
    nullable("open_files", Kind::Integer, "descriptors that it has open; null when nobody looked", |holder, _| {
        optional(holder.open_files, number)
    }),
    nullable(
        "open_files_limit",
        Kind::Integer,
        "how many it may have (RLIMIT_NOFILE, soft); null likewise",
        |holder, _| optional(holder.open_files_limit, number),
    ),
    nullable(
        "cpu_periods",
        Kind::Integer,
        "enforcement periods of cpu.max in this interval, of its control group or of the one above it that is throttled most; null \
         when the host does not tell",
        |holder, _| optional(holder.throttling, |throttling| number(throttling.periods)),
    ),
    nullable(
        "throttled_periods",
        Kind::Integer,
        "of these: such as the group ran out of its processor time in; null likewise",
        |holder, _| optional(holder.throttling, |throttling| number(throttling.throttled_periods)),
    ),
    nullable(
        "throttled_seconds",
        Kind::Seconds,
        "how long the group's threads stood still for it in this interval, added up; null likewise",
        |holder, _| optional(holder.throttling, |throttling| Value::Seconds(throttling.throttled)),
    ),
];

/// A client in the accept queue.
pub const WAITING: &[Column<Waiting>] = &[
    column("remote_addr", Kind::Text, "its address; IPv4 over an IPv6 socket is shown as IPv4", |client, _| {
        text(&client.remote_addr)
    }),
    column("remote_port", Kind::Integer, "its port", |client, _| number(client.remote_port)),
    nullable("waiting_seconds", Kind::Seconds, "how long it has waited; null when it is not known", |client, _| {
        optional(client.waiting, Value::Seconds)
    }),
    column("unread_bytes", Kind::Integer, "bytes that it has sent and that nobody has read", |client, _| {
        number(client.unread_bytes)
    }),
    nullable(
        "state",
        Kind::OneOf(STATE_NAMES),
        "TCP state of the connection; null for a state that is none",
        |client, _| optional(state_name(client.state), text),
    ),
    column(
        "gone",
        Kind::Bool,
        "it has closed (CLOSE_WAIT), or has reset the connection or was given up by the kernel (CLOSE); it still takes its place in the \
         queue",
        |client, _| Value::Bool(client.is_gone()),
    ),
];

/// How long accepted connections had waited.
pub const WAITS: &[Column<Waits>] = &[
    column("p50", Kind::Seconds, "median, in seconds", |waits, _| Value::Seconds(waits.p50)),
    column("p90", Kind::Seconds, "of ten connections, nine waited no longer", |waits, _| Value::Seconds(waits.p90)),
    column("p99", Kind::Seconds, "of a hundred connections, 99 waited no longer", |waits, _| Value::Seconds(waits.p99)),
    column("max", Kind::Seconds, "the longest", |waits, _| Value::Seconds(waits.max)),
];
