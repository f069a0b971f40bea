//! The stream of transitions.

use super::{
    cells::{comm, known, known_endpoint, pid, state},
    columns::states::{LOST, LostTransitions, TRANSITION},
    layout::{
        Column,
        Width::{Address, Between, Fixed, Spare},
        column,
    },
    stream::{Cell, Shape},
    text::{duration, time_of_day},
};
use crate::model::states::Transition;

/// One line per transition.
pub static SHAPE: Shape<Transition, LostTransitions> =
    Shape { columns: TRANSITION, lost: LOST, table: TABLE, lost_line };

#[rustfmt::skip]
pub(super) const TABLE: &[Column<Cell<Transition>>] = &[
    column("TIME", Spare(12, 2), false, |line| time_of_day(line.time)),
    column("PID", Spare(7, 1), true, |line| pid(line.process.as_ref())),
    column("COMM", Between(8, 15), false, |line| comm(line.process.as_ref())),
    column("LOCAL", Address, false, |line| known_endpoint(Some(line.local_addr), Some(line.local_port))),
    column("REMOTE", Address, false, |line| known_endpoint(line.remote_addr, line.remote_port)),
    column("OLD", Fixed(11), false, |line| state(line.old_state)),
    column("NEW", Fixed(11), false, |line| state(line.new_state)),
    column("IN-OLD", Spare(7, 3), true, |line| known(line.old_state_time, duration)),
];

fn lost_line(lost: &LostTransitions) -> String {
    format!("LOST: {} transitions", lost.lost_events)
}
