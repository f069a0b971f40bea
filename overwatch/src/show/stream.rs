//! One line for each thing that happens, for as long as things happen.

use std::io::{self, Write};

use super::{
    columns::{Column, Value},
    csv, json,
    layout::{self, Addresses, LEAST_ADDRESS, Layout, MOST_ADDRESS},
};

#[cfg(test)]
mod tests;

/// What is in a cell of the table for people.
pub(super) type Cell<T> = fn(&T) -> String;

/// What a stream is of: lines that stand for a `T`, and between them word of lines that are missing, each an `L`.
pub struct Shape<T: 'static, L: 'static> {
    pub(super) columns: &'static [Column<T>],
    pub(super) lost: &'static [Column<L>],
    pub(super) table: &'static [layout::Column<Cell<T>>],
    pub(super) lost_line: fn(&L) -> String,
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table {
        /// Colour may be used.
        color: bool,
        /// Cells in a line; `None` when nobody knows, so that nothing is cut.
        width: Option<usize>,
    },
    /// One object per line.
    Json,
    /// With a heading.
    Csv,
}

/// Writes lines. The widths of a table's columns stay as they are, whatever comes.
pub struct Stream<T: 'static, L: 'static> {
    shape: &'static Shape<T, L>,
    format: Format,
    layout: Layout<Cell<T>>,
}

/// CSV column behind those of a line, filled only in a record of what is missing.
const BEHIND: &str = "lost_events";

impl<T, L> Stream<T, L> {
    /// A stream of this shape.
    pub fn new(shape: &'static Shape<T, L>, format: Format) -> Self {
        let width = match format {
            Format::Table { width, .. } => width,
            Format::Json | Format::Csv => None,
        };
        let addresses = Addresses { wanted: LEAST_ADDRESS, most: MOST_ADDRESS };
        Self { shape, format, layout: Layout::new(shape.table, width, addresses) }
    }

    /// Writes what stands before all lines.
    pub fn write_heading(&self, out: &mut impl Write) -> io::Result<()> {
        match self.format {
            Format::Table { color, .. } => writeln!(out, "{}", self.layout.heading(color)),
            Format::Json => Ok(()),
            Format::Csv => csv::record(out, self.shape.columns.iter().map(|column| column.key.name).chain([BEHIND])),
        }
    }

    /// Writes lines, each with the path of its process's control group, where known.
    pub fn write_lines(&self, out: &mut impl Write, lines: &[(&T, Option<&str>)]) -> io::Result<()> {
        for (line, cgroup) in lines {
            match self.format {
                Format::Table { .. } => writeln!(out, "{}", self.layout.line(|column| (column.cell)(line)))?,
                Format::Json => json::write_line(out, &json::Object(self.shape.columns, *line, *cgroup))?,
                Format::Csv => {
                    csv::record(out, csv::fields(self.shape.columns, *line, *cgroup).chain([String::new()]))?;
                }
            }
        }
        Ok(())
    }

    /// Writes that lines are missing. In CSV that is a record with the word `lost` as its name.
    pub fn write_lost(&self, out: &mut impl Write, lost: &L) -> io::Result<()> {
        match self.format {
            Format::Table { .. } => writeln!(out, "{}", self.layout.cut(&(self.shape.lost_line)(lost))),
            Format::Json => json::write_line(out, &json::Object(self.shape.lost, lost, None)),
            Format::Csv => {
                let value = |name: &str| {
                    let column = self.shape.lost.iter().find(|column| column.key.name == name);
                    csv::field(column.map_or(Value::Null, |column| (column.value)(lost, None)))
                };
                let fields = self.shape.columns.iter().map(|column| match column.key.name {
                    "comm" => "lost".to_owned(),
                    name => value(name),
                });
                csv::record(out, fields.chain([value(BEHIND)]))
            }
        }
    }
}
