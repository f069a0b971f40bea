//! `overwatch top`: who moves the bytes.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, interval_at};

use super::{
    Failure,
    args::{Global, Output, Top},
    color,
    intervals::Page,
    output,
    watch::{self, ROOT, Watch},
};
use crate::{
    kernel::cgroups::Cgroups,
    model::{
        filter::Filter,
        snapshot::{Row, Snapshot},
        traffic::Traffic,
    },
    probes::object::Interest,
    show::{csv, json, table},
};

mod collect;
mod screen;
mod terminal;

/// How often the ring buffer is emptied between two outputs: it holds some 18,000 ended connections.
const DRAIN_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(global: &Global, top: &Top) -> Result<ExitCode, Failure> {
    let is_screen = global.output == Output::Table && top.pace.count.is_none() && top.rows.is_none();
    if is_screen && io::stdout().is_terminal() && io::stdin().is_terminal() {
        return watch::run(screen::run(global, top));
    }
    watch::run(run_async(global, top))
}

async fn run_async(global: &Global, top: &Top) -> Result<ExitCode, Failure> {
    let filter = watch::filter(&top.filter)?;
    let mut watch = Watch::start(global, Interest::Rows)?;
    let mut screen = Screen::new(global, top, watch.host.clone());
    let mut traffic = Traffic::default();
    let start = Instant::now();
    let mut outputs = watch::every(interval_at(start + top.pace.interval, top.pace.interval));
    let mut drains = watch::every(interval_at(start + DRAIN_EVERY, DRAIN_EVERY));
    let mut left = top.pace.count;
    let mut output = output::Output::start();
    loop {
        let last = tokio::select! {
            biased;
            () = watch.told_to_end() => true,
            result = output.written(), if output.is_waiting() => {
                result.context("cannot write to standard output").map_err(Failure::Running)?;
                if left == Some(0) {
                    break;
                }
                continue;
            }
            // While the reader stands still, the interval grows.
            _ = outputs.tick(), if !output.is_waiting() => false,
            _ = drains.tick() => {
                watch.session.drain()?;
                continue;
            }
        };
        if last {
            watch::written_in_time(&mut output).await?;
            if screen.page.refreshes || output.is_waiting() || left == Some(0) {
                break;
            }
        }
        // When it ends by a signal, a last, shorter interval has what is left.
        let sample = if last { watch.session.last_sample()? } else { watch.session.sample()? };
        output.send(screen.show(&traffic.update(&sample), &filter)?)?;
        left = left.map(|left| left - 1);
        if last {
            watch::written_in_time(&mut output).await?;
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where and how snapshots are shown.
struct Screen {
    output: Output,
    color: bool,
    rows: Option<usize>,
    host: String,
    page: Page,
    cgroups: Cgroups,
}

impl Screen {
    fn new(global: &Global, top: &Top, host: String) -> Self {
        Self {
            output: global.output,
            color: color(global),
            rows: top.rows,
            host,
            page: Page::new(global.output, &top.pace),
            cgroups: Cgroups::default(),
        }
    }

    fn show(&mut self, snapshot: &Snapshot, filter: &Filter) -> Result<Vec<u8>, Failure> {
        let cgroup_of = |row: &Row| row.process.as_ref().map_or(0, |process| process.cgroup_id);
        let asked = snapshot.rows.iter().map(cgroup_of).filter(|number| *number != 0);
        self.cgroups.resolve(Path::new(ROOT), asked);
        let mut rows: Vec<_> = snapshot
            .rows
            .iter()
            .map(|row| (row, self.cgroups.path(cgroup_of(row))))
            .filter(|(row, cgroup)| filter.matches(&row.subject(), *cgroup))
            .collect();
        let is_first = self.page.is_first();
        let mut out = Vec::new();
        match self.output {
            Output::Table => {
                let rows: Vec<&Row> = rows.iter().map(|(row, _)| *row).collect();
                self.table(&mut out, snapshot, &rows, is_first)?;
            }
            Output::Json => {
                rows.truncate(self.rows.unwrap_or(usize::MAX));
                json::write(&mut out, &self.host, snapshot, &rows)?;
            }
            Output::Csv => {
                if is_first {
                    csv::write_heading(&mut out)?;
                }
                rows.truncate(self.rows.unwrap_or(usize::MAX));
                csv::write(&mut out, snapshot, &rows)?;
            }
        }
        Ok(out)
    }

    fn table(&self, out: &mut Vec<u8>, snapshot: &Snapshot, of: &[&Row], is_first: bool) -> Result<(), Failure> {
        let room = self.page.turn(out, is_first)?;
        // One more for the cursor.
        let beside = table::lines_beside_rows(snapshot) + 1;
        let fits = room.height.map_or(usize::MAX, |height| height.saturating_sub(beside));
        let rows = self.rows.unwrap_or(usize::MAX).min(fits);
        let style = table::Style { color: self.color, rows, width: room.width };
        table::write(out, &self.host, snapshot, of, style)?;
        Ok(())
    }
}
