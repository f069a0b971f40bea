use std::collections::BTreeSet;

use super::{table::SECTIONS, *};
use crate::{probes::catalogue::Tier, random::Random};

/// Set it to write the files anew.
const WRITE: &str = "OVERWATCH_WRITE_SCHEMA";
const FILE: &str = "/etc/overwatch/overwatch.toml";

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(text.as_bytes(), Path::new(FILE)).map_err(|error| error.to_string())
}

fn setting(key: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.key == key).unwrap()
}

fn given(flags: &[(&str, &[&str])]) -> Vec<Given> {
    let given = |(key, texts): &(&str, &[&str])| Given {
        setting: setting(key),
        texts: texts.iter().map(|text| (*text).to_owned()).collect(),
    };
    flags.iter().map(given).collect()
}

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.to_owned(), port }
}

/// Every setting, none with its default.
const ALL: &str = r#"
attach = "tracepoint"
max_connections = 1_000
ring_buffer_bytes = 0x1000
interval_seconds = 0.5

[web]
listen_addresses = [
  ":9752",    # every address
  "unix:///run/overwatch.sock?mode=600",
]
telemetry_path = "/m"
config_file = "web.yml"

[web.limits]
connections = 10
header_bytes = 8192
handshake_seconds = 1
header_seconds = 2
request_seconds = 3
write_seconds = 4
idle_seconds = 60
shutdown_seconds = 0

[series]
listeners = 1
services = 2
ports = 100_000
idle_seconds = 86400

[thresholds]
wait_seconds = 0.2
calm_seconds = 7.5
window_seconds = 1e1
busy_wait_seconds = 0.05
queue_share = 0.5
settle_seconds = 2
idle_seconds = 60
constant_share = -0.0
throttled_share = 1
"#;

fn all() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        attach: Attach::Only(Tier::Tracepoint),
        max_connections: 1000,
        ring_buffer_bytes: 4096,
        interval: Duration::from_millis(500),
        web: Web {
            listen_addresses: vec![tcp("", 9752), Address::Unix { path: "/run/overwatch.sock".into(), mode: 0o600 }],
            telemetry_path: "/m".parse().unwrap(),
            config_file: Some("/etc/overwatch/web.yml".into()),
            limits: Limits {
                connections: 10,
                header_bytes: 8192,
                handshake: seconds(1),
                header: seconds(2),
                request: seconds(3),
                write: seconds(4),
                idle: seconds(60),
                shutdown: Duration::ZERO,
            },
        },
        series: Series { listeners: 1, services: 2, ports: 100_000, idle: seconds(86_400) },
        thresholds: Thresholds {
            wait: Duration::from_millis(200),
            calm: Duration::from_millis(7_500),
            window: seconds(10),
            busy_wait: Duration::from_millis(50),
            queue_share: 0.5,
            settle: seconds(2),
            idle: seconds(60),
            constant_share: 0.0,
            throttled_share: 1.0,
        },
    }
}

#[test]
fn every_setting_is_read() {
    let settings = parse(ALL).unwrap();
    assert_eq!(settings, all());
    assert!(settings.thresholds.constant_share.is_sign_positive());
    // None of them was left out above.
    assert_eq!(settings.changes().count(), SETTINGS.len());
    assert_eq!(SETTINGS.len(), 28);
    // Line ends of another system, sections as keys with dots, and tables in a line.
    assert_eq!(parse(&ALL.replace('\n', "\r\n")), Ok(all()));
    let dotted = "web.limits.idle_seconds = 60\nseries = { ports = 7 }\nweb.telemetry_path = '/m'";
    let keys: Vec<_> = parse(dotted).unwrap().changes().map(|setting| setting.key).collect();
    assert_eq!(keys, ["web.telemetry_path", "web.limits.idle_seconds", "series.ports"]);
}

#[test]
fn what_is_left_out_is_as_it_is_by_default() {
    for text in ["", "\n# nothing\n", "[web]\n[web.limits]\n[series]\n[thresholds]\n", "web = {}", "\u{feff}"] {
        assert_eq!(parse(text), Ok(Settings::default()), "{text}");
    }
    assert_eq!(parse("[web]\nconfig_file = ''\n").unwrap().web.config_file, None);
    assert_eq!(parse("[web]\nconfig_file = '/w.yml'\n").unwrap().web.config_file, Some("/w.yml".into()));
}

#[test]
fn flags_win_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("overwatch.toml");
    std::fs::write(&file, ALL).unwrap();
    let in_file = Settings::resolve(Some(&file), &[]).unwrap();
    assert_eq!(in_file.web.config_file, Some(directory.path().join("web.yml")));
    for (flags, expect) in [
        (given(&[("max_connections", &["7"])]), Settings { max_connections: 7, ..in_file.clone() }),
        // Also when they say what is so by default.
        (given(&[("attach", &["auto"])]), Settings { attach: Attach::Auto, ..in_file.clone() }),
        (
            given(&[("web.listen_addresses", &["[::1]:1", "localhost:2"]), ("web.config_file", &["w.yml"])]),
            Settings {
                web: Web {
                    listen_addresses: vec![tcp("::1", 1), tcp("localhost", 2)],
                    // Relative to where it was typed.
                    config_file: Some("w.yml".into()),
                    ..in_file.web.clone()
                },
                ..in_file.clone()
            },
        ),
        (
            given(&[("web.config_file", &[""])]),
            Settings { web: Web { config_file: None, ..in_file.web.clone() }, ..in_file.clone() },
        ),
        (
            given(&[("thresholds.wait_seconds", &["3"])]),
            Settings {
                thresholds: Thresholds { wait: Duration::from_secs(3), ..in_file.thresholds.clone() },
                ..in_file.clone()
            },
        ),
    ] {
        assert_eq!(Settings::resolve(Some(&file), &flags).unwrap(), expect, "{flags:?}");
    }
    // Each of them can be set by its flag, to whatever the file can set it to.
    let value = |setting: &'static Setting| match setting.kind.show(&in_file) {
        Shown::Texts(texts) => texts,
        Shown::Text(text) => vec![text],
        number => vec![number.to_string()],
    };
    let flags: Vec<_> = SETTINGS.iter().map(|setting| Given { setting, texts: value(setting) }).collect();
    assert_eq!(Settings::resolve(None, &flags).unwrap(), in_file);
}

#[test]
fn what_is_wrong_on_the_command_line_is_named() {
    for (flags, expect) in [
        (
            given(&[("web.listen_addresses", &[":1", ":2", ":1"])]),
            "--web.listen-address: \":1\" is there twice".to_owned(),
        ),
        (given(&[("thresholds.wait_seconds", &["x"])]), "--wait-threshold: not a number of seconds".to_owned()),
        (given(&[("series.ports", &["1", "2"])]), "--series.ports: one value is wanted here".to_owned()),
    ] {
        assert_eq!(Settings::resolve(None, &flags).unwrap_err().to_string(), expect);
    }
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    const ROOT: &str = "attach, max_connections, ring_buffer_bytes, interval_seconds, [web], [series], [thresholds]";
    let none = |keys: &str| format!("there is no such key; there are: {keys}");
    let meant = |key: &str| format!("there is no such key; did you mean {key}?");
    let many = format!("web.listen_addresses = [{}]", "\n':1',".repeat(65));
    let long = format!("{} = 1", "x".repeat(100));
    for (text, line, key, what) in [
        // Bounds.
        ("attach = 'bpf'", 1, "attach", "must be one of auto, fentry, kprobe, tracepoint".to_owned()),
        ("max_connections = 0", 1, "max_connections", "must be a whole number from 1 to 4194304".to_owned()),
        ("max_connections = 4194305", 1, "max_connections", "must be a whole number from 1 to 4194304".to_owned()),
        ("max_connections = -1", 1, "max_connections", "must be a whole number from 1 to 4194304".to_owned()),
        (
            "max_connections = 99999999999999999999999999999999999999999999",
            1,
            "max_connections",
            "must be a whole number from 1 to 4194304".to_owned(),
        ),
        (
            "\nring_buffer_bytes = 5000",
            2,
            "ring_buffer_bytes",
            "must be a power of two from 4096 to 1073741824".to_owned(),
        ),
        (
            "ring_buffer_bytes = 2048",
            1,
            "ring_buffer_bytes",
            "must be a power of two from 4096 to 1073741824".to_owned(),
        ),
        ("interval_seconds = 0", 1, "interval_seconds", "must be from 0.1 to 60 seconds".to_owned()),
        ("interval_seconds = 60.1", 1, "interval_seconds", "must be from 0.1 to 60 seconds".to_owned()),
        ("interval_seconds = nan", 1, "interval_seconds", "must be from 0.1 to 60 seconds".to_owned()),
        ("interval_seconds = -inf", 1, "interval_seconds", "must be from 0.1 to 60 seconds".to_owned()),
        (
            "[web.limits]\nconnections = 0",
            2,
            "web.limits.connections",
            "must be a whole number from 1 to 65536".to_owned(),
        ),
        (
            "[web.limits]\nheader_bytes = 8191",
            2,
            "web.limits.header_bytes",
            "must be a whole number from 8192 to 1048576".to_owned(),
        ),
        ("[web.limits]\nidle_seconds = 0", 2, "web.limits.idle_seconds", "must be from 0.1 to 3600 seconds".to_owned()),
        (
            "[web.limits]\nshutdown_seconds = 61",
            2,
            "web.limits.shutdown_seconds",
            "must be from 0 to 60 seconds".to_owned(),
        ),
        ("[series]\nports = 100001", 2, "series.ports", "must be a whole number from 1 to 100000".to_owned()),
        ("[series]\nidle_seconds = 0.5", 2, "series.idle_seconds", "must be from 1 to 86400 seconds".to_owned()),
        (
            "[thresholds]\nwait_seconds = 0",
            2,
            "thresholds.wait_seconds",
            "must be from 0.001 to 3600 seconds".to_owned(),
        ),
        (
            "[thresholds]\nsettle_seconds = 11",
            2,
            "thresholds.settle_seconds",
            "must be from 0 to 10 seconds".to_owned(),
        ),
        ("[thresholds]\nqueue_share = 0", 2, "thresholds.queue_share", "must be from 0.01 to 1".to_owned()),
        ("[thresholds]\nconstant_share = 2", 2, "thresholds.constant_share", "must be from 0 to 1".to_owned()),
        // Texts.
        (
            "[web]\nlisten_addresses = [\n':9752',\n'localhost'\n]",
            4,
            "web.listen_addresses",
            "\"localhost\": it has no port: write host:port, [::1]:port, :port or unix:///path".to_owned(),
        ),
        ("[web]\nlisten_addresses = []", 2, "web.listen_addresses", "one address at least is wanted here".to_owned()),
        ("[web]\nlisten_addresses = [':1',\n':1']", 3, "web.listen_addresses", "\":1\" is there twice".to_owned()),
        (&many, 66, "web.listen_addresses", "there are more than 64 addresses".to_owned()),
        ("[web]\ntelemetry_path = 'm'", 2, "web.telemetry_path", "\"m\": it does not begin with /".to_owned()),
        ("web.config_file = \"a\\u0000\"", 1, "web.config_file", "no path has a zero byte".to_owned()),
        // What cannot be that.
        ("attach = true", 1, "attach", "a string is wanted here, not true or false".to_owned()),
        ("max_connections = '5'", 1, "max_connections", "a whole number is wanted here, not a string".to_owned()),
        (
            "max_connections = 5.0",
            1,
            "max_connections",
            "a whole number is wanted here, not a number with a point".to_owned(),
        ),
        (
            "interval_seconds = 12:00:00",
            1,
            "interval_seconds",
            "a number is wanted here, not a date or a time".to_owned(),
        ),
        ("[interval_seconds]\n", 1, "interval_seconds", "a number is wanted here, not a table".to_owned()),
        (
            "web.listen_addresses = ':1'",
            1,
            "web.listen_addresses",
            "an array of strings is wanted here, not a string".to_owned(),
        ),
        ("web.listen_addresses = [[]]", 1, "web.listen_addresses", "a string is wanted here, not an array".to_owned()),
        (
            "web.listen_addresses = [':1',\n9752]",
            2,
            "web.listen_addresses",
            "a string is wanted here, not a whole number".to_owned(),
        ),
        ("web = 1", 1, "web", "a section is wanted here: [web]".to_owned()),
        ("[[series]]\n", 1, "series", "a section is wanted here: [series]".to_owned()),
        // Keys that are none.
        ("max-connections = 5", 1, "max-connections", meant("max_connections")),
        ("interval = 5", 1, "interval", none(ROOT)),
        ("interval_second = 5", 1, "interval_second", meant("interval_seconds")),
        ("[web]\nlisten_address = []", 2, "web.listen_address", meant("web.listen_addresses")),
        ("telemetry_path = '/'", 1, "telemetry_path", meant("web.telemetry_path")),
        ("wait_threshold = 1", 1, "wait_threshold", meant("thresholds.wait_seconds")),
        ("[thresholds]\nwait = 1", 2, "thresholds.wait", none(THRESHOLDS)),
        ("[threshold]\nwait_seconds = 1", 1, "threshold", meant("thresholds")),
        ("[series]\nx = 1", 2, "series.x", none("listeners, services, ports, idle_seconds")),
        ("[web]\nx = 1", 2, "web.x", none("listen_addresses, telemetry_path, config_file, [web.limits]")),
        ("'web.limits' = 1", 1, "web.limits", meant("web.limits")),
        ("'' = 1", 1, "\"\"", none(ROOT)),
        ("\"a\\u001b[2J\\n\\u202e\" = 1", 1, "a\\u{1b}[2J\\n\\u{202e}", none(ROOT)),
        (&long, 1, &format!("{}...", "x".repeat(80)), none(ROOT)),
        // Of several the first in the file.
        ("[thresholds]\nz = 1\n[series]\nports = 0\n", 2, "thresholds.z", none(THRESHOLDS)),
    ] {
        assert_eq!(parse(text), Err(format!("{FILE}:{line}: {key}: {what}")), "{text}");
    }
}

const THRESHOLDS: &str = "wait_seconds, calm_seconds, window_seconds, busy_wait_seconds, queue_share, settle_seconds, \
                          idle_seconds, constant_share, throttled_share";

#[test]
fn what_is_no_toml_is_named() {
    for (text, expect) in [
        (&b"a = \xff"[..], "1: it is not UTF-8"),
        (b"\n\n# \xe2\x82", "3: it is not UTF-8"),
        (b"attach", "1: not TOML: "),
        (b"\nattach = \n", "2: attach: not TOML: "),
        (b"[series]\nports = 1 2\n", "2: series.ports: not TOML: "),
        (b"ports = 1 2\n[series]\n", "1: not TOML: "),
        (b"[web\n", "1: not TOML: "),
        (b"\nweb = [\n\n", "2: not TOML: "),
        (b"attach = \"auto\nx\"", "1: attach: not TOML: "),
        (b"attach = \"\\q\"", "1: attach: not TOML: "),
        (b"\0", "1: not TOML: "),
        (b"attach = 'auto'\n\nattach = 'auto'\n", "3: attach: not TOML: duplicate key"),
        (b"[web]\n[web]\n", "2: web: not TOML: duplicate key"),
    ] {
        let error = Settings::parse(text, Path::new(FILE)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{FILE}:{expect}")), "{:?}: {error}", String::from_utf8_lossy(text));
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(parse(&deep).unwrap_err().starts_with(&format!("{FILE}:1: not TOML: ")));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("overwatch.toml");
    let error = || Settings::resolve(Some(&file), &[]).unwrap_err().to_string();
    assert_eq!(error(), format!("{}: cannot be read: No such file or directory (os error 2)", file.display()));
    std::fs::write(&file, "# \n".repeat(100_000)).unwrap();
    assert_eq!(error(), format!("{}: cannot be read: it has more than 262144 bytes", file.display()));
    // It would be waited for, with nobody at the other end.
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = "cannot be read: it is a pipe, which cannot be read again";
    assert_eq!(error(), format!("{}: {pipe}", file.display()));
}

/// Whatever is in the file: an answer, no panic, and an error has a line and is one.
#[test]
fn any_text_has_an_answer() {
    let mut random = Random::new(7);
    let pieces: [&[u8]; 24] = [
        b"\n",
        b"=",
        b" ",
        b"[",
        b"]",
        b"[[",
        b"]]",
        b"{",
        b"}",
        b"'",
        b"\"",
        b"\"\"\"",
        b".",
        b",",
        b"#",
        b"-",
        b"1e9",
        b"0x",
        b"nan",
        b"\t",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ];
    let mut counts = [0; 3];
    for _ in 0..4000 {
        let mut text = ALL.as_bytes().to_vec();
        for _ in 0..1 + random.below(2) {
            let at = random.below(text.len());
            let until = (at + random.below(8)).min(text.len());
            text.splice(at..until, random.pick(&pieces).iter().copied());
        }
        let lines = text.split(|byte| *byte == b'\n').count();
        match Settings::parse(&text, Path::new(FILE)) {
            Ok(_) => counts[0] += 1,
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains(char::is_control), "{text:?}");
                let ConfigError::File { line: Some(line), key, .. } = error else { panic!("{text}") };
                assert!((1..=lines).contains(&line), "{text}");
                counts[1 + usize::from(key.is_some())] += 1;
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn any_bytes_have_an_answer() {
    let mut random = Random::new(8);
    for _ in 0..4000 {
        let bytes: Vec<u8> = (0..random.below(60)).map(|_| *random.pick(b"a.=[]{}\"'\n# 1,-_\\x\xc3\xa4\0")).collect();
        if let Err(error) = Settings::parse(&bytes, Path::new(FILE)) {
            assert!(matches!(error, ConfigError::File { line: Some(1..), .. }), "{error}");
        }
    }
}

#[test]
fn a_reload_applies_what_it_can_and_names_the_rest() {
    let (old, new) = (Settings::default(), all());
    let (applied, ignored) = changed(&old, &new);
    assert_eq!(applied, Settings { series: new.series, thresholds: new.thresholds.clone(), ..old.clone() });
    let fixed = [
        "attach",
        "max_connections",
        "ring_buffer_bytes",
        "interval_seconds",
        "web.listen_addresses",
        "web.telemetry_path",
        "web.config_file",
        "web.limits.connections",
        "web.limits.header_bytes",
        "web.limits.handshake_seconds",
        "web.limits.header_seconds",
        "web.limits.request_seconds",
        "web.limits.write_seconds",
        "web.limits.idle_seconds",
        "web.limits.shutdown_seconds",
    ];
    assert_eq!(ignored, fixed);
    assert_eq!(changed(&old, &old), (old.clone(), vec![]));
    // What could not be applied is named after every reload, and what was applied goes back.
    assert_eq!(changed(&applied, &new), (applied.clone(), fixed.to_vec()));
    assert_eq!(changed(&applied, &old), (old, vec![]));
}

#[test]
fn what_is_shown_of_a_text_is_toml_and_json() {
    for path in ["/a b", "/\"'\\", "/\u{1}\t\r\n\u{1b}", "/\u{7f}", "/\u{85}\u{202e}\u{10ffff}"] {
        let shown = Shown::Text(path.to_owned()).to_string();
        let settings = parse(&format!("web.config_file = {shown}")).unwrap();
        assert_eq!(settings.web.config_file, Some(path.into()), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), path, "{shown}");
    }
    assert_eq!(Shown::Text("a\u{7f}b".to_owned()).to_string(), r#""a\u007fb""#);
}

#[test]
fn the_table_is_consistent() {
    let unique = |of: fn(&Setting) -> &'static str| SETTINGS.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!((unique(|setting| setting.key), unique(|setting| setting.flag)), (SETTINGS.len(), SETTINGS.len()));
    for setting in SETTINGS {
        assert!(SECTIONS.iter().any(|section| section.name == setting.section()), "{}", setting.key);
        // A default can be given as any other value can: it is within its bounds.
        let mut settings = all();
        let texts = match setting.default() {
            Shown::Texts(texts) => texts,
            Shown::Text(text) => vec![text],
            number => vec![number.to_string()],
        };
        setting.kind.assign(&mut settings, &texts, Path::new("")).unwrap();
        assert!(!setting.differs(&settings, &Settings::default()), "{}", setting.key);
        assert_eq!(settings.changes().count(), SETTINGS.len() - 1, "{}", setting.key);
        // A table in Markdown has its own use for it.
        assert!(!setting.description().contains('|') && !setting.help.ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn the_packaged_file_has_every_default() {
    let text = packaged();
    // Explanations have a space behind their `#`.
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let settings: Vec<_> = lines.map(|line| line.trim_start_matches('#')).collect();
    assert_eq!(settings.len(), SETTINGS.len() + SECTIONS.len() - 1);
    assert_eq!(parse(&settings.join("\n")), Ok(Settings::default()));
    // As it is, there is nothing in it but sections.
    assert_eq!(parse(&text), Ok(Settings::default()));
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with(['#', '['])));
    // What is read back is what was written, and not what holds anyhow.
    let other = settings.join("\n").replace("256", "255").replace("65536", "65535");
    let keys: Vec<_> = parse(&other).unwrap().changes().map(|setting| setting.key).collect();
    assert_eq!(keys, ["max_connections", "series.listeners", "series.ports"]);
}

#[test]
fn the_written_files_are_those_that_the_table_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, text) in [("../docs/configuration.md", document()), ("dist/overwatch.toml", packaged())] {
        let path = folder.join(path);
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is old: {WRITE}=1 cargo test -p overwatch config", path.display());
    }
}
