//! The file of `--web.config.file`, in the format of Prometheus' own exporters (exporter-toolkit, docs/web-configuration.md).
//!
//! What is read here is text and paths; certificates are opened by [`tls`](super::tls). Whatever is not supported is
//! refused by name: a setting for security that is ignored is worse than none.

use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use thiserror::Error;

use super::{
    files::Files,
    tls::{ClientAuth, Pem, PemSource, Protocol, TlsSettings, Version},
    users::{Hash, Users},
    yaml::{self, Entry, Fault, Node, Value},
};

#[cfg(test)]
mod tests;

/// Certificates may be in the file; nothing else takes much.
pub(super) const MOST_BYTES: u64 = 256 * 1024;

/// What is wrong with the configuration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}{}{}: {what}", .file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default(),
        key.as_ref().map(|key| format!(", {key}")).unwrap_or_default())]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Counted from 1; `None` when the file cannot be read.
    pub line: Option<usize>,
    /// From the outermost, with dots; `None` where it is about none.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl ConfigError {
    pub(super) fn new(file: &Path, fault: &Fault) -> Self {
        let key = Some(yaml::shown(&fault.key)).filter(|key| !key.is_empty());
        // Names of files and the parser's own words have not been looked at yet.
        let what = yaml::one_line(fault.what.chars());
        Self { file: file.to_owned(), line: Some(fault.line), key, what }
    }
}

/// The settings in the file.
#[derive(Debug, Default)]
pub(super) struct WebConfig {
    /// `None`: no TLS.
    pub(super) tls: Option<TlsSettings>,
    /// Put on every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None`: nobody needs a password.
    pub(super) users: Option<Users>,
}

impl WebConfig {
    pub(super) fn load(file: &Path, files: &Files) -> Result<Self, ConfigError> {
        let unreadable = |what: String| ConfigError { file: file.to_owned(), line: None, key: None, what };
        let bytes = files.read(file).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
        let directory = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|fault| ConfigError::new(file, &fault))
    }

    /// Paths in it are below `directory`, unless they are absolute.
    pub(super) fn parse(text: &str, directory: &Path) -> Result<Self, Fault> {
        let root = yaml::parse(text)?;
        let mut config = Self::default();
        for entry in entries(&root, "")? {
            match entry.key.as_str() {
                "tls_server_config" => config.tls = tls(&entry.node, directory)?,
                "http_server_config" => config.headers = http(&entry.node)?,
                "basic_auth_users" => config.users = users(&entry.node)?,
                "rate_limit" => {
                    let what =
                        "rate limits are not supported: connections are bounded, and one scrape serves all who ask";
                    return Err(Fault::new(entry.line, "rate_limit", what));
                }
                _ => {
                    let known = "tls_server_config, http_server_config, basic_auth_users";
                    return Err(unknown(entry, "", known));
                }
            }
        }
        Ok(config)
    }
}

fn tls(node: &Node, directory: &Path) -> Result<Option<TlsSettings>, Fault> {
    const SECTION: &str = "tls_server_config";
    let (mut certificate, mut key, mut client_ca) = (None, None, None);
    let mut client_auth = None;
    let mut protocol = Protocol::default();
    let entries = entries(node, SECTION)?;
    for entry in entries {
        let path = format!("{SECTION}.{}", entry.key);
        let fault = |what: &str| Err(Fault::new(entry.node.line, &path, what));
        let Some(value) = Setting::of(entry, &path) else { continue };
        match entry.key.as_str() {
            "cert" | "cert_file" => set(&mut certificate, pem(&value, directory)?, &path)?,
            "key" | "key_file" => set(&mut key, pem(&value, directory)?, &path)?,
            "client_ca" | "client_ca_file" => set(&mut client_ca, pem(&value, directory)?, &path)?,
            "client_auth_type" => client_auth = Some((value.client_auth()?, entry.node.line)),
            "min_version" => protocol.oldest = value.version()?,
            "max_version" => protocol.newest = value.version()?,
            "prefer_server_cipher_suites" => protocol.prefer_server_order = value.boolean()?,
            "cipher_suites" => protocol.cipher_suites = value.texts()?,
            "curve_preferences" => protocol.curves = value.texts()?,
            "client_allowed_sans" => {
                return fault(
                    "names in client certificates are not looked at: let a CA of its own sign those that may connect",
                );
            }
            _ => {
                let known = "cert, cert_file, key, key_file, client_ca, client_ca_file, client_auth_type, min_version, \
                             max_version, cipher_suites, prefer_server_cipher_suites, curve_preferences";
                return Err(unknown(entry, SECTION, known));
            }
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let missing = |what: &str| Fault::new(node.line, SECTION, what);
    let certificate = certificate.ok_or_else(|| missing("it has neither cert_file nor cert"))?;
    let key = key.ok_or_else(|| missing("it has neither key_file nor key"))?;
    let (auth, line) = client_auth.unwrap_or((None, node.line));
    let auth_key = format!("{SECTION}.client_auth_type");
    let client_auth = match (auth, client_ca) {
        (None, None) => None,
        (Some(required), Some(ca)) => Some(ClientAuth { required, ca }),
        (Some(_), None) => return Err(Fault::new(line, &auth_key, "it needs client_ca_file or client_ca")),
        (None, Some(ca)) => {
            let what =
                "nobody is asked for a certificate of that CA: set client_auth_type to RequireAndVerifyClientCert";
            return Err(Fault::new(ca.line, &ca.key, what));
        }
    };
    if protocol.oldest > protocol.newest {
        return Err(missing("min_version is newer than max_version"));
    }
    Ok(Some(TlsSettings { certificate, key, client_auth, protocol }))
}

fn set(slot: &mut Option<Pem>, pem: Pem, path: &str) -> Result<(), Fault> {
    match slot.replace(pem) {
        None => Ok(()),
        Some(other) => {
            let line = slot.as_ref().map_or(other.line, |pem| pem.line);
            Err(Fault::new(line, path, format!("there is {} already, in line {}", other.key, other.line)))
        }
    }
}

fn pem(setting: &Setting<'_>, directory: &Path) -> Result<Pem, Fault> {
    let text = setting.text()?;
    let source = if setting.path.ends_with("_file") {
        PemSource::File(directory.join(text))
    } else {
        PemSource::Inline(text.to_owned())
    };
    Ok(Pem { line: setting.node.line, key: setting.path.to_owned(), source })
}

/// The headers that may be set, and the values that they may have; without any, whatever is a header's value.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

fn http(node: &Node) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    const SECTION: &str = "http_server_config";
    let mut headers = Vec::new();
    for entry in entries(node, SECTION)? {
        let path = format!("{SECTION}.{}", entry.key);
        match entry.key.as_str() {
            "http2" => {
                if let Some(value) = Setting::of(entry, &path)
                    && value.boolean()?
                {
                    let what = "HTTP/2 is not served: leave the key out, or set it to false";
                    return Err(Fault::new(entry.node.line, &path, what));
                }
            }
            "headers" => {
                for entry in entries(&entry.node, &path)? {
                    headers.extend(header(entry, &path)?);
                }
            }
            _ => return Err(unknown(entry, SECTION, "http2, headers")),
        }
    }
    Ok(headers)
}

fn header(entry: &Entry, parent: &str) -> Result<Option<(HeaderName, HeaderValue)>, Fault> {
    let path = format!("{parent}.{}", entry.key);
    let Some((_, allowed)) = HEADERS.iter().find(|(name, _)| *name == entry.key) else {
        return Err(unknown(entry, parent, &HEADERS.map(|(name, _)| name).join(", ")));
    };
    let fault = |what: String| Fault::new(entry.node.line, &path, what);
    let Some(setting) = Setting::of(entry, &path) else { return Ok(None) };
    // "Unset if blank", says the format.
    let text = Some(setting.text()?).filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(None) };
    if !allowed.is_empty() && !allowed.contains(&text) {
        return Err(fault(format!("'{}' is not one of: {}", yaml::shown(text), allowed.join(", "))));
    }
    let value = HeaderValue::from_str(text).map_err(|_| fault("it has characters that no header has".to_owned()))?;
    let name = HeaderName::from_bytes(entry.key.as_bytes()).map_err(|error| fault(error.to_string()))?;
    Ok(Some((name, value)))
}

fn users(node: &Node) -> Result<Option<Users>, Fault> {
    const SECTION: &str = "basic_auth_users";
    let mut users = Vec::new();
    for entry in entries(node, SECTION)? {
        let path = format!("{SECTION}.{}", entry.key);
        let fault = |what: &str| Fault::new(entry.line, &path, what);
        if entry.key.is_empty() || entry.key.contains(':') {
            return Err(fault("a user's name is not empty and has no colon"));
        }
        let setting = Setting::of(entry, &path).ok_or_else(|| fault("it has no bcrypt hash"))?;
        let hash: Hash = setting.text()?.parse().map_err(fault)?;
        users.push((entry.key.clone(), hash));
    }
    Ok(Users::new(users))
}

fn entries<'a>(node: &'a Node, section: &str) -> Result<&'a [Entry], Fault> {
    match &node.value {
        Value::Nothing => Ok(&[]),
        Value::Map(entries) => Ok(entries),
        _ => Err(Fault::new(node.line, section, "keys with values are wanted here")),
    }
}

fn unknown(entry: &Entry, section: &str, known: &str) -> Fault {
    let path = if section.is_empty() { entry.key.clone() } else { format!("{section}.{}", entry.key) };
    Fault::new(entry.line, &path, format!("there is no such key; there are: {known}"))
}

/// A value that is there, with its key.
struct Setting<'a> {
    node: &'a Node,
    path: &'a str,
}

impl<'a> Setting<'a> {
    /// `None` for a key without a value, which is as if the key were not there.
    fn of(entry: &'a Entry, path: &'a str) -> Option<Self> {
        (entry.node.value != Value::Nothing).then_some(Self { node: &entry.node, path })
    }

    fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::new(self.node.line, self.path, what)
    }

    fn text(&self) -> Result<&'a str, Fault> {
        match &self.node.value {
            Value::Scalar { text, .. } => Ok(text),
            _ => Err(self.fault("one text is wanted here")),
        }
    }

    fn boolean(&self) -> Result<bool, Fault> {
        match &self.node.value {
            Value::Scalar { text, quoted: false } if text == "true" => Ok(true),
            Value::Scalar { text, quoted: false } if text == "false" => Ok(false),
            _ => Err(self.fault("true or false is wanted here")),
        }
    }

    fn texts(&self) -> Result<Vec<(String, usize)>, Fault> {
        let Value::List(nodes) = &self.node.value else { return Err(self.fault("a list is wanted here")) };
        let text = |node: &Node| match &node.value {
            Value::Scalar { text, .. } => Ok((text.clone(), node.line)),
            _ => Err(Fault::new(node.line, self.path, "a list of texts is wanted here")),
        };
        nodes.iter().map(text).collect()
    }

    fn version(&self) -> Result<Version, Fault> {
        match self.text()? {
            "TLS12" => Ok(Version::Tls12),
            "TLS13" => Ok(Version::Tls13),
            old @ ("TLS10" | "TLS11") => {
                Err(self.fault(format!("{old} is not supported, since it is broken: TLS12 or TLS13")))
            }
            other => Err(self.fault(format!("'{}' is not one of: TLS12, TLS13", yaml::shown(other)))),
        }
    }

    /// `None`: nobody is asked for a certificate; else whether everybody must have one.
    fn client_auth(&self) -> Result<Option<bool>, Fault> {
        match self.text()? {
            "NoClientCert" => Ok(None),
            "VerifyClientCertIfGiven" => Ok(Some(false)),
            "RequireAndVerifyClientCert" => Ok(Some(true)),
            weak @ ("RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert") => Err(self.fault(format!(
                "{weak} is not supported, since it lets everybody in: RequireAndVerifyClientCert is what verifies"
            ))),
            other => Err(self.fault(format!(
                "'{}' is not one of: NoClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert",
                yaml::shown(other)
            ))),
        }
    }
}
