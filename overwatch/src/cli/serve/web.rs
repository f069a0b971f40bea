//! The process that answers HTTP requests, as the one that collects sees it.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as BlockingUnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    time::timeout,
};

use crate::{
    config::Settings,
    export::{
        http::{Files, activation},
        link::{self, FromWeb, ToWeb},
    },
};

/// To listen and to read certificates.
const START: Duration = Duration::from_secs(20);
/// Longer than the other end gives those who have asked.
const STOP: Duration = Duration::from_secs(5);

/// The other process.
pub(super) struct Web {
    child: Child,
    inbox: mpsc::Receiver<FromWeb>,
    outbox: mpsc::Sender<ToWeb>,
    config_file: Option<PathBuf>,
    /// Where it listens, as far as that is TCP.
    pub(super) places: Vec<String>,
}

impl Web {
    /// Starts it and waits until it listens.
    pub(super) async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let (own, other) = BlockingUnixStream::pair()?;
        let child = command(settings)?.stdin(Stdio::from(OwnedFd::from(other))).spawn();
        let child = child.context("cannot start the process that answers requests")?;
        own.set_nonblocking(true)?;
        let (from, to) = UnixStream::from_std(own)?.into_split();
        let (heard, inbox) = mpsc::channel(link::MOST_WAITING);
        let (outbox, to_say) = mpsc::channel(link::MOST_WAITING);
        tokio::spawn(link::hear(from, heard));
        tokio::spawn(say(to, to_say));
        let mut web = Self { child, inbox, outbox, config_file: settings.web.config_file.clone(), places: Vec::new() };
        web.hand_over_files()?;
        match timeout(START, web.next()).await {
            Ok(Some(FromWeb::Listening(places))) => {
                web.places = places.lines().map(str::to_owned).collect();
                Ok(web)
            }
            Ok(Some(FromWeb::Failed(why))) => Err(anyhow!(why)),
            _ => Err(anyhow!("the process that answers requests does not start")),
        }
    }

    /// Reads what the other may not read: keys.
    pub(super) fn hand_over_files(&self) -> anyhow::Result<()> {
        let files = self.config_file.as_deref().map(Files::of).unwrap_or_default();
        self.tell(ToWeb::Files(files.to_text()?));
        Ok(())
    }

    /// What it says next; `None` when it has ended. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<FromWeb> {
        self.inbox.recv().await
    }

    /// Tells it, unless it has ended.
    pub(super) fn tell(&self, message: ToWeb) {
        // There is room for one of each kind. When the other has ended, `next` says so.
        let _ended = self.outbox.try_send(message);
    }

    /// Ends it, once it has answered what was asked. `page` makes the metrics for those who wait.
    pub(super) async fn stop(mut self, mut page: impl FnMut() -> ToWeb) {
        self.tell(ToWeb::Stop(String::new()));
        let answered = async {
            while let Some(message) = self.inbox.recv().await {
                if matches!(message, FromWeb::Ask(_)) {
                    let _ended = self.outbox.send(page()).await;
                }
            }
        };
        let _killed_when_late = timeout(STOP, answered).await;
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn command(settings: &Settings) -> io::Result<Command> {
    let inherited = activation::count().map_err(io::Error::other)?;
    // Not by a path: the file may have been replaced by an update.
    let mut command = Command::new("/proc/self/exe");
    command.arg("serve-web").arg(format!("--inherited={inherited}")).args(settings.flags("web"));
    Ok(command)
}

async fn say(mut to: OwnedWriteHalf, mut to_say: mpsc::Receiver<ToWeb>) {
    while let Some(message) = to_say.recv().await {
        if link::send(&mut to, message).await.is_err() {
            break;
        }
    }
}
