//! How tables for people are laid out: which columns fit on a line, and how wide they are.

use super::text::fit;

/// One column. `F` finds the text of a cell.
pub(super) struct Column<F> {
    pub(super) title: &'static str,
    pub(super) width: Width,
    pub(super) right: bool,
    pub(super) cell: F,
}

pub(super) const fn column<F>(title: &'static str, width: Width, right: bool, cell: F) -> Column<F> {
    Column { title, width, right, cell }
}

/// How wide a column is, and what becomes of it on a narrow screen.
#[derive(Clone, Copy)]
pub(super) enum Width {
    /// So many cells, always.
    Fixed(usize),
    /// So many cells, or none: the columns with the lowest rank go first.
    Spare(usize, u8),
    /// From the smaller to the larger number of cells.
    Between(usize, usize),
    /// As wide as [`Addresses`] says. Cut at its beginning, since a port that is cut would be another port.
    Address,
}

/// How wide addresses are.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    /// Spare columns make room for so many cells.
    pub(super) wanted: usize,
    /// What is left may widen them up to so many.
    pub(super) most: usize,
}

/// An IPv4 address with its port.
pub(super) const LEAST_ADDRESS: usize = 21;
/// An IPv6 address with its port.
pub(super) const MOST_ADDRESS: usize = 47;

/// The columns that fit, with their widths.
pub(super) struct Layout<F: 'static> {
    columns: Vec<(&'static Column<F>, usize)>,
    width: Option<usize>,
}

impl<F> Layout<F> {
    /// For lines of so many cells; `None` when nobody knows, so that nothing is cut: a long address moves what follows it.
    pub(super) fn new(
        all: impl IntoIterator<Item = &'static Column<F>>,
        width: Option<usize>,
        addresses: Addresses,
    ) -> Self {
        let columns = all.into_iter().map(|column| {
            let cells = match column.width {
                Width::Fixed(cells) | Width::Spare(cells, _) | Width::Between(_, cells) => cells,
                Width::Address => addresses.wanted,
            };
            (column, cells)
        });
        let mut layout = Self { columns: columns.collect(), width };
        if let Some(width) = width {
            layout.drop_spare(width);
            layout.narrow(width);
            layout.widen_addresses(width, addresses.most);
        }
        layout
    }

    fn used(&self) -> usize {
        self.columns.iter().map(|(_, cells)| cells + 1).sum::<usize>().saturating_sub(1)
    }

    fn drop_spare(&mut self, width: usize) {
        let rank = |column: &Column<F>| match column.width {
            Width::Spare(_, rank) => Some(rank),
            _ => None,
        };
        while self.used() > width
            && let Some(lowest) = self.columns.iter().filter_map(|(column, _)| rank(column)).min()
        {
            self.columns.retain(|(column, _)| rank(column) != Some(lowest));
        }
    }

    fn narrow(&mut self, width: usize) {
        let mut excess = self.used().saturating_sub(width);
        for (column, cells) in &mut self.columns {
            let least = match column.width {
                Width::Between(least, _) => least,
                Width::Address => LEAST_ADDRESS.min(*cells),
                Width::Fixed(_) | Width::Spare(..) => continue,
            };
            let taken = excess.min(*cells - least);
            *cells -= taken;
            excess -= taken;
        }
    }

    fn widen_addresses(&mut self, width: usize, most: usize) {
        let is_address = |column: &Column<F>| matches!(column.width, Width::Address);
        let mut left = self.columns.iter().filter(|(column, _)| is_address(column)).count();
        let mut room = width.saturating_sub(self.used());
        for (_, cells) in self.columns.iter_mut().filter(|(column, _)| is_address(column)) {
            let given = (room / left).min(most - *cells);
            *cells += given;
            room -= given;
            left -= 1;
        }
    }

    /// The line of titles.
    pub(super) fn heading(&self, color: bool) -> String {
        let heading = self.line(|column| column.title.to_owned());
        if color { format!("\x1b[1m{heading}\x1b[0m") } else { heading }
    }

    /// A line with the text of each column.
    pub(super) fn line(&self, text: impl Fn(&Column<F>) -> String) -> String {
        let cells = self.columns.iter().map(|(column, cells)| self.cell(column, &text(column), *cells));
        self.cut(&cells.collect::<Vec<_>>().join(" "))
    }

    /// Any other line, no longer than those of the table.
    pub(super) fn cut(&self, line: &str) -> String {
        match self.width {
            Some(width) => fit(line, width, false).trim_end().to_owned(),
            None => line.trim_end().to_owned(),
        }
    }

    fn cell(&self, column: &Column<F>, text: &str, cells: usize) -> String {
        let length = text.chars().count();
        if matches!(column.width, Width::Address) && length > cells {
            if self.width.is_none() {
                return text.to_owned();
            }
            let tail: String = text.chars().skip(length - cells.saturating_sub(1)).collect();
            return format!("…{tail}");
        }
        fit(text, cells, column.right)
    }
}
