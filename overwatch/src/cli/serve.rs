//! `overwatch serve`: the daemon. This process collects; another one, without privileges, answers requests.

use std::process::ExitCode;

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Duration, Instant, interval, interval_at},
};

use self::{daemon::Daemon, web::Web};
use super::{
    Failure,
    args::{self, Global},
    say::say,
    settings,
    startup::{EndSignals, Hangup},
    watch::{self, EVERY, Watch, every},
};
use crate::{
    export::link::{FromWeb, ToWeb},
    probes::object::{Capacity, Interest},
    show::capabilities,
};

mod daemon;
mod web;

pub(super) fn run(global: &Global, arguments: &args::Serve) -> Result<ExitCode, Failure> {
    watch::run(serve(global, arguments))
}

async fn serve(global: &Global, arguments: &args::Serve) -> Result<ExitCode, Failure> {
    let resolve = || settings::resolve(global, &arguments.settings);
    let settings = resolve()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut signals = EndSignals::new(Hangup::Reloads)?;
    // First, since an address that is in use should cost nothing more.
    let mut web = tokio::select! {
        biased;
        () = signals.received() => return Ok(ExitCode::SUCCESS),
        web = Web::start(&settings) => web.map_err(Failure::Running)?,
    };
    for place in &web.places {
        say(format_args!("listening at {place}"));
    }
    let capacity = Capacity::new(settings.max_connections, settings.ring_buffer_bytes);
    let mut watch = Watch::start_as(global, settings.attach, &capacity, Interest::Service, Hangup::Reloads)?;
    let mut daemon = Daemon::new(settings, &mut watch.session)?;
    web.tell(ToWeb::Ready(String::new()));
    notify(&[NotifyState::Ready]);
    let attached = watch.session.attached();
    capabilities::warnings(attached).for_each(say);
    if global.verbose {
        say(format_args!("capabilities: {}", attached.capabilities()));
        watch.say_ready()?;
    }

    let pace = daemon.settings().interval;
    let mut intervals = every(interval_at(Instant::now() + pace, pace));
    let mut ticks = every(interval(EVERY));
    let mut alive = every(interval(watchdog().unwrap_or(NOBODY_WATCHES)));
    loop {
        // In no order: whoever always has something to say must not keep the others waiting.
        tokio::select! {
            () = watch.told_to_end() => break,
            _ = hangup.recv() => {
                notify(&[NotifyState::Reloading]);
                daemon.reload(resolve());
                web.hand_over_files().map_err(Failure::Running)?;
            }
            message = web.next() => match message {
                Some(FromWeb::Ask(_)) => web.tell(daemon.page(&watch.session)),
                Some(FromWeb::Reloaded(_)) => reloaded(&mut daemon, Ok(())),
                Some(FromWeb::NotReloaded(why)) => reloaded(&mut daemon, Err(why)),
                // Who stands still says nothing, be it this process or the other.
                Some(FromWeb::Alive(_)) => notify(&[NotifyState::Watchdog]),
                Some(FromWeb::Listening(_) | FromWeb::Failed(_)) => {}
                None => {
                    let why = anyhow::anyhow!("the process that answers requests has ended");
                    return Err(Failure::Running(why));
                }
            },
            _ = intervals.tick() => daemon.end_interval(&mut watch.session)?,
            _ = ticks.tick() => daemon.keep_up(&mut watch.session)?,
            _ = alive.tick() => web.tell(ToWeb::Hello(String::new())),
        }
    }
    notify(&[NotifyState::Stopping]);
    web.stop(|| daemon.page(&watch.session)).await;
    Ok(ExitCode::SUCCESS)
}

/// The collecting side has read its part before; what the other says of its own part is the last word.
fn reloaded(daemon: &mut Daemon, web: Result<(), String>) {
    daemon.web_reloaded(web);
    notify(&[NotifyState::Ready]);
}

/// Without a watchdog, an answer that nobody waits for.
const NOBODY_WATCHES: Duration = Duration::from_secs(3600);

/// How often systemd wants to hear that this works: twice in the time that it waits (sd_watchdog_enabled(3)).
fn watchdog() -> Option<Duration> {
    let mut microseconds = 0;
    sd_notify::watchdog_enabled(false, &mut microseconds).then(|| Duration::from_micros(microseconds) / 2)
}

/// Tells systemd, if it has started this.
fn notify(states: &[NotifyState<'_>]) {
    let _nobody_listens = sd_notify::notify(false, states);
}
