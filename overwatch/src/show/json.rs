//! One JSON object per line.

use std::io::{self, Write};

use serde::Serialize as _;
use serde_json::{Map, Value as Json, ser::Formatter};

use super::columns::{CONNECTION, Value};
use crate::model::snapshot::{Row, Snapshot};

/// Writes an interval as one line.
pub fn write(out: &mut impl Write, host: &str, snapshot: &Snapshot, rows: &[(&Row, Option<&str>)]) -> io::Result<()> {
    let connections = rows.iter().map(|(row, cgroup)| {
        let object = CONNECTION.iter().map(|column| (column.key.to_owned(), json((column.value)(row, *cgroup))));
        Json::Object(object.collect())
    });
    let interval_seconds = (snapshot.interval.as_secs_f64() * 1e6).round() / 1e6;
    let mut object = Map::new();
    object.insert("time".into(), humantime::format_rfc3339_millis(snapshot.time).to_string().into());
    object.insert("interval_seconds".into(), interval_seconds.into());
    object.insert("host".into(), host.into());
    object.insert("connections".into(), Json::Array(connections.collect()));
    object.insert("unattributed_sent_bytes".into(), snapshot.unattributed_sent_bytes.into());
    object.insert("unattributed_received_bytes".into(), snapshot.unattributed_received_bytes.into());
    object.insert("lost_events".into(), snapshot.lost_events.into());
    object.insert("skipped_runs".into(), snapshot.skipped_runs.into());
    write_line(out, &Json::Object(object))
}

/// Writes any object as one line that is safe to look at in a terminal.
pub fn write_line(out: &mut impl Write, object: &Json) -> io::Result<()> {
    let mut line = Vec::new();
    object.serialize(&mut serde_json::Serializer::with_formatter(&mut line, TerminalSafe))?;
    line.push(b'\n');
    out.write_all(&line)
}

fn json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Text(text) => text.into(),
        Value::Number(number) => number.into(),
    }
}

/// JSON must escape control characters below space only; terminals also obey those from U+007F to U+009F.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|character: char| character.is_control()) {
            let (safe, unsafe_part) = rest.split_at(at);
            writer.write_all(safe.as_bytes())?;
            let mut characters = unsafe_part.chars();
            if let Some(character) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::fixtures::row;

    fn line(rows: &[(&Row, Option<&str>)]) -> String {
        let snapshot = Snapshot {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            interval: Duration::from_millis(1001),
            rows: Vec::new(),
            unattributed_sent_bytes: 1,
            unattributed_received_bytes: 2,
            lost_events: 3,
            skipped_runs: None,
        };
        let mut out = Vec::new();
        write(&mut out, "web1", &snapshot, rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_interval_is_one_line_with_the_promised_keys() {
        let line = line(&[(&row(), Some("/a"))]);
        assert_eq!(line.matches('\n').count(), 1);
        let object: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(object["time"], "1970-01-01T00:00:01.500Z");
        assert_eq!(object["interval_seconds"], 1.001);
        assert_eq!(object["connections"][0]["sent_bytes_total"], 3000);
        assert_eq!(object["connections"][0]["kernel_sent_bytes_total"], Json::Null);
        assert_eq!(object["unattributed_received_bytes"], 2);
    }

    #[test]
    fn a_hostile_name_comes_back_unchanged_and_steers_nothing() {
        let mut hostile = row();
        let name = "\n\x1b]0;x\x07\u{9b}31m\",";
        hostile.process.as_mut().unwrap().comm = name.into();
        let line = line(&[(&hostile, None)]);
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        let object: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(object["connections"][0]["comm"], name);
        assert_eq!(object["connections"][0]["cgroup"], Json::Null);
    }
}
