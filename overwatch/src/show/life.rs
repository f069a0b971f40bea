//! The stream of connections that have ended.

use super::{
    cells::{comm, known, known_endpoint, pid, role},
    columns::life::{LIFE, LOST},
    layout::{
        Column,
        Width::{Address, Between, Fixed, Spare},
        column,
    },
    stream::{Cell, Shape},
    text::{bytes, duration, printable, time_of_day},
};
use crate::model::{
    ending::Ending,
    life::{Line, Lost},
};

/// One line per connection.
pub static SHAPE: Shape<Line, Lost> = Shape { columns: LIFE, lost: LOST, table: TABLE, lost_line };

#[rustfmt::skip]
const TABLE: &[Column<Cell<Line>>] = &[
    column("TIME", Spare(12, 6), false, |line| time_of_day(line.time)),
    column("PID", Spare(7, 5), true, |line| pid(line.process.as_ref())),
    column("COMM", Between(8, 15), false, |line| comm(line.process.as_ref())),
    column("ROLE", Spare(6, 3), false, |line| role(line.role)),
    column("LOCAL", Address, false, |line| known_endpoint(Some(line.local_addr), Some(line.local_port))),
    column("REMOTE", Address, false, |line| known_endpoint(line.remote_addr, line.remote_port)),
    column("DURATION", Fixed(8), true, |line| known(line.duration, duration)),
    column("CONN/WAIT", Spare(9, 4), true, |line| known(line.connect.or(line.accept_wait), duration)),
    column("SENT", Spare(8, 7), true, |line| bytes(line.sent_bytes as f64)),
    column("RECV", Spare(8, 7), true, |line| bytes(line.received_bytes as f64)),
    column("RTT", Spare(7, 1), true, |line| known(line.at_close.and_then(|at_close| at_close.smoothed_rtt), duration)),
    column("RETR", Spare(5, 2), true, |line| known(line.at_close, |at_close| at_close.retransmits.to_string())),
    column("ENDED", Fixed(14), false, ended),
];

/// Where there is no better word than that it failed, its error is one.
fn ended(line: &Line) -> String {
    match (line.ended, &line.error) {
        (Some(Ending::Failed), Some(error)) => error.clone(),
        (ended, _) => known(ended, |ended| ended.name().to_owned()),
    }
}

fn lost_line(lost: &Lost) -> String {
    let process = match &lost.process {
        Some(process) => format!("{} ({})", printable(&process.comm), process.pid),
        None => "an unknown process".to_owned(),
    };
    format!(
        "LOST: the last records of {} connections of {process}: sent {}, received {}",
        lost.lost_events,
        bytes(lost.sent_bytes as f64),
        bytes(lost.received_bytes as f64),
    )
}
