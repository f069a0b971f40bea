//! What `states` says.

use std::time::SystemTime;

use super::{
    CGROUP, Column, Kind, LOCAL_ADDR, NETNS, Value, column, nullable, number, optional, text, time, unless_zero,
};
use crate::model::{
    snapshot::{Role, STATE_NAMES, state_name},
    states::Transition,
};

/// A transition.
pub const TRANSITION: &[Column<Transition>] = &[
    column("time", Kind::Time, "when it happened, RFC 3339, UTC", |line, _| time(line.time)),
    column(
        "connection",
        Kind::Integer,
        "number of the socket's life in this run; all transitions of one connection have the same",
        |line, _| number(line.connection),
    ),
    nullable("netns", Kind::Integer, NETNS, |line, _| unless_zero(line.netns)),
    nullable(
        "pid",
        Kind::Integer,
        "process that connected or accepted (thread group id in the initial pid namespace), before accept the one that \
         listens; null when it is not known",
        |line, _| optional(line.process.as_ref(), |process| number(process.pid)),
    ),
    nullable("comm", Kind::Text, "name of that process, of its main thread", |line, _| {
        optional(line.process.as_ref(), |process| text(&process.comm))
    }),
    nullable("cgroup", Kind::Text, CGROUP, |_, cgroup| optional(cgroup, text)),
    column("local_addr", Kind::Text, LOCAL_ADDR, |line, _| text(&line.local_addr)),
    nullable("local_port", Kind::Integer, "local port; null while it is not chosen", |line, _| {
        unless_zero(line.local_port)
    }),
    nullable(
        "remote_addr",
        Kind::Text,
        "remote address; null for a listening socket, and when it is not known",
        |line, _| optional(line.remote_addr, |addr| text(&addr)),
    ),
    nullable("remote_port", Kind::Integer, "remote port, likewise", |line, _| optional(line.remote_port, number)),
    nullable(
        "role",
        Kind::OneOf(Role::NAMES),
        "`server` when this end is or was to be accepted, `client` when it connects; null for a listening socket, and when it \
         is not known",
        |line, _| optional(line.role, |role| text(role.name())),
    ),
    nullable("old_state", Kind::OneOf(STATE_NAMES), "TCP state before", |line, _| {
        optional(state_name(line.old_state), text)
    }),
    nullable("new_state", Kind::OneOf(STATE_NAMES), "TCP state from now on", |line, _| {
        optional(state_name(line.new_state), text)
    }),
    nullable(
        "old_state_seconds",
        Kind::Seconds,
        "how long the old state lasted; null when nobody saw its beginning",
        |line, _| optional(line.old_state_time, Value::Seconds),
    ),
];

/// Transitions that are missing from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostTransitions {
    /// When we heard of it.
    pub time: SystemTime,
    /// How many.
    pub lost_events: u64,
}

/// An object beside the transitions.
pub const LOST: &[Column<LostTransitions>] = &[
    column("time", Kind::Time, "when overwatch heard of the loss", |lost, _| time(lost.time)),
    column("lost_events", Kind::Integer, "transitions that are missing", |lost, _| number(lost.lost_events)),
];
