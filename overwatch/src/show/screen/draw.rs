//! From what there is to cells of the terminal.

use std::time::SystemTime;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Sparkline},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    board::Board,
    keys::{BINDINGS, Place},
    listing::{Seen, Text},
    state::{Mode, State},
    theme::{Theme, Tone},
    views::{LISTENERS, VIEWS},
};
use crate::{
    model::verdict::{Cause, Level},
    show::{
        listeners::place,
        text::{bytes, count, duration, fit, printable, time_of_day, wrap},
    },
};

/// From so many lines on there is room for the history.
const HISTORY_FROM: u16 = 18;
/// Between pieces of the header.
const GAP: &str = "  ";
/// So many lines has what is said of the row under the cursor at most.
const REMARK_LINES: usize = 4;

/// Draws everything; the first line of the list is where clicks are counted from.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, board: &Board, now: SystemTime, theme: Theme) -> u16 {
    let area = frame.area();
    let history = u16::from(area.height >= HISTORY_FROM);
    let rows = [
        Constraint::Length(1),
        Constraint::Length(history),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [head, past, tabs, body, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(header(board, now, state, theme, head.width.into())), head);
    if history == 1 {
        sparklines(frame, past, board, theme);
    }
    frame.render_widget(Paragraph::new(tab_line(state, board, theme)), tabs);
    let first = if state.story.is_some() {
        story(frame, body, state, board, theme);
        body.y
    } else {
        list(frame, body, state, board, theme)
    };
    frame.render_widget(Paragraph::new(footer(state, theme, foot.width.into())), foot);
    over(frame, body, state, theme);
    first
}

/// A piece of the header.
struct Piece {
    text: String,
    tone: Tone,
    /// Where there is no room for all, those with the lowest go first.
    rank: u8,
}

/// The host in a line.
fn header(board: &Board, now: SystemTime, state: &State, theme: Theme, width: usize) -> Line<'static> {
    let piece = |text: String, tone, rank| Piece { text, tone, rank };
    let mut pieces = vec![piece(printable(&board.host), Tone::Strong, 2)];
    let lost: u64 = board.itself.lost.iter().map(|(_, lost)| lost).sum();
    if lost > 0 {
        pieces.push(piece(format!("LOST {}", count(lost)), Tone::Alarm, 7));
    }
    pieces.push(piece(format!("{}Z", &time_of_day(board.time)[..8]), Tone::Plain, 1));
    if state.is_paused() {
        let age = now.duration_since(board.time).unwrap_or_default();
        pieces.push(piece(format!("PAUSED, {} old", duration(age)), Tone::Warning, 6));
    }
    let (text, tone) = worst(board);
    pieces.push(piece(text, tone, 5));
    let (moved, rate) = (board.moved, |number: u64| bytes(number as f64 / board.seconds()));
    pieces.push(piece(format!("sent {}/s recv {}/s", rate(moved.sent), rate(moved.received)), Tone::Plain, 4));
    pieces.push(piece(format!("{} conns", count(board.open)), Tone::Plain, 3));
    pieces.push(piece(format!("every {}", duration(state.interval)), Tone::Weak, 0));
    let cells = |pieces: &[Piece]| pieces.iter().map(|piece| piece.text.width() + GAP.len()).sum::<usize>();
    while cells(&pieces) > width + GAP.len()
        && let Some(lowest) = pieces.iter().map(|piece| piece.rank).min()
        && pieces.len() > 1
    {
        pieces.retain(|piece| piece.rank != lowest);
    }
    let spans = pieces.into_iter().flat_map(|piece| [Span::styled(piece.text, theme.of(piece.tone)), Span::raw(GAP)]);
    Line::from(spans.collect::<Vec<_>>())
}

fn worst(board: &Board) -> (String, Tone) {
    match board.listeners.first().filter(|row| row.verdict.level > Level::Ok) {
        Some(row) => {
            let verdict = &row.verdict;
            let cause = if verdict.cause == Cause::None { "" } else { verdict.cause.name() };
            let text = format!("{} {} {cause}", place(&row.queue), verdict.level.name());
            (text.trim_end().to_owned(), verdict.level.into())
        }
        None if board.intervals == 0 => ("...".to_owned(), Tone::Weak),
        None if !board.itself.looks => ("listeners are not known".to_owned(), Tone::Warning),
        None => ("all listeners ok".to_owned(), Tone::Notice),
    }
}

/// The last two minutes, each as high as its own highest.
fn sparklines(frame: &mut Frame<'_>, area: Rect, board: &Board, theme: Theme) {
    let history = &board.history;
    let waiting = history.waiting.last(1).first().map_or_else(|| "-".to_owned(), |waiting| count(*waiting));
    let series = [
        ("sent ".to_owned(), &history.sent, Tone::Notice),
        (" recv ".to_owned(), &history.received, Tone::Notice),
        (format!(" waiting {waiting} "), &history.waiting, Tone::Alarm),
    ];
    let columns = Layout::horizontal([Constraint::Ratio(1, 3); 3]).split(area);
    for ((label, numbers, tone), column) in series.into_iter().zip(columns.iter()) {
        let [name, graph] =
            Layout::horizontal([Constraint::Length(label.len() as u16), Constraint::Min(0)]).areas(*column);
        frame.render_widget(Paragraph::new(Span::styled(label, theme.of(Tone::Weak))), name);
        // The newest stands at the right edge.
        let numbers = numbers.last(graph.width.into());
        let empty = usize::from(graph.width) - numbers.len().min(graph.width.into());
        let data: Vec<u64> = std::iter::repeat_n(0, empty).chain(numbers).collect();
        frame.render_widget(Sparkline::default().data(data).style(theme.of(tone)), graph);
    }
}

fn tab_line(state: &State, board: &Board, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, view) in VIEWS.iter().enumerate() {
        let style = if at == state.view { theme.cursor() } else { Style::new() };
        spans.push(Span::styled(format!("{} {}", at + 1, view.name), style));
        spans.push(Span::raw(" "));
    }
    if !state.typed.is_empty() {
        spans.push(Span::styled(format!(" only: {}", printable(&state.typed)), theme.of(Tone::Warning)));
    }
    if board.left_out > 0 {
        spans.push(Span::styled(format!(" {} that ended have no row", count(board.left_out)), theme.of(Tone::Warning)));
    }
    Line::from(spans)
}

fn list(frame: &mut Frame<'_>, area: Rect, state: &mut State, board: &Board, theme: Theme) -> u16 {
    let width = usize::from(area.width);
    let remark = remark(state, board, width);
    let below = (remark.len() as u16).min(area.height.saturating_sub(4));
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(below)];
    let [head, body, under] = Layout::vertical(rows).areas(area);
    resize(state, board, body);
    let view = state.view();
    let place = state.place();
    let last = state.rows.len().min(place.top + usize::from(body.height));
    let seen =
        Seen { rows: &state.rows[place.top.min(last)..last], sort: place.sort, hidden: place.hidden, width, theme };
    let (heading, mut lines) = view.listing.draw(board, &seen);
    if let Some(line) = lines.get_mut(place.at.saturating_sub(place.top)) {
        let text = fit(&line.to_string(), width, false);
        let style = line.spans.first().map(|span| span.style).unwrap_or_default();
        *line = Line::from(Span::styled(text, style.patch(theme.cursor())));
    }
    if lines.is_empty() {
        let why = match state.typed.as_str() {
            _ if state.view == LISTENERS && !board.itself.looks && board.intervals > 0 => {
                "this kernel does not let overwatch look at its listening sockets: view 5 says why"
            }
            "" => view.nothing,
            _ => "nothing is like that: Esc shows all",
        };
        lines.push(Line::from(Span::styled(format!("  {why}"), theme.of(Tone::Weak))));
    }
    frame.render_widget(Paragraph::new(heading), head);
    frame.render_widget(Paragraph::new(lines), body);
    frame.render_widget(Paragraph::new(styled(&remark, theme)), under);
    body.y
}

/// What is said of the row under the cursor, in lines.
fn remark(state: &State, board: &Board, width: usize) -> Vec<Text> {
    let said = state.current().map(|at| state.view().listing.remark(board, at)).unwrap_or_default();
    let lines =
        said.iter().flat_map(|text| wrap(&text.text, width, 5).into_iter().map(|line| Text::new(line, text.tone)));
    let mut lines: Vec<Text> = lines.collect();
    if lines.len() > REMARK_LINES {
        lines.truncate(REMARK_LINES);
        if let Some(last) = lines.last_mut() {
            last.text = format!("{} ...", fit(&last.text, width.saturating_sub(4), false).trim_end());
        }
    }
    lines
}

/// What fits is another number of lines now.
fn resize(state: &mut State, board: &Board, area: Rect) {
    let (room, width) = (usize::from(area.height), usize::from(area.width));
    if (state.room, state.width) != (room, width) {
        (state.room, state.width) = (room, width);
        state.look(board);
    }
}

fn story(frame: &mut Frame<'_>, area: Rect, state: &mut State, board: &Board, theme: Theme) {
    resize(state, board, area);
    let Some(story) = &state.story else { return };
    let mut lines = styled(&story.said[story.top.min(story.said.len())..], theme);
    lines.truncate(area.height.into());
    frame.render_widget(Paragraph::new(lines), area);
}

fn styled(texts: &[Text], theme: Theme) -> Vec<Line<'static>> {
    texts.iter().map(|text| Line::from(Span::styled(text.text.clone(), theme.of(text.tone)))).collect()
}

/// The keys that matter now, as many as fit; or what there is to say.
fn footer(state: &State, theme: Theme, width: usize) -> Line<'static> {
    match &state.mode {
        Mode::Typing(typed) => return prompt(typed, state, theme),
        Mode::Help(_) => return keys(&[("Up Down", "the rest"), ("any other key", "back")], width, theme),
        Mode::Columns(_) => {
            return keys(&[("Space", "shows or hides"), ("Up Down", "another"), ("Esc", "done")], width, theme);
        }
        Mode::Normal => {}
    }
    if let Some(message) = &state.message {
        return Line::from(Span::styled(fit(&printable(message), width, false), theme.of(Tone::Notice)));
    }
    let here = if state.story.is_some() { Place::Story } else { Place::List };
    let hints = BINDINGS.iter().filter(|binding| binding.place == Place::Everywhere || binding.place == here);
    let first = |label: &'static str| label.split(' ').next().unwrap_or_default();
    keys(&hints.map(|binding| (first(binding.label), binding.hint)).collect::<Vec<_>>(), width, theme)
}

/// Keys and what they do, as many as fit.
fn keys(hints: &[(&'static str, &'static str)], width: usize, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for (label, hint) in hints {
        let cells = label.len() + hint.len() + 3;
        if used + cells > width {
            break;
        }
        used += cells;
        spans.push(Span::styled(*label, theme.of(Tone::Strong)));
        spans.push(Span::raw(format!(" {hint}  ")));
    }
    Line::from(spans)
}

/// The filter while it is typed.
fn prompt(typed: &str, state: &State, theme: Theme) -> Line<'static> {
    let usual = if typed.is_empty() {
        "443, nginx, 10.0.0.0/8, or: pid comm port lport rport addr cgroup netns 4 6"
    } else {
        "Enter: show only these   Esc: as before"
    };
    let said = state.message.as_deref().unwrap_or(usual);
    Line::from(vec![
        Span::styled("/", theme.of(Tone::Strong)),
        Span::raw(printable(typed)),
        Span::styled(" ", theme.cursor()),
        Span::styled(format!("  {}", printable(said)), theme.of(Tone::Warning)),
    ])
}

/// What stands over the list: help, or the columns.
fn over(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let (title, lines, top) = match state.mode {
        Mode::Help(top) => (" Keys ", help(theme), top),
        Mode::Columns(at) => (" Columns ", columns(state, at, theme), (at + 3).saturating_sub(area.height.into())),
        Mode::Normal | Mode::Typing(_) => return,
    };
    let width = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len()) + 4;
    let (width, height) = (area.width.min(width as u16), area.height.min(lines.len() as u16 + 2));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let room = usize::from(height.saturating_sub(2));
    let top = top.min(lines.len().saturating_sub(room));
    let lines: Vec<Line<'static>> = lines.into_iter().skip(top).take(room).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), place);
}

fn help(theme: Theme) -> Vec<Line<'static>> {
    let of = |binding: &super::keys::Binding| {
        Line::from(vec![
            Span::styled(format!(" {:<10} ", binding.label), theme.of(Tone::Strong)),
            Span::raw(format!("{} ", binding.help)),
        ])
    };
    BINDINGS.iter().map(of).collect()
}

fn columns(state: &State, at: usize, theme: Theme) -> Vec<Line<'static>> {
    let hidden = state.place().hidden;
    let titles = state.view().listing.titles().into_iter().enumerate();
    let of = |(number, title): (usize, &str)| {
        let mark = if hidden & (1 << number) == 0 { "x" } else { " " };
        let style = if number == at { theme.cursor() } else { Style::new() };
        Line::from(Span::styled(format!(" [{mark}] {title} "), style))
    };
    titles.map(of).collect()
}
