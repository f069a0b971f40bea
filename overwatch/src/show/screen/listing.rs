//! A list: rows of one kind in columns, of which only those are drawn that are seen.

use std::cmp::Ordering;

use ratatui::text::{Line, Span};

use super::{
    board::Board,
    theme::{Theme, Tone},
};
use crate::{
    model::{filter::Filter, snapshot::Key},
    show::layout::{Addresses, Column, Layout, MOST_ADDRESS, Width},
};

/// What names a row from one interval to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// A listening socket, by its number.
    Listener(u64),
    /// A connection.
    Connection(Key),
    /// A process.
    Process(u32),
    /// A transition, by its number.
    Transition(u64),
    /// A line of what overwatch says of itself.
    Fact(u64),
    /// None.
    Nothing,
}

/// By what a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// The place of the order; `None` for the list's own.
    pub by: Option<usize>,
    /// The other way round.
    pub reversed: bool,
}

/// A line of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What it says.
    pub text: String,
    /// And how.
    pub tone: Tone,
}

impl Text {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// How rows can be ordered, what is wanted first: large numbers, small names.
pub(super) struct Order<T: 'static> {
    /// Title of the column.
    pub(super) title: &'static str,
    pub(super) compare: fn(&T, &T) -> Ordering,
}

/// What a list does, whatever its rows are.
pub(super) trait Listing: Sync {
    /// Titles of all columns.
    fn titles(&self) -> Vec<&'static str>;

    /// Titles of those that it can be sorted by.
    fn orders(&self) -> Vec<&'static str>;

    /// Places of the rows that are wanted, in order.
    fn select(&self, board: &Board, filter: &Filter, sort: Sort) -> Vec<usize>;

    /// What names a row.
    fn id(&self, board: &Board, at: usize) -> Id;

    /// The heading, and the lines of some rows.
    fn draw(&self, board: &Board, seen: &Seen<'_>) -> (Line<'static>, Vec<Line<'static>>);

    /// What is to be said under the list of the row under the cursor.
    fn remark(&self, board: &Board, at: usize) -> Vec<Text>;

    /// The row for programs.
    fn json(&self, board: &Board, at: usize) -> String;

    /// Everything about it, for lines of so many cells; `None` when it has gone.
    fn story(&self, board: &Board, id: Id, width: usize) -> Option<Vec<Text>>;
}

/// What of a list is seen.
pub(super) struct Seen<'a> {
    /// Places of the rows.
    pub(super) rows: &'a [usize],
    pub(super) sort: Sort,
    /// Bits of the columns that are not wanted.
    pub(super) hidden: u64,
    pub(super) width: usize,
    pub(super) theme: Theme,
}

/// From a filter to the rows that it leaves.
pub(super) type Wanted<T> = for<'a> fn(&'a Board, &'a Filter) -> Box<dyn Fn(&T) -> bool + 'a>;

/// Rows of a kind. `F` is what finds the text of a cell.
pub(super) struct Table<T: 'static, F: 'static> {
    pub(super) columns: &'static [Column<F>],
    /// Cells of an address at least, so that columns do not move with what is seen.
    pub(super) least_address: usize,
    pub(super) text: fn(&F, &T, &Board) -> String,
    pub(super) orders: &'static [Order<T>],
    pub(super) rows: fn(&Board) -> &[T],
    /// The order that it has by itself, the smallest first. Numbers, since a hundred thousand rows are sorted in every interval.
    pub(super) rank: fn(&T) -> [u64; 3],
    pub(super) id: fn(&T) -> Id,
    /// What the filter leaves, worked out once for all rows.
    pub(super) wanted: Wanted<T>,
    pub(super) tone: fn(&T) -> Tone,
    pub(super) remark: fn(&T, &Board) -> Vec<Text>,
    pub(super) json: fn(&T, &Board) -> String,
    pub(super) story: fn(&T, &Board, usize) -> Vec<Text>,
}

/// Marks the column that the list is sorted by.
const SORTED: [char; 2] = ['v', '^'];

impl<T: Sync, F: Sync> Table<T, F> {
    fn row<'a>(&self, board: &'a Board, at: usize) -> Option<&'a T> {
        (self.rows)(board).get(at)
    }

    /// As wide as the widest address that is seen.
    fn addresses(&self, board: &Board, rows: &[usize]) -> Addresses {
        let columns = || self.columns.iter().filter(|column| matches!(column.width, Width::Address));
        let rows = rows.iter().filter_map(|at| self.row(board, *at));
        let widest =
            rows.flat_map(|row| columns().map(move |column| (self.text)(&column.cell, row, board).len())).max();
        let widest = widest.unwrap_or(0).clamp(self.least_address, MOST_ADDRESS);
        Addresses { wanted: widest, most: widest }
    }
}

impl<T: Sync, F: Sync> Listing for Table<T, F> {
    fn titles(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.title).collect()
    }

    fn orders(&self) -> Vec<&'static str> {
        self.orders.iter().map(|order| order.title).collect()
    }

    fn select(&self, board: &Board, filter: &Filter, sort: Sort) -> Vec<usize> {
        let rows = (self.rows)(board);
        let ranked = |at: usize| ((self.rank)(&rows[at]), at);
        let mut ranks: Vec<([u64; 3], usize)> = if *filter == Filter::default() {
            (0..rows.len()).map(ranked).collect()
        } else {
            let wanted = (self.wanted)(board, filter);
            (0..rows.len()).filter(|at| wanted(&rows[*at])).map(ranked).collect()
        };
        ranks.sort_unstable();
        let mut chosen: Vec<usize> = ranks.into_iter().map(|(_, at)| at).collect();
        if let Some(order) = sort.by.and_then(|at| self.orders.get(at)) {
            // Stable: what is equal stays in the list's own order.
            chosen.sort_by(|one, two| (order.compare)(&rows[*one], &rows[*two]));
        }
        if sort.reversed {
            chosen.reverse();
        }
        chosen
    }

    fn id(&self, board: &Board, at: usize) -> Id {
        self.row(board, at).map_or(Id::Nothing, self.id)
    }

    fn draw(&self, board: &Board, seen: &Seen<'_>) -> (Line<'static>, Vec<Line<'static>>) {
        let wanted = self.columns.iter().enumerate().filter(|(at, _)| seen.hidden & (1 << at) == 0);
        let addresses = self.addresses(board, seen.rows);
        let layout = Layout::new(wanted.map(|(_, column)| column), Some(seen.width), addresses);
        let sorted = seen.sort.by.and_then(|at| self.orders.get(at)).map(|order| order.title);
        let heading = layout.line(|column| {
            let mark = SORTED[usize::from(seen.sort.reversed)];
            if Some(column.title) == sorted { format!("{}{mark}", column.title) } else { column.title.to_owned() }
        });
        let lines = seen.rows.iter().filter_map(|at| self.row(board, *at)).map(|row| {
            let line = layout.line(|column| (self.text)(&column.cell, row, board));
            Line::from(Span::styled(line, seen.theme.of((self.tone)(row))))
        });
        (Line::from(Span::styled(heading, seen.theme.of(Tone::Strong))), lines.collect())
    }

    fn remark(&self, board: &Board, at: usize) -> Vec<Text> {
        self.row(board, at).map(|row| (self.remark)(row, board)).unwrap_or_default()
    }

    fn json(&self, board: &Board, at: usize) -> String {
        self.row(board, at).map(|row| (self.json)(row, board)).unwrap_or_default()
    }

    fn story(&self, board: &Board, id: Id, width: usize) -> Option<Vec<Text>> {
        let row = (self.rows)(board).iter().find(|row| (self.id)(row) == id)?;
        Some((self.story)(row, board, width))
    }
}
