//! The YAML file of `--web.config.file`.

use std::collections::BTreeSet;

use super::{
    super::{Security, config::WebConfig, yaml},
    file, files,
};
use crate::fuzz::{assert_is_one_line, lines};

/// The bytes of the file. Certificates can be in it; files that it names are not there.
pub fn web_config(bytes: &[u8]) {
    let files = files(bytes);
    match Security::load(file(), &files) {
        Ok(security) => {
            // One that asks for TLS or passwords is not taken as one that does not.
            assert_eq!(security.tls.is_some(), asks_for(bytes, "tls_server_config"));
            assert_eq!(security.users.is_some(), asks_for(bytes, "basic_auth_users"));
            let names: BTreeSet<_> = security.headers.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names.len(), security.headers.len(), "{names:?}");
        }
        Err(error) => {
            assert_is_one_line(&error.to_string());
            match error.line {
                Some(line) => assert!((1..=lines(bytes)).contains(&line), "{error}"),
                None => assert!(std::str::from_utf8(bytes).is_err(), "{error}"),
            }
            if WebConfig::load(file(), &files).is_ok() {
                // Then it is about certificates, which stand somewhere.
                assert!(error.key.is_some(), "{error}");
            }
        }
    }
}

/// Whether a section has keys.
fn asks_for(bytes: &[u8], section: &str) -> bool {
    let root = std::str::from_utf8(bytes).ok().and_then(|text| yaml::parse(text).ok());
    let Some(yaml::Value::Map(entries)) = root.map(|root| root.value) else { return false };
    let values = entries.iter().filter(|entry| entry.key == section).map(|entry| &entry.node.value);
    values.into_iter().any(|value| matches!(value, yaml::Value::Map(entries) if !entries.is_empty()))
}
