//! What verbs do alike that show something at the end of each interval: when they show it, and how one output follows another.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use crossterm::{cursor::MoveTo, queue, terminal};
use tokio::time::{Instant, interval, interval_at};

use super::{
    Failure,
    args::{self, Pace},
    output::Output,
    watch::{self, EVERY, Watch, every},
};
use crate::collect::Session;

/// What a verb does with a session.
pub(super) trait Follow<S = Session> {
    /// Ends an interval and writes what it was.
    fn show(&mut self, session: &mut S) -> Result<Vec<u8>, Failure>;

    /// Takes in what has happened so far. Also called while the reader stands still.
    fn keep_up(&mut self, session: &mut S) -> Result<(), Failure>;
}

/// Follows what happens until it was shown often enough, or somebody says that it is.
pub(super) async fn follow<S>(watch: &mut Watch<S>, pace: &Pace, verb: &mut impl Follow<S>) -> Result<(), Failure> {
    let mut outputs = every(interval_at(Instant::now() + pace.interval, pace.interval));
    let mut ticks = every(interval(EVERY));
    let mut left = pace.count;
    let mut output = Output::start();
    loop {
        tokio::select! {
            biased;
            () = watch.told_to_end() => break,
            result = output.written(), if output.is_waiting() => {
                result.context("cannot write to standard output").map_err(Failure::Running)?;
                if left == Some(0) {
                    break;
                }
            }
            // While the reader stands still, the interval grows.
            _ = outputs.tick(), if !output.is_waiting() => {
                output.send(verb.show(&mut watch.session)?)?;
                left = left.map(|left| left - 1);
            }
            _ = ticks.tick() => verb.keep_up(&mut watch.session)?,
        }
    }
    watch::written_in_time(&mut output).await
}

/// What outputs are written on. A table on a terminal is written over the one before it, and cut to the terminal's height, only while
/// it is watched: with a number of intervals it is read, perhaps later in the scrollback, so that all of it follows what came before.
pub(super) struct Page {
    is_terminal: bool,
    /// Each output takes the place of the one before.
    pub(super) refreshes: bool,
    began: bool,
}

/// The room for a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Columns of the terminal; `None` where it is none, and a line may be of any length.
    pub(super) width: Option<usize>,
    /// Lines of the terminal; `None` where what does not fit may scroll away.
    pub(super) height: Option<usize>,
}

impl Page {
    pub(super) fn new(output: args::Output, pace: &Pace) -> Self {
        Self::on(output == args::Output::Table && io::stdout().is_terminal(), pace.count)
    }

    pub(super) fn on(is_terminal: bool, count: Option<u64>) -> Self {
        Self { is_terminal, refreshes: is_terminal && count.is_none(), began: false }
    }

    /// True for the first output. To be asked once for each.
    pub(super) fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.began, true)
    }

    /// Makes room for a table.
    pub(super) fn turn(&self, out: &mut Vec<u8>, is_first: bool) -> io::Result<Room> {
        let size = if self.is_terminal { terminal::size().unwrap_or((80, 24)) } else { (0, 0) };
        let room =
            Room { width: self.is_terminal.then_some(size.0.into()), height: self.refreshes.then_some(size.1.into()) };
        if self.refreshes {
            queue!(out, terminal::Clear(terminal::ClearType::All), MoveTo(0, 0))?;
        } else if !is_first {
            out.push(b'\n');
        }
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_without_a_count_refreshes_the_terminal() {
        const CLEARED: &str = "\u{1b}[2J\u{1b}[1;1H";
        // Terminal, count, what stands before the first and the second table, and whether width and height bound them.
        for (is_terminal, count, before, is_bound) in [
            (true, None, [CLEARED, CLEARED], (true, true)),
            (true, Some(1), ["", "\n"], (true, false)),
            (true, Some(3), ["", "\n"], (true, false)),
            (false, None, ["", "\n"], (false, false)),
            (false, Some(3), ["", "\n"], (false, false)),
        ] {
            let mut page = Page::on(is_terminal, count);
            for before in before {
                let mut out = Vec::new();
                let is_first = page.is_first();
                let room = page.turn(&mut out, is_first).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), before, "{is_terminal} {count:?}");
                assert_eq!((room.width.is_some(), room.height.is_some()), is_bound, "{is_terminal} {count:?}");
            }
            assert_eq!(page.refreshes, is_bound.1);
        }
    }
}
