//! YAML as far as a configuration needs it: maps, lists and scalars, each with its line. No anchors, no tags, one document.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

/// A configuration has three levels.
const DEEPEST: usize = 8;
/// Keys of one map: each new one is compared with all before it.
const MOST_KEYS: usize = 1000;

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Counted from 1.
    pub(super) line: usize,
    /// From the outermost, with dots; empty where it is about none.
    pub(super) key: String,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(line: usize, key: &str, what: impl Into<String>) -> Self {
        Self { line, key: key.to_owned(), what: what.into() }
    }
}

/// Longer keys and values are cut where they are shown.
const LONGEST_SHOWN: usize = 80;

/// A key or a value of the file, as a message has it.
pub(super) fn shown(text: &str) -> String {
    let more = if text.chars().nth(LONGEST_SHOWN).is_some() { "..." } else { "" };
    one_line(text.chars().take(LONGEST_SHOWN)) + more
}

/// Without what breaks a line or steers a terminal.
pub(super) fn one_line(text: impl Iterator<Item = char>) -> String {
    let mut line = String::new();
    for letter in text {
        match letter {
            '\'' | '"' | '\\' => line.push(letter),
            letter => line.extend(letter.escape_debug()),
        }
    }
    line
}

/// A value and the line that it begins at, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Nothing,
    /// `quoted` tells `"true"` from `true`.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key.
    pub(super) line: usize,
    pub(super) node: Node,
}

/// Parses one document; `Nothing` for an empty one.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let last = text.lines().count();
    let mut reader = Reader { parser: Parser::new_from_str(text), line: 1, last };
    let mut root = None;
    while let Some(event) = reader.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            _ if root.is_some() => return Err(reader.fault("there is a second document")),
            event => root = Some(reader.node(event, 0)?),
        }
    }
    Ok(root.unwrap_or(Node { line: 1, value: Value::Nothing }))
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Of the last event.
    line: usize,
    /// Last line of the text: the parser names one more when something is missing at the end.
    last: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<Event<'a>>, Fault> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = self.within(span.start.line());
                Ok(Some(event))
            }
            Some(Err(error)) => {
                self.line = self.within(error.marker().line());
                Err(self.fault(&format!("not YAML: {}", error.info())))
            }
        }
    }

    fn within(&self, line: usize) -> usize {
        line.min(self.last).max(1)
    }

    fn expected(&mut self) -> Result<Event<'a>, Fault> {
        self.next()?.ok_or_else(|| self.fault("it ends too early"))
    }

    fn fault(&self, what: &str) -> Fault {
        Fault::new(self.line, "", what)
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, Fault> {
        let line = self.line;
        if depth > DEEPEST {
            return Err(self.fault("it is nested too deep"));
        }
        let value = match event {
            Event::Scalar(text, style, _, None) => scalar(text, style),
            Event::SequenceStart(_, None) => self.list(depth)?,
            Event::MappingStart(_, None) => self.map(depth)?,
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                return Err(self.fault("tags are not supported"));
            }
            Event::Alias(_) => return Err(self.fault("aliases are not supported")),
            _ => return Err(self.fault("a value is missing")),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut nodes = Vec::new();
        loop {
            match self.expected()? {
                Event::SequenceEnd => return Ok(Value::List(nodes)),
                event => nodes.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let key = match self.expected()? {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.fault("a key is not a plain text")),
            };
            let line = self.line;
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                return Err(Fault::new(line, &key, format!("it is there twice, first in line {}", first.line)));
            }
            if entries.len() == MOST_KEYS {
                return Err(self.fault("it has more than 1000 keys"));
            }
            let event = self.expected()?;
            entries.push(Entry { key, line, node: self.node(event, depth + 1)? });
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Nothing;
    }
    Value::Scalar { text: text.into_owned(), quoted }
}
