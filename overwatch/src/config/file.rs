//! From the text of the file to settings: TOML, with the line of whatever is wrong.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    SETTINGS, Setting, Settings,
    kind::{Form, Wrong},
    table::{SECTIONS, Section},
};

/// Longer keys are cut where they are shown, and are no slip of the pen.
const LONGEST_KEY: usize = 80;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) key: Option<String>,
    pub(super) what: String,
}

/// Paths in it are below `directory`, unless they are absolute.
pub(super) fn parse(bytes: &[u8], directory: &Path) -> Result<Settings, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| Fault {
        line: line(bytes, error.valid_up_to()),
        key: None,
        what: "it is not UTF-8".to_owned(),
    })?;
    let (root, errors) = DeTable::parse_recoverable(text);
    let place = |error: &&toml::de::Error| error.span().map_or(0, |span| span.start);
    if let Some(error) = errors.iter().min_by_key(place) {
        return Err(syntax(text, error));
    }
    let mut reader = Reader { settings: Settings::default(), directory, first: None };
    reader.table(root.get_ref(), "");
    match reader.first {
        None => Ok(reader.settings),
        Some(slip) => Err(Fault {
            line: line(bytes, slip.at),
            what: slip.what.unwrap_or_else(|| unknown(&slip.path)),
            key: Some(shown_key(&slip.path)),
        }),
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> Fault {
    let span: Range<usize> = error.span().unwrap_or_default();
    let message: Vec<_> = error.message().split_whitespace().collect();
    let message = message.join(" ");
    let twice = text.get(span.clone()).filter(|_| message.starts_with("duplicate key")).map(shown_key);
    let key = key_around(text, span.start).map(str::to_owned).or(twice);
    Fault { line: line(text.as_bytes(), span.start), key, what: format!("not TOML: {message}") }
}

/// The setting that a line looks like, where the text as a whole is no TOML.
fn key_around(text: &str, at: usize) -> Option<&'static str> {
    let above = text.get(..at)?;
    let start = above.rfind('\n').map_or(0, |before| before + 1);
    let (name, _) = text[start..].lines().next()?.split_once('=')?;
    let section_of = |line: &str| {
        let name = line.trim().strip_prefix('[')?.strip_suffix(']')?;
        SECTIONS.iter().find(|section| section.name == name)
    };
    let section = above[..start].lines().rev().find_map(section_of).map_or("", |section| section.name);
    let stands_here = |setting: &&Setting| setting.section() == section && setting.name() == name.trim();
    SETTINGS.iter().find(stands_here).map(|setting| setting.key)
}

/// The line of a place in the file. What is missing at the end is missing in its last line.
fn line(bytes: &[u8], at: usize) -> usize {
    let breaks = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    let before = breaks(&bytes[..at.min(bytes.len())]);
    let last = breaks(bytes.strip_suffix(b"\n").unwrap_or(bytes));
    before.min(last) + 1
}

/// What is not as it must be.
struct Slip {
    at: usize,
    path: String,
    /// `None`: there is no such key.
    what: Option<String>,
}

struct Reader<'a> {
    settings: Settings,
    directory: &'a Path,
    /// The first in the file; tables are sorted by key.
    first: Option<Slip>,
}

impl Reader<'_> {
    fn slip(&mut self, at: usize, path: &str, what: Option<String>) {
        if self.first.as_ref().is_none_or(|first| at < first.at) {
            self.first = Some(Slip { at, path: path.to_owned(), what });
        }
    }

    /// No deeper than there are sections.
    fn table(&mut self, table: &DeTable<'_>, section: &str) {
        for (key, value) in table {
            let path =
                if section.is_empty() { key.get_ref().to_string() } else { format!("{section}.{}", key.get_ref()) };
            // A dot in a quoted key is none between keys.
            let is_plain = !key.get_ref().contains('.');
            if let Some(setting) = SETTINGS.iter().find(|setting| is_plain && setting.key == path) {
                self.setting(setting, value);
            } else if SECTIONS.iter().any(|section| is_plain && section.name == path && !path.is_empty()) {
                match value.get_ref() {
                    DeValue::Table(table) => self.table(table, &path),
                    _ => self.slip(value.span().start, &path, Some(format!("a section is wanted here: [{path}]"))),
                }
            } else {
                self.slip(key.span().start, &path, None);
            }
        }
    }

    fn setting(&mut self, setting: &Setting, value: &Spanned<DeValue<'_>>) {
        let texts = match texts(setting.kind.form(), value) {
            Ok(texts) => texts,
            Err((at, what)) => return self.slip(at, setting.key, Some(what)),
        };
        let (texts, places): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
        if let Err(Wrong { index, what }) = setting.kind.assign(&mut self.settings, &texts, self.directory) {
            let at = places.get(index).copied().unwrap_or(value.span().start);
            self.slip(at, setting.key, Some(what));
        }
    }
}

/// The text of a value, or of each of its parts, with its place in the file.
fn texts(form: Form, value: &Spanned<DeValue<'_>>) -> Result<Vec<(String, usize)>, (usize, String)> {
    let at = value.span().start;
    let wanted = |what: &str, found: &DeValue<'_>| format!("{what} is wanted here, not {}", named(found));
    let text = match (form, value.get_ref()) {
        (Form::Text, DeValue::String(text)) => text.to_string(),
        (Form::Integer | Form::Number, DeValue::Integer(number)) => {
            // Too long a one is left as it is: no bound is as high.
            let decimal = i128::from_str_radix(number.as_str(), number.radix());
            decimal.map_or_else(|_| number.to_string(), |number| number.to_string())
        }
        (Form::Number, DeValue::Float(number)) => number.to_string(),
        (Form::Texts, DeValue::Array(array)) => {
            let part = |part: &Spanned<DeValue<'_>>| match part.get_ref() {
                DeValue::String(text) => Ok((text.to_string(), part.span().start)),
                other => Err((part.span().start, wanted("a string", other))),
            };
            return array.iter().map(part).collect();
        }
        (Form::Text, other) => return Err((at, wanted("a string", other))),
        (Form::Texts, other) => return Err((at, wanted("an array of strings", other))),
        (Form::Integer, other) => return Err((at, wanted("a whole number", other))),
        (Form::Number, other) => return Err((at, wanted("a number", other))),
    };
    Ok(vec![(text, at)])
}

fn named(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or a time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Whatever is in a key: one line, with nothing that steers a terminal.
fn shown_key(path: &str) -> String {
    let mut shown: String = path.chars().take(LONGEST_KEY).flat_map(char::escape_debug).collect();
    if shown.is_empty() {
        return "\"\"".to_owned();
    }
    if path.chars().nth(LONGEST_KEY).is_some() {
        shown.push_str("...");
    }
    shown
}

/// What to say of a key that is none.
fn unknown(path: &str) -> String {
    if let Some(nearest) = nearest(path) {
        return format!("there is no such key; did you mean {nearest}?");
    }
    let section = path.rsplit_once('.').map_or("", |(section, _)| section);
    let section = if SECTIONS.iter().any(|known| known.name == section) { section } else { "" };
    let keys = SETTINGS.iter().filter(|setting| setting.section() == section).map(Setting::name);
    let below = |known: &Section| {
        let (parent, name) = known.name.rsplit_once('.').unwrap_or(("", known.name));
        (parent == section && !name.is_empty()).then(|| format!("[{}]", known.name))
    };
    let known: Vec<_> = keys.map(str::to_owned).chain(SECTIONS.iter().filter_map(below)).collect();
    format!("there is no such key; there are: {}", known.join(", "))
}

/// The key that was meant, when no more than a third of the letters is wrong: also one that is named as its flag is, or that
/// stands in the wrong section.
fn nearest(path: &str) -> Option<&'static str> {
    if path.len() > LONGEST_KEY {
        return None;
    }
    let path = path.replace('-', "_");
    let name = path.rsplit_once('.').map_or(path.as_str(), |(_, name)| name);
    let distance = |setting: &Setting| {
        let flag = setting.flag.replace('-', "_");
        let misplaced = strsim::osa_distance(name, setting.name()) + 1;
        strsim::osa_distance(&path, setting.key).min(misplaced).min(strsim::osa_distance(name, &flag))
    };
    let settings = SETTINGS.iter().map(|setting| (distance(setting), setting.key));
    let sections = SECTIONS.iter().map(|section| (strsim::osa_distance(&path, section.name), section.name));
    let near = settings.chain(sections).filter(|(distance, known)| distance * 3 <= name.len() && !known.is_empty());
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}
