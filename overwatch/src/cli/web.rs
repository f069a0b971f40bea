//! `overwatch serve-web`: the process that answers HTTP requests for `overwatch serve`, which starts it. It has no privileges.

use std::{os::fd::AsFd as _, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use nix::sys::{
    prctl,
    signal::{SigHandler, Signal, signal},
};
use tokio::{
    net::{UnixStream, unix::OwnedReadHalf},
    sync::{mpsc, oneshot},
};

use super::{Failure, args::ServeWeb, watch};
use crate::{
    config,
    export::{
        self,
        http::{self, Ask, Asks, Files, Listener, Server, Settings, activation},
        link::{self, FromWeb, ToWeb},
    },
    privileges,
};

pub(super) fn run(arguments: &ServeWeb) -> Result<ExitCode, Failure> {
    // The kernel has named it after the file that it was started from, which is a link in /proc.
    prctl::set_name(c"overwatch-web").context("cannot set the process's name").map_err(Failure::Running)?;
    // A terminal sends its signals to both. Who collects decides when this one ends, and after which answers.
    for of_terminal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
        // SAFETY: to ignore a signal runs no code.
        unsafe { signal(of_terminal, SigHandler::SigIgn) }
            .context("cannot ignore a signal")
            .map_err(Failure::Running)?;
    }
    watch::run(answer(arguments))
}

async fn answer(arguments: &ServeWeb) -> Result<ExitCode, Failure> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let stream = std::os::unix::net::UnixStream::from(stdin);
    stream.set_nonblocking(true)?;
    let (mut from, mut to) = UnixStream::from_std(stream)?.into_split();
    let (server, asks, listeners) = match start(arguments, &mut from).await {
        Ok(started) => started,
        Err(error) => {
            link::send(&mut to, FromWeb::Failed(format!("{error:#}"))).await?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let places: Vec<String> =
        listeners.iter().filter_map(|listener| Some(listener.local_addr()?.to_string())).collect();
    link::send(&mut to, FromWeb::Listening(places.join("\n"))).await?;

    let (told, inbox) = mpsc::channel(link::MOST_WAITING);
    tokio::spawn(link::hear(from, told));
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(http::serve(Arc::clone(&server), listeners, async {
        let _gone = stopped.await;
    }));
    let mut desk = Desk { server, asks, inbox, asked: None, stop: Some(stop) };
    tokio::select! {
        result = desk.work(&mut to) => result?,
        _ = served => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(arguments: &ServeWeb, from: &mut OwnedReadHalf) -> anyhow::Result<(Arc<Server>, Asks, Vec<Listener>)> {
    let settings = config::Settings::resolve(None, &arguments.settings.given)?.web;
    let mut listeners = activation::handed_over(arguments.inherited)?;
    // Sockets of a unit stand for those of the configuration.
    if listeners.is_empty() {
        for address in &settings.listen_addresses {
            listeners.push(Listener::bind(address)?);
        }
    }
    // Ports below 1024 needed one; what follows needs none.
    privileges::keep_none()?;
    let Some(ToWeb::Files(files)) = link::receive(from).await? else {
        anyhow::bail!("the process that collects has gone");
    };
    let (metrics_path, limits) = (settings.telemetry_path, settings.limits);
    let config_file = settings.config_file.as_deref();
    let (server, asks) = Server::new(Settings { metrics_path, limits }, config_file, &Files::from_text(&files)?)?;
    Ok((server, asks, listeners))
}

/// Between those who ask and the one who knows.
struct Desk {
    server: Arc<Server>,
    asks: Asks,
    inbox: mpsc::Receiver<ToWeb>,
    asked: Option<Ask>,
    stop: Option<oneshot::Sender<()>>,
}

impl Desk {
    /// Until the other process has gone.
    async fn work(&mut self, to: &mut tokio::net::unix::OwnedWriteHalf) -> std::io::Result<()> {
        loop {
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => {
                        if let Some(answer) = self.take(message) {
                            link::send(to, answer).await?;
                        }
                    }
                    None => return Ok(()),
                },
                ask = self.asks.next(), if self.asked.is_none() => {
                    self.asked = ask;
                    link::send(to, FromWeb::Ask(String::new())).await?;
                }
            }
        }
    }

    fn take(&mut self, message: ToWeb) -> Option<FromWeb> {
        match message {
            ToWeb::Page(page) => {
                let page = export::web_text(self.server.counters()).map(|own| page + &own);
                self.reply(page);
            }
            ToWeb::NoPage(why) => self.reply(Err(why)),
            ToWeb::Ready(_) => self.server.set_ready(true),
            ToWeb::Files(files) => {
                let files = Files::from_text(&files).map_err(|error| error.to_string());
                let reloaded = files.and_then(|files| self.server.reload(&files).map_err(|error| error.to_string()));
                return Some(match reloaded {
                    Ok(()) => FromWeb::Reloaded(String::new()),
                    Err(why) => FromWeb::NotReloaded(why),
                });
            }
            ToWeb::Hello(_) => return Some(FromWeb::Alive(String::new())),
            // What was asked is answered; nobody else is listened to.
            ToWeb::Stop(_) => self.stop = None,
        }
        None
    }

    fn reply(&mut self, page: Result<String, String>) {
        if let Some(ask) = self.asked.take() {
            ask.answer(page);
        }
    }
}
