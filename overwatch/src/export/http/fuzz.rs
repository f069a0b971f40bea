//! What is fuzzed of the HTTP server: a client's connection, and the configuration file.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::Files;

mod answers;
mod request;
mod web_config;

pub use self::{request::request, web_config::web_config};

const FILE: &str = "/etc/overwatch/web.yml";

/// As if the configuration file had these bytes, and no other file were there.
fn files(bytes: &[u8]) -> Files {
    let files = json!({ FILE: { "Bytes": BASE64_STANDARD.encode(bytes) } });
    match Files::from_text(&files.to_string()) {
        Ok(files) => files,
        Err(error) => panic!("files are not written so: {error}"),
    }
}

fn file() -> &'static Path {
    Path::new(FILE)
}
