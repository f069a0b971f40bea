//! The HTTP side of the daemon: who may ask for metrics, how, and for how long. What they are is not known here.
//!
//! It stands in a network that may be hostile, so everything has a bound: connections ([`Limits`]), the time for each phase of
//! one, the size of a request, passwords that are checked at one time, computations (one). It counts what it refuses
//! ([`Counters`]).
//!
//! To be run on a thread and a runtime of its own, so that handshakes do not keep events from being drained.

pub mod activation;
mod address;
mod answer;
mod config;
mod connection;
mod counters;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod limits;
mod listen;
mod scrape;
mod slots;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod unsent;
mod users;
mod yaml;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::header::{HeaderName, HeaderValue};
use thiserror::Error;
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

pub use self::{
    address::{Address, AddressError},
    answer::{MetricsPath, MetricsPathError},
    config::ConfigError,
    counters::{CODES, Counters, Handler, Phase},
    files::Files,
    limits::Limits,
    listen::{ListenError, Listener},
    scrape::{Ask, Asks},
};
use self::{
    config::WebConfig, connection::Connection, listen::Socket, scrape::Scrapes, slots::Slots, unsent::Unsent,
    users::Gate, users::Users,
};

/// How long nothing is accepted after the kernel could not hand a connection over. Nothing frees a file descriptor faster.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What is set once, at the start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where the metrics are.
    pub metrics_path: MetricsPath,
    /// What a client may take.
    pub limits: Limits,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum StartError {
    /// The file of `--web.config.file`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// getrandom(2) failed.
    #[error("the kernel has no random numbers")]
    Random,
}

/// The server, apart from its sockets.
pub struct Server {
    settings: Settings,
    config_file: Option<PathBuf>,
    security: RwLock<Arc<Security>>,
    gate: Gate,
    scrapes: Arc<Scrapes>,
    counters: Arc<Counters>,
    slots: Arc<Slots>,
    ready: AtomicBool,
}

/// What the configuration file says, and the certificates that it names, of one moment.
#[derive(Debug, Default)]
struct Security {
    /// What it was made of.
    files: Files,
    tls: Option<Arc<ServerConfig>>,
    users: Option<Users>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Security {
    fn load(file: &Path, files: &Files) -> Result<Self, ConfigError> {
        let config = WebConfig::load(file, files)?;
        let tls = config.tls.map(|settings| settings.server_config(files)).transpose();
        let tls = tls.map_err(|fault| ConfigError::new(file, &fault))?;
        Ok(Self { files: files.clone(), tls: tls.map(Arc::new), users: config.users, headers: config.headers })
    }
}

/// Whether a file of `--web.config.file` could be used, with the certificates that it names.
pub fn check_config(file: &Path) -> Result<(), ConfigError> {
    Security::load(file, &Files::of(file)).map(|_| ())
}

impl Server {
    /// With the configuration file, if there is one, and those that it names. The other end is where it will be asked for metrics.
    pub fn new(settings: Settings, config_file: Option<&Path>, files: &Files) -> Result<(Arc<Self>, Asks), StartError> {
        let security = config_file.map(|file| Security::load(file, files)).transpose()?.unwrap_or_default();
        let mut secret = [0; 32];
        ring::default_provider().secure_random.fill(&mut secret).map_err(|_| StartError::Random)?;
        let counters = Arc::new(Counters::default());
        let (scrapes, asks) = Scrapes::new(Arc::clone(&counters));
        let slots = Arc::new(Slots::new(settings.limits.connections, Arc::clone(&counters)));
        let server = Self {
            settings,
            config_file: config_file.map(Path::to_owned),
            security: RwLock::new(Arc::new(security)),
            gate: Gate::new(secret),
            scrapes: Arc::new(scrapes),
            counters,
            slots,
            ready: AtomicBool::new(false),
        };
        Ok((Arc::new(server), asks))
    }

    /// Takes the configuration file and its certificates anew. When something is wrong with them, all stays as it was. Connections that wait
    /// are closed, others after their answer, so that from here on all come by the new certificates and passwords.
    pub fn reload(&self, files: &Files) -> Result<(), ConfigError> {
        let Some(file) = &self.config_file else { return Ok(()) };
        // Nobody has to come anew because of a change elsewhere.
        if self.security().files == *files {
            return Ok(());
        }
        let security = Arc::new(Security::load(file, files)?);
        *self.security.write().unwrap_or_else(PoisonError::into_inner) = security;
        self.slots.close_waiting();
        Ok(())
    }

    /// What `/-/ready` says; at first it is not.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// What it counts about itself.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    fn security(&self) -> Arc<Security> {
        Arc::clone(&self.security.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves until `stop` is done, and then for as long as what was asked before takes, though not longer than
/// [`Limits::shutdown`]. Dropped, it ends at once.
pub async fn serve(server: Arc<Server>, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(false);
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(Arc::clone(&server), listener, stopped.clone()));
    }
    stop.await;
    stopping.send_replace(true);
    while loops.join_next().await.is_some() {}
}

/// Takes connections from one socket, and ends with the last of them.
async fn accept(server: Arc<Server>, listener: Listener, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let stopped = stop.clone();
    loop {
        tokio::select! {
            biased;
            () = connection::stopped(&mut stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(socket) => {
                    take(&server, socket, &stopped, &mut connections).await;
                    // Lets the one that made room go before the next comes.
                    yield_now().await;
                }
                Err(error) => {
                    server.counters.accept_errors.fetch_add(1, Relaxed);
                    // The client has gone already: that is no reason to wait.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        sleep(AFTER_ERROR).await;
                    }
                }
            }
        }
    }
    drop(listener);
    let last = async { while connections.join_next().await.is_some() {} };
    if timeout(server.settings.limits.shutdown, last).await.is_err() {
        server.counters.aborted_connections.fetch_add(connections.len() as u64, Relaxed);
    }
}

/// Serves a connection, or closes it when there is no place.
async fn take(server: &Arc<Server>, socket: Socket, stop: &watch::Receiver<bool>, connections: &mut JoinSet<()>) {
    let security = server.security();
    let phase = if security.tls.is_some() { Phase::Handshake } else { Phase::Header };
    let Some(place) = server.slots.admit(phase).await else { return };
    let connection = Connection { server: Arc::clone(server), security, place, stop: stop.clone() };
    match socket {
        Socket::Tcp(stream) => {
            let unsent = Unsent::of(&stream).ok();
            connections.spawn(connection.run(stream, unsent))
        }
        // What is sent there is in the reader's memory already.
        Socket::Unix(stream) => connections.spawn(connection.run(stream, None)),
    };
}
