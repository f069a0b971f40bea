//! What `overwatch check --config` prints.

use std::{
    io::{self, Write},
    path::Path,
};

use serde_json::json;

use super::{json::write_line, text::printable};
use crate::config::Settings;

/// For people: that the file can be used, and what it makes different.
pub fn write_text(out: &mut impl Write, file: &Path, settings: &Settings) -> io::Result<()> {
    writeln!(out, "{}: ok", printable(&file.display().to_string()))?;
    for setting in settings.changes() {
        let value = setting.kind.show(settings).to_string();
        writeln!(out, "  {} = {} (default: {})", setting.key, printable(&value), setting.default())?;
    }
    Ok(())
}

/// For scripts: one object.
pub fn write_json(out: &mut impl Write, file: &Path, settings: &Settings) -> io::Result<()> {
    let changes: Vec<_> = settings
        .changes()
        .map(|setting| {
            json!({
                "key": setting.key,
                "value": setting.kind.show(settings).json(),
                "default": setting.default().json(),
                "reloads": setting.reloads,
            })
        })
        .collect();
    write_line(out, &json!({ "file": file.display().to_string(), "ok": true, "changes": changes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> (String, serde_json::Value) {
        let file = Path::new("/etc/o\x1b.toml");
        let settings = Settings::parse(text.as_bytes(), file).unwrap();
        let (mut lines, mut object) = (Vec::new(), Vec::new());
        write_text(&mut lines, file, &settings).unwrap();
        write_json(&mut object, file, &settings).unwrap();
        (String::from_utf8(lines).unwrap(), serde_json::from_slice(&object).unwrap())
    }

    #[test]
    fn what_differs_from_the_defaults_is_shown() {
        let (lines, object) = shown("interval_seconds = 1.0\nseries.ports = 256\n");
        assert_eq!(lines, "/etc/o?.toml: ok\n");
        assert_eq!(object, json!({ "file": "/etc/o\x1b.toml", "ok": true, "changes": [] }));
        let (lines, object) = shown(
            "attach = 'kprobe'\nseries.ports = 0x10\nweb.config_file = 'w\\u001b.yml'\nthresholds.queue_share = 0.5\n",
        );
        assert_eq!(
            lines,
            "/etc/o?.toml: ok\n  attach = \"kprobe\" (default: \"auto\")\n  \
             web.config_file = \"/etc/w\\\\u001b.yml\" (default: \"\")\n  series.ports = 16 (default: 256)\n  \
             thresholds.queue_share = 0.5 (default: 0.75)\n"
        );
        let change = |key: &str, value: serde_json::Value, default: serde_json::Value, reloads: bool| json!({ "key": key, "value": value, "default": default, "reloads": reloads });
        assert_eq!(
            object["changes"],
            json!([
                change("attach", json!("kprobe"), json!("auto"), false),
                change("web.config_file", json!("/etc/w\\u001b.yml"), json!(""), false),
                change("series.ports", json!(16), json!(256), true),
                change("thresholds.queue_share", json!(0.5), json!(0.75), true),
            ])
        );
    }
}
