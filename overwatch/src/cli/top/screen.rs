//! `overwatch top` on a terminal: the screen.

use std::{
    fs, io,
    io::Write as _,
    net::IpAddr,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Parser;
use crossterm::event::Event;
use nix::sys::signal::{Signal, raise};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, Interval, interval, interval_at},
};

use super::{
    collect::Collector,
    terminal::{Terminal, events, give_back},
};
use crate::{
    cli::{
        Failure,
        args::{FilterArguments, Global, Top},
        color,
        output::Output,
        watch::{self, EVERY, Watch},
    },
    model::filter::Filter,
    probes::object::Interest,
    show::screen::{
        Screen,
        board::Board,
        state::{Effect, State},
    },
};

/// A filter as it is typed.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Words {
    #[command(flatten)]
    filter: FilterArguments,
}

/// Flags that may be typed without their dashes.
const FLAGS: [&str; 10] = ["pid", "comm", "port", "lport", "rport", "addr", "cgroup", "netns", "4", "6"];

/// From what was typed to what is chosen by it: the words of the flags, with or without dashes; a number alone is a port, an address an
/// address, anything else the name of a process.
fn parse(text: &str) -> Result<Filter, String> {
    let words = Words::try_parse_from(typed_arguments(text)?).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    watch::filter(&words.filter).map_err(|failure| failure.to_string())
}

fn typed_arguments(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut arguments = Vec::new();
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        let bare = word.trim_start_matches('-');
        let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
        if FLAGS.contains(&name) {
            let dashes = if name.len() == 1 { "-" } else { "--" };
            arguments.push(format!("{dashes}{name}"));
            if name.len() > 1 {
                arguments.extend(value.or_else(|| rest.next()).map(str::to_owned));
            }
        } else if bare == word && word.parse::<u16>().is_ok() {
            arguments.extend(["--port".to_owned(), word.to_owned()]);
        } else if is_address(word) {
            arguments.extend(["--addr".to_owned(), word.to_owned()]);
        } else if bare == word {
            arguments.extend(["--comm".to_owned(), word.to_owned()]);
        } else {
            return Err(format!("{word} is none of: {}", FLAGS.join(", ")));
        }
    }
    Ok(arguments)
}

/// An address or a network, or the beginning of one.
fn is_address(word: &str) -> bool {
    let begins = word.starts_with(|first: char| first.is_ascii_digit()) && word.contains(['.', ':']);
    begins || word.split('/').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

/// The flags as they would be typed.
fn words(flags: &FilterArguments) -> String {
    let FilterArguments { pid, comm, port, lport, rport, addr, cgroup, netns, ipv4, ipv6 } = flags;
    let number = |number: &Option<u16>| number.map(|number| number.to_string());
    let words = [
        ("pid", pid.map(|pid| pid.to_string())),
        ("comm", comm.clone()),
        ("port", number(port)),
        ("lport", number(lport)),
        ("rport", number(rport)),
        ("addr", addr.map(|addr| addr.to_string())),
        ("cgroup", cgroup.clone()),
        ("netns", netns.clone()),
    ];
    let families = [(ipv4, "4"), (ipv6, "6")].into_iter().filter(|(is, _)| **is).map(|(_, word)| word.to_owned());
    let words = words.into_iter().filter_map(|(word, value)| Some(format!("{word} {}", value?)));
    words.chain(families).collect::<Vec<_>>().join(" ")
}

/// From now on, so often.
fn pace(length: Duration) -> Interval {
    watch::every(interval_at(Instant::now() + length, length))
}

pub(super) async fn run(global: &Global, top: &Top) -> Result<ExitCode, Failure> {
    let filter = watch::filter(&top.filter)?;
    let mut watch = Watch::start(global, Interest::Service)?;
    let board = Board::new(watch.host.clone(), SystemTime::now());
    let mut collector = Collector::new(&mut watch.session)?;
    let state = State::new(top.pace.interval, filter, words(&top.filter), parse);
    let mut screen = Screen::new(state, board, color(global));
    let mut suspended = signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?;
    let mut continued = signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
    let mut terminal = Terminal::take().context("cannot take the terminal").map_err(Failure::Running)?;
    let mut told = events();
    let mut output = Output::start();
    // The first picture does not wait for a whole interval.
    let mut intervals = pace(Duration::from_millis(300).min(top.pace.interval));
    let mut is_first = true;
    let mut drains = watch::every(interval(EVERY));
    let mut is_old = true;
    loop {
        if is_old && !output.is_waiting() {
            terminal.inner.draw(|frame| screen.draw(frame, SystemTime::now()))?;
            let frame = terminal.frames.take();
            if !frame.is_empty() {
                output.send(frame)?;
            }
            is_old = false;
        }
        let effect = tokio::select! {
            biased;
            () = watch.told_to_end() => Effect::Quit,
            _ = suspended.recv() => Effect::Suspend,
            // Somebody has stopped it from outside, and the shell has had the terminal since.
            _ = continued.recv() => {
                terminal.resume()?;
                is_old = true;
                Effect::None
            }
            result = output.written(), if output.is_waiting() => {
                result.context("cannot write to the terminal").map_err(Failure::Running)?;
                continue;
            }
            // These come before keys: somebody who leans on one must not keep the ring buffer from being emptied.
            _ = drains.tick() => {
                collector.keep_up(&mut watch.session)?;
                // It says how old it is.
                is_old |= screen.state.is_paused();
                Effect::None
            }
            _ = intervals.tick() => {
                collector.end_interval(&mut watch.session, &mut screen.live)?;
                screen.look();
                is_old = true;
                if std::mem::take(&mut is_first) {
                    intervals = pace(screen.state.interval());
                }
                Effect::None
            }
            event = told.recv() => {
                is_old = true;
                match event {
                    None => Effect::Quit,
                    Some(Event::Key(key)) => screen.press(&key),
                    Some(Event::Mouse(mouse)) => screen.point(&mouse),
                    Some(Event::Resize(..)) => Effect::Redraw,
                    Some(_) => Effect::None,
                }
            }
        };
        match effect {
            Effect::None => {}
            // The first tick sees to it.
            Effect::Pace(_) if is_first => {}
            Effect::Quit => break,
            Effect::Redraw => terminal.anew()?,
            Effect::Pace(length) => intervals = pace(length),
            Effect::Suspend => {
                watch::written_in_time(&mut output).await?;
                if output.is_waiting() {
                    // The terminal takes nothing, and would show the rest of a picture to the shell.
                    continue;
                }
                give_back();
                // Not by the signal's own number, which is ours to handle.
                raise(Signal::SIGSTOP).context("cannot stop").map_err(Failure::Running)?;
                terminal.resume()?;
                is_old = true;
            }
            Effect::Copy(text) => {
                let mut frames = terminal.frames.clone();
                write!(frames, "\x1b]52;c;{}\x07", BASE64_STANDARD.encode(&text))?;
                screen.state.say(text);
            }
            Effect::Write(text) => {
                let said = write_report(&text).unwrap_or_else(|error| format!("no report: {error}"));
                screen.state.say(said);
            }
        }
    }
    watch::written_in_time(&mut output).await?;
    drop(terminal);
    if let Some(file) = &top.record {
        let text = screen.live.record().context("cannot record").map_err(Failure::Running)?;
        let written = fs::write(file, text).with_context(|| format!("cannot write {}", file.display()));
        written.map_err(Failure::Running)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Into a file that was not there before.
fn write_report(text: &str) -> io::Result<String> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name = format!("overwatch-{}.txt", time.replace(':', ""));
    let mut file = fs::File::create_new(&name)?;
    file.write_all(text.as_bytes())?;
    Ok(format!("written to {}", std::path::absolute(&name)?.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filter::Family;

    #[test]
    fn a_filter_is_typed_with_the_words_of_the_flags() {
        let all = Filter::default;
        let net = |text: &str| Some(text.parse().unwrap());
        for (typed, expected) in [
            ("", all()),
            ("   ", all()),
            ("port 443", Filter { port: Some(443), ..all() }),
            ("--port 443", Filter { port: Some(443), ..all() }),
            ("port=443 comm=nginx", Filter { port: Some(443), comm: Some("nginx".into()), ..all() }),
            ("pid 7 lport 80 rport 90", Filter { pid: Some(7), local_port: Some(80), remote_port: Some(90), ..all() }),
            ("addr 10.0.0.0/8", Filter { network: net("10.0.0.0/8"), ..all() }),
            ("cgroup /system.slice", Filter { cgroup: Some("/system.slice".into()), ..all() }),
            ("netns 7 -4", Filter { netns: Some(7), family: Some(Family::V4), ..all() }),
            ("6", Filter { family: Some(Family::V6), ..all() }),
            // What is meant where no flag is named.
            ("443", Filter { port: Some(443), ..all() }),
            ("192.0.2.7", Filter { network: net("192.0.2.7/32"), ..all() }),
            ("2001:db8::1", Filter { network: net("2001:db8::1/128"), ..all() }),
            ("nginx", Filter { comm: Some("nginx".into()), ..all() }),
            ("beam.smp", Filter { comm: Some("beam.smp".into()), ..all() }),
            ("::1", Filter { network: net("::1/128"), ..all() }),
            ("nginx 443", Filter { comm: Some("nginx".into()), port: Some(443), ..all() }),
        ] {
            assert_eq!(parse(typed), Ok(expected), "{typed}");
        }
    }

    #[test]
    fn flags_are_shown_as_what_could_be_typed() {
        for (typed, shown) in [
            ("", ""),
            ("nginx 443", "comm nginx port 443"),
            ("pid 7 lport 80 rport 90 -6", "pid 7 lport 80 rport 90 6"),
            ("addr 10.0.0.1 cgroup /a netns 7 4", "addr 10.0.0.1/32 cgroup /a netns 7 4"),
        ] {
            let dashed = typed_arguments(typed).unwrap();
            let Words { filter } = Words::try_parse_from(dashed).unwrap();
            assert_eq!(words(&filter), shown);
            assert_eq!(parse(&words(&filter)), parse(typed));
        }
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said_in_a_line() {
        for (typed, said) in [
            ("port", "--port"),
            ("port http", "http"),
            ("port 70000", "70000"),
            ("addr 10.0.0.0/33", "10.0.0.0/33"),
            ("--verbose", "--verbose is none of: pid, comm"),
            ("4 6", "-4"),
            ("netns nowhere", "nowhere"),
            ("nginx apache2", "--comm"),
            ("10.0.0", "10.0.0"),
        ] {
            let error = parse(typed).unwrap_err();
            assert!(error.contains(said) && error.lines().count() == 1, "{typed}: {error}");
        }
    }
}
