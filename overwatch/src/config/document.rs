//! What is written about the settings: docs/configuration.md, and the file that is packaged.

use super::{
    SETTINGS, Setting,
    table::{SECTIONS, Section},
};

/// Above the tables.
const INTRODUCTION: &str = "\
# Configuration

`overwatch serve` is told what to do by a TOML file (`--config FILE`) and by flags. Every setting is both; a flag wins over the file,
and what neither says is as it is by default. The packaged file, [overwatch/dist/overwatch.toml](../overwatch/dist/overwatch.toml), has
every setting in it, commented out. This page and that file are made from the table in the code that the settings are read by.

`overwatch check --config FILE` says whether a file can be used, with the web configuration file that it names, and what in it differs from
the defaults; it attaches nothing and needs no root. It ends with 2 when something is wrong. A key that does not exist is an error, not a
warning. Every error names the file, the line and the key:

```
overwatch: /etc/overwatch/overwatch.toml:12: thresholds.wait_seconds: must be from 0.001 to 3600 seconds
```

A relative path in the file is below the directory of the file; on the command line it is below the current directory. The file has at most
256 KiB.

## Reload

SIGHUP makes `overwatch serve` read the file again, and the web configuration file with its certificates. When one of them has an error,
all stays as it was, and the log says why. Of the settings those with \"yes\" in the last column below are applied at once. The others need
a restart: when they have changed in the file, the log says which, and the old value goes on to hold. Flags win over the file after a
reload as well.

TLS, passwords and headers are not here but in the file of `web.config_file`, in the format of Prometheus' own exporters; what it says is
applied by a reload, though another name of that file is not.

## Settings

In sections of the file: `series.ports` is the key `ports` below `[series]`. Times are in seconds, and shares between 0 and 1.
";

/// docs/configuration.md.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in &SECTIONS {
        if !section.name.is_empty() {
            text += &format!("\n### `[{}]`\n", section.name);
        }
        text += &format!("\n{}\n\n| key | flag | default | meaning | reload |\n|---|---|---|---|---|\n", section.help);
        for setting in of(section) {
            let reload = if setting.reloads { "yes" } else { "no" };
            let (key, flag, default) = (setting.key, setting.flag, setting.default());
            text += &format!("| `{key}` | `--{flag}` | `{default}` | {} | {reload} |\n", setting.description());
        }
    }
    text
}

/// The file that is packaged: its keys are commented out. Its sections are not, so that a key without its `#` is in the right one.
pub fn packaged() -> String {
    let mut text = "\
# Configuration of `overwatch serve`. Every setting is here with its default; docs/configuration.md says more.
# `overwatch check --config FILE` says whether it can be used. Settings with [reload] are applied by SIGHUP, others by a restart.
"
    .to_owned();
    for section in &SECTIONS {
        text += &format!("\n# {}\n", section.help);
        if !section.name.is_empty() {
            text += &format!("[{}]\n", section.name);
        }
        for setting in of(section) {
            let reload = if setting.reloads { " [reload]" } else { "" };
            text += &format!("\n# {}.{reload}\n#{} = {}\n", setting.description(), setting.name(), setting.default());
        }
    }
    text
}

fn of(section: &Section) -> impl Iterator<Item = &'static Setting> {
    let name = section.name;
    SETTINGS.iter().filter(move |setting| setting.section() == name)
}
