//! The kinds of settings: what each takes, where it is kept, and how it is shown.

use std::{
    fmt::{self, Display},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde_json::{Value as Json, json};

use super::Settings;
use crate::{
    export::http::{Address, MetricsPath},
    probes::{catalogue::Tier, plan::Attach},
};

/// More places to listen at are a mistake.
const MOST_ADDRESSES: usize = 64;
/// Least and most bytes of a ring buffer (`ringbuf_map_alloc`, kernel/bpf/ringbuf.c).
const RING_BYTES: (u32, u32) = (4_096, 1 << 30);
/// The word for [`Attach::Auto`].
const AUTO: &str = "auto";

/// What a setting takes, and where it is kept.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A tier, or the first that works.
    Attach(Place<Attach>),
    /// A whole number.
    Count {
        /// Least and most.
        bounds: (u32, u32),
        /// Where it is kept.
        place: Place<u32>,
    },
    /// A whole number of things in memory.
    Size {
        /// Least and most.
        bounds: (usize, usize),
        /// Where it is kept.
        place: Place<usize>,
    },
    /// A power of two.
    RingBytes(Place<u32>),
    /// A length of time.
    Seconds {
        /// Least and most, in seconds.
        bounds: (f64, f64),
        /// Where it is kept.
        place: Place<Duration>,
    },
    /// A share of a whole, up to 1.
    Share {
        /// Least.
        least: f64,
        /// Where it is kept.
        place: Place<f64>,
    },
    /// Where to listen.
    Addresses(Place<Vec<Address>>),
    /// The path of a URL.
    UrlPath(Place<MetricsPath>),
    /// The path of a file; empty for none.
    File(Place<Option<PathBuf>>),
}

/// A place in the settings.
#[derive(Debug)]
pub struct Place<T> {
    /// To look at.
    pub get: fn(&Settings) -> &T,
    /// To change.
    pub put: fn(&mut Settings) -> &mut T,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

impl<T: Clone> Place<T> {
    fn copy(self, from: &Settings, to: &mut Settings) {
        (self.put)(to).clone_from((self.get)(from));
    }
}

/// What a value is in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// An array of strings.
    Texts,
    /// An integer.
    Integer,
    /// An integer or a float.
    Number,
}

/// A value that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Which of the texts.
    pub index: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Kind {
    /// What it is in TOML.
    pub fn form(&self) -> Form {
        match self {
            Self::Attach(_) | Self::UrlPath(_) | Self::File(_) => Form::Text,
            Self::Addresses(_) => Form::Texts,
            Self::Count { .. } | Self::Size { .. } | Self::RingBytes(_) => Form::Integer,
            Self::Seconds { .. } | Self::Share { .. } => Form::Number,
        }
    }

    /// What stands for the value in help.
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Attach(_) => "TIER",
            Self::Count { .. } | Self::Size { .. } | Self::RingBytes(_) => "N",
            Self::Seconds { .. } => "SECS",
            Self::Share { .. } => "SHARE",
            Self::Addresses(_) => "ADDRESS",
            Self::UrlPath(_) => "PATH",
            Self::File(_) => "FILE",
        }
    }

    /// What it may be, to follow "must be"; `None` where that takes more words than there is room for.
    pub fn bounds(&self) -> Option<String> {
        match self {
            Self::Attach(_) => Some(format!("one of {AUTO}, {}", Tier::ALL.map(Tier::name).join(", "))),
            Self::Count { bounds: (least, most), .. } => Some(format!("from {least} to {most}")),
            Self::Size { bounds: (least, most), .. } => Some(format!("from {least} to {most}")),
            Self::RingBytes(_) => Some(format!("a power of two from {} to {}", RING_BYTES.0, RING_BYTES.1)),
            Self::Seconds { bounds: (least, most), .. } => Some(format!("from {least} to {most}")),
            Self::Share { least, .. } => Some(format!("from {least} to 1")),
            Self::Addresses(_) | Self::UrlPath(_) | Self::File(_) => None,
        }
    }

    /// Sets it to what was written: one text, or one for each address. A path is below `directory`, unless it is absolute.
    pub fn assign(&self, settings: &mut Settings, texts: &[String], directory: &Path) -> Result<(), Wrong> {
        if let Self::Addresses(place) = self {
            *(place.put)(settings) = addresses(texts)?;
            return Ok(());
        }
        let wrong = |what: String| Wrong { index: 0, what };
        let [text] = texts else { return Err(wrong("one value is wanted here".to_owned())) };
        self.assign_one(settings, text, directory).map_err(wrong)
    }

    fn assign_one(&self, settings: &mut Settings, text: &str, directory: &Path) -> Result<(), String> {
        match self {
            Self::Attach(place) => *(place.put)(settings) = attach(text)?,
            Self::Count { bounds, place } => *(place.put)(settings) = whole_within(text, *bounds)?,
            Self::Size { bounds, place } => *(place.put)(settings) = whole_within(text, *bounds)?,
            Self::RingBytes(place) => *(place.put)(settings) = ring_bytes(text)?,
            Self::Seconds { bounds, place } => *(place.put)(settings) = seconds_within(text, bounds.0, bounds.1)?,
            Self::Share { least, place } => *(place.put)(settings) = share_within(text, *least)?,
            Self::Addresses(place) => *(place.put)(settings) = vec![address(text)?],
            Self::UrlPath(place) => {
                *(place.put)(settings) = text.parse().map_err(|error| format!("{text:?}: {error}"))?;
            }
            Self::File(place) => *(place.put)(settings) = path(text, directory)?,
        }
        Ok(())
    }

    /// Whether a single text may stand for it, or for a part of it.
    pub fn check(&self, text: &str) -> Result<(), String> {
        self.assign_one(&mut Settings::default(), text, Path::new(""))
    }

    /// Takes it over from other settings.
    pub fn copy(&self, from: &Settings, to: &mut Settings) {
        match self {
            Self::Attach(place) => place.copy(from, to),
            Self::Count { place, .. } | Self::RingBytes(place) => place.copy(from, to),
            Self::Size { place, .. } => place.copy(from, to),
            Self::Seconds { place, .. } => place.copy(from, to),
            Self::Share { place, .. } => place.copy(from, to),
            Self::Addresses(place) => place.copy(from, to),
            Self::UrlPath(place) => place.copy(from, to),
            Self::File(place) => place.copy(from, to),
        }
    }

    /// Its value.
    pub fn show(&self, settings: &Settings) -> Shown {
        match self {
            Self::Attach(place) => Shown::Text(attach_name(*(place.get)(settings)).to_owned()),
            Self::Count { place, .. } | Self::RingBytes(place) => Shown::Integer(u64::from(*(place.get)(settings))),
            Self::Size { place, .. } => Shown::Integer(*(place.get)(settings) as u64),
            Self::Seconds { place, .. } => Shown::Number((place.get)(settings).as_secs_f64()),
            Self::Share { place, .. } => Shown::Number(*(place.get)(settings)),
            Self::Addresses(place) => Shown::Texts((place.get)(settings).iter().map(Address::to_string).collect()),
            Self::UrlPath(place) => Shown::Text((place.get)(settings).to_string()),
            Self::File(place) => {
                let path = (place.get)(settings).as_deref();
                Shown::Text(path.map(|path| path.display().to_string()).unwrap_or_default())
            }
        }
    }
}

/// A value as it is shown: as TOML by [`Display`].
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// A whole number.
    Integer(u64),
    /// A number.
    Number(f64),
}

impl Shown {
    /// For programs.
    pub fn json(&self) -> Json {
        match self {
            Self::Text(text) => json!(text),
            Self::Texts(texts) => json!(texts),
            Self::Integer(number) => json!(number),
            Self::Number(number) => json!(number),
        }
    }

    /// As it is typed behind a flag.
    pub fn typed(&self) -> String {
        match self {
            Self::Text(text) if text.is_empty() => "none".to_owned(),
            Self::Text(text) => text.clone(),
            Self::Texts(texts) => texts.join(" "),
            Self::Integer(_) | Self::Number(_) => self.to_string(),
        }
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => quoted(text).fmt(f),
            Self::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Self::Integer(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// What JSON escapes, and how, TOML reads as well. It has a control character more.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}

fn attach(text: &str) -> Result<Attach, String> {
    if text == AUTO {
        return Ok(Attach::Auto);
    }
    let tier = Tier::ALL.into_iter().find(|tier| tier.name() == text);
    let names = Tier::ALL.map(Tier::name).join(", ");
    tier.map(Attach::Only).ok_or_else(|| format!("must be one of {AUTO}, {names}"))
}

/// The word for a way to attach.
pub fn attach_name(attach: Attach) -> &'static str {
    match attach {
        Attach::Auto => AUTO,
        Attach::Only(tier) => tier.name(),
    }
}

fn whole_within<T: FromStr + PartialOrd + Display>(text: &str, (least, most): (T, T)) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (&least..=&most).contains(&number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// What the kernel takes for a ring buffer's size.
fn ring_bytes(text: &str) -> Result<u32, String> {
    let (least, most) = RING_BYTES;
    let fits = |bytes: &u32| bytes.is_power_of_two() && (least..=most).contains(bytes);
    text.parse().ok().filter(fits).ok_or_else(|| format!("must be a power of two from {least} to {most}"))
}

/// A length of time.
pub fn seconds_within(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(least..=most).contains(&seconds) {
        return Err(format!("must be from {least} to {most} seconds"));
    }
    // What is left below zero is minus nothing.
    Ok(Duration::from_secs_f64(seconds.abs()))
}

fn share_within(text: &str, least: f64) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    // What is left below zero is minus nothing.
    if (least..=1.0).contains(&share) { Ok(share.abs()) } else { Err(format!("must be from {least} to 1")) }
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn addresses(texts: &[String]) -> Result<Vec<Address>, Wrong> {
    let wrong = |index, what: String| Wrong { index, what };
    if texts.is_empty() {
        return Err(wrong(0, "one address at least is wanted here".to_owned()));
    }
    if texts.len() > MOST_ADDRESSES {
        return Err(wrong(MOST_ADDRESSES, format!("there are more than {MOST_ADDRESSES} addresses")));
    }
    let mut addresses = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let address = address(text).map_err(|what| wrong(index, what))?;
        if addresses.contains(&address) {
            return Err(wrong(index, format!("{text:?} is there twice")));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn path(text: &str, directory: &Path) -> Result<Option<PathBuf>, String> {
    if text.contains('\0') {
        return Err("no path has a zero byte".to_owned());
    }
    Ok((!text.is_empty()).then(|| directory.join(text)))
}
