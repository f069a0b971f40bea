//! The whole story of a listening socket.

use std::io::{self, Write};

use super::{
    cells::{endpoint, known, state},
    layout::{
        Addresses, Column, LEAST_ADDRESS, Layout, MOST_ADDRESS,
        Width::{Address, Fixed, Spare},
        column,
    },
    listeners::{Interval, Style, age, broken, cause, netns, paint, place, processes, rate, summary},
    text::{bytes, count, duration, fit, printable},
};
use crate::model::{
    queue::{BacklogOrigin, Count, Holder, Queue, Row, Snapshot, Waiting},
    verdict::Cause,
};

#[cfg(test)]
mod tests;

/// What is in a cell of a small table.
type Cell<T> = fn(&T) -> String;

/// Values begin behind so many cells.
const LABEL_CELLS: usize = 18;

/// Writes what is known of each row. `nothing` says why there is none, where there is none.
pub fn write(out: &mut impl Write, interval: &Interval<'_>, style: Style, nothing: &str) -> io::Result<()> {
    let mut page = Page { lines: Vec::new(), width: style.width };
    for line in summary(interval) {
        page.line(&line, 2);
    }
    if interval.rows.is_empty() {
        page.line(nothing, 2);
    }
    for (row, cgroup) in interval.shown() {
        page.line("", 0);
        story(&mut page, row, *cgroup, interval.snapshot, style.color);
    }
    let unseen = interval.rows.len() - interval.shown().len();
    if unseen > 0 {
        page.line("", 0);
        page.line(&format!("... and {unseen} more"), 2);
    }
    let room = style.height.filter(|height| page.lines.len() > *height).map(|height| height.saturating_sub(1));
    for line in &page.lines[..room.unwrap_or(page.lines.len())] {
        writeln!(out, "{line}")?;
    }
    if let Some(room) = room {
        let more = format!("... and {} more lines: `listeners 1 1 --explain` prints them all", page.lines.len() - room);
        let more = Page::of(&more, style.width);
        more.lines.iter().take(1).try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(())
}

/// What there is to say of one, in parts.
pub(super) struct Parts {
    /// How bad it is, why, and what to do.
    pub(super) verdict: Vec<String>,
    /// Who waits.
    pub(super) waiting: Vec<String>,
    /// Who listens.
    pub(super) processes: Vec<String>,
    /// All numbers.
    pub(super) numbers: Vec<String>,
}

/// What the page says of one of them, taken apart.
pub(super) fn parts(row: &Row, cgroup: Option<&str>, snapshot: &Snapshot, width: usize) -> Parts {
    let of = |write: &dyn Fn(&mut Page)| {
        let mut page = Page { lines: Vec::new(), width: Some(width) };
        write(&mut page);
        page.lines
    };
    Parts {
        verdict: of(&|page| judged(page, row, snapshot, false)),
        waiting: of(&|page| waiting_clients(page, &row.queue)),
        processes: of(&|page| listening_processes(page, &row.queue)),
        numbers: of(&|page| all_numbers(page, row, cgroup, snapshot)),
    }
}

/// Lines, none of them wider than the terminal.
struct Page {
    lines: Vec<String>,
    width: Option<usize>,
}

impl Page {
    fn of(line: &str, width: Option<usize>) -> Self {
        let mut page = Self { lines: Vec::new(), width };
        page.line(line, 0);
        page
    }

    /// A line; what does not fit goes on in the next one, indented.
    fn line(&mut self, line: &str, indent: usize) {
        self.lines.extend(broken(line, self.width, indent));
    }

    /// A number with its name.
    fn value(&mut self, label: &str, value: &str) {
        self.line(&format!("  {label:<width$}{value}", width = LABEL_CELLS - 2), LABEL_CELLS);
    }

    /// A small table, indented.
    fn table<T>(&mut self, columns: &'static [Column<Cell<T>>], rows: &[T]) {
        let addresses = Addresses { wanted: LEAST_ADDRESS, most: MOST_ADDRESS };
        let layout = Layout::new(columns, self.width.map(|width| width.saturating_sub(2)), addresses);
        self.lines.push(format!("  {}", layout.heading(false)));
        self.lines.extend(rows.iter().map(|row| format!("  {}", layout.line(|column| (column.cell)(row)))));
        if let Some(width) = self.width {
            let begin = self.lines.len() - rows.len() - 1;
            for line in &mut self.lines[begin..] {
                *line = fit(line, width, false).trim_end().to_owned();
            }
        }
    }
}

#[rustfmt::skip]
const WAITING: &[Column<Cell<Waiting>>] = &[
    column("WAITING", Fixed(7), true, |client| known(client.waiting, duration)),
    column("CLIENT", Address, false, |client| endpoint(client.remote_addr, client.remote_port)),
    column("UNREAD", Fixed(8), true, |client| bytes(f64::from(client.unread_bytes))),
    column("STATE", Spare(11, 1), false, |client| state(client.state)),
    column("", Fixed(4), false, |client| if client.is_gone() { "gone".to_owned() } else { String::new() }),
];

#[rustfmt::skip]
const PROCESSES: &[Column<Cell<Holder>>] = &[
    column("PID", Fixed(7), true, |holder| holder.pid.to_string()),
    column("COMM", Fixed(15), false, |holder| printable(&holder.comm)),
    column("THREADS", Fixed(7), true, |holder| known(holder.threads, |threads| threads.total.to_string())),
    column("RUN", Spare(4, 4), true, |holder| known(holder.threads, |threads| count(threads.running.into()))),
    column("SLEEP", Spare(5, 3), true, |holder| known(holder.threads, |threads| count(threads.sleeping.into()))),
    column("DISK", Spare(4, 3), true, |holder| known(holder.threads, |threads| count(threads.uninterruptible.into()))),
    column("STOP", Spare(4, 4), true, |holder| known(holder.threads, |threads| count(threads.stopped.into()))),
    column("ON-CPU", Spare(7, 2), true, |holder| known(holder.on_cpu, duration)),
    column("FILES", Spare(9, 5), true, files),
    column("THROTTLED", Spare(9, 1), true, |holder| known(holder.throttling, |of| duration(of.throttled))),
];

fn files(holder: &Holder) -> String {
    match (holder.open_files, holder.open_files_limit) {
        (None, None) => known(None, count),
        (open, limit) => format!("{}/{}", known(open, count), known(limit, count)),
    }
}

fn story(page: &mut Page, row: &Row, cgroup: Option<&str>, snapshot: &Snapshot, color: bool) {
    judged(page, row, snapshot, color);
    all_numbers(page, row, cgroup, snapshot);
    waiting_clients(page, &row.queue);
    listening_processes(page, &row.queue);
}

fn judged(page: &mut Page, row: &Row, snapshot: &Snapshot, color: bool) {
    let (queue, verdict) = (&row.queue, &row.verdict);
    let mut title = format!("{}  {}", place(queue), verdict.level.name());
    if let Some(cause) = cause(row) {
        title = format!("{title}: {cause}");
    }
    if let Some(age) = age(row, snapshot.time) {
        title = format!("{title}, for {}", duration(age));
    }
    let title = broken(&format!("{title}  {}", processes(&queue.holders)), page.width, 2);
    page.lines.extend(title.iter().map(|line| paint(line, verdict.level, color)));
    sentences(page, "Why:", &verdict.evidence);
    sentences(page, "What to do:", &verdict.advice);
    if verdict.cause != Cause::None {
        page.line(&format!("More: docs/runbooks/{}.md", verdict.cause.name()), 2);
    }
}

fn all_numbers(page: &mut Page, row: &Row, cgroup: Option<&str>, snapshot: &Snapshot) {
    page.line("Numbers:", 0);
    for (label, value) in numbers(row, cgroup, snapshot) {
        page.value(label, &value);
    }
}

fn waiting_clients(page: &mut Page, queue: &Queue) {
    if !queue.waiting.is_empty() {
        page.line("Waiting clients:", 0);
        page.table(WAITING, &queue.waiting);
        let unseen = queue.waiting_total.saturating_sub(queue.waiting.len() as u64);
        if unseen > 0 {
            page.line(&format!("  ... and {unseen} more"), 4);
        }
    }
}

fn listening_processes(page: &mut Page, queue: &Queue) {
    if !queue.holders.is_empty() {
        page.line("Processes:", 0);
        page.table(PROCESSES, &queue.holders);
    }
}

fn sentences(page: &mut Page, title: &str, sentences: &[String]) {
    if !sentences.is_empty() {
        page.line(title, 0);
    }
    for sentence in sentences {
        page.line(&format!("  - {}", printable(sentence)), 4);
    }
}

fn numbers(row: &Row, cgroup: Option<&str>, snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let queue = &row.queue;
    let seconds = snapshot.interval.as_secs_f64();
    let counted = |of: Count| format!("{} ({}/s), {} in all", of.interval, rate(of.interval, seconds), of.total);
    let unseen = || "not visible on this host".to_owned();
    let begin = |since| format!("since {}", humantime::format_rfc3339_seconds(since));
    let mut numbers = vec![
        ("accept queue", accept_queue(queue)),
        ("its limit", limit(queue)),
        ("served", served(row)),
        ("arrived", queue.by_accepts(queue.arrivals).map_or_else(unseen, counted)),
        ("accepted", queue.by_accepts(queue.accepts).map_or_else(unseen, counted)),
        ("waited", waited(queue)),
    ];
    match queue.overflows_by_packet() {
        Some((at_syn, at_ack)) => {
            numbers.extend([("refused at SYN", counted(at_syn)), ("refused at ACK", counted(at_ack))]);
        }
        None => numbers.push(("refused", format!("{}, at the SYN or at the last ACK", counted(queue.overflows())))),
    }
    numbers.extend([
        ("other drops", counted(queue.other_drops)),
        ("SYN queue", syn_queue(queue)),
        ("SYN queue full", queue.syn_queue_overflows.map_or_else(unseen, counted)),
        ("SYN cookies", queue.syn_cookies.map_or_else(unseen, counted)),
        ("tcp_syncookies", known(queue.syncookies, |value| value.to_string())),
        ("listening", queue.listening_since.map_or_else(|| "since before overwatch".to_owned(), begin)),
        ("socket", known(queue.inode, |inode| format!("inode {inode}"))),
        ("namespace", known(netns(queue), |inode| inode.to_string())),
        ("control group", known(cgroup, printable)),
    ]);
    if !queue.overflows_exact {
        numbers.push(("note", "refusals are worked out from the drops of the socket and the namespace".to_owned()));
    }
    if queue.siblings > 0 {
        numbers.push(("siblings", format!("{} more sockets listen at this address (SO_REUSEPORT)", queue.siblings)));
    }
    numbers
}

fn accept_queue(queue: &Queue) -> String {
    let full = if queue.is_full() { ", full" } else { "" };
    let oldest = queue.oldest_wait().map_or(String::new(), |wait| format!(", the oldest for {}", duration(wait)));
    format!("{}{full}{oldest}; at most {} in this interval", queue.accept_queue, queue.accept_queue_peak)
}

fn limit(queue: &Queue) -> String {
    let limit = queue.backlog_limit;
    match (queue.backlog_origin(), queue.somaxconn) {
        (Some(BacklogOrigin::Somaxconn), _) => format!("{limit}, which is net.core.somaxconn"),
        (Some(BacklogOrigin::Listen), Some(somaxconn)) => {
            format!("{limit}, as listen() was called; net.core.somaxconn is {somaxconn}")
        }
        _ => format!("{limit}; net.core.somaxconn is not known"),
    }
}

fn served(row: &Row) -> String {
    let serving = row.queue.serving.map_or_else(|| "not known".to_owned(), |serving| format!("{serving} now"));
    let ceiling =
        row.verdict.serving_ceiling.map_or(String::new(), |ceiling| format!(", and never more than {ceiling}"));
    let ended = row.queue.by_accepts(row.queue.served).map(|served| format!("; {served} ended in this interval"));
    format!("{serving}{ceiling}{}", ended.unwrap_or_default())
}

fn waited(queue: &Queue) -> String {
    match queue.accept_waits {
        None => "nobody was accepted, or it is not known".to_owned(),
        Some(waits) => format!(
            "half up to {}, 90 % up to {}, 99 % up to {}, the longest {}",
            duration(waits.p50),
            duration(waits.p90),
            duration(waits.p99),
            duration(waits.max)
        ),
    }
}

fn syn_queue(queue: &Queue) -> String {
    known(queue.syn_queue, |of| {
        let defers = if of.defers_accept { "; TCP_DEFER_ACCEPT keeps silent clients here" } else { "" };
        format!("{}, of these {} had their SYN-ACK sent again{defers}", of.length, of.old)
    })
}
