//! Listening sockets, the worst first.

use super::connections;
use crate::{
    model::{
        connections::Live,
        filter::Filter,
        queue::{Row, Snapshot, WAIT_EDGES},
        snapshot::Role,
    },
    show::{
        columns::listeners::LISTENER,
        explain, json,
        listeners::{COLUMNS, Cell, Line},
        screen::{
            board::Board,
            listing::{Id, Order, Table, Text},
            theme::Tone,
        },
        text::{count, duration, printable},
    },
};

/// Cells of the longest bar.
const BAR_CELLS: u64 = 30;

pub(super) static TABLE: Table<Row, Cell> = Table {
    columns: COLUMNS,
    // Most are short, and the rest of a narrow screen needs the room.
    least_address: 15,
    text: |cell, row, board| cell(&Line { row, time: board.time, seconds: board.seconds() }),
    orders: ORDERS,
    rows: |board| &board.listeners,
    // They come in that order.
    rank: |_| [0; 3],
    id: |row| Id::Listener(row.queue.listener),
    wanted,
    tone: |row| row.verdict.level.into(),
    remark,
    json: |row, board| json::text(&json::Object(LISTENER, row, cgroup(row, board))),
    story,
};

#[rustfmt::skip]
const ORDERS: &[Order<Row>] = &[
    Order { title: "SINCE", compare: |one, two| one.verdict.since.is_none().cmp(&two.verdict.since.is_none()).then(one.verdict.since.cmp(&two.verdict.since)) },
    Order { title: "LISTENER", compare: |one, two| (one.queue.local_addr, one.queue.local_port).cmp(&(two.queue.local_addr, two.queue.local_port)) },
    Order { title: "PROCESSES", compare: |one, two| name(one).cmp(&name(two)) },
    Order { title: "QUEUE", compare: |one, two| two.queue.accept_queue.cmp(&one.queue.accept_queue) },
    Order { title: "OLDEST", compare: |one, two| two.queue.oldest_wait().cmp(&one.queue.oldest_wait()) },
    Order { title: "SERVED", compare: |one, two| two.queue.serving.cmp(&one.queue.serving) },
    Order { title: "ACCEPT/s", compare: |one, two| two.queue.accepts.interval.cmp(&one.queue.accepts.interval) },
    Order { title: "REFUSED", compare: |one, two| two.queue.overflows().interval.cmp(&one.queue.overflows().interval) },
];

fn name(row: &Row) -> Option<&str> {
    row.queue.holders.first().map(|holder| holder.comm.as_str())
}

fn cgroup<'a>(row: &Row, board: &'a Board) -> Option<&'a str> {
    row.queue.holders.first().and_then(|holder| board.cgroup(holder.cgroup_id))
}

fn wanted<'a>(board: &'a Board, filter: &'a Filter) -> Box<dyn Fn(&Row) -> bool + 'a> {
    Box::new(|row| row.queue.is_wanted(filter, |number| board.cgroup(number)))
}

/// Why, and what to do.
fn remark(row: &Row, _: &Board) -> Vec<Text> {
    let first = |label: &str, sentences: &[String], tone| {
        sentences.first().map(|sentence| Text::new(format!("{label}{}", printable(sentence)), tone))
    };
    let why = first("Why: ", &row.verdict.evidence, row.verdict.level.into());
    why.into_iter().chain(first("Do:  ", &row.verdict.advice, Tone::Plain)).collect()
}

fn story(row: &Row, board: &Board, width: usize) -> Vec<Text> {
    let snapshot =
        Snapshot { time: board.time, interval: board.interval, rows: Vec::new(), lost_events: board.lost_events };
    let parts = explain::parts(row, cgroup(row, board), &snapshot, width);
    let said = |lines: Vec<String>| lines.into_iter().map(titled);
    let mut lines: Vec<Text> = said(parts.verdict).collect();
    if let Some(title) = lines.first_mut() {
        title.tone = row.verdict.level.into();
    }
    lines.extend(said(parts.waiting));
    lines.extend(past(row, board, width));
    lines.extend(waits(row));
    lines.extend(said(parts.processes));
    lines.extend(served(row, board, width));
    lines.extend(said(parts.numbers));
    lines
}

/// Titles of sections stand at the edge.
fn titled(line: String) -> Text {
    let tone = if line.starts_with(' ') { Tone::Plain } else { Tone::Strong };
    Text::new(line, tone)
}

/// The last two minutes.
fn past(row: &Row, board: &Board, width: usize) -> Vec<Text> {
    let Some(history) = board.history.listeners.get(&row.queue.listener) else { return Vec::new() };
    let series = [
        ("accept queue", &history.accept_queue),
        ("oldest wait", &history.oldest_wait_milliseconds),
        ("accepts", &history.accepts),
    ];
    let mut lines = vec![Text::new("The last two minutes:", Tone::Strong)];
    for (label, numbers) in series {
        let numbers = numbers.last(width.saturating_sub(32));
        let most = numbers.iter().copied().max().unwrap_or(0);
        let top = match label {
            "oldest wait" => duration(std::time::Duration::from_millis(most)),
            _ => count(most),
        };
        lines.push(Text::plain(format!("  {label:<13} {} at most {top}", bars(&numbers, most))));
    }
    lines
}

/// One character for each number.
fn bars(numbers: &[u64], most: u64) -> String {
    let symbols = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |number: &u64| symbols[(number * 8).div_ceil(most.max(1)) as usize % symbols.len()];
    numbers.iter().map(bar).collect()
}

/// The histogram of all accepts since the start.
fn waits(row: &Row) -> Vec<Text> {
    let totals = &row.queue.accept_wait_totals;
    if totals.count == 0 {
        return Vec::new();
    }
    let mut lines = vec![Text::new("Waits of all that were accepted:", Tone::Strong)];
    let edges = WAIT_EDGES.iter().map(|edge| format!("up to {}", duration(*edge))).chain(["longer".to_owned()]);
    let at_most: Vec<u64> = totals.at_most.iter().copied().chain([totals.count]).collect();
    let counts =
        at_most.iter().enumerate().map(|(at, upto)| upto - at.checked_sub(1).map_or(0, |before| at_most[before]));
    let counts: Vec<u64> = counts.collect();
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    for (edge, count) in edges.zip(counts).filter(|(_, count)| *count > 0) {
        let bar = "#".repeat((count * BAR_CELLS).div_ceil(most) as usize);
        lines.push(Text::plain(format!("  {edge:>13}  {bar:<30} {count}")));
    }
    lines
}

/// The connections that are being served, those that move most first.
fn served(row: &Row, board: &Board, width: usize) -> Vec<Text> {
    let queue = &row.queue;
    let is_served = |live: &&Live| {
        live.netns == queue.netns
            && live.local_port == queue.local_port
            && (queue.local_addr.is_unspecified() || queue.local_addr == live.local_addr)
            && !live.waits
            && live.role == Some(Role::Server)
    };
    connections::list("Connections:", board.connections.iter().filter(is_served).collect(), board, width)
}
