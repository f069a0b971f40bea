//! The body of a scrape. It is computed once, however many ask for it meanwhile; by whom is not decided here.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tokio::sync::{OnceCell, mpsc, oneshot, watch};

use super::counters::Counters;

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

/// Metrics, and the same compressed once somebody wants them so.
#[derive(Debug)]
pub(super) struct Page {
    text: Bytes,
    gzip: OnceCell<Bytes>,
}

impl Page {
    fn new(text: String) -> Self {
        Self { text: text.into(), gzip: OnceCell::new() }
    }

    pub(super) fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// `None` when it could not be compressed.
    pub(super) async fn gzip(&self) -> Option<Bytes> {
        let compressed = self.gzip.get_or_try_init(|| async {
            let text = self.text.clone();
            // Some megabytes take some ten milliseconds: too long for a thread that serves others.
            tokio::task::spawn_blocking(move || compress(&text)).await.map_err(io::Error::other)?
        });
        compressed.await.ok().cloned()
    }
}

fn compress(text: &[u8]) -> io::Result<Bytes> {
    // Metrics are repetitive: the fastest level makes a tenth of them already.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish().map(Bytes::from)
}

/// This end: where whoever scrapes gets a page.
#[derive(Debug)]
pub(super) struct Scrapes {
    sender: mpsc::Sender<Ask>,
    /// What is being computed.
    flight: Mutex<Option<watch::Receiver<Option<Outcome>>>>,
    counters: Arc<Counters>,
}

impl Scrapes {
    pub(super) fn new(counters: Arc<Counters>) -> (Self, Asks) {
        let (sender, receiver) = mpsc::channel(1);
        (Self { sender, flight: Mutex::default(), counters }, Asks { receiver })
    }

    /// What is being computed, or else what will be from now on.
    pub(super) async fn page(self: &Arc<Self>) -> Outcome {
        let mut receiver = self.join();
        let outcome = match receiver.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| Err("the computation has ended without a result".into()))
    }

    fn join(self: &Arc<Self>) -> watch::Receiver<Option<Outcome>> {
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = &*flight {
            self.counters.shared_computations.fetch_add(1, Relaxed);
            return receiver.clone();
        }
        self.counters.computations.fetch_add(1, Relaxed);
        let (sender, receiver) = watch::channel(None);
        *flight = Some(receiver.clone());
        // Apart, since whoever asked first may go before it is done.
        tokio::spawn(Arc::clone(self).compute(sender));
        receiver
    }

    async fn compute(self: Arc<Self>, result: watch::Sender<Option<Outcome>>) {
        let (reply, answer) = oneshot::channel();
        let outcome = match self.sender.send(Ask { reply }).await {
            Err(_) => Err("nothing computes metrics any more".into()),
            Ok(()) => match answer.await {
                Ok(Ok(text)) => Ok(Arc::new(Page::new(text))),
                Ok(Err(why)) => Err(why.into()),
                Err(_) => Err("the metrics were not computed".into()),
            },
        };
        // From here on who asks gets a new one.
        *self.flight.lock().unwrap_or_else(PoisonError::into_inner) = None;
        result.send_replace(Some(outcome));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn one_computation_serves_all_who_wait() {
        let counters = Arc::new(Counters::default());
        let (scrapes, mut asks) = Scrapes::new(Arc::clone(&counters));
        let scrapes = Arc::new(scrapes);
        for round in 0..3 {
            let who: Vec<_> = (0..50)
                .map(|_| {
                    let scrapes = Arc::clone(&scrapes);
                    tokio::spawn(async move { scrapes.page().await })
                })
                .collect();
            let ask = asks.next().await.unwrap();
            // All of them have asked by the time that each has run once.
            tokio::task::yield_now().await;
            who[0].abort();
            ask.answer(Ok(format!("round {round}\n")));
            for one in who.into_iter().skip(1) {
                assert_eq!(one.await.unwrap().unwrap().text(), format!("round {round}\n"));
            }
        }
        assert_eq!(counters.computations.load(Relaxed), 3);
        assert_eq!(counters.shared_computations.load(Relaxed), 3 * 49);
    }

    #[tokio::test]
    async fn no_answer_is_an_error_and_the_next_is_asked_anew() {
        let (scrapes, mut asks) = Scrapes::new(Arc::default());
        let scrapes = Arc::new(scrapes);
        let answers: [Option<Result<String, String>>; 3] = [None, Some(Err("why".to_owned())), Some(Ok(String::new()))];
        for (answer, expected) in answers.into_iter().zip([Err("the metrics were not computed"), Err("why"), Ok("")]) {
            let compute = async {
                let ask = asks.next().await.unwrap();
                if let Some(answer) = answer {
                    ask.answer(answer);
                }
            };
            let (outcome, ()) = tokio::join!(scrapes.page(), compute);
            let outcome = outcome.map(|page| page.text());
            assert_eq!(outcome.as_deref().map_err(|why| &**why), expected.map(str::as_bytes));
        }
        drop(asks);
        assert_eq!(&*scrapes.page().await.unwrap_err(), "nothing computes metrics any more");
    }

    #[tokio::test]
    async fn what_is_compressed_is_the_same() {
        let text = "overwatch_listener_accept_queue_length{listener=\"0.0.0.0:80\"} 3\n".repeat(1000);
        let page = Page::new(text.clone());
        let compressed = page.gzip().await.unwrap();
        assert!(compressed.len() < text.len() / 20, "{}", compressed.len());
        let mut back = String::new();
        flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
        assert_eq!(page.gzip().await.unwrap().as_ptr(), compressed.as_ptr());
    }
}
