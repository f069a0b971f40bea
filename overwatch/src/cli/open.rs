//! `overwatch open`: how many connections are open, and whose.

use std::process::ExitCode;

use overwatch_common::counter::Counter;
use tokio::time::Instant;

use super::{
    Failure,
    args::{self, Global},
    color,
    intervals::{self, Follow, Page},
    watch::{self, Watch},
};
use crate::{
    collect::{Sample, Session},
    model::open::Open,
    probes::object::Interest,
    show::open::{self as show, Interval},
};

pub(super) fn run(global: &Global, arguments: &args::Open) -> Result<ExitCode, Failure> {
    watch::run(run_async(global, arguments))
}

async fn run_async(global: &Global, arguments: &args::Open) -> Result<ExitCode, Failure> {
    let mut watch = Watch::start(global, Interest::Changes)?;
    let screen = Screen::new(global, arguments, watch.host.clone());
    intervals::follow(&mut watch, &arguments.pace, &mut Counting { open: Open::default(), screen }).await?;
    Ok(ExitCode::SUCCESS)
}

struct Counting {
    open: Open,
    screen: Screen,
}

impl Follow for Counting {
    fn show(&mut self, session: &mut Session) -> Result<Vec<u8>, Failure> {
        let sample = session.sample()?;
        self.open.update(&sample);
        self.screen.show(&sample, &self.open)
    }

    fn keep_up(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.open.update(&session.sample()?);
        Ok(())
    }
}

/// Where and how intervals are shown.
struct Screen {
    output: args::Output,
    color: bool,
    rows: usize,
    host: String,
    page: Page,
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
            page: Page::new(global.output, &arguments.pace),
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
        let is_first = self.page.is_first();
        let mut out = Vec::new();
        match self.output {
            args::Output::Json => show::write_json(&mut out, &interval)?,
            args::Output::Csv => {
                if is_first {
                    show::write_csv_heading(&mut out)?;
                }
                show::write_csv(&mut out, &interval)?;
            }
            args::Output::Table => {
                let room = self.page.turn(&mut out, is_first)?;
                // The summary, perhaps a warning, three headings, and for each kind a line for those that do not fit.
                let fits = room.height.map_or(usize::MAX, |height| height.saturating_sub(9) / 3);
                let interval = Interval { rows: self.rows.min(fits), ..interval };
                show::write_table(&mut out, &interval, self.color, room.width)?;
            }
        }
        (self.last, self.lost_events) = (now, lost_events);
        Ok(out)
    }
}
