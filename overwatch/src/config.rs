//! What `overwatch serve` can be told: by a TOML file, by flags, and what holds when nobody says anything.
//!
//! Every setting is declared once, in the [`table`]: the keys of the file, the flags, docs/configuration.md and the file that is
//! packaged are made from it. Flags win over the file. Whatever is wrong in the file is named with its line and its key.

mod document;
mod file;
mod kind;
pub mod table;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

pub use self::{
    document::{document, packaged},
    kind::{Shown, attach_name, seconds_within},
    table::{SETTINGS, Setting},
};
use crate::{
    export::http::{Address, Limits, MetricsPath},
    model::verdict::Thresholds,
    probes::{object::Capacity, plan::Attach},
};

/// Nobody writes a longer one by hand.
const MOST_BYTES: u64 = 256 * 1024;

/// All settings, as they hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How to attach.
    pub attach: Attach,
    /// Connections that are known at one time.
    pub max_connections: u32,
    /// Size of the ring buffer: a power of two.
    pub ring_buffer_bytes: u32,
    /// How often samples are taken.
    pub interval: Duration,
    /// The HTTP side.
    pub web: Web,
    /// How many series there may be.
    pub series: Series,
    /// When a verdict changes.
    pub thresholds: Thresholds,
}

/// The HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Where to listen: one place at least.
    pub listen_addresses: Vec<Address>,
    /// Where the metrics are.
    pub telemetry_path: MetricsPath,
    /// The file with TLS and passwords; `None`: neither. It is not opened here.
    pub config_file: Option<PathBuf>,
    /// What a client may take.
    pub limits: Limits,
}

/// How many series there may be: label sets of each family of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Of those with a label set for each listening socket.
    pub listeners: usize,
    /// Of those with a label set for each service.
    pub services: usize,
    /// Of those with a label set for each port.
    pub ports: usize,
    /// After so long without a change, a label set may make room.
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            attach: Attach::Auto,
            max_connections: Capacity::DEFAULT_CONNECTIONS,
            ring_buffer_bytes: Capacity::DEFAULT_RING_BYTES,
            interval: Duration::from_secs(1),
            web: Web {
                listen_addresses: vec![Address::Tcp { host: "127.0.0.1".to_owned(), port: 9752 }],
                telemetry_path: MetricsPath::default(),
                config_file: None,
                limits: Limits::default(),
            },
            series: Series { listeners: 256, services: 1024, ports: 256, idle: Duration::from_secs(3600) },
            thresholds: Thresholds::DEFAULT,
        }
    }
}

/// What is wrong with the settings. One line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// In the file.
    #[error("{}{}: {}{what}", .file.display(), line.map(|line| format!(":{line}")).unwrap_or_default(),
            key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
    File {
        /// The file as it was named.
        file: PathBuf,
        /// Counted from 1; `None` when the file cannot be read.
        line: Option<usize>,
        /// From the outermost, with dots; `None` where the text is no TOML, and its line no key.
        key: Option<String>,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// On the command line.
    #[error("--{flag}: {what}")]
    Flag {
        /// Without its dashes.
        flag: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// A setting that was given on the command line.
#[derive(Clone, Debug)]
pub struct Given {
    /// Which.
    pub setting: &'static Setting,
    /// What was typed; more than one where a flag may be repeated.
    pub texts: Vec<String>,
}

impl Settings {
    /// The defaults, over them the file, over them the flags.
    pub fn resolve(file: Option<&Path>, flags: &[Given]) -> Result<Self, ConfigError> {
        let mut settings = file.map(Self::load).transpose()?.unwrap_or_default();
        for Given { setting, texts } in flags {
            // What is typed is relative to where it is typed.
            let result = setting.kind.assign(&mut settings, texts, Path::new(""));
            result.map_err(|wrong| ConfigError::Flag { flag: setting.flag, what: wrong.what })?;
        }
        Ok(settings)
    }

    fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error: io::Error| ConfigError::File {
            file: file.to_owned(),
            line: None,
            key: None,
            what: format!("cannot be read: {error}"),
        };
        Self::parse(&read(file, MOST_BYTES).map_err(unreadable)?, file)
    }

    /// What the bytes of `file` say. Paths in them are below its directory, unless they are absolute.
    pub fn parse(bytes: &[u8], file: &Path) -> Result<Self, ConfigError> {
        let directory = file.parent().unwrap_or(Path::new(""));
        file::parse(bytes, directory).map_err(|fault| ConfigError::File {
            file: file.to_owned(),
            line: Some(fault.line),
            key: fault.key,
            what: fault.what,
        })
    }

    /// The flags that say the same of the settings of a section, and of those below it.
    pub fn flags(&self, section: &str) -> Vec<String> {
        let below = |setting: &&Setting| setting.key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        let texts = |setting: &Setting| match setting.kind.show(self) {
            Shown::Text(text) => vec![text],
            Shown::Texts(texts) => texts,
            number @ (Shown::Integer(_) | Shown::Number(_)) => vec![number.to_string()],
        };
        let flags = |setting: &Setting| -> Vec<String> {
            texts(setting).into_iter().map(|text| format!("--{}={text}", setting.flag)).collect()
        };
        SETTINGS.iter().filter(below).flat_map(flags).collect()
    }

    /// The settings that are not as they are by default.
    pub fn changes(&self) -> impl Iterator<Item = &'static Setting> {
        let default = Self::default();
        SETTINGS.iter().filter(move |setting| setting.differs(self, &default))
    }
}

/// Reads a file that is no larger than it may be: it could be a device, or a log. Waits for nobody: of a named pipe, which does not end before
/// somebody has written to it, it is said that it is one.
pub(crate) fn read(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe, which cannot be read again"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// What holds after a reload that found `new` while `old` held, and the keys that would need a restart.
pub fn changed(old: &Settings, new: &Settings) -> (Settings, Vec<&'static str>) {
    let mut applied = old.clone();
    let mut ignored = Vec::new();
    for setting in SETTINGS.iter().filter(|setting| setting.differs(old, new)) {
        if setting.reloads {
            setting.kind.copy(new, &mut applied);
        } else {
            ignored.push(setting.key);
        }
    }
    (applied, ignored)
}
