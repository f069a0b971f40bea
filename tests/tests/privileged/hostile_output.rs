//! Hostile names and closed pipes: names that somebody else chose are harmless in every output, and output that
//! nobody reads any more is an end, not an error.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use overwatch_tests::harness::host::{Host, patience};
use overwatch_tests::harness::overwatch::{self, parse};
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::traffic::Hold;

/// A name with everything that breaks a line, a terminal, a table or a quoted field, in fifteen bytes.
const NAME: &str = "o\n\x1b[2J,\"q'\\\r\tz";

/// Runs `top` in `format` while a connection of a process with that name moves bytes. Gives what it printed, and
/// the port by which its rows are found.
fn with_hostile_name(format: &str) -> Result<(String, u16)> {
    let mut hold = Hold::open(&["--client-comm", NAME, "--server-comm", NAME])?;
    let mut process = Proc::start(overwatch::command(&["top", "-o", format, "-v", "1", "2"]))?;
    process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
    let ends = hold.send(10_007, 333)?;
    let output = process.finish(patience(60))?;
    ensure!(output.code == Some(0), "exit {:?}; stderr:\n{}", output.code, output.stderr);
    let client = ends.iter().find(|end| end.role == "client").context("a client")?;
    ensure!(client.comm == NAME, "the kernel took the name: {:?}", client.comm);
    Ok((output.stdout, client.local_port))
}

fn printable_pieces_are_in(shown: &str) -> Result<()> {
    for piece in ["[2J,\"q'", "z"] {
        ensure!(shown.contains(piece), "{piece:?} is printable and belongs to the name, shown as {shown:?}");
    }
    Ok(())
}

#[test]
fn hostile_names_in_a_table() -> Result<()> {
    let _host = Host::take()?;
    let (text, port) = with_hostile_name("table")?;
    let stray: Vec<char> = text.chars().filter(|c| c.is_control() && *c != '\n').collect();
    ensure!(stray.is_empty(), "control characters in a table: {stray:?} in:\n{text:?}");
    let rows = text.lines().filter(|line| line.contains(&port.to_string())).count();
    ensure!(rows >= 2, "two ends, two lines, {rows} found in:\n{text}");
    Ok(())
}

#[test]
fn hostile_names_in_csv() -> Result<()> {
    let _host = Host::take()?;
    let (text, port) = with_hostile_name("csv")?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column = |name: &str| header.iter().position(|title| title == name).with_context(|| format!("column {name}"));
    let (comm, local, sent) = (column("comm")?, column("local_port")?, column("sent_bytes")?);
    let mut found = 0;
    for record in reader.records() {
        let record = record.with_context(|| format!("in:\n{text}"))?;
        if record.get(local) == Some(&port.to_string()) {
            printable_pieces_are_in(record.get(comm).unwrap_or_default())?;
            ensure!(record.get(sent) == Some("10007"), "sent: {record:?}");
            found += 1;
        }
    }
    ensure!(found == 1, "one row of the client, {found} found in:\n{text}");
    ensure!(!text.contains('\x1b'), "an escape character in CSV: {text:?}");
    Ok(())
}

#[test]
fn hostile_names_in_json() -> Result<()> {
    let _host = Host::take()?;
    let (text, port) = with_hostile_name("json")?;
    ensure!(text.lines().count() == 2, "two lines for two intervals:\n{text}");
    let stray = text.chars().find(|c| c.is_control() && *c != '\n');
    ensure!(stray.is_none(), "a raw control character in JSON: {text:?}");
    let mut found = 0;
    for line in text.lines() {
        for row in parse(line)?.connections.iter().filter(|row| row.local_port == port) {
            printable_pieces_are_in(row.comm.as_deref().unwrap_or_default())?;
            found += 1;
        }
    }
    ensure!(found == 1, "one row of the client, {found} found in:\n{text}");
    Ok(())
}

/// Reads one line and closes the pipe, as `head -1` does, while there is always something to print.
fn closed_pipe(format: &str) -> Result<()> {
    let mut hold = Hold::open(&[])?;
    let mut child = overwatch::command(&["top", "-o", format, "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("stdout is a pipe")?;
    let reading = thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map(|_| line)
    });
    let deadline = Instant::now() + patience(90);
    let mut ended = None;
    while ended.is_none() && Instant::now() < deadline {
        hold.send(1_001, 1_003)?;
        thread::sleep(Duration::from_millis(100));
        ended = child.try_wait()?;
    }
    // By its own id; one that has ended stays as it ended.
    child.kill()?;
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let Some(status) = ended else { bail!("{format}: runs long after the pipe was closed; stderr:\n{stderr}") };
    ensure!(status.code() == Some(0), "{format}: {status}; stderr:\n{stderr}");
    ensure!(stderr.trim().is_empty(), "{format}: a closed pipe is no news, yet stderr has:\n{stderr}");
    let first = reading.join().map_err(|_| anyhow!("the reader panicked"))??;
    ensure!(!first.trim().is_empty(), "{format}: the first line is empty");
    hold.close()
}

#[test]
fn a_closed_pipe_ends_it_cleanly() -> Result<()> {
    let _host = Host::take()?;
    ["json", "csv", "table"].into_iter().try_for_each(closed_pipe)
}
