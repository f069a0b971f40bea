//! The configuration file and the files that it names, read at one time by a process that may read keys, and used by one that may not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::config::{self, WebConfig};
use crate::config::read;

/// What was in each file, or why it could not be read.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files(BTreeMap<PathBuf, Content>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    /// In base64.
    Bytes(String),
    Unreadable(String),
}

/// There are private keys in them.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Files {
    /// Reads the configuration and all that it names. What is wrong shows where it is used.
    pub fn of(config: &Path) -> Self {
        let mut files = Self::default();
        files.add(config, config::MOST_BYTES);
        if let Ok(settings) = WebConfig::load(config, &files) {
            for (path, most) in settings.tls.iter().flat_map(super::tls::TlsSettings::files) {
                files.add(path, most);
            }
        }
        files
    }

    fn add(&mut self, path: &Path, most: u64) {
        let content = match read(path, most) {
            Ok(bytes) => Content::Bytes(BASE64_STANDARD.encode(bytes)),
            Err(error) => Content::Unreadable(error.to_string()),
        };
        self.0.insert(path.to_owned(), content);
    }

    /// What was in a file, or why that is not known.
    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        match self.0.get(path) {
            Some(Content::Bytes(text)) => BASE64_STANDARD.decode(text).map_err(|error| error.to_string()),
            Some(Content::Unreadable(why)) => Err(why.clone()),
            None => Err("it was not there when the files were read".to_owned()),
        }
    }

    /// For another process.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// From another process.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_read_by_one_is_used_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let [config, certificate, gone] = ["web.yml", "cert.pem", "gone.pem"].map(|name| directory.path().join(name));
        fs::write(&config, "tls_server_config:\n  cert_file: cert.pem\n  key_file: gone.pem\n").unwrap();
        fs::write(&certificate, b"\x00\xffPEM").unwrap();
        let files = Files::from_text(&Files::of(&config).to_text().unwrap()).unwrap();
        // From now on nobody looks at the disk.
        fs::remove_file(&certificate).unwrap();
        assert_eq!(files.read(&certificate).unwrap(), b"\x00\xffPEM");
        assert!(files.read(&gone).unwrap_err().contains("No such file"));
        assert!(files.read(Path::new("/etc/shadow")).unwrap_err().contains("was not there"));
        assert!(!format!("{files:?}").contains("UEVN"), "a key must not be shown");
    }
}
