//! One JSON object per line.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::ser::Formatter;

use super::{
    columns::{Column, Fields, Value, top::CONNECTION},
    text::{seconds, steers},
};
use crate::model::snapshot::{Row, Snapshot};

/// Writes an interval as one line. Row by row, since an interval may have very many.
pub fn write(out: &mut impl Write, host: &str, snapshot: &Snapshot, rows: &[(&Row, Option<&str>)]) -> io::Result<()> {
    write_line(out, &Interval { host, snapshot, rows })
}

/// Writes any object as one line that is safe to look at in a terminal.
pub fn write_line(out: &mut impl Write, object: &impl Serialize) -> io::Result<()> {
    object.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, TerminalSafe))?;
    out.write_all(b"\n")
}

/// Any object as text that is safe to look at in a terminal. Values alone cannot fail to be written.
pub(super) fn text(object: &impl Serialize) -> String {
    let mut out = Vec::new();
    let written = write_line(&mut out, object);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8_lossy(&out).trim_end().to_owned()
}

struct Interval<'a> {
    host: &'a str,
    snapshot: &'a Snapshot,
    rows: &'a [(&'a Row, Option<&'a str>)],
}

impl Serialize for Interval<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let snapshot = self.snapshot;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &humantime::format_rfc3339_millis(snapshot.time).to_string())?;
        map.serialize_entry("interval_seconds", &seconds(snapshot.interval))?;
        map.serialize_entry("host", self.host)?;
        map.serialize_entry("connections", &Rows(self.rows))?;
        map.serialize_entry("unattributed_sent_bytes", &snapshot.unattributed_sent_bytes)?;
        map.serialize_entry("unattributed_received_bytes", &snapshot.unattributed_received_bytes)?;
        map.serialize_entry("lost_events", &snapshot.lost_events)?;
        map.serialize_entry("skipped_runs", &snapshot.skipped_runs)?;
        map.end()
    }
}

struct Rows<'a>(&'a [(&'a Row, Option<&'a str>)]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(row, cgroup)| Object(CONNECTION, *row, *cgroup)))
    }
}

/// What stands for a `T`: its columns, and the path of its process's control group.
pub(super) struct Object<'a, T>(pub(super) &'a [Column<T>], pub(super) &'a T, pub(super) Option<&'a str>);

impl<T> Serialize for Object<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(columns, of, cgroup) = self;
        serializer.collect_map(columns.iter().map(|column| (column.key.name, (column.value)(of, *cgroup))))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Seconds(duration) => serializer.serialize_f64(seconds(*duration)),
            Self::Bool(yes) => serializer.serialize_bool(*yes),
            Self::Texts(texts) => serializer.collect_seq(texts),
            Self::Object(fields) => Nested(fields).serialize(serializer),
            Self::Objects(all) => serializer.collect_seq(all.iter().map(Nested)),
        }
    }
}

struct Nested<'a>(&'a Fields);

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// JSON must escape control characters below space only; terminals also obey those from U+007F to U+009F, and those that
/// steer the direction of writing. And people do not read exponents well.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(steers) {
            let (safe, unsafe_part) = rest.split_at(at);
            writer.write_all(safe.as_bytes())?;
            let mut characters = unsafe_part.chars();
            if let Some(character) = characters.next() {
                // All of them are in the plane that four digits reach.
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{value}{}", if value.fract() == 0.0 { ".0" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::Value as Json;

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
        let name = "\n\x1b]0;x\x07\u{9b}31m\",\u{202e}";
        hostile.process.as_mut().unwrap().comm = name.into();
        let line = line(&[(&hostile, None)]);
        assert!(!line.trim_end().chars().any(steers), "{line:?}");
        let object: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(object["connections"][0]["comm"], name);
        assert_eq!(object["connections"][0]["cgroup"], Json::Null);
    }

    #[test]
    fn seconds_have_no_exponent() {
        for (nanos, text) in [
            (0, "0.0"),
            (400, "0.0"),
            (1_000, "0.000001"),
            (12_000, "0.000012"),
            (1_500_000_000, "1.5"),
            (86_400_000_000_000, "86400.0"),
            (u64::MAX, "18446744073.709553"),
        ] {
            let mut out = Vec::new();
            write_line(&mut out, &Value::Seconds(Duration::from_nanos(nanos))).unwrap();
            assert_eq!(String::from_utf8(out).unwrap().trim_end(), text);
        }
    }
}
