//! The log of transitions, the newest first.

use crate::{
    model::{filter::Filter, states::Transition},
    show::{
        cells::{known, state},
        columns::states::TRANSITION,
        json,
        layout::LEAST_ADDRESS,
        screen::{
            board::{Board, Logged},
            listing::{Id, Order, Table, Text},
            theme::Tone,
        },
        states, stream,
        text::{duration, time_of_day},
    },
};

pub(super) static TABLE: Table<Logged, stream::Cell<Transition>> = Table {
    columns: states::TABLE,
    least_address: LEAST_ADDRESS,
    text: |cell, logged, _| cell(&logged.transition),
    orders: ORDERS,
    rows: |board| &board.transitions,
    rank: |logged| [u64::MAX - logged.number, 0, 0],
    id: |logged| Id::Transition(logged.number),
    wanted,
    tone: |_| Tone::Plain,
    remark: |_, _| Vec::new(),
    json: |logged, board| json::text(&json::Object(TRANSITION, &logged.transition, cgroup(logged, board))),
    story,
};

#[rustfmt::skip]
const ORDERS: &[Order<Logged>] = &[
    Order { title: "TIME", compare: |one, two| two.number.cmp(&one.number) },
    Order { title: "PID", compare: |one, two| pid(one).cmp(&pid(two)) },
    Order { title: "IN-OLD", compare: |one, two| two.transition.old_state_time.cmp(&one.transition.old_state_time) },
];

fn pid(logged: &Logged) -> Option<u32> {
    logged.transition.process.as_ref().map(|process| process.pid)
}

fn cgroup<'a>(logged: &Logged, board: &'a Board) -> Option<&'a str> {
    logged.transition.process.as_ref().and_then(|process| board.cgroup(process.cgroup_id))
}

fn wanted<'a>(board: &'a Board, filter: &'a Filter) -> Box<dyn Fn(&Logged) -> bool + 'a> {
    Box::new(|logged| filter.matches(&logged.transition.subject(), cgroup(logged, board)))
}

/// All that is known of the connection.
fn story(logged: &Logged, board: &Board, _: usize) -> Vec<Text> {
    let number = logged.transition.connection;
    list("All of this connection, as far as the log goes:", board, |of| of.connection == number)
}

/// Some of them in the story of something else, the oldest first.
pub(super) fn list(title: &str, board: &Board, is_wanted: impl Fn(&Transition) -> bool) -> Vec<Text> {
    let wanted = board.transitions.iter().map(|logged| &logged.transition).filter(|of| is_wanted(of));
    let line = |of: &Transition| {
        Text::plain(format!(
            "  {}  {:<11} -> {:<11} {}",
            time_of_day(of.time),
            state(of.old_state),
            state(of.new_state),
            known(of.old_state_time, |time| format!("after {}", duration(time))),
        ))
    };
    let lines: Vec<Text> = wanted.map(line).collect();
    if lines.is_empty() { lines } else { std::iter::once(Text::new(title, Tone::Strong)).chain(lines).collect() }
}
