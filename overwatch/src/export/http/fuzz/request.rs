//! A client's connection, from its first byte to its end.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{oneshot, watch},
    time::{Instant, sleep},
};

use super::{
    super::{Asks, CODES, Limits, Phase, Server, Settings, connection::Connection},
    answers::{self, Answer},
    file, files,
};

const METRICS: &str = "# TYPE overwatch_test gauge\noverwatch_test 1\n";
const NO_METRICS: &str = "there are none";
/// alice's password is `secret`.
const PASSWORDS: &str = "http_server_config: {headers: {X-Frame-Options: deny}}
basic_auth_users: {alice: $2y$04$CCCCCCCCCCCCCCCCCCCCC.4K7lyz.nKATbsiu/RcZjqWyDNnj87qG}
";
/// alice and her password, as a header has them.
const CREDENTIALS: &[u8] = b"YWxpY2U6c2VjcmV0";
/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(1);
/// Each pause takes time.
const MOST_PIECES: usize = 64;
/// What is under way between client and server, in bytes each way.
const UNDER_WAY: usize = 16 * 1024;

/// The first byte says what the client and the server are, those up to the first line's end how long each piece is that is sent, and
/// the rest is sent.
pub fn request(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (head, sent) = (&bytes[..end], &bytes[end + 1..]);
    let Some((flags, lengths)) = head.split_first() else { return };
    let is_set = |bit: u8| flags & (1 << bit) != 0;
    let case = Case {
        has_passwords: is_set(0),
        leaves: is_set(1),
        is_deaf: is_set(2),
        has_metrics: !is_set(3),
        is_ready: !is_set(4),
        lengths: &lengths[..lengths.len().min(MOST_PIECES)],
        sent,
    };
    crate::fuzz::run(case.check());
}

struct Case<'a> {
    has_passwords: bool,
    /// Says that it sends nothing more once it has sent everything.
    leaves: bool,
    /// Takes no answer before the connection is closed.
    is_deaf: bool,
    has_metrics: bool,
    is_ready: bool,
    /// Of the pieces before the last.
    lengths: &'a [u8],
    sent: &'a [u8],
}

impl Case<'_> {
    async fn check(&self) {
        let (config_file, files) =
            if self.has_passwords { (Some(file()), files(PASSWORDS.as_bytes())) } else { (None, Default::default()) };
        let limits = Limits::default();
        // The last piece may come just before the time for a head is over, and an answer be taken just before that is.
        let longest = limits.header + limits.request + limits.write + limits.idle + PAUSE * MOST_PIECES as u32;
        let (server, asks) = match Server::new(Settings::default(), config_file, &files) {
            Ok(started) => started,
            Err(error) => panic!("{error}"),
        };
        server.set_ready(self.is_ready);
        tokio::spawn(answer(asks, if self.has_metrics { Ok(METRICS) } else { Err(NO_METRICS) }));

        let start = Instant::now();
        let answer = self.talk(&server).await;
        assert!(start.elapsed() <= longest, "it took {:?}", start.elapsed());
        let (answers, is_whole) = answers::all(&answer);
        assert!(is_whole || self.leaves || self.is_deaf, "{}", String::from_utf8_lossy(&answer));
        self.check_answers(&answers);
        assert_are_counted(&answers, &server);
    }

    /// What the client is answered until the connection ends.
    async fn talk(&self, server: &Arc<Server>) -> Vec<u8> {
        let Some(place) = server.slots.admit(Phase::Header).await else { panic!("there is no place for the first") };
        let (_running, stop) = watch::channel(false);
        let connection = Connection { server: Arc::clone(server), security: server.security(), place, stop };
        let (near, far) = duplex(UNDER_WAY);
        let (ending, ended) = oneshot::channel::<()>();
        let serve = async {
            connection.run(far, None).await;
            drop(ending);
        };
        let ((), answer) = tokio::join!(serve, self.ask(near, ended));
        assert_eq!(server.counters.open_connections.load(std::sync::atomic::Ordering::Relaxed), 0);
        answer
    }

    async fn ask(&self, stream: DuplexStream, ended: oneshot::Receiver<()>) -> Vec<u8> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            let mut rest = self.sent;
            for length in self.lengths {
                let (piece, after) = rest.split_at(rest.len().min((*length).into()));
                // The server may have closed it.
                let _closed = writer.write_all(piece).await;
                sleep(PAUSE).await;
                rest = after;
            }
            let _closed = writer.write_all(rest).await;
            if self.leaves {
                let _closed = writer.shutdown().await;
            }
        };
        let mut answer = Vec::new();
        let read = async {
            if self.is_deaf {
                let _ended = ended.await;
            }
            let result = reader.read_to_end(&mut answer).await;
            assert!(result.is_ok(), "{result:?}");
        };
        tokio::join!(write, read);
        answer
    }

    fn check_answers(&self, answers: &[Answer<'_>]) {
        let mut good = 0;
        for answer in answers {
            assert!(CODES.contains(&answer.code), "{answer:?}");
            assert!(answer.header("date").is_some() && answer.header("transfer-encoding").is_none(), "{answer:?}");
            let text = answer.text();
            let is_metrics = contains(&text, METRICS.as_bytes());
            assert!(!is_metrics || answer.code == 200 && text == METRICS.as_bytes() && self.has_metrics, "{answer:?}");
            assert_eq!(answer.header("www-authenticate").is_some(), answer.code == 401, "{answer:?}");
            assert!(answer.code != 401 || self.has_passwords, "{answer:?}");
            // What is no request at all is answered before anybody looks at it.
            if ![400, 431].contains(&answer.code) {
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
                assert_eq!(answer.header("x-frame-options").is_some(), self.has_passwords, "{answer:?}");
            }
            good += usize::from(answer.code == 200);
        }
        let asked = count(self.sent, b"GET ") + count(self.sent, b"HEAD ");
        assert!(good <= asked, "{good} for {asked}: {answers:?}");
        let allowed = count(self.sent, CREDENTIALS);
        assert!(!self.has_passwords || good <= allowed, "{good} for {allowed}: {answers:?}");
    }
}

async fn answer(mut asks: Asks, metrics: Result<&str, &str>) {
    while let Some(ask) = asks.next().await {
        ask.answer(metrics.map(str::to_owned).map_err(str::to_owned));
    }
}

/// None was answered that is not in the server's own count.
fn assert_are_counted(answers: &[Answer<'_>], server: &Server) {
    for code in CODES {
        let seen = answers.iter().filter(|answer| answer.code == code).count() as u64;
        let counted: u64 = server.counters().requests().filter(|row| row.1 == code).map(|row| row.2).sum();
        assert!(seen <= counted, "{code}: {seen} of {counted}");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    count(bytes, part) > 0
}

fn count(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|window| *window == part).count()
}
