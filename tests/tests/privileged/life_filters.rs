//! What `overwatch life` and `states` show can be chosen, and in which form: the filters, `--duration`, CSV beside JSON, and
//! the schemas that say what every line of JSON is.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::host::{Host, in_guest, patience};
use overwatch_tests::harness::netns::{Joined, NetNs};
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::schema::Schema;
use overwatch_tests::harness::stream::nice;
use overwatch_tests::harness::traffic::{self, Hold};
use overwatch_tests::traffic::report::Report;
use serde_json::{Map, Value};

const STREAMS: [&str; 2] = ["life", "states"];
/// How far the times of two runs of overwatch may be apart.
const APART: f64 = 0.5;

/// A running verb of overwatch, whose output is taken as it is.
struct Plain(Proc);

impl Plain {
    fn start(verb: &str, format: &str, extra: &[&str]) -> Result<Self> {
        Self::start_command(overwatch::command(&Self::arguments(verb, format, extra)))
    }

    fn arguments<'a>(verb: &'a str, format: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
        [&[verb, "-o", format, "-v", "--max-connections", "4096"], extra].concat()
    }

    fn start_command(command: Command) -> Result<Self> {
        let mut process = Proc::start(command)?;
        process.close_stdin();
        process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
        Ok(Self(process))
    }

    fn stop(self) -> Result<String> {
        std::thread::sleep(patience(1) / 3);
        self.0.signal(Signal::SIGINT)?;
        self.end()
    }

    fn end(self) -> Result<String> {
        let what = self.0.what().to_owned();
        let output = self.0.finish(patience(60))?;
        ensure!(output.code == Some(0), "{what} ended with {:?}; stderr:\n{}", output.code, output.stderr);
        Ok(output.stdout)
    }
}

fn objects(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Connections that differ in what can be filtered by. They are open before overwatch starts, so that filters can name them.
struct Scene {
    holds: Vec<Hold>,
    netns: NetNs,
    ends: Vec<Report>,
}

impl Scene {
    fn new() -> Result<Self> {
        let netns = NetNs::new("choose")?;
        let space = netns.path_text();
        let v4 = ["--address", "127.0.0.2", "--server-comm", "ow-a-srv", "--client-comm", "ow-a-cli"];
        let v6 = ["--family", "v6", "--server-comm", "ow-b-srv", "--client-comm", "ow-b-cli"];
        let apart = ["--server-netns", space, "--client-netns", space];
        let names = ["--server-comm", "ow-c-srv", "--client-comm", "ow-c-cli"];
        let mut holds = vec![Hold::open(&v4)?, Hold::open(&v6)?, Hold::open(&[&apart[..], &names].concat())?];
        let mut ends = Vec::new();
        for hold in &mut holds {
            ends.extend(hold.send(1_001, 1_003)?);
        }
        Ok(Self { holds, netns, ends })
    }

    fn end(&self, comm: &str) -> Result<&Report> {
        self.ends.iter().find(|end| end.comm == comm).with_context(|| format!("no end of {comm}"))
    }

    fn close(self) -> Result<Vec<Report>> {
        self.holds.into_iter().try_for_each(Hold::close)?;
        Ok(self.ends)
    }
}

/// A filter and the names of the ends that pass it.
type Case = (Vec<String>, Vec<&'static str>);

fn cases(scene: &Scene) -> Result<Vec<Case>> {
    let (a, b) = (scene.end("ow-a-cli")?, scene.end("ow-b-srv")?);
    let (pid, inode) = (a.pid.to_string(), scene.netns.inode().to_string());
    let (lport, rport) = (b.local_port.to_string(), a.remote_port.to_string());
    let all = ["ow-a-cli", "ow-a-srv", "ow-b-cli", "ow-b-srv", "ow-c-cli", "ow-c-srv"];
    let (in_a, in_b, in_c, v4) = (&all[..2], &all[2..4], &all[4..], ["ow-a-cli", "ow-a-srv", "ow-c-cli", "ow-c-srv"]);
    let cases: [(&[&str], &[&'static str]); 12] = [
        (&[], &all),
        (&["--pid", &pid], &["ow-a-cli"]),
        (&["--comm", "ow-b-cli"], &["ow-b-cli"]),
        (&["--comm", "ow-nobody"], &[]),
        (&["--lport", &lport], &["ow-b-srv"]),
        (&["--rport", &rport], &["ow-a-cli"]),
        (&["--addr", "127.0.0.2/32"], in_a),
        (&["--netns", &inode], in_c),
        (&["--netns", scene.netns.name()], in_c),
        (&["-4"], &v4),
        (&["-6"], in_b),
        (&["-4", "--comm", "ow-b-cli"], &[]),
    ];
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Ok(cases.into_iter().map(|(words, names)| (owned(words), names.to_vec())).collect())
}

fn is_of(line: &Value, end: &Report) -> bool {
    line["netns"] == end.netns
        && line["local_addr"] == end.local_addr.as_str()
        && line["local_port"] == end.local_port
        && line["remote_addr"] == end.remote_addr.as_str()
        && line["remote_port"] == end.remote_port
}

/// The names of those of the ends that the lines show.
fn shown(lines: &[Value], ends: &[Report]) -> BTreeSet<String> {
    ends.iter().filter(|end| lines.iter().any(|line| is_of(line, end))).map(|end| end.comm.clone()).collect()
}

/// The host, unless this is a guest.
fn outside() -> Result<Option<Host>> {
    if in_guest() {
        println!("skipped: what is printed does not depend on the kernel, and the host tests it");
        return Ok(None);
    }
    Host::take().map(Some)
}

#[test]
fn each_filter_shows_what_it_should_and_hides_the_rest() -> Result<()> {
    const AT_A_TIME: usize = 3;
    let Some(_host) = outside()? else { return Ok(()) };
    let mut problems = Vec::new();
    let mut first = 0;
    loop {
        let scene = Scene::new()?;
        let cases: Vec<Case> = cases(&scene)?.into_iter().skip(first).take(AT_A_TIME).collect();
        if cases.is_empty() {
            break;
        }
        let mut running = Vec::new();
        for (words, names) in &cases {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            for verb in STREAMS {
                running.push((verb, words.clone(), names, Plain::start(verb, "json", &words)?));
            }
        }
        let ends = scene.close()?;
        for (verb, words, names, plain) in running {
            let shown = shown(&objects(&plain.stop()?)?, &ends);
            let expected = names.iter().map(|&name| name.to_owned()).collect();
            if shown != expected {
                problems.push(format!("{verb} {words:?}: {shown:?} instead of {expected:?}"));
            }
        }
        first += AT_A_TIME;
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn both_end_by_themselves_when_their_time_is_over() -> Result<()> {
    let Some(_host) = outside()? else { return Ok(()) };
    for verb in STREAMS {
        let plain = Plain::start(verb, "json", &["--duration", "2"])?;
        let ready = Instant::now();
        let traffic = traffic::run(&["lives", "--scenarios", "client_closes_first"])?;
        let lines = objects(&plain.end()?)?;
        let took = ready.elapsed();
        let expected = Duration::from_millis(1_800)..Duration::from_secs(2) + patience(10);
        ensure!(expected.contains(&took), "{verb}: two seconds took {took:?}");
        for life in &traffic.lives {
            let of = |line: &&Value| line["pid"] == life.pid && line["local_port"] == life.local_port;
            ensure!(lines.iter().any(|line| of(&line)), "{verb}: no line of {life:?}: {lines:?}");
        }
    }
    Ok(())
}

/// What tells a line from the others, whoever printed it.
fn key(line: &Map<String, Value>) -> String {
    let names = ["local_addr", "local_port", "remote_addr", "remote_port", "role", "old_state", "new_state"];
    names.iter().map(|name| format!("{} ", line.get(*name).unwrap_or(&Value::Null))).collect()
}

/// A row of CSV with the types that the same line of JSON has.
fn typed(row: &BTreeMap<String, String>, like: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut typed = Map::new();
    for (name, text) in row {
        let value = match like.get(name) {
            _ if text.is_empty() => Value::Null,
            Some(Value::String(_)) | None => Value::String(text.clone()),
            // No type: a number if it can be one.
            Some(Value::Null) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
            Some(_) => serde_json::from_str(text).with_context(|| format!("{name} is {text:?}"))?,
        };
        typed.insert(name.clone(), value);
    }
    Ok(typed)
}

fn seconds(of: &Value) -> Option<f64> {
    let time = of.as_str().and_then(|text| humantime::parse_rfc3339(text).ok())?;
    Some(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}

/// Whether two runs of overwatch may say so of the same.
fn agree(name: &str, one: &Value, other: &Value) -> bool {
    if name.ends_with("time") {
        return match (seconds(one), seconds(other)) {
            (Some(one), Some(other)) => (one - other).abs() < APART,
            _ => one == other,
        };
    }
    if name.ends_with("seconds") {
        return match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() < APART,
            _ => one == other,
        };
    }
    // Each run counts for itself.
    name == "connection" || one == other
}

fn csv_is_as_json(verb: &str, json: &str, csv: &str, problems: &mut Vec<String>) -> Result<usize> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let heading: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut rows: BTreeMap<String, Vec<BTreeMap<String, String>>> = BTreeMap::new();
    let lines = objects(json)?;
    let first = lines.first().and_then(Value::as_object).with_context(|| format!("{verb} printed nothing"))?;
    let columns: Vec<String> = first.keys().cloned().chain(["lost_events".to_owned()]).collect();
    ensure!(heading == columns, "{verb}: {heading:?} instead of {columns:?}");
    for record in reader.records() {
        let record = record?;
        let row: BTreeMap<String, String> = heading.iter().cloned().zip(record.iter().map(str::to_owned)).collect();
        rows.entry(key(&typed(&row, first)?)).or_default().push(row);
    }
    for line in &lines {
        let line = line.as_object().context("a line is an object")?;
        let of_key = rows.entry(key(line)).or_default();
        if of_key.is_empty() {
            problems.push(format!("{verb}: no row of CSV for {line:?}"));
            continue;
        }
        let row = typed(&of_key.remove(0), line)?;
        for (name, value) in line {
            let other = row.get(name).unwrap_or(&Value::Null);
            if !agree(name, value, other) {
                problems.push(format!("{verb}: {name} is {value} in JSON and {other} in CSV: {line:?}"));
            }
        }
        if row.get("lost_events") != Some(&Value::Null) {
            problems.push(format!("{verb}: lost events in the row of {line:?}"));
        }
    }
    let more: Vec<_> = rows.into_values().flatten().collect();
    if !more.is_empty() {
        problems.push(format!("{verb}: rows that JSON does not have: {more:?}"));
    }
    Ok(lines.len())
}

#[test]
fn csv_has_what_json_has() -> Result<()> {
    let Some(_host) = outside()? else { return Ok(()) };
    let joined = Joined::new("forms")?;
    let name = joined.client.name();
    let mut running = Vec::new();
    for verb in STREAMS {
        let filter = ["--netns", name];
        running.push((verb, Plain::start(verb, "json", &filter)?, Plain::start(verb, "csv", &filter)?));
    }
    let more = ["--device", Joined::DEVICE];
    traffic::run(&[&["lives"], &joined.place()[..], &more].concat())?;
    let mut problems = Vec::new();
    for (verb, json, csv) in running {
        let (json, csv) = (json.stop()?, csv.stop()?);
        let lines = csv_is_as_json(verb, &json, &csv, &mut problems)?;
        ensure!(lines > 10, "{verb}: only {lines} lines");
    }
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

#[test]
fn every_line_of_json_is_what_its_schema_says() -> Result<()> {
    let Some(_host) = outside()? else { return Ok(()) };
    let joined = Joined::new("schemas")?;
    let mut running = Vec::new();
    for verb in STREAMS {
        // With hardly room for an event, so that there are losses too.
        let arguments = Plain::arguments(verb, "json", &["--ring-buffer-bytes", "4096"]);
        running.push((verb, Plain::start_command(nice(&arguments))?));
    }
    for verb in ["open", "top"] {
        running.push((verb, Plain::start(verb, "json", &["1"])?));
    }
    traffic::run(&[&["lives"], &joined.place()[..], &["--device", Joined::DEVICE]].concat())?;
    // In a place where no port is taken.
    let netns = NetNs::new("schemas")?;
    let size = ["--servers", "2", "--clients", "2", "--threads", "2", "--seconds", "3"];
    let place = ["--server-netns", netns.path_text(), "--client-netns", netns.path_text()];
    traffic::run(&[&["churn"], &place[..], &size].concat())?;
    for (verb, plain) in running {
        let schema = Schema::of(verb)?;
        let lines = objects(&plain.stop()?)?;
        let losses = lines.iter().filter(|line| line["lost_events"].as_u64().is_some_and(|lost| lost > 0)).count();
        println!("{verb}: {} lines, {losses} of them with losses", lines.len());
        ensure!(lines.len() > 1, "{verb}: {} lines", lines.len());
        for line in &lines {
            schema.validate(line).with_context(|| verb.to_owned())?;
        }
    }
    Ok(())
}
