//! What is open, interval by interval.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    cells::{comm, known_endpoint, pid},
    columns::{
        Column, Value,
        open::{LISTENER, OWNER, REMOTE},
    },
    csv,
    json::{Object, write_line},
    text::{fit, printable, seconds},
};
use crate::model::open::{ListenerOpen, OpenCounts, OwnerOpen, RemoteOpen};

/// An interval.
#[derive(Debug)]
pub struct Interval<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// How long it was.
    pub length: Duration,
    /// Name of this host.
    pub host: &'a str,
    /// What was open at its end.
    pub counts: &'a OpenCounts,
    /// Changes that were lost in it.
    pub lost_events: u64,
    /// At most so many of each kind are shown.
    pub rows: usize,
}

impl Interval<'_> {
    fn listeners(&self) -> &[ListenerOpen] {
        &self.counts.listeners[..self.counts.listeners.len().min(self.rows)]
    }

    fn owners(&self) -> &[OwnerOpen] {
        &self.counts.owners[..self.counts.owners.len().min(self.rows)]
    }

    fn remotes(&self) -> &[RemoteOpen] {
        &self.counts.remotes[..self.counts.remotes.len().min(self.rows)]
    }
}

/// For scripts: one object.
pub fn write_json(out: &mut impl Write, interval: &Interval<'_>) -> io::Result<()> {
    write_line(out, interval)
}

impl Serialize for Interval<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &humantime::format_rfc3339_millis(self.time).to_string())?;
        map.serialize_entry("interval_seconds", &seconds(self.length))?;
        map.serialize_entry("host", self.host)?;
        map.serialize_entry("open_connections", &self.counts.open_connections)?;
        map.serialize_entry("listeners", &Objects(LISTENER, self.listeners()))?;
        map.serialize_entry("owners", &Objects(OWNER, self.owners()))?;
        map.serialize_entry("remotes", &Objects(REMOTE, self.remotes()))?;
        map.serialize_entry("lost_events", &self.lost_events)?;
        map.end()
    }
}

struct Objects<'a, T>(&'a [Column<T>], &'a [T]);

impl<T> Serialize for Objects<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.1.iter().map(|of| Object(self.0, of, None)))
    }
}

/// CSV columns: what kind of object the record is of, then the keys of all kinds, each once.
const KINDS: [&str; 3] = ["listener", "owner", "remote"];
const FIELDS: [&str; 8] = ["netns", "local_addr", "local_port", "pid", "comm", "remote_addr", "open", "waiting"];

/// Writes the heading of the CSV output.
pub fn write_csv_heading(out: &mut impl Write) -> io::Result<()> {
    csv::record(out, ["time", "interval_seconds", "kind"].into_iter().chain(FIELDS).chain(["lost_events"]))
}

/// Writes a record for each listener, owner and remote address.
pub fn write_csv(out: &mut impl Write, interval: &Interval<'_>) -> io::Result<()> {
    records(out, interval, KINDS[0], LISTENER, interval.listeners())?;
    records(out, interval, KINDS[1], OWNER, interval.owners())?;
    records(out, interval, KINDS[2], REMOTE, interval.remotes())
}

fn records<T>(
    out: &mut impl Write,
    interval: &Interval<'_>,
    kind: &str,
    columns: &[Column<T>],
    all: &[T],
) -> io::Result<()> {
    for of in all {
        let value = |name: &str| {
            let column = columns.iter().find(|column| column.key.name == name);
            csv::field(column.map_or(Value::Null, |column| (column.value)(of, None)))
        };
        let begin = [
            humantime::format_rfc3339_millis(interval.time).to_string(),
            seconds(interval.length).to_string(),
            kind.to_owned(),
        ];
        let end = [interval.lost_events.to_string()];
        csv::record(out, begin.into_iter().chain(FIELDS.map(value)).chain(end))?;
    }
    Ok(())
}

/// For people: three short tables. `width` is that of the terminal, where there is one.
pub fn write_table(out: &mut impl Write, interval: &Interval<'_>, color: bool, width: Option<usize>) -> io::Result<()> {
    let counts = interval.counts;
    let cut = |line: &str| match width {
        Some(width) => fit(line, width, false).trim_end().to_owned(),
        None => line.trim_end().to_owned(),
    };
    let title = |line: String| {
        let line = cut(&line);
        if color { format!("\x1b[1m{line}\x1b[0m") } else { line }
    };
    let time = humantime::format_rfc3339_seconds(interval.time);
    writeln!(
        out,
        "{}",
        cut(&format!("{time}  {} open connections  {}", counts.open_connections, printable(interval.host)))
    )?;
    if interval.lost_events > 0 {
        writeln!(out, "{}", cut(&format!("LOST: {} changes; counted anew", interval.lost_events)))?;
    }
    writeln!(out, "{}", title(format!("{:>8} {:>8} {:>7} {:<15} LISTENER", "OPEN", "WAITING", "PID", "COMM")))?;
    for of in interval.listeners() {
        let process = of.process.as_ref();
        let place = known_endpoint(Some(of.local_addr), Some(of.local_port));
        let (pid, comm) = (pid(process), fit(&comm(process), 15, false));
        writeln!(out, "{}", cut(&format!("{:>8} {:>8} {pid:>7} {comm} {place}", of.open, of.waiting)))?;
    }
    more(out, counts.listeners.len(), interval.listeners().len())?;
    writeln!(out, "{}", title(format!("{:>8} {:>16} OWNER", "OPEN", "PID")))?;
    for of in interval.owners() {
        let process = of.process.as_ref();
        writeln!(out, "{}", cut(&format!("{:>8} {:>16} {}", of.open, pid(process), comm(process))))?;
    }
    more(out, counts.owners.len(), interval.owners().len())?;
    writeln!(out, "{}", title(format!("{:>8} {:>16} REMOTE", "OPEN", "")))?;
    for of in interval.remotes() {
        writeln!(out, "{}", cut(&format!("{:>8} {:>16} {}", of.open, "", of.remote_addr)))?;
    }
    more(out, counts.remotes.len(), interval.remotes().len())
}

fn more(out: &mut impl Write, all: usize, shown: usize) -> io::Result<()> {
    if all > shown {
        writeln!(out, "... and {} more", all - shown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::Process;

    fn counts() -> OpenCounts {
        let nginx = || Some(Process { pid: 42, comm: "ng\x1binx".into(), cgroup_id: 0 });
        OpenCounts {
            open_connections: 3,
            listeners: vec![ListenerOpen {
                netns: 7,
                local_addr: [0, 0, 0, 0].into(),
                local_port: 80,
                process: nginx(),
                open: 2,
                waiting: 1,
            }],
            owners: vec![OwnerOpen { process: nginx(), open: 2 }, OwnerOpen { process: None, open: 1 }],
            remotes: vec![RemoteOpen { remote_addr: [10, 0, 0, 2].into(), open: 3 }],
        }
    }

    fn interval(counts: &OpenCounts, rows: usize) -> Interval<'_> {
        Interval {
            time: SystemTime::UNIX_EPOCH,
            length: Duration::from_secs(1),
            host: "web1",
            counts,
            lost_events: 4,
            rows,
        }
    }

    #[test]
    fn json_has_the_promised_keys() {
        let mut out = Vec::new();
        write_json(&mut out, &interval(&counts(), usize::MAX)).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        let promised: Vec<_> = super::super::columns::open::OPEN.iter().map(|key| key.name).collect();
        assert_eq!(keys, promised);
        assert_eq!(object["listeners"][0]["waiting"], 1);
        assert_eq!(object["owners"][1]["pid"], serde_json::Value::Null);
        assert_eq!(object["remotes"][0]["open"], 3);
    }

    #[test]
    fn csv_has_a_record_for_each_and_empty_fields_where_a_kind_has_no_such_key() {
        let mut out = Vec::new();
        write_csv_heading(&mut out).unwrap();
        write_csv(&mut out, &interval(&counts(), usize::MAX)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].split(',').count(), 12);
        assert!(lines[1].contains(",listener,7,0.0.0.0,80,42,ng\\u{1b}inx,,2,1,4"), "{}", lines[1]);
        assert!(lines[3].contains(",owner,,,,,,,1,,4"), "{}", lines[3]);
        assert!(lines[4].contains(",remote,,,,,,10.0.0.2,3,,4"), "{}", lines[4]);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_table_cuts_nothing_without_a_width_and_says_what_it_leaves_out() {
        let mut out = Vec::new();
        write_table(&mut out, &interval(&counts(), 1), false, None).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("3 open connections") && text.contains("LOST: 4 changes"), "{text}");
        assert!(text.contains("ng?inx          0.0.0.0:80") && text.contains("... and 1 more"), "{text}");
        assert!(text.lines().flat_map(str::chars).all(|character| !character.is_control()), "{text:?}");
        let mut out = Vec::new();
        write_table(&mut out, &interval(&counts(), 9), false, Some(20)).unwrap();
        assert!(String::from_utf8(out).unwrap().lines().all(|line| line.chars().count() <= 20));
    }
}
