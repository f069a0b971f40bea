//! What `open` says.

use super::{Column, Key, Kind, NETNS, column, key, keys, nullable, number, optional, text, unless_zero};
use crate::model::open::{ListenerOpen, OwnerOpen, RemoteOpen};

/// An interval.
pub const OPEN: &[Key] = &[
    key("time", Kind::Time, "end of the interval, RFC 3339, UTC"),
    key("interval_seconds", Kind::Seconds, "length of the interval"),
    key("host", Kind::Text, "name of this host"),
    key("open_connections", Kind::Integer, "connections that are open at that time, in any state but CLOSE"),
    key("listeners", Kind::Objects(|| keys(LISTENER)), "one object per listening address, also where nothing is open"),
    key("owners", Kind::Objects(|| keys(OWNER)), "one object per process that has connections open"),
    key("remotes", Kind::Objects(|| keys(REMOTE)), "one object per remote address"),
    key("lost_events", Kind::Integer, "changes that were lost in this interval; the counts are then taken anew"),
];

/// A listening address. Sockets that share it (`SO_REUSEPORT`) are one.
pub const LISTENER: &[Column<ListenerOpen>] = &[
    nullable("netns", Kind::Integer, NETNS, |of, _| unless_zero(of.netns)),
    column("local_addr", Kind::Text, "address that it is bound to, `0.0.0.0` or `::` for all", |of, _| {
        text(&of.local_addr)
    }),
    column("local_port", Kind::Integer, "port that it is bound to", |of, _| number(of.local_port)),
    nullable("pid", Kind::Integer, "process that listens; null when it is not known", |of, _| {
        optional(of.process.as_ref(), |process| number(process.pid))
    }),
    nullable("comm", Kind::Text, "name of that process, of its main thread", |of, _| {
        optional(of.process.as_ref(), |process| text(&process.comm))
    }),
    column("open", Kind::Integer, "connections that came from it and are open", |of, _| number(of.open)),
    column("waiting", Kind::Integer, "of these: not accepted yet", |of, _| number(of.waiting)),
];

/// A process with open connections.
pub const OWNER: &[Column<OwnerOpen>] = &[
    nullable(
        "pid",
        Kind::Integer,
        "process that connected or accepted, before accept the one that listens; null for connections whose process is not known",
        |of, _| optional(of.process.as_ref(), |process| number(process.pid)),
    ),
    nullable("comm", Kind::Text, "name of the process, of its main thread", |of, _| {
        optional(of.process.as_ref(), |process| text(&process.comm))
    }),
    column("open", Kind::Integer, "its connections that are open", |of, _| number(of.open)),
];

/// A remote address with open connections.
pub const REMOTE: &[Column<RemoteOpen>] = &[
    column("remote_addr", Kind::Text, "remote address; IPv4 over an IPv6 socket is shown as IPv4", |of, _| {
        text(&of.remote_addr)
    }),
    column("open", Kind::Integer, "connections with it that are open", |of, _| number(of.open)),
];
