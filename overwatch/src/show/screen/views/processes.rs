//! Processes, those that move most first.

use std::collections::HashSet;

use serde_json::json;

use super::connections;
use crate::{
    model::{
        connections::Live,
        filter::Filter,
        queue::{Holder, Row},
        workers::Worker,
    },
    show::{
        cells::known,
        json,
        layout::{
            Column, LEAST_ADDRESS,
            Width::{Between, Fixed, Spare},
            column,
        },
        listeners::{place, queue},
        screen::{
            board::Board,
            listing::{Id, Order, Table, Text},
            theme::Tone,
        },
        text::{bytes, count, printable},
    },
};

pub(super) type Cell = fn(&Worker, &Board) -> String;

pub(super) static TABLE: Table<Worker, Cell> = Table {
    columns: COLUMNS,
    least_address: LEAST_ADDRESS,
    text: |cell, worker, board| cell(worker, board),
    orders: ORDERS,
    rows: |board| &board.workers,
    rank: |worker| [u64::MAX - worker.moved.both(), u64::MAX - worker.open, worker.process.pid.into()],
    id: |worker| Id::Process(worker.process.pid),
    wanted,
    tone: |_| Tone::Plain,
    remark: |_, _| Vec::new(),
    json,
    story,
};

#[rustfmt::skip]
const COLUMNS: &[Column<Cell>] = &[
    column("PID", Fixed(7), true, |worker, _| worker.process.pid.to_string()),
    column("COMM", Fixed(15), false, |worker, _| printable(&worker.process.comm)),
    column("CONNS", Fixed(5), true, |worker, _| count(worker.open)),
    column("LISTENS", Spare(7, 2), true, |worker, _| known(worker.listens, count)),
    column("SENT/s", Fixed(8), true, |worker, board| bytes(worker.moved.sent as f64 / board.seconds())),
    column("RECV/s", Fixed(8), true, |worker, board| bytes(worker.moved.received as f64 / board.seconds())),
    column("SENT", Spare(8, 3), true, |worker, _| bytes(worker.moved_total.sent as f64)),
    column("RECV", Spare(8, 3), true, |worker, _| bytes(worker.moved_total.received as f64)),
    column("CGROUP", Between(8, 60), false, |worker, board| known(board.cgroup(worker.process.cgroup_id), printable)),
];

#[rustfmt::skip]
const ORDERS: &[Order<Worker>] = &[
    Order { title: "SENT/s", compare: |one, two| two.moved.sent.cmp(&one.moved.sent) },
    Order { title: "RECV/s", compare: |one, two| two.moved.received.cmp(&one.moved.received) },
    Order { title: "CONNS", compare: |one, two| two.open.cmp(&one.open) },
    Order { title: "LISTENS", compare: |one, two| two.listens.cmp(&one.listens) },
    Order { title: "SENT", compare: |one, two| two.moved_total.sent.cmp(&one.moved_total.sent) },
    Order { title: "RECV", compare: |one, two| two.moved_total.received.cmp(&one.moved_total.received) },
    Order { title: "PID", compare: |one, two| one.process.pid.cmp(&two.process.pid) },
    Order { title: "COMM", compare: |one, two| one.process.comm.cmp(&two.process.comm) },
];

/// One of its connections or listening sockets must be wanted.
fn wanted<'a>(board: &'a Board, filter: &'a Filter) -> Box<dyn Fn(&Worker) -> bool + 'a> {
    let path = |number| board.cgroup(number);
    let cgroup = |live: &Live| live.process.as_ref().and_then(|process| path(process.cgroup_id));
    let connected = board.connections.iter().filter(|live| filter.matches(&live.subject(), cgroup(live)));
    // Of several that hold a socket, those that the filter means.
    let holds = |holder: &Holder| {
        let named = filter.pid.is_none_or(|pid| pid == holder.pid);
        named && filter.comm.as_ref().is_none_or(|comm| *comm == holder.comm)
    };
    let listening = board.listeners.iter().filter(|row| row.queue.is_wanted(filter, path));
    let listening =
        listening.flat_map(|row| &row.queue.holders).filter(|holder| holds(holder)).map(|holder| holder.pid);
    let wanted: HashSet<u32> = connected.filter_map(Live::pid).chain(listening).collect();
    Box::new(move |worker| {
        let process = &worker.process;
        wanted.contains(&process.pid) || filter.matches_process(process, path(process.cgroup_id))
    })
}

fn is_holder(row: &Row, pid: u32) -> bool {
    row.queue.holders.iter().any(|holder| holder.pid == pid)
}

fn json(worker: &Worker, board: &Board) -> String {
    json::text(&json!({
        "pid": worker.process.pid,
        "comm": worker.process.comm,
        "cgroup": board.cgroup(worker.process.cgroup_id),
        "connections": worker.open,
        "listeners": worker.listens,
        "sent_bytes": worker.moved.sent,
        "received_bytes": worker.moved.received,
        "sent_bytes_total": worker.moved_total.sent,
        "received_bytes_total": worker.moved_total.received,
    }))
}

fn story(worker: &Worker, board: &Board, width: usize) -> Vec<Text> {
    let pid = worker.process.pid;
    let mut lines = vec![Text::new(format!("{} ({pid})", printable(&worker.process.comm)), Tone::Strong)];
    for (label, value) in [
        ("connections", worker.open.to_string()),
        ("listens at", known(worker.listens, |listens| listens.to_string())),
        (
            "sent",
            format!(
                "{}/s, {} in all",
                bytes(worker.moved.sent as f64 / board.seconds()),
                bytes(worker.moved_total.sent as f64)
            ),
        ),
        (
            "received",
            format!(
                "{}/s, {} in all",
                bytes(worker.moved.received as f64 / board.seconds()),
                bytes(worker.moved_total.received as f64)
            ),
        ),
        ("control group", known(board.cgroup(worker.process.cgroup_id), printable)),
    ] {
        lines.push(Text::plain(format!("  {label:<15} {value}")));
    }
    let mut listens = board.listeners.iter().filter(|row| is_holder(row, pid)).peekable();
    if listens.peek().is_some() {
        lines.push(Text::new("Listens at:", Tone::Strong));
    }
    for row in listens {
        let verdict = row.verdict.level.name();
        lines.push(Text::new(
            format!("  {:<11} {:<22} {}", verdict, place(&row.queue), queue(&row.queue)),
            row.verdict.level.into(),
        ));
    }
    let own = board.connections.iter().filter(|live| live.pid() == Some(pid)).collect();
    lines.extend(connections::list("Connections:", own, board, width));
    lines
}
