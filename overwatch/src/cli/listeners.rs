//! `overwatch listeners`: why a server does not answer.

use std::{path::Path, process::ExitCode};

use super::{
    Failure,
    args::{self, Explain, Global},
    color,
    intervals::{self, Follow, Page},
    watch::{self, ROOT, Watch},
};
use crate::{
    collect::{DiagSession, NETWORK_NAMESPACES, Sample, Session},
    kernel::cgroups::Cgroups,
    model::{
        filter::Filter,
        judged::Judged,
        queue::{Row, Snapshot},
    },
    probes::{
        capabilities::{self, Capability},
        object::Interest,
        scan,
    },
    show::{
        explain,
        listeners::{self as show, Interval, Style},
    },
};

pub(super) fn run(global: &Global, arguments: &args::Listeners) -> Result<ExitCode, Failure> {
    watch::run(run_async(global, arguments))
}

async fn run_async(global: &Global, arguments: &args::Listeners) -> Result<ExitCode, Failure> {
    let filter = watch::filter(&arguments.filter())?;
    match Watch::start(global, Interest::Queues) {
        Ok(watch) if watch.session.scans() => {
            // Rows that are missing or read otherwise are no matter of -v.
            let degradations = watch.session.attached().degradations.iter();
            let of_rows = degradations.filter(|of| [scan::PROGRAM, NETWORK_NAMESPACES].contains(&of.what.as_str()));
            of_rows.filter(|_| !global.verbose).for_each(watch::say_without);
            follow(watch, global, arguments, filter).await
        }
        Ok(watch) => {
            let degradations = &watch.session.attached().degradations;
            Err(Failure::Host(capabilities::refusal(Capability::Listeners, degradations)))
        }
        Err(Failure::Host(refusal)) => follow(Watch::without_programs(&refusal)?, global, arguments, filter).await,
        Err(other) => Err(other),
    }
}

async fn follow<S: Source>(
    mut watch: Watch<S>,
    global: &Global,
    arguments: &args::Listeners,
    filter: Filter,
) -> Result<ExitCode, Failure> {
    let judged = Judged::new(arguments.thresholds.thresholds(), &watch.session.end_interval()?);
    let screen = Screen::new(global, arguments, filter, watch.host.clone());
    intervals::follow(&mut watch, &arguments.pace, &mut Listening { judged, screen }).await?;
    Ok(ExitCode::SUCCESS)
}

/// What listening sockets are read from.
trait Source {
    /// A sample that ends an interval.
    fn end_interval(&mut self) -> Result<Sample, Failure>;

    /// Makes room while an interval goes on: a sample, if there is one to take.
    fn make_room(&mut self) -> Result<Option<Sample>, Failure>;
}

impl Source for Session {
    fn end_interval(&mut self) -> Result<Sample, Failure> {
        Ok(self.sample()?)
    }

    fn make_room(&mut self) -> Result<Option<Sample>, Failure> {
        self.drain()?;
        Ok(self.is_laden().then(|| self.part()).transpose()?)
    }
}

impl Source for DiagSession {
    fn end_interval(&mut self) -> Result<Sample, Failure> {
        Ok(self.sample())
    }

    fn make_room(&mut self) -> Result<Option<Sample>, Failure> {
        Ok(None)
    }
}

struct Listening {
    judged: Judged,
    screen: Screen,
}

impl<S: Source> Follow<S> for Listening {
    fn show(&mut self, session: &mut S) -> Result<Vec<u8>, Failure> {
        let snapshot = self.judged.end(&session.end_interval()?);
        self.screen.show(&snapshot)
    }

    /// What is kept of an interval does not grow with it.
    fn keep_up(&mut self, session: &mut S) -> Result<(), Failure> {
        if let Some(part) = session.make_room()? {
            self.judged.take_in(&part);
        }
        Ok(())
    }
}

/// Where and how intervals are shown.
struct Screen {
    output: args::Output,
    color: bool,
    rows: usize,
    explain: Option<Explain>,
    only_sick: bool,
    filter: Filter,
    host: String,
    page: Page,
    cgroups: Cgroups,
}

impl Screen {
    fn new(global: &Global, arguments: &args::Listeners, filter: Filter, host: String) -> Self {
        Self {
            output: global.output,
            color: color(global),
            rows: arguments.rows.unwrap_or(usize::MAX),
            explain: arguments.explain,
            only_sick: arguments.only_sick(),
            filter,
            host,
            page: Page::new(global.output, &arguments.pace),
            cgroups: Cgroups::default(),
        }
    }

    fn show(&mut self, snapshot: &Snapshot) -> Result<Vec<u8>, Failure> {
        let holders = snapshot.rows.iter().flat_map(|row| &row.queue.holders);
        let asked = holders.map(|holder| holder.cgroup_id).filter(|number| *number != 0);
        self.cgroups.resolve(Path::new(ROOT), asked);
        let path = |number| self.cgroups.path(number);
        let mut rows: Vec<(&Row, Option<&str>)> = snapshot
            .rows
            .iter()
            .filter(|row| row.queue.is_wanted(&self.filter, path))
            .map(|row| (row, row.queue.holders.first().and_then(|holder| path(holder.cgroup_id))))
            .collect();
        let all = rows.len();
        rows.retain(|(row, _)| !self.only_sick || row.is_sick());
        let interval = Interval { host: &self.host, snapshot, rows: &rows, all, most: self.rows };
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
            args::Output::Table => self.table(&mut out, &interval, is_first)?,
        }
        Ok(out)
    }

    fn table(&self, out: &mut Vec<u8>, interval: &Interval<'_>, is_first: bool) -> Result<(), Failure> {
        let room = self.page.turn(out, is_first)?;
        // One more for the cursor.
        let height = room.height.map(|height| height.saturating_sub(1));
        let style = Style { color: self.color, width: room.width, height };
        match self.explain {
            None => show::write_table(out, interval, style)?,
            Some(explained) => explain::write(out, interval, style, &nothing(explained, self.only_sick))?,
        }
        Ok(())
    }
}

/// Why there is nothing to explain.
fn nothing(explained: Explain, only_sick: bool) -> String {
    match explained {
        Explain::Port(port) => {
            format!(
                "nothing that was asked for listens at port {port} (an interval stands before --explain or behind the port)"
            )
        }
        Explain::Chosen if only_sick => "no listener is saturated or overflowing".to_owned(),
        Explain::Chosen => "there is no such listener".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::{
        model::{
            queue::{
                Threads,
                fixtures::{at, row, snapshot, unknown_row},
            },
            verdict::Judge,
        },
        show::text::steers,
    };

    /// What is shown of a sick listener at port 8080 and of one at port 80 that is well, in two intervals.
    fn shown(line: &str) -> [String; 2] {
        shown_of(line, &[row(), unknown_row()])
    }

    fn parsed(line: &str) -> (Global, args::Listeners) {
        let arguments = args::Arguments::try_parse_from(line.split(' ')).unwrap();
        let args::Command::Listeners(listeners) = arguments.command else { panic!("{line}") };
        (arguments.global, listeners)
    }

    fn shown_of(line: &str, rows: &[Row]) -> [String; 2] {
        let (global, listeners) = parsed(line);
        let filter = watch::filter(&listeners.filter()).unwrap();
        let mut screen = Screen::new(&global, &listeners, filter, "web1".to_owned());
        screen.page = Page::on(false, None);
        [(); 2].map(|()| String::from_utf8(screen.show(&snapshot(rows.to_vec())).unwrap()).unwrap())
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        for (arguments, has, has_not) in [
            ("", vec!["2 listeners, 1 sick", ":8080 ", ":80 "], vec!["Numbers:"]),
            ("--port 80", vec!["1 listener, 0 sick", ":80 "], vec![":8080 "]),
            ("--pid 47", vec!["1 listener, 1 sick", ":8080 "], vec![":80 "]),
            ("-n 1", vec!["2 listeners, 1 sick", ":8080 ", "... and 1 more"], vec![":80 "]),
            ("--explain", vec!["2 listeners, 1 sick", "0:8080  saturated", "Numbers:"], vec!["0:80 "]),
            ("--explain 80", vec!["1 listener, 0 sick", "0:80  ok", "Numbers:"], vec![":8080 "]),
            ("--explain -4", vec!["0:8080  saturated", "0:80  ok"], vec![]),
            ("--explain 5", vec!["0 listeners", "listens at port 5 "], vec!["Numbers:"]),
            ("--explain -6", vec!["0 listeners", "there is no such listener"], vec!["Numbers:"]),
        ] {
            let line = format!("overwatch --color never listeners {arguments}");
            let [text, again] = shown(line.trim_end());
            assert_eq!(again, format!("\n{text}"), "{line}");
            for has in has {
                assert!(text.contains(has), "{line}: {has} is not in\n{text}");
            }
            for has_not in has_not {
                assert!(!text.contains(has_not), "{line}: {has_not} is in\n{text}");
            }
        }
    }

    /// A name with what breaks a line, a terminal, a table or a quoted field, and what turns the direction of writing.
    const HOSTILE: &str = "o\n\x1b[2J,\"\\\r\u{9b}\u{202e}z";

    #[test]
    fn a_hostile_name_in_the_evidence_is_harmless_in_every_output() {
        let mut queue = row().queue;
        for holder in &mut queue.holders {
            holder.comm = HOSTILE.to_owned();
            holder.threads = Some(Threads { total: 1, stopped: 1, ..Threads::default() });
        }
        let verdict = Judge::new(parsed("overwatch listeners").1.thresholds.thresholds())
            .judge(at(100), Duration::from_secs(1), std::slice::from_ref(&queue))
            .remove(0);
        let quoting = verdict.evidence.iter().find(|text| text.contains(HOSTILE)).cloned().unwrap();
        assert!(quoting.starts_with("All 6 processes that listen are stopped"), "{quoting}");
        let sick = Row { queue, verdict };
        let shown =
            |line: &str| shown_of(&format!("overwatch --color never {line}"), std::slice::from_ref(&sick))[0].clone();
        for line in ["listeners", "listeners --explain", "-o json listeners", "-o csv listeners"] {
            let text = shown(line);
            assert!(!text.contains(|character| steers(character) && character != '\n'), "{line}: {text:?}");
            assert!(text.contains("[2J,"), "{line}: {text:?}");
        }
        // Programs get it back as it was.
        let object: serde_json::Value = serde_json::from_str(&shown("-o json listeners")).unwrap();
        let has = |value: &serde_json::Value| value.as_array().unwrap().iter().any(|text| *text == quoting.as_str());
        assert!(has(&object["listeners"][0]["evidence"]));
        let text = shown("-o csv listeners");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let column = reader.headers().unwrap().iter().position(|key| key == "evidence").unwrap();
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 1);
        assert!(has(&serde_json::from_str(&records[0][column]).unwrap()));
    }

    #[test]
    fn scripts_get_the_same_rows() {
        for (arguments, ports) in
            [("", vec![8080, 80]), ("--explain", vec![8080]), ("--explain 80", vec![80]), ("-n 1", vec![8080])]
        {
            let line = format!("overwatch -o json listeners {arguments}");
            let object: serde_json::Value = serde_json::from_str(&shown(line.trim_end())[0]).unwrap();
            let rows = object["listeners"].as_array().unwrap();
            assert_eq!(rows.iter().map(|row| row["local_port"].clone()).collect::<Vec<_>>(), ports, "{line}");
            let [records, again] = shown(&line.trim_end().replace("json", "csv"));
            assert_eq!(records.lines().count(), 1 + ports.len(), "{line}");
            // The heading comes once.
            assert_eq!(again.lines().count(), ports.len(), "{line}");
        }
    }
}
