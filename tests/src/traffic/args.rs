//! Arguments of the traffic program: `--name value` pairs after the mode.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// The options of one run.
#[derive(Debug, Default)]
pub struct Args(BTreeMap<String, String>);

impl Args {
    /// Takes `--name value` pairs; every name must be among `known`.
    pub fn parse(words: impl Iterator<Item = String>, known: &[&str]) -> Result<Self> {
        let mut words = words;
        let mut options = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("{word:?} is not an option"))?;
            if !known.contains(&name) {
                bail!("no option --{name}; there are: {}", known.join(", "));
            }
            let value = words.next().with_context(|| format!("--{name} needs a value"))?;
            options.insert(name.to_owned(), value);
        }
        Ok(Self(options))
    }

    /// The option as text.
    #[must_use]
    pub fn text<'a>(&'a self, name: &str, otherwise: &'a str) -> &'a str {
        self.0.get(name).map_or(otherwise, String::as_str)
    }

    /// The option as a number, or whatever else can be read from text.
    pub fn value<T: FromStr>(&self, name: &str, otherwise: T) -> Result<T> {
        match self.0.get(name) {
            None => Ok(otherwise),
            Some(text) => text.parse().ok().with_context(|| format!("--{name}: {text:?} cannot be read")),
        }
    }

    /// The option as an address.
    pub fn address(&self, name: &str) -> Result<Option<IpAddr>> {
        self.0.get(name).map(|text| text.parse().with_context(|| format!("--{name}: {text:?}"))).transpose()
    }

    /// The option as a path.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(name).map(PathBuf::from)
    }
}
