//! The TOML file of `--config`.

use std::path::Path;

use crate::config::{ConfigError, SETTINGS, Settings, Shown};

const FILE: &str = "/etc/overwatch/overwatch.toml";

/// The bytes of the file.
pub fn settings(bytes: &[u8]) {
    match Settings::parse(bytes, Path::new(FILE)) {
        Ok(settings) => {
            assert_is_within_bounds(&settings);
            assert_is_what_it_shows(&settings);
        }
        Err(error) => {
            super::assert_is_one_line(&error.to_string());
            let ConfigError::File { line: Some(line), .. } = error else { panic!("without a line: {error}") };
            assert!((1..=super::lines(bytes)).contains(&line), "{error}");
        }
    }
}

/// What is assigned is held against the bounds: so as flags, too, they are what they were.
fn assert_is_within_bounds(settings: &Settings) {
    let mut again = Settings::default();
    for setting in SETTINGS {
        let texts = match setting.kind.show(settings) {
            Shown::Texts(texts) => texts,
            Shown::Text(text) => vec![text],
            number @ (Shown::Integer(_) | Shown::Number(_)) => vec![number.to_string()],
        };
        let assigned = setting.kind.assign(&mut again, &texts, Path::new(""));
        assert!(assigned.is_ok(), "{}: {assigned:?}", setting.key);
    }
    assert_eq!(again, *settings);
}

/// As `overwatch check` shows them they can be written into a file.
fn assert_is_what_it_shows(settings: &Settings) {
    let lines: Vec<_> =
        SETTINGS.iter().map(|setting| format!("{} = {}\n", setting.key, setting.kind.show(settings))).collect();
    let text = lines.concat();
    assert_eq!(Settings::parse(text.as_bytes(), Path::new(FILE)).as_ref(), Ok(settings), "{text}");
}
