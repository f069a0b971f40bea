//! The server on real sockets of the loopback device.

mod hostile;
mod http;
mod passwords;
mod sockets;
mod tls;

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::*;

const METRICS: &str = "# TYPE overwatch_test gauge\noverwatch_test 1\n";
/// No test takes longer, however busy the host is.
const BOUND: Duration = Duration::from_secs(120);

/// What a busy host may take long for is not cut off, but where that is what is tested.
fn patient() -> Limits {
    Limits {
        handshake: BOUND,
        header: BOUND,
        request: BOUND,
        write: BOUND,
        idle: BOUND,
        shutdown: BOUND,
        ..Limits::default()
    }
}

fn limited(limits: Limits) -> Settings {
    Settings { limits, ..Settings::default() }
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    timeout(BOUND, test).await.expect("the test takes too long")
}

/// A server that runs.
struct Running {
    server: Arc<Server>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    /// Where the configuration is.
    directory: TempDir,
}

impl Running {
    /// With metrics that are always there.
    async fn start(settings: Settings, config: &str) -> Self {
        let (running, asks) = Self::silent(settings, config).await;
        tokio::spawn(always(asks, METRICS.to_owned()));
        running
    }

    /// With metrics that the test gives, or not.
    async fn silent(settings: Settings, config: &str) -> (Self, Asks) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.yml");
        std::fs::write(&file, config).unwrap();
        let (server, asks) = Server::new(settings, Some(&file), &Files::of(&file)).unwrap();
        (Self::with(server, directory).await, asks)
    }

    async fn with(server: Arc<Server>, directory: TempDir) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(serve(Arc::clone(&server), vec![listener], stopped));
        Self { server, address, stop: Some(stop), task, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tell_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends something on a connection of its own and takes what comes until the end.
    async fn send(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        exchange(self.connect().await, bytes.as_ref()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.get_with(path, "").await
    }

    /// `headers`: whole lines.
    async fn get_with(&self, path: &str, headers: &str) -> Reply {
        Reply::parse(&self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await)
    }

    async fn assert_good_scrape(&self) {
        let reply = self.get("/metrics").await;
        assert_eq!((reply.code, &*reply.body), (200, METRICS.as_bytes()));
    }

    fn requests(&self, handler: Handler, code: u16) -> u64 {
        let found = self.server.counters().requests().find(|row| (row.0, row.1) == (handler, code));
        found.unwrap().2
    }

    fn timeouts(&self, phase: Phase) -> u64 {
        self.server.counters().timeouts().find(|row| row.0 == phase).unwrap().1
    }

    fn open(&self) -> u64 {
        self.server.counters().open_connections.load(Relaxed)
    }
}

async fn always(mut asks: Asks, metrics: String) {
    while let Some(ask) = asks.next().await {
        ask.answer(Ok(metrics.clone()));
    }
}

/// Waits for what comes soon.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Writes and reads at the same time; a reset is an end.
async fn exchange(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let write = async {
        let _closed = writer.write_all(bytes).await;
        let _closed = writer.flush().await;
    };
    let read = async {
        let _reset = reader.read_to_end(&mut answer).await;
    };
    tokio::join!(write, read);
    answer
}

#[derive(Debug, PartialEq, Eq)]
struct Reply {
    code: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let (reply, rest) =
            Self::parse_one(bytes, true).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(bytes)));
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(rest));
        reply
    }

    /// And what comes after it.
    fn parse_one(bytes: &[u8], has_body: bool) -> Option<(Self, &[u8])> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let code = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers = lines.map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut reply = Self { code, headers: headers.collect::<Option<_>>()?, body: Vec::new() };
        let rest = &bytes[end + 4..];
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        let (body, rest) = rest.split_at_checked(if has_body { length } else { 0 })?;
        reply.body = body.to_vec();
        Some((reply, rest))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).unwrap();
}

impl Server {
    /// What the daemon does when it is told to.
    fn reread(&self) -> Result<(), ConfigError> {
        self.reload(&self.config_file.as_deref().map(Files::of).unwrap_or_default())
    }
}
