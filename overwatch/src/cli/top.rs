//! `overwatch top`: who moves the bytes.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use crossterm::{cursor::MoveTo, queue, terminal};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    Failure,
    args::{FilterArguments, Global, Output, Top},
    color, output,
};
use crate::{
    collect::Session,
    kernel::{cgroups::Cgroups, host::HostFacts, namespaces},
    model::{
        filter::{Family, Filter},
        snapshot::{Row, Snapshot},
        traffic::Traffic,
    },
    probes::object::{Capacity, Interest},
    show::{csv, json, table},
};

const ROOT: &str = "/";
/// How often the ring buffer is emptied between two outputs: it holds some 18,000 ended connections.
const DRAIN_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(global: &Global, top: &Top) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .map_err(Failure::Running)?;
    runtime.block_on(run_async(global, top))
}

async fn run_async(global: &Global, top: &Top) -> Result<ExitCode, Failure> {
    let root = Path::new(ROOT);
    let filter = filter(&top.filter, root)?;
    // Before attaching, so that from here on a signal ends the program by the way that detaches.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let host = HostFacts::read(root);
    let mut session = Session::start(
        &host,
        root,
        global.attach.into(),
        &Capacity::new(global.max_connections, global.ring_buffer_bytes),
        Interest::Bytes,
    )?;
    say_ready(global, &session)?;

    let mut screen = Screen::new(global, top, host.host);
    let mut traffic = Traffic::default();
    let start = Instant::now();
    let mut outputs = interval_at(start + top.interval, top.interval);
    outputs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drains = interval_at(start + DRAIN_EVERY, DRAIN_EVERY);
    drains.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = top.count;
    let mut output = output::Output::start();
    loop {
        let last = tokio::select! {
            biased;
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
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
                session.drain()?;
                continue;
            }
        };
        if last && screen.refreshes {
            break;
        }
        if last && output.is_waiting() {
            // Whoever does not read what came before will not read this either.
            let _unread = tokio::time::timeout(PATIENCE, output.written()).await;
        }
        if last && (output.is_waiting() || left == Some(0)) {
            break;
        }
        // When it ends by a signal, a last, shorter interval has what is left.
        let snapshot = traffic.update(&session.sample()?);
        output.send(screen.show(&snapshot, &filter)?)?;
        left = left.map(|left| left - 1);
        if last {
            let result = tokio::time::timeout(PATIENCE, output.written()).await;
            result.unwrap_or(Ok(())).context("cannot write to standard output").map_err(Failure::Running)?;
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say_ready(global: &Global, session: &Session) -> Result<(), Failure> {
    if global.verbose {
        let (attached, seeded) = (session.attached(), session.seeded());
        eprintln!(
            "overwatch: ready: {} tier; {} connections were open already in {} network namespaces",
            attached.tier,
            session.seeded_connections()?,
            seeded.namespaces
        );
        for degradation in &attached.degradations {
            eprintln!("overwatch: without {}: {} ({})", degradation.what, degradation.loss, degradation.why);
        }
        if seeded.unreachable > 0 {
            eprintln!("overwatch: {} network namespaces could not be entered", seeded.unreachable);
        }
    }
    Ok(())
}

fn filter(arguments: &FilterArguments, root: &Path) -> Result<Filter, Failure> {
    let netns = match &arguments.netns {
        None => None,
        Some(text) => {
            let inode = text.parse().ok().or_else(|| namespaces::inode_of_name(root, text));
            let inode = inode.and_then(|inode| u32::try_from(inode).ok());
            Some(inode.ok_or_else(|| {
                Failure::Arguments(format!(
                    "no network namespace '{text}': give a name that `ip netns` lists, or an inode number"
                ))
            })?)
        }
    };
    Ok(Filter {
        pid: arguments.pid,
        comm: arguments.comm.clone(),
        port: arguments.port,
        local_port: arguments.lport,
        remote_port: arguments.rport,
        network: arguments.addr,
        cgroup: arguments.cgroup.clone(),
        netns,
        family: match (arguments.ipv4, arguments.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        },
    })
}

/// How long a reader may take for the last output.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where and how snapshots are shown.
struct Screen {
    output: Output,
    color: bool,
    rows: Option<usize>,
    host: String,
    /// A terminal, which is written over; otherwise outputs follow each other.
    refreshes: bool,
    began: bool,
    cgroups: Cgroups,
}

impl Screen {
    fn new(global: &Global, top: &Top, host: String) -> Self {
        Self {
            output: global.output,
            color: color(global),
            rows: top.rows,
            host,
            refreshes: global.output == Output::Table && io::stdout().is_terminal(),
            began: false,
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
            .filter(|(row, cgroup)| filter.matches(row, *cgroup))
            .collect();
        let mut out = Vec::new();
        match self.output {
            Output::Table => {
                let rows: Vec<&Row> = rows.iter().map(|(row, _)| *row).collect();
                self.table(&mut out, snapshot, &rows)?;
            }
            Output::Json => {
                rows.truncate(self.rows.unwrap_or(usize::MAX));
                json::write(&mut out, &self.host, snapshot, &rows)?;
            }
            Output::Csv => {
                if !self.began {
                    csv::write_heading(&mut out)?;
                }
                rows.truncate(self.rows.unwrap_or(usize::MAX));
                csv::write(&mut out, snapshot, &rows)?;
            }
        }
        self.began = true;
        Ok(out)
    }

    fn table(&self, out: &mut Vec<u8>, snapshot: &Snapshot, rows: &[&Row]) -> Result<(), Failure> {
        let mut style = table::Style { color: self.color, rows: self.rows.unwrap_or(usize::MAX), width: None };
        if self.refreshes {
            let (width, height) = terminal::size().unwrap_or((80, 24));
            // One more for the cursor.
            let beside = table::lines_beside_rows(snapshot) + 1;
            style.rows = style.rows.min(usize::from(height).saturating_sub(beside));
            style.width = Some(usize::from(width));
            queue!(out, terminal::Clear(terminal::ClearType::All), MoveTo(0, 0))?;
        } else if self.began {
            writeln!(out)?;
        }
        table::write(out, &self.host, snapshot, rows, style)?;
        Ok(())
    }
}
