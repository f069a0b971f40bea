//! Comma-separated values: one line per connection, process and interval, with a heading once.

use std::io::{self, Write};

use super::{
    columns::{Column, Kind, Value, top::CONNECTION},
    json,
    text::{escaped, seconds},
};
use crate::model::snapshot::{Row, Snapshot};

/// Columns behind those of a row, filled only in the line of what could be put on no row.
const BEHIND: [&str; 2] = ["lost_events", "skipped_runs"];

/// Writes the heading.
pub fn write_heading(out: &mut impl Write) -> io::Result<()> {
    let columns = CONNECTION.iter().map(|column| column.key.name);
    record(out, ["time", "interval_seconds"].into_iter().chain(columns).chain(BEHIND))
}

/// Writes an interval. What could be put on no row is a line with the word `unattributed` as its name.
pub fn write(out: &mut impl Write, snapshot: &Snapshot, rows: &[(&Row, Option<&str>)]) -> io::Result<()> {
    let time = humantime::format_rfc3339_millis(snapshot.time).to_string();
    let interval = format!("{:.6}", snapshot.interval.as_secs_f64());
    let empty = || BEHIND.iter().map(|_| String::new());
    for (row, cgroup) in rows {
        let values = fields(CONNECTION, *row, *cgroup);
        record(out, [time.clone(), interval.clone()].into_iter().chain(values).chain(empty()))?;
    }
    let skipped_runs = snapshot.skipped_runs.unwrap_or(0);
    let unattributed = snapshot.unattributed_sent_bytes + snapshot.unattributed_received_bytes;
    if unattributed + snapshot.lost_events + skipped_runs > 0 {
        let values = CONNECTION.iter().map(|column| match column.key.name {
            "comm" => "unattributed".to_owned(),
            "sent_bytes" => snapshot.unattributed_sent_bytes.to_string(),
            "received_bytes" => snapshot.unattributed_received_bytes.to_string(),
            _ => String::new(),
        });
        let behind = [snapshot.lost_events, skipped_runs].map(|number| number.to_string());
        record(out, [time, interval].into_iter().chain(values).chain(behind))?;
    }
    Ok(())
}

/// The headings of a table. An object has one for each of its keys.
pub(super) fn headings<T>(columns: &[Column<T>]) -> impl Iterator<Item = String> {
    columns.iter().flat_map(|column| match column.key.kind {
        Kind::Object(keys) => keys().iter().map(|key| format!("{}_{}", column.key.name, key.name)).collect(),
        _ => vec![column.key.name.to_owned()],
    })
}

/// The fields of what stands for a `T`.
pub(super) fn fields<T>(columns: &[Column<T>], of: &T, cgroup: Option<&str>) -> impl Iterator<Item = String> {
    columns.iter().flat_map(move |column| match (column.key.kind, (column.value)(of, cgroup)) {
        (Kind::Object(_), Value::Object(fields)) => fields.into_iter().map(|(_, value)| field(value)).collect(),
        (Kind::Object(keys), _) => vec![String::new(); keys().len()],
        (_, value) => vec![field(value)],
    })
}

/// A value as it stands in a field; what is not known is empty, and a list is JSON.
pub(super) fn field(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => escaped(&text),
        Value::Number(number) => number.to_string(),
        Value::Seconds(duration) => seconds(duration).to_string(),
        Value::Bool(yes) => yes.to_string(),
        Value::Texts(_) | Value::Object(_) | Value::Objects(_) => json::text(&value),
    }
}

/// Through a buffer of its own, so that what the caller sees of an error is the writer's own.
pub(super) fn record<T: AsRef<[u8]>>(out: &mut impl Write, fields: impl Iterator<Item = T>) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields).map_err(io::Error::other)?;
    out.write_all(&writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::fixtures::row;

    #[test]
    fn a_hostile_name_stays_in_its_field() {
        let mut hostile = row();
        hostile.process.as_mut().unwrap().comm = "a,\"b\"\n\x1b[2J".into();
        let snapshot = Snapshot {
            time: SystemTime::UNIX_EPOCH,
            interval: Duration::from_secs(1),
            rows: Vec::new(),
            unattributed_sent_bytes: 5,
            unattributed_received_bytes: 0,
            lost_events: 0,
            skipped_runs: None,
        };
        let mut out = Vec::new();
        write_heading(&mut out).unwrap();
        write(&mut out, &snapshot, &[(&hostile, None)]).unwrap();
        let mut reader = csv::Reader::from_reader(out.as_slice());
        let comm = reader.headers().unwrap().iter().position(|key| key == "comm").unwrap();
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(&records[0][comm], "a,\"b\"\\n\\u{1b}[2J");
        assert_eq!(&records[1][comm], "unattributed");
        assert_eq!(records.len(), 2);
    }
}
