//! Arguments of `serve`, and the thresholds that `listeners` takes as well: flags made from the table of settings.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    error::{Error, ErrorKind},
};

use super::help;
use crate::{
    config::{Given, SETTINGS, Setting, Settings, table::SECTIONS},
    model::verdict::Thresholds,
};

/// Arguments of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// What was given; the rest is for the file and the defaults.
    #[command(flatten)]
    pub settings: SettingsArguments,
}

/// Arguments of `serve-web`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeWeb {
    /// So many listening sockets were handed over, from descriptor 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub inherited: i32,
    /// Those of the HTTP side.
    #[command(flatten)]
    pub settings: SettingsArguments,
}

/// The settings that were given as flags.
#[derive(Clone, Debug, Default)]
pub struct SettingsArguments {
    /// In the order of the table.
    pub given: Vec<Given>,
}

impl Args for SettingsArguments {
    fn augment_args(command: Command) -> Command {
        with_flags(command, |setting| !setting.is_global)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self { given: given(matches, |setting| !setting.is_global) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// When a verdict changes. The defaults are those of the model, which also has the reasons.
#[derive(Clone, Debug)]
pub struct ThresholdArguments(Thresholds);

impl ThresholdArguments {
    /// For the model.
    pub fn thresholds(&self) -> Thresholds {
        self.0.clone()
    }
}

fn is_threshold(setting: &Setting) -> bool {
    setting.section() == "thresholds"
}

impl Args for ThresholdArguments {
    fn augment_args(command: Command) -> Command {
        with_flags(command, is_threshold)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ThresholdArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let settings = Settings::resolve(None, &given(matches, is_threshold));
        let settings = settings.map_err(|error| Error::raw(ErrorKind::ValueValidation, error))?;
        Ok(Self(settings.thresholds))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn with_flags(command: Command, wanted: fn(&Setting) -> bool) -> Command {
    SETTINGS.iter().filter(|setting| wanted(setting)).fold(command, |command, setting| command.arg(flag(setting)))
}

/// The flag of a setting. It has no default here, so that what was not typed can come from a file.
fn flag(setting: &'static Setting) -> Arg {
    let section = SECTIONS.iter().find(|section| section.name == setting.section());
    let check = move |text: &str| setting.kind.check(text).map(|()| text.to_owned());
    let flag = Arg::new(setting.key)
        .long(setting.flag)
        .value_name(setting.kind.value_name())
        .help(help(setting))
        .value_parser(check)
        .action(if setting.repeats() { ArgAction::Append } else { ArgAction::Set })
        .hide_short_help(setting.is_rare);
    match section.and_then(|section| section.heading) {
        Some(heading) => flag.help_heading(heading),
        None => flag,
    }
}

fn given(matches: &ArgMatches, wanted: fn(&Setting) -> bool) -> Vec<Given> {
    let texts = |setting: &Setting| -> Option<Vec<String>> {
        Some(matches.get_many::<String>(setting.key)?.cloned().collect())
    };
    let wanted = SETTINGS.iter().filter(|setting| wanted(setting));
    wanted.filter_map(|setting| texts(setting).map(|texts| Given { setting, texts })).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    /// The arguments behind `overwatch serve`.
    #[derive(Debug, Parser)]
    struct Behind {
        #[command(flatten)]
        serve: Serve,
    }

    fn given(line: &str) -> Result<Vec<(&'static str, Vec<String>)>, Error> {
        let behind = Behind::try_parse_from(format!("serve {line}").split_whitespace())?;
        Ok(behind.serve.settings.given.into_iter().map(|given| (given.setting.key, given.texts)).collect())
    }

    #[test]
    fn what_is_not_typed_is_not_given() {
        assert_eq!(given("").unwrap(), []);
        let texts = |key, texts: &[&str]| (key, texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let line = "--wait-threshold 0.5 --web.listen-address :1 --interval-seconds=2 --web.listen-address [::1]:2 --web.config.file=";
        let expect = [
            texts("interval_seconds", &["2"]),
            texts("web.listen_addresses", &[":1", "[::1]:2"]),
            texts("web.config_file", &[""]),
            texts("thresholds.wait_seconds", &["0.5"]),
        ];
        assert_eq!(given(line).unwrap(), expect);
    }

    #[test]
    fn impossible_settings_are_usage_errors() {
        for line in [
            "5",
            "--interval-seconds 0",
            "--interval-seconds 61",
            "--web.listen-address 9752",
            "--web.listen-address=",
            "--web.telemetry-path metrics",
            "--web.limits.header-bytes 100",
            "--series.listeners 0",
            "--series.ports 1.5",
            "--series.idle-seconds=-1",
            "--queue-share 2",
            "--calm 1 --calm 2",
        ] {
            assert_eq!(given(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_whose_help_has_its_default() {
        let command = crate::cli::args::Arguments::command();
        let serve = command.find_subcommand("serve").unwrap();
        for setting in SETTINGS {
            let of = if setting.is_global { &command } else { serve };
            let flag = of.get_arguments().find(|flag| flag.get_long() == Some(setting.flag)).unwrap();
            let help = flag.get_help().unwrap().to_string();
            assert!(help.starts_with(setting.help), "{help}");
            assert!(help.ends_with(&format!(" [default: {}]", setting.default().typed())), "{help}");
        }
        let mut command = Behind::command();
        let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
        for setting in SETTINGS.iter().filter(|setting| !setting.is_global) {
            let has = |help: &str| help.contains(&format!("--{} ", setting.flag));
            assert_eq!((has(&short), has(&long)), (!setting.is_rare, true), "{}", setting.flag);
        }
    }
}
