//! Listening sockets, interval by interval: what waits, what is refused, and why.

use std::{
    cmp::Reverse,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    cells::{endpoint, known},
    columns::listeners::LISTENER,
    csv,
    json::{Object, write_line},
    layout::{
        Addresses, Column, Layout,
        Width::{Address, Between, Fixed, Spare},
        column,
    },
    text::{count, duration, printable, seconds, wrap},
};
use crate::model::{
    queue::{Holder, Queue, Row, Snapshot},
    verdict::{Cause, Level},
};

#[cfg(test)]
mod tests;

/// An interval.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'a> {
    /// Name of this host.
    pub host: &'a str,
    /// All that is known.
    pub snapshot: &'a Snapshot,
    /// The rows that were asked for, the worst first, each with the path of its first holder's control group, where known.
    pub rows: &'a [(&'a Row, Option<&'a str>)],
    /// How many there are with those that are well, where only the sick ones were asked for.
    pub all: usize,
    /// At most so many of them are shown.
    pub most: usize,
}

impl<'a> Interval<'a> {
    pub(super) fn shown(&self) -> &'a [(&'a Row, Option<&'a str>)] {
        &self.rows[..self.rows.len().min(self.most)]
    }
}

/// How text for people is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colour may be used.
    pub color: bool,
    /// Cells in a line; `None` when nobody knows, so that nothing is cut.
    pub width: Option<usize>,
    /// Lines that there is room for; `None` when there is no end to it.
    pub height: Option<usize>,
}

/// For scripts: one object.
pub fn write_json(out: &mut impl Write, interval: &Interval<'_>) -> io::Result<()> {
    write_line(out, interval)
}

impl Serialize for Interval<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &humantime::format_rfc3339_millis(self.snapshot.time).to_string())?;
        map.serialize_entry("interval_seconds", &seconds(self.snapshot.interval))?;
        map.serialize_entry("host", self.host)?;
        map.serialize_entry("listeners", &Objects(self.shown()))?;
        map.serialize_entry("lost_events", &self.snapshot.lost_events)?;
        map.end()
    }
}

struct Objects<'a>(&'a [(&'a Row, Option<&'a str>)]);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(row, cgroup)| Object(LISTENER, *row, *cgroup)))
    }
}

/// Writes the heading of the CSV output.
pub fn write_csv_heading(out: &mut impl Write) -> io::Result<()> {
    let fixed = |name: &str| name.to_owned();
    let before = ["time", "interval_seconds"].map(fixed);
    csv::record(out, before.into_iter().chain(csv::headings(LISTENER)).chain(["lost_events"].map(fixed)))
}

/// Writes a record for each listening socket.
pub fn write_csv(out: &mut impl Write, interval: &Interval<'_>) -> io::Result<()> {
    let snapshot = interval.snapshot;
    let time = humantime::format_rfc3339_millis(snapshot.time).to_string();
    for (row, cgroup) in interval.shown() {
        let before = [time.clone(), seconds(snapshot.interval).to_string()];
        let fields = csv::fields(LISTENER, *row, *cgroup);
        csv::record(out, before.into_iter().chain(fields).chain([snapshot.lost_events.to_string()]))?;
    }
    Ok(())
}

/// What a line of the table is made from.
pub(super) struct Line<'a> {
    pub(super) row: &'a Row,
    pub(super) time: SystemTime,
    pub(super) seconds: f64,
}

pub(super) type Cell = fn(&Line<'_>) -> String;

/// The verdict comes first: [`paint`] relies on it.
const VERDICT_CELLS: usize = 11;
const NETNS: &str = "NETNS";

#[rustfmt::skip]
pub(super) const COLUMNS: &[Column<Cell>] = &[
    column("VERDICT", Fixed(VERDICT_CELLS), false, |line| line.row.verdict.level.name().to_owned()),
    column("CAUSE", Fixed(17), false, |line| known(cause(line.row), str::to_owned)),
    column("SINCE", Spare(7, 3), true, |line| known(age(line.row, line.time), duration)),
    column("LISTENER", Address, false, |line| place(&line.row.queue)),
    column("PROCESSES", Between(8, 16), false, |line| processes(&line.row.queue.holders)),
    column("QUEUE", Fixed(10), true, |line| queue(&line.row.queue)),
    column("PEAK", Spare(4, 2), true, |line| count(line.row.queue.accept_queue_peak.into())),
    column("OLDEST", Fixed(7), true, |line| known(line.row.queue.oldest_wait(), duration)),
    column("SERVED", Spare(9, 6), true, |line| served(line.row)),
    column("ACCEPT/s", Spare(8, 1), true, |line| known(line.row.queue.by_accepts(line.row.queue.accepts.interval), |accepts| rate(accepts, line.seconds))),
    column("REFUSED", Spare(7, 5), true, |line| count(line.row.queue.overflows().interval)),
    column(NETNS, Spare(10, 4), true, |line| known(netns(&line.row.queue), |inode| inode.to_string())),
];

/// Why; `None` when nothing is wrong.
pub(super) fn cause(row: &Row) -> Option<&'static str> {
    (row.verdict.cause != Cause::None).then(|| row.verdict.cause.name())
}

/// How long it has been so.
pub(super) fn age(row: &Row, time: SystemTime) -> Option<Duration> {
    row.verdict.since.map(|since| time.duration_since(since).unwrap_or_default())
}

pub(super) fn place(queue: &Queue) -> String {
    endpoint(queue.local_addr, queue.local_port)
}

pub(super) fn netns(queue: &Queue) -> Option<u32> {
    (queue.netns != 0).then_some(queue.netns)
}

/// `6x apache2, systemd`: the name that most have comes first. The number stands before the name, where it cannot be cut.
pub(super) fn processes(holders: &[Holder]) -> String {
    let mut names: Vec<(&str, u64)> = Vec::new();
    for holder in holders {
        match names.iter_mut().find(|(name, _)| *name == holder.comm) {
            Some((_, number)) => *number += 1,
            None => names.push((&holder.comm, 1)),
        }
    }
    // Stable: of those with equally many the one with the lowest pid stays first.
    names.sort_by_key(|(_, number)| Reverse(*number));
    let names = names.iter().map(|(name, number)| match number {
        1 => printable(name),
        _ => format!("{}x {}", count(*number), printable(name)),
    });
    known((!holders.is_empty()).then_some(names), |names| names.collect::<Vec<_>>().join(", "))
}

/// What is in the accept queue and its limit, `!` when it takes no more.
pub(super) fn queue(queue: &Queue) -> String {
    let mark = if queue.is_full() { "!" } else { "" };
    format!("{}/{}{mark}", count(queue.accept_queue.into()), count(queue.backlog_limit.into()))
}

/// What is served and the ceiling of it.
fn served(row: &Row) -> String {
    match (row.queue.serving, row.verdict.serving_ceiling) {
        (serving, None) => known(serving, count),
        (serving, Some(ceiling)) => format!("{}/{}", known(serving, count), count(ceiling)),
    }
}

/// In at most seven cells.
pub(super) fn rate(number: u64, seconds: f64) -> String {
    let rate = number as f64 / seconds.max(1e-3);
    if rate < 1_000.0 { format!("{rate:.1}") } else { count(rate as u64) }
}

/// Shows how bad it is.
pub(super) fn paint(text: &str, level: Level, color: bool) -> String {
    match level {
        Level::Busy if color => format!("\x1b[33m{text}\x1b[0m"),
        Level::Saturated | Level::Overflowing if color => format!("\x1b[1;31m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

/// What stands above all rows.
pub(super) fn summary(interval: &Interval<'_>) -> Vec<String> {
    let sick = interval.rows.iter().filter(|(row, _)| row.is_sick()).count();
    let time = humantime::format_rfc3339_seconds(interval.snapshot.time);
    let host = printable(interval.host);
    let plural = if interval.all == 1 { "" } else { "s" };
    let mut lines = vec![format!("{time}  {} listener{plural}, {sick} sick  {host}", interval.all)];
    if interval.snapshot.lost_events > 0 {
        lines.push(format!("LOST: {} changes; accepts among them are not counted", interval.snapshot.lost_events));
    }
    lines
}

/// Wide enough for the widest that is shown, as long as there is room.
fn addresses(rows: &[(&Row, Option<&str>)]) -> Addresses {
    let widest = rows.iter().map(|(row, _)| place(&row.queue).len()).max().unwrap_or(0).max("LISTENER".len());
    Addresses { wanted: widest, most: widest }
}

/// For people: a line for each, and under one that is sick what there is to know first.
pub fn write_table(out: &mut impl Write, interval: &Interval<'_>, style: Style) -> io::Result<()> {
    let rows = interval.shown();
    let mut namespaces = interval.rows.iter().map(|(row, _)| row.queue.netns);
    let first = namespaces.next();
    let several = namespaces.any(|other| Some(other) != first);
    let columns = COLUMNS.iter().filter(|column| several || column.title != NETNS);
    let layout = Layout::new(columns, style.width, addresses(rows));
    let mut used = 0;
    for line in summary(interval) {
        writeln!(out, "{}", layout.cut(&line))?;
        used += 1;
    }
    writeln!(out, "{}", layout.heading(style.color))?;
    used += 1;
    let mut shown = 0;
    for (row, _) in rows {
        let mut lines = vec![row_line(&layout, row, interval.snapshot, style.color)];
        lines.extend(answer(row, style.width));
        let more = usize::from(shown + 1 < interval.rows.len());
        if style.height.is_some_and(|height| used + lines.len() + more > height) {
            break;
        }
        for line in &lines {
            writeln!(out, "{line}")?;
        }
        used += lines.len();
        shown += 1;
    }
    if shown < interval.rows.len() {
        writeln!(out, "{}", layout.cut(&format!("... and {} more", interval.rows.len() - shown)))?;
    }
    Ok(())
}

fn row_line(layout: &Layout<Cell>, row: &Row, snapshot: &Snapshot, color: bool) -> String {
    let of = Line { row, time: snapshot.time, seconds: snapshot.interval.as_secs_f64() };
    let line = layout.line(|column| (column.cell)(&of));
    // A verdict is one of our own words, of a byte for each cell.
    let name = row.verdict.level.name().len().min(line.len());
    let (verdict, rest) = line.split_at(name);
    paint(verdict, row.verdict.level, color) + rest
}

/// The first sentence of why, and the first of what to do.
fn answer(row: &Row, width: Option<usize>) -> Vec<String> {
    if !row.is_sick() {
        return Vec::new();
    }
    let first = |label: &str, sentences: &[String]| {
        let line = sentences.first().map(|sentence| format!("    {label}{}", printable(sentence)));
        line.into_iter().flat_map(|line| broken(&line, width, 9)).collect::<Vec<_>>()
    };
    [first("Why: ", &row.verdict.evidence), first("Do:  ", &row.verdict.advice)].concat()
}

/// The lines that a line becomes on a terminal.
pub(super) fn broken(line: &str, width: Option<usize>, indent: usize) -> Vec<String> {
    match width {
        Some(width) => wrap(line, width, indent),
        None => vec![line.to_owned()],
    }
}
