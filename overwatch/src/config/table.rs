//! The settings, each declared once.

use super::{
    Settings,
    kind::{Form, Kind, Place, Shown},
};

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in the file, from the outermost, with dots.
    pub key: &'static str,
    /// Its flag, without dashes.
    pub flag: &'static str,
    /// What it takes, and where it is kept.
    pub kind: Kind,
    /// Whether a reload applies it.
    pub reloads: bool,
    /// Whether its flag is one of every verb.
    pub is_global: bool,
    /// Whether short help leaves its flag out.
    pub is_rare: bool,
    /// One line.
    pub help: &'static str,
}

/// A part of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What stands in brackets; empty for the part before the first of them.
    pub name: &'static str,
    /// Above its flags in help.
    pub heading: Option<&'static str>,
    /// One line.
    pub help: &'static str,
}

/// The parts of the file.
pub const SECTIONS: [Section; 5] = [
    Section { name: "", heading: None, help: "How connections are seen." },
    Section { name: "web", heading: Some("Web"), help: "Who may ask for metrics, and where." },
    Section { name: "web.limits", heading: Some("Web limits"), help: "What a client may take." },
    Section {
        name: "series",
        heading: Some("Series"),
        help: "How many label sets a family of metrics may have. What is beyond is counted together.",
    },
    Section {
        name: "thresholds",
        heading: Some("Thresholds (docs/listeners.md has the reasons)"),
        help: "When a verdict changes. docs/listeners.md has the reasons.",
    },
];

/// Shortest interval: below it the drain itself would be what is seen.
const SHORTEST_SECONDS: f64 = 0.1;
/// Longest threshold, and longest time for a client: an hour.
const LONGEST_SECONDS: f64 = 3_600.0;
/// Most label sets: a scrape has to be read by somebody.
const SETS: (usize, usize) = (1, 100_000);
/// Times that a client may take.
const PATIENCE: (f64, f64) = (0.1, LONGEST_SECONDS);

impl Setting {
    const fn new(key: &'static str, flag: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { key, flag, kind, reloads: false, is_global: false, is_rare: false, help }
    }

    const fn of_every_verb(self) -> Self {
        Self { is_global: true, ..self }
    }

    const fn rare(self) -> Self {
        Self { is_rare: true, ..self }
    }

    const fn reloads(self) -> Self {
        Self { reloads: true, ..self }
    }

    /// The section that its key is in.
    pub fn section(&self) -> &'static str {
        self.key.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its key without the section.
    pub fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }

    /// Whether its flag may be given more than once.
    pub fn repeats(&self) -> bool {
        self.kind.form() == Form::Texts
    }

    /// Its default.
    pub fn default(&self) -> Shown {
        self.kind.show(&Settings::default())
    }

    /// Whether it has another value there.
    pub fn differs(&self, here: &Settings, there: &Settings) -> bool {
        self.kind.show(here) != self.kind.show(there)
    }

    /// What it does and what it may be, for people.
    pub fn description(&self) -> String {
        self.kind.bounds().map_or_else(|| self.help.to_owned(), |bounds| format!("{}; {bounds}", self.help))
    }
}

macro_rules! place {
    ($($field:ident).+) => {
        Place { get: |settings| &settings.$($field).+, put: |settings| &mut settings.$($field).+ }
    };
}

const fn sets(place: Place<usize>) -> Kind {
    Kind::Size { bounds: SETS, place }
}

const fn seconds(bounds: (f64, f64), place: Place<std::time::Duration>) -> Kind {
    Kind::Seconds { bounds, place }
}

/// `--attach`.
pub const ATTACH: Setting = Setting::new(
    "attach",
    "attach",
    Kind::Attach(place!(attach)),
    "How to attach: the first way that works, or this one only",
)
.of_every_verb();

/// `--max-connections`.
pub const MAX_CONNECTIONS: Setting = Setting::new(
    "max_connections",
    "max-connections",
    Kind::Count { bounds: (1, 4_194_304), place: place!(max_connections) },
    "Connections that are known at one time; beyond it bytes are counted as unattributed",
)
.of_every_verb();

/// `--ring-buffer-bytes`.
pub const RING_BUFFER_BYTES: Setting = Setting::new(
    "ring_buffer_bytes",
    "ring-buffer-bytes",
    Kind::RingBytes(place!(ring_buffer_bytes)),
    "Size of the ring buffer in which the kernel side tells of events",
)
.of_every_verb();

/// All of them, in the order of the file; those without a section come first, as TOML wants it.
pub const SETTINGS: &[Setting] = &[
    ATTACH,
    MAX_CONNECTIONS,
    RING_BUFFER_BYTES,
    Setting::new(
        "interval_seconds",
        "interval-seconds",
        seconds((SHORTEST_SECONDS, 60.0), place!(interval)),
        "How often samples are taken",
    ),
    Setting::new(
        "web.listen_addresses",
        "web.listen-address",
        Kind::Addresses(place!(web.listen_addresses)),
        "Where to listen: host:port, [::1]:port, :port for every address, or unix:///path; the flag may be repeated",
    ),
    Setting::new(
        "web.telemetry_path",
        "web.telemetry-path",
        Kind::UrlPath(place!(web.telemetry_path)),
        "Path under which the metrics are",
    ),
    Setting::new(
        "web.config_file",
        "web.config.file",
        Kind::File(place!(web.config_file)),
        "File with TLS and passwords, in the format of Prometheus' exporters; empty for none",
    ),
    Setting::new(
        "web.limits.connections",
        "web.limits.connections",
        Kind::Size { bounds: (1, 65_536), place: place!(web.limits.connections) },
        "Connections at one time; a further one takes the place of one that waits",
    )
    .rare(),
    Setting::new(
        "web.limits.header_bytes",
        "web.limits.header-bytes",
        Kind::Size { bounds: (8_192, 1_048_576), place: place!(web.limits.header_bytes) },
        "Bytes of a request's line and headers",
    )
    .rare(),
    Setting::new(
        "web.limits.handshake_seconds",
        "web.limits.handshake-seconds",
        seconds(PATIENCE, place!(web.limits.handshake)),
        "For a TLS handshake",
    )
    .rare(),
    Setting::new(
        "web.limits.header_seconds",
        "web.limits.header-seconds",
        seconds(PATIENCE, place!(web.limits.header)),
        "For a request's line and headers",
    )
    .rare(),
    Setting::new(
        "web.limits.request_seconds",
        "web.limits.request-seconds",
        seconds(PATIENCE, place!(web.limits.request)),
        "From a request to its answer",
    )
    .rare(),
    Setting::new(
        "web.limits.write_seconds",
        "web.limits.write-seconds",
        seconds(PATIENCE, place!(web.limits.write)),
        "For a whole answer to be taken",
    )
    .rare(),
    Setting::new(
        "web.limits.idle_seconds",
        "web.limits.idle-seconds",
        seconds(PATIENCE, place!(web.limits.idle)),
        "Between two requests of a connection; longer than a scrape interval, so that there is no handshake for each scrape",
    )
    .rare(),
    Setting::new(
        "web.limits.shutdown_seconds",
        "web.limits.shutdown-seconds",
        seconds((0.0, 60.0), place!(web.limits.shutdown)),
        "For all that was asked before the end",
    )
    .rare(),
    Setting::new(
        "series.listeners",
        "series.listeners",
        sets(place!(series.listeners)),
        "Most label sets of families that have one for each listening socket",
    )
    .reloads(),
    Setting::new(
        "series.services",
        "series.services",
        sets(place!(series.services)),
        "Most label sets of families that have one for each service",
    )
    .reloads(),
    Setting::new(
        "series.ports",
        "series.ports",
        sets(place!(series.ports)),
        "Most label sets of families that have one for each port",
    )
    .reloads(),
    Setting::new(
        "series.idle_seconds",
        "series.idle-seconds",
        seconds((1.0, 86_400.0), place!(series.idle)),
        "A label set that has not changed for so long may make room for another",
    )
    .reloads(),
    Setting::new(
        "thresholds.wait_seconds",
        "wait-threshold",
        seconds((0.001, LONGEST_SECONDS), place!(thresholds.wait)),
        "A client that waits longer than this makes a listener saturated, if its queue does not drain",
    )
    .reloads(),
    Setting::new(
        "thresholds.calm_seconds",
        "calm",
        seconds((0.0, LONGEST_SECONDS), place!(thresholds.calm)),
        "A listener is well again when it has shown no sign of trouble for so long",
    )
    .reloads(),
    Setting::new(
        "thresholds.window_seconds",
        "window",
        seconds((SHORTEST_SECONDS, LONGEST_SECONDS), place!(thresholds.window)),
        "Rates and ceilings are taken over so long, but over 128 intervals at most",
    )
    .reloads(),
    Setting::new(
        "thresholds.busy_wait_seconds",
        "busy-wait",
        seconds((0.001, LONGEST_SECONDS), place!(thresholds.busy_wait)),
        "A client that waits so long makes a listener busy; what is above --wait-threshold counts as that",
    )
    .rare()
    .reloads(),
    Setting::new(
        "thresholds.queue_share",
        "queue-share",
        Kind::Share { least: 0.01, place: place!(thresholds.queue_share) },
        "An accept queue that was full to this share makes a listener busy",
    )
    .rare()
    .reloads(),
    Setting::new(
        "thresholds.settle_seconds",
        "settle",
        // Of the shortest intervals not much more is remembered.
        seconds((0.0, 10.0), place!(thresholds.settle)),
        "Nobody must have been accepted for so long, or the same have been seen, before a cause rests on it",
    )
    .rare()
    .reloads(),
    Setting::new(
        "thresholds.idle_seconds",
        "idle",
        seconds((SHORTEST_SECONDS, LONGEST_SECONDS), place!(thresholds.idle)),
        "Processes that have not used a CPU for so long do nothing, if they serve fewer than they did before",
    )
    .rare()
    .reloads(),
    Setting::new(
        "thresholds.constant_share",
        "constant-share",
        Kind::Share { least: 0.0, place: place!(thresholds.constant_share) },
        "The number of served connections is constant when it varies by no more than this share of it, or by one",
    )
    .rare()
    .reloads(),
    Setting::new(
        "thresholds.throttled_share",
        "throttled-share",
        Kind::Share { least: 0.01, place: place!(thresholds.throttled_share) },
        "A control group that ran out of its processor time in this share of the periods is throttled",
    )
    .rare()
    .reloads(),
];
