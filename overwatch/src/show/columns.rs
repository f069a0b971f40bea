//! What the objects in the output consist of: one table for each, from which JSON, CSV, their schemas and their
//! documentation are made.

use std::time::{Duration, SystemTime};

pub mod life;
pub mod listeners;
pub mod open;
pub mod states;
pub mod top;

/// A value in an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Not known.
    Null,
    /// Text, perhaps chosen by another user of the host.
    Text(String),
    /// A number.
    Number(u64),
    /// A length of time, shown in seconds, to the microsecond.
    Seconds(Duration),
    /// Yes or no.
    Bool(bool),
    /// Sentences.
    Texts(Vec<String>),
    /// An object.
    Object(Fields),
    /// A list of objects.
    Objects(Vec<Fields>),
}

/// The names and values of an object.
pub type Fields = Vec<(&'static str, Value)>;

/// What values of a key can be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// An instant, RFC 3339.
    Time,
    /// A whole number from 0.
    Integer,
    /// A number of seconds.
    Seconds,
    /// Yes or no.
    Bool,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of sentences.
    Texts,
    /// An object with these keys.
    Object(fn() -> Vec<Key>),
    /// A list of objects with these keys.
    Objects(fn() -> Vec<Key>),
}

/// One key of an object.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// JSON key and CSV heading.
    pub name: &'static str,
    /// What it says, for the documentation.
    pub help: &'static str,
    /// What its values can be.
    pub kind: Kind,
    /// It may be null.
    pub nullable: bool,
}

/// A key of an object that stands for a `T`.
pub struct Column<T> {
    /// The key.
    pub key: Key,
    /// Finds its value; the second argument is the path of the process's control group, where known.
    pub value: fn(&T, Option<&str>) -> Value,
}

impl<T> std::fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key.name)
    }
}

/// The keys of a table.
pub fn keys<T>(columns: &[Column<T>]) -> Vec<Key> {
    columns.iter().map(|column| column.key).collect()
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, help, kind, nullable: false }
}

const fn nullable_key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, help, kind, nullable: true }
}

/// A column that always has a value.
const fn column<T>(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&T, Option<&str>) -> Value,
) -> Column<T> {
    Column { key: key(name, kind, help), value }
}

/// A column whose value may be unknown.
const fn nullable<T>(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&T, Option<&str>) -> Value,
) -> Column<T> {
    Column { key: nullable_key(name, kind, help), value }
}

const NETNS: &str = "network namespace of the socket: the inode number that `ls -L -i /proc/PID/ns/net` shows";
const CGROUP: &str = "path of the process's control group (version 2); null when there is none or it has gone";
const LOCAL_ADDR: &str = "local address; IPv4 over an IPv6 socket is shown as IPv4";

fn text(text: &(impl ToString + ?Sized)) -> Value {
    Value::Text(text.to_string())
}

fn number(number: impl Into<u64>) -> Value {
    Value::Number(number.into())
}

fn optional<T>(value: Option<T>, show: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, show)
}

/// Events are told apart by microseconds.
fn time(time: SystemTime) -> Value {
    text(&humantime::format_rfc3339_micros(time))
}

/// What stands for a `T` inside another object.
fn fields<T>(columns: &[Column<T>], of: &T) -> Fields {
    columns.iter().map(|column| (column.key.name, (column.value)(of, None))).collect()
}

fn objects<T>(columns: &[Column<T>], all: &[T]) -> Value {
    Value::Objects(all.iter().map(|of| fields(columns, of)).collect())
}

/// For numbers of which 0 stands for unknown.
fn unless_zero(of: impl Into<u64>) -> Value {
    let of = of.into();
    optional((of != 0).then_some(of), number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented(keys: &[Key], document: &str) {
        for key in keys {
            let line = format!("| `{}` | {} |", key.name, key.help);
            assert!(document.contains(&line), "docs/json.md lacks the line\n{line}");
            if let Kind::Object(of) | Kind::Objects(of) = key.kind {
                documented(&of(), document);
            }
        }
    }

    /// docs/json.md is for people; this keeps it complete.
    #[test]
    fn every_key_is_documented_with_its_help() {
        let document = include_str!("../../../docs/json.md");
        let section = |heading: &str| {
            let start = document.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
            let section = &document[start + 1..];
            section.find("\n## ").map_or(section, |end| &section[..end])
        };
        for (heading, keys) in [
            ("`overwatch top -o json`", top::INTERVAL.to_vec()),
            ("`overwatch states -o json`", keys(states::TRANSITION)),
            ("`overwatch states -o json`", keys(states::LOST)),
            ("`overwatch life -o json`", keys(life::LIFE)),
            ("`overwatch life -o json`", keys(life::LOST)),
            ("`overwatch open -o json`", open::OPEN.to_vec()),
            ("`overwatch listeners -o json`", listeners::INTERVAL.to_vec()),
        ] {
            documented(&keys, section(heading));
        }
    }
}
