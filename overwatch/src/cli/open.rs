//! `overwatch open`: how many connections are open, and whose.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Context as _;
use crossterm::{cursor::MoveTo, queue, terminal};
use overwatch_common::counter::Counter;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::{
    Failure,
    args::{self, Global},
    color,
    output::Output,
    watch::{self, EVERY, Watch},
};
use crate::{
    collect::Sample,
    model::open::Open,
    probes::object::Interest,
    show::open::{self as show, Interval},
};

pub(super) fn run(global: &Global, arguments: &args::Open) -> Result<ExitCode, Failure> {
    watch::run(run_async(global, arguments))
}

async fn run_async(global: &Global, arguments: &args::Open) -> Result<ExitCode, Failure> {
    let mut watch = Watch::start(global, Interest::Changes)?;
    let mut screen = Screen::new(global, arguments, watch.host.clone());
    let mut open = Open::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    let mut outputs = interval_at(start + arguments.pace.interval, arguments.pace.interval);
    outputs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = arguments.pace.count;
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
            _ = outputs.tick(), if !output.is_waiting() => {
                let sample = watch.session.sample()?;
                open.update(&sample);
                output.send(screen.show(&sample, &open)?)?;
                left = left.map(|left| left - 1);
            }
            _ = ticks.tick() => open.update(&watch.session.sample()?),
        }
    }
    watch::written_in_time(&mut output).await?;
    Ok(ExitCode::SUCCESS)
}

/// Where and how intervals are shown.
struct Screen {
    output: args::Output,
    color: bool,
    rows: usize,
    host: String,
    /// A terminal, which is written over; otherwise outputs follow each other.
    refreshes: bool,
    began: bool,
    last: Instant,
    lost_events: u64,
}

impl Screen {
    fn new(global: &Global, arguments: &args::Open, host: String) -> Self {
        Self {
            output: global.output,
            color: color(global),
            rows: arguments.rows.unwrap_or(usize::MAX),
            host,
            refreshes: global.output == args::Output::Table && io::stdout().is_terminal(),
            began: false,
            last: Instant::now(),
            lost_events: 0,
        }
    }

    fn show(&mut self, sample: &Sample, open: &Open) -> Result<Vec<u8>, Failure> {
        let lost_events = sample.counters.get(Counter::ChangeLost);
        let now = Instant::now();
        let interval = Interval {
            time: sample.time,
            length: now - self.last,
            host: &self.host,
            counts: &open.counts(),
            lost_events: lost_events - self.lost_events,
            rows: self.rows,
        };
        let mut out = Vec::new();
        match self.output {
            args::Output::Json => show::write_json(&mut out, &interval)?,
            args::Output::Csv => {
                if !self.began {
                    show::write_csv_heading(&mut out)?;
                }
                show::write_csv(&mut out, &interval)?;
            }
            args::Output::Table if self.refreshes => {
                let (width, height) = terminal::size().unwrap_or((80, 24));
                // The summary, perhaps a warning, three headings, and for each kind a line for those that do not fit.
                let rows = usize::from(height).saturating_sub(9) / 3;
                let interval = Interval { rows: self.rows.min(rows), ..interval };
                queue!(out, terminal::Clear(terminal::ClearType::All), MoveTo(0, 0))?;
                show::write_table(&mut out, &interval, self.color, Some(width.into()))?;
            }
            args::Output::Table => {
                if self.began {
                    out.push(b'\n');
                }
                show::write_table(&mut out, &interval, self.color, None)?;
            }
        }
        (self.began, self.last, self.lost_events) = (true, now, lost_events);
        Ok(out)
    }
}
