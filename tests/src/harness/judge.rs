//! Holds what overwatch printed against what the two ends counted themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::rows::{Bytes, Interval, Row, rows};
use crate::traffic::report::Report;

/// How an end of a connection must be seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// Every byte in a row of the process that moved it.
    Exact,
    /// Every byte in a row of the connection by the time it closes, some of them made good from the kernel.
    ExactAtClose,
}

/// What was found about one end.
#[derive(Debug, Default)]
pub struct Finding {
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Whether something was made good.
    pub reconciled: bool,
}

/// The rows of one end of a connection.
pub fn rows_of<'a>(intervals: &'a [Interval], end: &Report) -> Vec<&'a Row> {
    let (Ok(local), Ok(remote)) = (end.local_addr.parse::<IpAddr>(), end.remote_addr.parse::<IpAddr>()) else {
        return Vec::new();
    };
    rows(intervals)
        .filter(|row| {
            (row.local_addr, row.local_port, row.remote_addr, row.remote_port)
                == (local, end.local_port, remote, end.remote_port)
                && row.netns == end.netns
        })
        .collect()
}

/// The reports of processes that worked on the same socket, together.
#[must_use]
pub fn by_end(reports: &[Report]) -> Vec<Vec<&Report>> {
    let mut ends: BTreeMap<_, Vec<&Report>> = BTreeMap::new();
    for report in reports {
        let key = (report.netns, &report.local_addr, report.local_port, &report.remote_addr, report.remote_port);
        ends.entry(key).or_default().push(report);
    }
    ends.into_values().collect()
}

/// Judges one end, on which the processes of `reports` worked.
#[must_use]
pub fn judge(intervals: &[Interval], reports: &[&Report], expect: Expect) -> Finding {
    let Some(first) = reports.first() else {
        return Finding::default();
    };
    let rows = rows_of(intervals, first);
    let mut problems = Vec::new();
    let counted: Bytes = reports.iter().map(|r| Bytes { sent: r.sent, received: r.received }).sum();
    let shown: Bytes = rows.iter().map(|row| row.bytes()).sum();
    let reconciled: Bytes = rows.iter().map(|row| row.reconciled()).sum();
    if shown != counted {
        problems.push(format!("{shown:?} shown, {counted:?} counted"));
    }
    if expect == Expect::Exact && reconciled != Bytes::default() {
        problems.push(format!("{reconciled:?} had to be made good"));
    }
    let ids: BTreeSet<u64> = rows.iter().map(|row| row.connection).collect();
    if ids.len() > 1 {
        problems.push(format!("one socket, several connection numbers: {ids:?}"));
    }
    problems.extend(processes(&rows, reports, expect));
    problems.extend(totals(&rows));
    for row in &rows {
        if row.role.as_deref() != Some(first.role.as_str()) {
            problems.push(format!("role {:?} instead of {}", row.role, first.role));
        }
        if row.reconciled_sent_bytes > row.sent_bytes || row.reconciled_received_bytes > row.received_bytes {
            problems.push(format!("more made good than shown: {row:?}"));
        }
        if row.bytes() == Bytes::default() {
            problems.push(format!("a row without traffic: {row:?}"));
        }
    }
    problems.sort();
    problems.dedup();
    let place = format!(
        "{} {} {} {}:{} -> {}:{}",
        first.op, first.family, first.role, first.local_addr, first.local_port, first.remote_addr, first.remote_port
    );
    Finding {
        problems: problems.into_iter().map(|problem| format!("{place}: {problem}")).collect(),
        reconciled: reconciled != Bytes::default(),
    }
}

/// Every byte is on the row of the process that made the call, under that process's name.
fn processes(rows: &[&Row], reports: &[&Report], expect: Expect) -> Vec<String> {
    let mut problems = Vec::new();
    for report in reports {
        let own: Vec<_> = rows.iter().filter(|row| row.pid == Some(report.pid)).collect();
        let shown: Bytes = own.iter().map(|row| row.bytes()).sum();
        let counted = Bytes { sent: report.sent, received: report.received };
        if expect == Expect::Exact && shown != counted {
            problems.push(format!("process {} ({}): {shown:?} shown, {counted:?} counted", report.pid, report.comm));
        }
        for row in own.iter().filter(|row| row.comm.as_deref() != Some(report.comm.as_str())) {
            problems.push(format!("process {} is called {}, not {:?}", report.pid, report.comm, row.comm));
        }
    }
    for row in rows {
        match row.pid {
            Some(pid) if reports.iter().any(|report| report.pid == pid) => {}
            // Bytes that were made good may have no process: nobody saw the call.
            None if row.bytes() == row.reconciled() => {}
            other => problems.push(format!("{:?} of process {other:?} ({:?})", row.bytes(), row.comm)),
        }
    }
    problems
}

/// The totals of each row are the sum of what its intervals showed.
fn totals(rows: &[&Row]) -> Vec<String> {
    let mut sums: BTreeMap<(u64, Option<u32>), Bytes> = BTreeMap::new();
    let mut problems = Vec::new();
    for row in rows {
        let sum = sums.entry((row.connection, row.pid)).or_default();
        *sum += row.bytes();
        if *sum != row.total() {
            problems.push(format!(
                "total {:?} of process {:?} after intervals that sum to {sum:?}",
                row.total(),
                row.pid
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let text = r#"{"op":"write","family":"v4","role":"client","pid":7,"comm":"ow-cli","netns":1,
            "local_addr":"127.0.0.1","local_port":5,"remote_addr":"127.0.0.1","remote_port":6,"sent":10,"received":4}"#;
        serde_json::from_str(text).unwrap()
    }

    fn row() -> Row {
        let text = r#"{"connection":9,"pid":7,"comm":"ow-cli","netns":1,"cgroup":"/","local_addr":"127.0.0.1",
            "local_port":5,"remote_addr":"127.0.0.1","remote_port":6,"role":"client","state":"ESTABLISHED",
            "sent_bytes":10,"received_bytes":4,"sent_bytes_total":10,"received_bytes_total":4,
            "reconciled_sent_bytes":0,"reconciled_received_bytes":0}"#;
        serde_json::from_str(text).unwrap()
    }

    fn interval(rows: Vec<Row>) -> Vec<Interval> {
        vec![Interval {
            time: String::new(),
            interval_seconds: 1.0,
            host: String::new(),
            connections: rows,
            unattributed_sent_bytes: 0,
            unattributed_received_bytes: 0,
            lost_events: 0,
            skipped_runs: None,
        }]
    }

    fn problems(expect: Expect, change: impl Fn(&mut Row)) -> usize {
        let mut row = row();
        change(&mut row);
        judge(&interval(vec![row]), &[&report()], expect).problems.len()
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(problems(Expect::Exact, |_| ()), 0);
        let made_good = |row: &mut Row| {
            (row.pid, row.comm, row.reconciled_sent_bytes, row.reconciled_received_bytes) = (None, None, 10, 4);
        };
        assert_eq!(problems(Expect::ExactAtClose, made_good), 0);
    }

    #[test]
    fn what_is_wrong_does_not() {
        let wrong: [fn(&mut Row); 10] = [
            |row| (row.sent_bytes, row.sent_bytes_total) = (9, 9),
            |row| (row.sent_bytes, row.received_bytes) = (4, 10),
            |row| row.pid = Some(8),
            |row| row.pid = None,
            |row| row.comm = Some("ow-thread".to_owned()),
            |row| row.netns = 2,
            |row| row.remote_port = 5,
            |row| row.role = Some("server".to_owned()),
            |row| row.sent_bytes_total = 11,
            |row| row.reconciled_sent_bytes = 11,
        ];
        for (index, change) in wrong.into_iter().enumerate() {
            for expect in [Expect::Exact, Expect::ExactAtClose] {
                assert!(problems(expect, change) > 0, "number {index}, {expect:?}");
            }
        }
        assert!(problems(Expect::Exact, |row| row.reconciled_sent_bytes = 10) > 0);
        let twice = interval(vec![row(), row()]);
        assert!(!judge(&twice, &[&report()], Expect::Exact).problems.is_empty());
        assert!(!judge(&interval(Vec::new()), &[&report()], Expect::ExactAtClose).problems.is_empty());
    }
}
