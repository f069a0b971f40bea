//! The body of a scrape. It is computed once, however many ask for it meanwhile; by whom is not decided here.

use std::{
    io::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tokio::{
    sync::{OnceCell, mpsc, oneshot, watch},
    time::Instant,
};

use super::counters::Counters;

#[cfg(test)]
mod tests;

/// Pages that are being written at one time and differ. Beyond that, who asks shares the newest for a while: each takes
/// memory, and only slow readers make so many.
const MOST_PAGES: usize = 8;
/// How long the newest is shared then.
const SHARED: Duration = Duration::from_secs(1);

/// The other end: where it is asked for metrics. One at a time: there is no second before the first is answered.
#[derive(Debug)]
pub struct Asks {
    receiver: mpsc::Receiver<Ask>,
}

impl Asks {
    /// Waits until somebody asks; `None` when the server is gone. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Ask> {
        self.receiver.recv().await
    }
}

/// Somebody wants metrics. Dropped without an answer, it is answered with 500.
#[derive(Debug)]
pub struct Ask {
    reply: oneshot::Sender<Result<String, String>>,
}

impl Ask {
    /// The metrics in the text format, version 0.0.4; or why there are none, in a sentence that the client is shown.
    pub fn answer(self, metrics: Result<String, String>) {
        // All who asked may have gone, which is their right.
        let _gone = self.reply.send(metrics);
    }
}

/// What was computed, or why it was not.
pub(super) type Outcome = Result<Arc<Page>, Arc<str>>;

/// Metrics, and the same compressed once somebody wants them so. It lives as long as an answer with it is being written.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    gzip: OnceCell<Vec<u8>>,
    /// How many there are.
    alive: Arc<AtomicUsize>,
}

impl Page {
    fn new(text: String, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Relaxed);
        Self { text, gzip: OnceCell::new(), alive: Arc::clone(alive) }
    }

    pub(super) fn text(self: Arc<Self>) -> Bytes {
        Bytes::from_owner(Text(self))
    }

    /// `None` when it could not be compressed.
    pub(super) async fn gzip(self: Arc<Self>) -> Option<Bytes> {
        let compressed = self.gzip.get_or_try_init(|| async {
            let page = Arc::clone(&self);
            // Some megabytes take some ten milliseconds: too long for a thread that serves others.
            tokio::task::spawn_blocking(move || compress(page.text.as_bytes())).await.map_err(io::Error::other)?
        });
        compressed.await.ok()?;
        Some(Bytes::from_owner(Gzip(self)))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Relaxed);
    }
}

/// A page as an answer has it.
struct Text(Arc<Page>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

/// A page as an answer has it that is compressed.
struct Gzip(Arc<Page>);

impl AsRef<[u8]> for Gzip {
    fn as_ref(&self) -> &[u8] {
        // It was made before.
        self.0.gzip.get().map_or(&[], Vec::as_slice)
    }
}

fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    // Metrics are repetitive: the fastest level makes a tenth of them already.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

type Receiver = watch::Receiver<Option<Outcome>>;

#[derive(Debug, Default)]
struct Flight {
    receiver: Option<Receiver>,
    /// What was computed last, and when, for as long as somebody is being sent it.
    newest: Option<(Instant, Weak<Page>)>,
}

/// This end: where whoever scrapes gets a page.
#[derive(Debug)]
pub(super) struct Scrapes {
    sender: mpsc::Sender<Ask>,
    /// What is being computed.
    flight: Mutex<Flight>,
    alive: Arc<AtomicUsize>,
    counters: Arc<Counters>,
}

impl Scrapes {
    pub(super) fn new(counters: Arc<Counters>) -> (Self, Asks) {
        let (sender, receiver) = mpsc::channel(1);
        (Self { sender, flight: Mutex::default(), alive: Arc::default(), counters }, Asks { receiver })
    }

    /// What is being computed, or else what will be from now on.
    pub(super) async fn page(self: &Arc<Self>) -> Outcome {
        let mut receiver = match self.join() {
            Ok(page) => return Ok(page),
            Err(receiver) => receiver,
        };
        let outcome = match receiver.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| Err("the computation has ended without a result".into()))
    }

    fn lock(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page that is there, or from where it will come.
    fn join(self: &Arc<Self>) -> Result<Arc<Page>, Receiver> {
        let mut flight = self.lock();
        if let Some(receiver) = &flight.receiver {
            self.counters.shared_computations.fetch_add(1, Relaxed);
            return Err(receiver.clone());
        }
        if self.alive.load(Relaxed) >= MOST_PAGES
            && let Some((when, page)) = &flight.newest
            && when.elapsed() < SHARED
            && let Some(page) = page.upgrade()
        {
            self.counters.shared_computations.fetch_add(1, Relaxed);
            return Ok(page);
        }
        self.counters.computations.fetch_add(1, Relaxed);
        let (sender, receiver) = watch::channel(None);
        flight.receiver = Some(receiver.clone());
        // Apart, since whoever asked first may go before it is done.
        tokio::spawn(Arc::clone(self).compute(sender));
        Err(receiver)
    }

    async fn compute(self: Arc<Self>, result: watch::Sender<Option<Outcome>>) {
        let (reply, answer) = oneshot::channel();
        let outcome = match self.sender.send(Ask { reply }).await {
            Err(_) => Err("nothing computes metrics any more".into()),
            Ok(()) => match answer.await {
                Ok(Ok(text)) => Ok(Arc::new(Page::new(text, &self.alive))),
                Ok(Err(why)) => Err(why.into()),
                Err(_) => Err("the metrics were not computed".into()),
            },
        };
        // From here on who asks gets a new one.
        let mut flight = self.lock();
        flight.receiver = None;
        if let Ok(page) = &outcome {
            flight.newest = Some((Instant::now(), Arc::downgrade(page)));
        }
        drop(flight);
        result.send_replace(Some(outcome));
    }
}
