//! `overwatch top` as a program: intervals, formats, help, and how it ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use overwatch_tests::harness::host::{Host, in_guest, patience};
use overwatch_tests::harness::judge::{Expect, judge};
use overwatch_tests::harness::overwatch::{self, parse};
use overwatch_tests::harness::proc::Proc;
use overwatch_tests::harness::rows::Interval;
use overwatch_tests::harness::traffic::Hold;

#[test]
fn three_intervals_are_three_lines() -> Result<()> {
    let _host = Host::take()?;
    let started = Instant::now();
    let output = overwatch::output(&["top", "-o", "json", "1", "3"])?;
    ensure!(output.code == Some(0), "exit {:?}; stderr:\n{}", output.code, output.stderr);
    ensure!(started.elapsed() >= Duration::from_secs(3), "three seconds in {:?}", started.elapsed());
    let intervals = output.stdout.lines().map(parse).collect::<Result<Vec<Interval>>>()?;
    ensure!(intervals.len() == 3, "three lines, not {}:\n{}", intervals.len(), output.stdout);
    let longest = if in_guest() { 10.0 } else { 3.0 };
    for interval in &intervals {
        let seconds = interval.interval_seconds;
        ensure!((0.5..longest).contains(&seconds), "an interval of a second took {seconds}");
        ensure!(!interval.host.is_empty(), "the host has a name");
        // RFC 3339, in UTC so that lines sort by it.
        let time = interval.time.as_bytes();
        ensure!(time.len() >= 20 && time[10] == b'T' && interval.time.ends_with('Z'), "{}", interval.time);
    }
    let times: Vec<&str> = intervals.iter().map(|interval| interval.time.as_str()).collect();
    ensure!(times.is_sorted_by(|a, b| a < b), "time goes on: {times:?}");
    Ok(())
}

/// Runs `top` in `format` for two intervals while bytes move; what it printed, and the client's port.
fn two_intervals(format: &str) -> Result<(String, u16)> {
    let mut hold = Hold::open(&[])?;
    let mut process = Proc::start(overwatch::command(&["top", "-o", format, "-v", "1", "2"]))?;
    process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
    let ends = hold.send(123_457, 333)?;
    let output = process.finish(patience(60))?;
    ensure!(output.code == Some(0), "exit {:?}; stderr:\n{}", output.code, output.stderr);
    let client = ends.iter().find(|end| end.role == "client").context("a client")?;
    Ok((output.stdout, client.local_port))
}

#[test]
fn a_table_shows_both_ends() -> Result<()> {
    let _host = Host::take()?;
    let (text, port) = two_intervals("table")?;
    for name in ["ow-srv", "ow-cli"] {
        let line = text.lines().find(|line| line.contains(name) && line.contains(&port.to_string()));
        ensure!(line.is_some_and(|line| line.contains("127.0.0.1")), "no line of {name} in:\n{text}");
    }
    Ok(())
}

#[test]
fn csv_has_the_keys_of_json_as_columns() -> Result<()> {
    let _host = Host::take()?;
    let (text, port) = two_intervals("csv")?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column =
        |name: &str| header.iter().position(|title| title == name).with_context(|| format!("no {name}: {header:?}"));
    for name in ["time", "interval_seconds", "connection", "pid", "netns", "cgroup", "role", "state", "remote_addr"] {
        column(name)?;
    }
    let names = ["comm", "local_addr", "local_port", "sent_bytes", "received_bytes", "sent_bytes_total"];
    let columns = names.into_iter().map(column).collect::<Result<Vec<_>>>()?;
    let expected = ["ow-cli", "127.0.0.1", &port.to_string(), "123457", "333", "123457"];
    let mut found = 0;
    for record in reader.records() {
        let record = record.with_context(|| format!("in:\n{text}"))?;
        found += usize::from(columns.iter().zip(expected).all(|(&at, value)| record.get(at) == Some(value)));
    }
    ensure!(found == 1, "one row of the client, {found} found in:\n{text}");
    Ok(())
}

#[test]
fn sigterm_prints_what_is_left() -> Result<()> {
    let _host = Host::take()?;
    let mut process = Proc::start(overwatch::command(&["top", "-o", "json", "-v", "3600"]))?;
    process.wait_for_stderr(patience(60), |line| line.starts_with("overwatch: ready"))?;
    let mut hold = Hold::open(&[])?;
    let ends = hold.send(10_007, 333)?;
    process.signal(Signal::SIGTERM)?;
    let output = process.finish(patience(60))?;
    ensure!(output.code == Some(0), "exit {:?}; stderr:\n{}", output.code, output.stderr);
    let intervals = output.stdout.lines().map(parse).collect::<Result<Vec<Interval>>>()?;
    ensure!(intervals.len() == 1, "one interval, cut short, not {}", intervals.len());
    ensure!(intervals[0].interval_seconds < 600.0, "{} seconds", intervals[0].interval_seconds);
    for end in &ends {
        let problems = judge(&intervals, &[end], Expect::Exact).problems;
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
    }
    hold.close()
}

#[test]
fn help_has_three_examples() -> Result<()> {
    let _host = Host::take()?;
    let output = overwatch::output(&["top", "-h"])?;
    ensure!(output.code == Some(0), "exit {:?}", output.code);
    let examples = output.stdout.lines().skip_while(|line| !line.starts_with("Examples"));
    let count = examples.filter(|line| line.contains("overwatch top")).count();
    ensure!(count >= 3, "{count} examples in:\n{}", output.stdout);
    Ok(())
}
