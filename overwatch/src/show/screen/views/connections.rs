//! Connections, those that move most first.

use std::time::Duration;

use serde_json::json;

use super::states;
use crate::{
    model::{
        connections::{Live, ago},
        filter::Filter,
        snapshot::{Role, state_name},
        states::Transition,
    },
    show::{
        cells::{comm, endpoint, known, known_endpoint, pid, role, state},
        json,
        layout::{
            Addresses, Column, LEAST_ADDRESS, Layout, MOST_ADDRESS,
            Width::{Address, Between, Fixed, Spare},
            column,
        },
        screen::{
            board::Board,
            listing::{Id, Order, Table, Text},
            theme::Tone,
        },
        text::{bytes, duration, printable},
    },
};

pub(super) type Cell = fn(&Live, &Board) -> String;

/// In a story so many are listed.
const MOST_LISTED: usize = 50;
/// Between the clocks of two intervals at most.
const CLOCKS_DIFFER: Duration = Duration::from_millis(10);

pub(super) static TABLE: Table<Live, Cell> = Table {
    columns: COLUMNS,
    least_address: LEAST_ADDRESS,
    text: |cell, live, board| cell(live, board),
    orders: ORDERS,
    rows: |board| &board.connections,
    rank,
    id: |live| Id::Connection(live.key),
    wanted,
    tone: |live| if live.waits { Tone::Warning } else { Tone::Plain },
    remark: |_, _| Vec::new(),
    json,
    story,
};

#[rustfmt::skip]
const COLUMNS: &[Column<Cell>] = &[
    column("PID", Fixed(7), true, |live, _| pid(live.process.as_ref())),
    column("COMM", Between(8, 15), false, |live, _| comm(live.process.as_ref())),
    column("ROLE", Spare(6, 2), false, |live, _| role(live.role)),
    column("STATE", Spare(11, 4), false, |live, _| state(live.state)),
    column("SENT/s", Fixed(8), true, sent),
    column("RECV/s", Fixed(8), true, |live, board| bytes(live.moved.received as f64 / board.seconds())),
    column("REMOTE", Address, false, |live, _| known_endpoint(live.remote_addr, live.remote_port)),
    column("LOCAL", Address, false, |live, _| endpoint(live.local_addr, live.local_port)),
    column("AGE", Spare(7, 3), true, |live, board| known(ago(live.opened, board.time), duration)),
    column("SENT", Spare(8, 1), true, |live, _| bytes(live.moved_total.sent as f64)),
    column("RECV", Spare(8, 1), true, |live, _| bytes(live.moved_total.received as f64)),
];

#[rustfmt::skip]
const ORDERS: &[Order<Live>] = &[
    Order { title: "SENT/s", compare: |one, two| two.moved.sent.cmp(&one.moved.sent) },
    Order { title: "RECV/s", compare: |one, two| two.moved.received.cmp(&one.moved.received) },
    Order { title: "SENT", compare: |one, two| two.moved_total.sent.cmp(&one.moved_total.sent) },
    Order { title: "RECV", compare: |one, two| two.moved_total.received.cmp(&one.moved_total.received) },
    Order { title: "AGE", compare: |one, two| one.opened.cmp(&two.opened) },
    Order { title: "PID", compare: |one, two| one.pid().cmp(&two.pid()) },
    Order { title: "COMM", compare: |one, two| name(one).cmp(&name(two)) },
    Order { title: "STATE", compare: |one, two| (!one.waits, one.state).cmp(&(!two.waits, two.state)) },
    Order { title: "REMOTE", compare: |one, two| (one.remote_addr, one.remote_port).cmp(&(two.remote_addr, two.remote_port)) },
    Order { title: "LOCAL", compare: |one, two| (one.local_addr, one.local_port).cmp(&(two.local_addr, two.local_port)) },
];

/// Nobody sends anything on a connection that nobody has accepted: there is room for the word where no other column has any.
fn sent(live: &Live, board: &Board) -> String {
    if live.waits { "waits".to_owned() } else { bytes(live.moved.sent as f64 / board.seconds()) }
}

fn name(live: &Live) -> Option<&str> {
    live.process.as_ref().map(|process| process.comm.as_str())
}

/// The busiest first. What is quiet stays where it is: the youngest last.
fn rank(live: &Live) -> [u64; 3] {
    [u64::MAX - live.moved.both(), live.key.1, live.key.0]
}

fn cgroup<'a>(live: &Live, board: &'a Board) -> Option<&'a str> {
    live.process.as_ref().and_then(|process| board.cgroup(process.cgroup_id))
}

fn wanted<'a>(board: &'a Board, filter: &'a Filter) -> Box<dyn Fn(&Live) -> bool + 'a> {
    Box::new(|live| filter.matches(&live.subject(), cgroup(live, board)))
}

fn json(live: &Live, board: &Board) -> String {
    let time =
        |then: Option<std::time::SystemTime>| then.map(|then| humantime::format_rfc3339_micros(then).to_string());
    json::text(&json!({
        "pid": live.pid(),
        "comm": name(live),
        "netns": live.netns,
        "cgroup": cgroup(live, board),
        "local_addr": live.local_addr.to_string(),
        "local_port": live.local_port,
        "remote_addr": live.remote_addr.map(|address| address.to_string()),
        "remote_port": live.remote_port,
        "role": live.role.map(Role::name),
        "state": state_name(live.state),
        "sent_bytes": live.moved.sent,
        "received_bytes": live.moved.received,
        "sent_bytes_total": live.moved_total.sent,
        "received_bytes_total": live.moved_total.received,
        "syn_time": time(live.opened),
        "established_time": time(live.established),
        "accepted_time": time(live.accepted),
    }))
}

fn story(live: &Live, board: &Board, _: usize) -> Vec<Text> {
    let since = |then| known(ago(then, board.time), |ago| format!("{} ago", duration(ago)));
    let process = known(live.process.as_ref(), |process| format!("{} ({})", printable(&process.comm), process.pid));
    let moved = |now: u64, total: u64| {
        format!("{}/s, {} in all ({total} bytes)", bytes(now as f64 / board.seconds()), bytes(total as f64))
    };
    let of = format!(
        "{} -> {}",
        known_endpoint(live.remote_addr, live.remote_port),
        endpoint(live.local_addr, live.local_port)
    );
    let tone = if live.waits { Tone::Warning } else { Tone::Strong };
    let said = if live.waits { "waits for accept" } else { state_name(live.state).unwrap_or("in an unknown state") };
    let mut lines = vec![Text::new(format!("{of}  {said}"), tone)];
    for (label, value) in [
        ("process", process),
        ("role", role(live.role)),
        ("state", state(live.state)),
        ("began", since(live.opened)),
        ("established", since(live.established)),
        ("accepted", since(live.accepted)),
        ("sent", moved(live.moved.sent, live.moved_total.sent)),
        ("received", moved(live.moved.received, live.moved_total.received)),
        ("namespace", live.netns.to_string()),
        ("control group", known(cgroup(live, board), printable)),
    ] {
        lines.push(Text::plain(format!("  {label:<15} {value}")));
    }
    // The same addresses and ports may have been another connection's before.
    let is_older = |of: &Transition| live.opened.is_some_and(|opened| of.time + CLOCKS_DIFFER < opened);
    lines.extend(states::list("Its states:", board, |of| {
        !is_older(of)
            && (of.netns, of.local_port, of.remote_addr, of.remote_port)
                == (live.netns, live.local_port, live.remote_addr, live.remote_port)
    }));
    lines
}

/// A list of them in the story of something else, the busiest first.
pub(super) fn list(title: &str, mut all: Vec<&Live>, board: &Board, width: usize) -> Vec<Text> {
    if all.is_empty() {
        return Vec::new();
    }
    all.sort_by_key(|live| rank(live));
    let addresses = Addresses { wanted: LEAST_ADDRESS, most: MOST_ADDRESS };
    let layout = Layout::new(COLUMNS, Some(width.saturating_sub(2)), addresses);
    let mut lines = vec![Text::new(title, Tone::Strong), Text::plain(format!("  {}", layout.heading(false)))];
    let listed = all.iter().take(MOST_LISTED);
    lines.extend(listed.map(|live| Text::plain(format!("  {}", layout.line(|column| (column.cell)(live, board))))));
    if all.len() > MOST_LISTED {
        lines.push(Text::plain(format!("  ... and {} more", all.len() - MOST_LISTED)));
    }
    lines
}
