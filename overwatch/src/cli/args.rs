//! Arguments: what was typed. No I/O here.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ipnet::IpNet;

mod listeners;
mod serve;

pub use self::{
    listeners::{Explain, ListenerFilter, Listeners},
    serve::{Serve, ServeWeb, SettingsArguments, ThresholdArguments},
};
use crate::{
    config::{
        Given, Setting, attach_name, seconds_within,
        table::{ATTACH, MAX_CONNECTIONS, RING_BUFFER_BYTES},
    },
    probes::{capabilities::Verb, catalogue::Tier, object::Capacity, plan::Attach},
};

/// Shortest interval: below it the drain itself would be what is seen.
const SHORTEST_SECONDS: f64 = 0.1;
/// Longest interval: a day.
const LONGEST_SECONDS: f64 = 86_400.0;

/// Who moves the bytes, and why a server does not answer: TCP observability for Linux web hosts.
#[derive(Debug, Parser)]
#[command(name = "overwatch", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sudo overwatch top                 who moves the bytes, every second
  sudo overwatch top -o json 5 12    a minute of it for a script, in steps of five seconds
  sudo overwatch listeners           why a server does not answer: what waits at each listening socket
  sudo overwatch states              every TCP state transition
  sudo overwatch life                every connection as it ends: how long, how much, and how it ended
  sudo overwatch open                how many connections are open, and whose
  sudo overwatch serve               the daemon: metrics for Prometheus
  sudo overwatch check               can this host run it, and how";

const TOP_EXAMPLES: &str = "\
Examples:
  sudo overwatch top                           the screen: ? for its keys, q to end
  sudo overwatch top --lport 443 5             the same of the server on port 443, every five seconds
  sudo overwatch top 1 10                      ten tables, one each second, the busiest first
  sudo overwatch top -o json --comm nginx 1 3  three intervals for a script

Ctrl-C ends it; JSON, CSV and piped tables then have one more, shorter interval with what is left.
Exit codes: 0 done, 1 failed while running, 2 bad arguments, 3 this host cannot run it.";

const STATES_EXAMPLES: &str = "\
Examples:
  sudo overwatch states                        every transition as it happens
  sudo overwatch states --lport 443            those of the server on port 443
  sudo overwatch states -o csv --duration 60   a minute of it for a spreadsheet

Ctrl-C ends it. Exit codes: 0 done, 1 failed while running, 2 bad arguments, 3 this host cannot run it.";

const LIFE_EXAMPLES: &str = "\
Examples:
  sudo overwatch life                          every connection as it ends
  sudo overwatch life --comm nginx             those of nginx
  sudo overwatch life -o json --duration 60    a minute of it for a script

A connection's line comes when its process lets go of the socket, since data may be read until then.
Ctrl-C ends it. Exit codes: 0 done, 1 failed while running, 2 bad arguments, 3 this host cannot run it.";

const OPEN_EXAMPLES: &str = "\
Examples:
  sudo overwatch open                          every second, the most connections first
  sudo overwatch open -o json 5 12             a minute of it for a script, in steps of five seconds

Exit codes: 0 done, 1 failed while running, 2 bad arguments, 3 this host cannot run it.";

const LISTENERS_EXAMPLES: &str = "\
Examples:
  sudo overwatch listeners                     every second, the worst first
  sudo overwatch listeners --explain           the whole story of those that are saturated or overflowing
  sudo overwatch listeners --explain 443       the whole story of what listens at port 443
  sudo overwatch listeners 5 --comm nginx      those of nginx, every five seconds
  sudo overwatch listeners -o json 5 12        a minute of it for a script, in steps of five seconds

Verdicts: ok, busy (a queue, short waits), saturated (clients wait too long), overflowing (connections are refused).
Exit codes: 0 done, 1 failed while running, 2 bad arguments, 3 this host cannot run it.";

const SERVE_EXAMPLES: &str = "\
Examples:
  sudo overwatch serve                                        metrics at http://127.0.0.1:9752/metrics
  sudo overwatch serve --config /etc/overwatch/overwatch.toml as the file says; flags win over it
  sudo overwatch serve --web.listen-address :9752 --web.config.file web.yml
                                                              for other hosts, with TLS and passwords

SIGHUP reads the files again, SIGTERM and Ctrl-C end it. docs/configuration.md has every setting.
Exit codes: 0 done, 1 failed while running, 2 bad arguments or configuration, 3 this host cannot run it.";

const CHECK_EXAMPLES: &str = "\
Examples:
  sudo overwatch check                                        what this host offers, and what was attached
  sudo overwatch check listeners                              exit code 3 when listeners cannot run here
  sudo overwatch check -o json --attach kprobe                whether it can run with kprobes, for a script
  overwatch check --config /etc/overwatch/overwatch.toml      whether that file can be used; attaches nothing

Each capability is full, partial (a source is missing: see Degraded) or none: bytes (top), life (states, life, open), listeners.
Exit codes: 0 it can, 1 failed while running, 2 bad arguments or configuration, 3 this host cannot run it, or not the VERB.";

/// A verb.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is wrong, and who moves the bytes: a screen on a terminal, tables for a COUNT, --rows and pipes
    #[command(after_help = TOP_EXAMPLES)]
    Top(Top),
    /// Every TCP state transition, with the time spent in the state left
    #[command(after_help = STATES_EXAMPLES)]
    States(Stream),
    /// One line per finished connection: how long, how much, how it ended
    #[command(after_help = LIFE_EXAMPLES)]
    Life(Stream),
    /// How many connections are open: by listener, by owner, by remote address
    #[command(after_help = OPEN_EXAMPLES)]
    Open(Open),
    /// Why a server does not answer: each listening socket's queue, waiting clients and verdict, the worst first
    #[command(after_help = LISTENERS_EXAMPLES)]
    Listeners(Listeners),
    /// The daemon: metrics for Prometheus, over HTTP
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// The process that answers requests for serve, which starts it
    #[command(hide = true)]
    ServeWeb(ServeWeb),
    /// Can this host run it: what it offers, what was attached, what is missing and why; with --config, can that file be used
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
}

impl Command {
    /// Its word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Top(_) => "top",
            Self::States(_) => "states",
            Self::Life(_) => "life",
            Self::Open(_) => "open",
            Self::Listeners(_) => "listeners",
            Self::Serve(_) => "serve",
            Self::ServeWeb(_) => "serve-web",
            Self::Check(_) => "check",
        }
    }

    /// Whether it knows what to do with `--config`.
    pub fn takes_config(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Check(_))
    }
}

/// Flags of every verb.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    pub output: Output,
    /// How to attach; `None` when it was not given.
    #[arg(long, global = true, value_enum, value_name = "TIER", help = help(&ATTACH))]
    pub attach: Option<AttachChoice>,
    /// Connections that are known at one time; `None` when it was not given.
    #[arg(long, global = true, value_name = "N", value_parser = number_for(&MAX_CONNECTIONS), help = help(&MAX_CONNECTIONS))]
    pub max_connections: Option<u32>,
    /// Size of the ring buffer; `None` when it was not given.
    #[arg(long, global = true, value_name = "N", value_parser = number_for(&RING_BUFFER_BYTES), help = help(&RING_BUFFER_BYTES))]
    pub ring_buffer_bytes: Option<u32>,
    /// Configuration file of serve, which check can check; docs/configuration.md describes it
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say more on standard error
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Use colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl Global {
    /// How to attach.
    pub fn attach(&self) -> Attach {
        self.attach.map_or(Attach::Auto, Attach::from)
    }

    /// The sizes of the maps.
    pub fn capacity(&self) -> Capacity {
        Capacity::new(
            self.max_connections.unwrap_or(Capacity::DEFAULT_CONNECTIONS),
            self.ring_buffer_bytes.unwrap_or(Capacity::DEFAULT_RING_BYTES),
        )
    }

    /// What was given of that, as settings.
    pub fn given(&self) -> Vec<Given> {
        let given = |setting, text: Option<String>| text.map(|text| Given { setting, texts: vec![text] });
        let settings = [
            given(&ATTACH, self.attach.map(|choice| attach_name(choice.into()).to_owned())),
            given(&MAX_CONNECTIONS, self.max_connections.map(|number| number.to_string())),
            given(&RING_BUFFER_BYTES, self.ring_buffer_bytes.map(|number| number.to_string())),
        ];
        settings.into_iter().flatten().collect()
    }
}

/// What help says of a setting's flag.
fn help(setting: &Setting) -> String {
    // The values of a choice are listed by the parser.
    let description = if setting.key == ATTACH.key { setting.help.to_owned() } else { setting.description() };
    format!("{description} [default: {}]", setting.default().typed())
}

fn number_for(setting: &'static Setting) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| {
        setting.kind.check(text)?;
        text.parse().map_err(|_| "not a number".to_owned())
    }
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One object per line
    Json,
    /// With a heading
    Csv,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttachChoice {
    /// The first that works, in the order below
    Auto,
    /// fexit programs: the cheapest
    Fentry,
    /// kprobes and kretprobes
    Kprobe,
    /// BTF tracepoints, Linux 6.3 and later
    Tracepoint,
}

impl From<AttachChoice> for Attach {
    fn from(choice: AttachChoice) -> Self {
        match choice {
            AttachChoice::Auto => Self::Auto,
            AttachChoice::Fentry => Self::Only(Tier::Fentry),
            AttachChoice::Kprobe => Self::Only(Tier::Kprobe),
            AttachChoice::Tracepoint => Self::Only(Tier::Tracepoint),
        }
    }
}

/// How often to show, and how many times.
#[derive(Clone, Copy, Debug, Args)]
pub struct Pace {
    /// Seconds between two outputs, from 0.1 to 86400
    #[arg(default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// End after this many intervals. Tables then follow each other, whole, instead of refreshing the terminal
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Arguments of `top`.
#[derive(Clone, Debug, Args)]
pub struct Top {
    /// When to show.
    #[command(flatten)]
    pub pace: Pace,
    /// Show tables instead of the screen, of at most this many rows [default: all]
    #[arg(short = 'n', long, value_name = "N")]
    pub rows: Option<usize>,
    /// At the end of the screen: what was on it goes into this file, for `cargo xtask screenshots`.
    #[arg(long, hide = true, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Which rows.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// Arguments of `states` and `life`.
#[derive(Clone, Debug, Args)]
pub struct Stream {
    /// End after so many seconds, from 0.1 to 86400
    #[arg(long, value_name = "SECS", value_parser = interval)]
    pub duration: Option<Duration>,
    /// Which lines.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// Arguments of `open`.
#[derive(Clone, Debug, Args)]
pub struct Open {
    /// When to show.
    #[command(flatten)]
    pub pace: Pace,
    /// Show at most this many of each kind
    #[arg(short = 'n', long, value_name = "N")]
    pub rows: Option<usize>,
}

/// Arguments of `check`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Check {
    /// End with exit code 3 when this verb cannot run on this host
    #[arg(value_name = "VERB", value_parser = verb())]
    pub verb: Option<Verb>,
}

/// Filters. All that are given must hold.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters (all that are given must hold)")]
pub struct FilterArguments {
    /// This process
    #[arg(long)]
    pub pid: Option<u32>,
    /// Processes of this name
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// This port at either end
    #[arg(long)]
    pub port: Option<u16>,
    /// This local port
    #[arg(long, value_name = "PORT")]
    pub lport: Option<u16>,
    /// This remote port
    #[arg(long, value_name = "PORT")]
    pub rport: Option<u16>,
    /// This address or network at either end
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub addr: Option<IpNet>,
    /// Processes in this control group or below it
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Sockets in this network namespace: a name of `ip netns` or an inode number
    #[arg(long, value_name = "NAME|INODE")]
    pub netns: Option<String>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub ipv6: bool,
}

fn verb() -> impl TypedValueParser<Value = Verb> {
    let known = |name: String| Verb::ALL.into_iter().find(|verb| verb.name() == name).ok_or("no such verb");
    PossibleValuesParser::new(Verb::ALL.map(Verb::name)).try_map(known)
}

fn interval(text: &str) -> Result<Duration, String> {
    seconds_within(text, SHORTEST_SECONDS, LONGEST_SECONDS)
}

/// A network, or an address, which is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| "not an address or a network such as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_declaration_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn impossible_arguments_are_usage_errors() {
        for line in [
            "overwatch",
            "overwatch bottom",
            "overwatch top --nonsense",
            "overwatch top 0",
            "overwatch top -1",
            "overwatch top abc",
            "overwatch top NaN",
            "overwatch top inf",
            "overwatch top 1e99",
            "overwatch top 1 0",
            "overwatch top 1 -2",
            "overwatch top --addr 10.0.0.0/33",
            "overwatch top --addr host",
            "overwatch top --port 65536",
            "overwatch top -4 -6",
            "overwatch top --max-connections 0",
            "overwatch life --duration 0",
            "overwatch life --duration -1",
            "overwatch states 1",
            "overwatch open 0",
            "overwatch listeners 0",
            "overwatch listeners --explain http",
            "overwatch top --ring-buffer-bytes 0",
            "overwatch top --ring-buffer-bytes 2048",
            "overwatch top --ring-buffer-bytes 5000",
            "overwatch top --max-connections 4194305",
            "overwatch top --max-connections many",
            "overwatch top --series.ports 5",
            "overwatch top --config",
            "overwatch top --attach bpf",
            "overwatch top -o xml",
            "overwatch check bottom",
            "overwatch check check",
            "overwatch check top life",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn flags_may_stand_before_and_after_the_verb() {
        for line in ["overwatch -o json top 0.5 3", "overwatch top 0.5 3 -o json"] {
            let arguments = parse(line).unwrap();
            assert_eq!(arguments.global.output, Output::Json);
            let Command::Top(top) = arguments.command else { panic!("{line}") };
            assert_eq!((top.pace.interval, top.pace.count), (Duration::from_millis(500), Some(3)));
        }
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        for (text, network) in [("10.0.0.1", "10.0.0.1/32"), ("::1", "::1/128"), ("10.0.0.0/8", "10.0.0.0/8")] {
            assert_eq!(super::network(text).unwrap(), network.parse::<IpNet>().unwrap());
        }
    }

    #[test]
    fn what_was_given_for_every_verb_is_known() {
        let of = |line: &str| {
            let global = parse(line).unwrap().global;
            let given: Vec<_> = global.given().into_iter().map(|given| (given.setting.key, given.texts)).collect();
            (global.attach(), global.capacity(), given)
        };
        let plain = Capacity::new(Capacity::DEFAULT_CONNECTIONS, Capacity::DEFAULT_RING_BYTES);
        assert_eq!(of("overwatch top"), (Attach::Auto, plain, vec![]));
        let texts = |key, text: &str| (key, vec![text.to_owned()]);
        assert_eq!(
            of("overwatch --attach kprobe serve --max-connections 5 --ring-buffer-bytes 4096"),
            (
                Attach::Only(Tier::Kprobe),
                Capacity::new(5, 4096),
                vec![texts("attach", "kprobe"), texts("max_connections", "5"), texts("ring_buffer_bytes", "4096")]
            )
        );
        assert_eq!(of("overwatch serve --attach auto").2, [texts("attach", "auto")]);
        let choices = AttachChoice::value_variants().iter();
        let words = choices.map(|choice| choice.to_possible_value().unwrap().get_name().to_owned());
        let names = AttachChoice::value_variants().iter().map(|choice| attach_name((*choice).into()));
        assert!(words.eq(names));
    }

    #[test]
    fn check_takes_each_verb_that_runs_on_a_host() {
        for verb in Verb::ALL {
            let Command::Check(check) = parse(&format!("overwatch check {}", verb.name())).unwrap().command else {
                panic!("{}", verb.name())
            };
            assert_eq!(check.verb, Some(verb));
            assert_eq!(parse(&format!("overwatch {}", verb.name())).unwrap().command.name(), verb.name());
        }
        let Command::Check(check) = parse("overwatch check").unwrap().command else { panic!("check") };
        assert_eq!(check.verb, None);
    }

    #[test]
    fn two_verbs_take_a_file() {
        let takes = ["top", "states", "life", "open", "listeners", "serve", "check"].map(|verb| {
            let arguments = parse(&format!("overwatch {verb} --config f")).unwrap();
            assert_eq!((arguments.command.name(), arguments.global.config), (verb, Some("f".into())));
            arguments.command.takes_config()
        });
        assert_eq!(takes, [false, false, false, false, false, true, true]);
    }
}
