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
pub(super) trait Follow {
    /// Ends an interval and writes what it was.
    fn show(&mut self, session: &mut Session) -> Result<Vec<u8>, Failure>;

    /// Takes in what has happened so far. Also called while the reader stands still.
    fn keep_up(&mut self, session: &mut Session) -> Result<(), Failure>;
}

/// Follows what happens until it was shown often enough, or somebody says that it is.
pub(super) async fn follow(watch: &mut Watch, pace: &Pace, verb: &mut impl Follow) -> Result<(), Failure> {
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

/// What outputs are written on.
pub(super) struct Page {
    /// A terminal, which is written over; otherwise outputs follow each other.
    pub(super) refreshes: bool,
    began: bool,
}

impl Page {
    pub(super) fn new(output: args::Output) -> Self {
        Self { refreshes: output == args::Output::Table && io::stdout().is_terminal(), began: false }
    }

    /// True for the first output. To be asked once for each.
    pub(super) fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.began, true)
    }

    /// Makes room for a table: width and height of the terminal, where it is on one.
    pub(super) fn turn(&self, out: &mut Vec<u8>, is_first: bool) -> io::Result<Option<(usize, usize)>> {
        if self.refreshes {
            let (width, height) = terminal::size().unwrap_or((80, 24));
            queue!(out, terminal::Clear(terminal::ClearType::All), MoveTo(0, 0))?;
            return Ok(Some((width.into(), height.into())));
        }
        if !is_first {
            out.push(b'\n');
        }
        Ok(None)
    }
}
