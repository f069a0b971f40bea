//! One connection, from its first byte to its end: whatever it does, it is given only so long for it.

use std::{
    convert::Infallible,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
};

use hyper::{
    Request,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Limits, Security, Server,
    answer::{self, Answer, answer, handler},
    counters::{Handler, Phase},
    slots::{Admitted, Slot},
    stream::Watched,
    unsent::Unsent,
};

/// hyper has no smaller buffer.
const SMALLEST_BUFFER: usize = 8192;

/// How something ended that is given only so long.
enum Ended<T> {
    Done(T),
    TimedOut(Phase),
    /// Its place is needed, or what it was let in by holds no more.
    Evicted,
    /// The server ends.
    Stopped,
}

/// A connection's surroundings.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    /// That of the moment when the connection was made.
    pub(super) security: Arc<Security>,
    pub(super) place: Admitted,
    pub(super) stop: watch::Receiver<bool>,
}

impl Connection {
    /// Serves to the end.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, socket: S, unsent: Option<Unsent>) {
        let is_whole = self.secure(socket).await;
        let Some(unsent) = unsent else { return };
        if !is_whole {
            return unsent.discard();
        }
        let slot = Arc::clone(self.place.slot());
        slot.enter(Phase::Writing);
        match bounded(pin!(unsent.taken()), &slot, &self.server.settings.limits, stopped(&mut self.stop)).await {
            // What is left when the server ends is sent by the kernel.
            Ended::Done(()) | Ended::Stopped => {}
            Ended::Evicted => unsent.discard(),
            Ended::TimedOut(phase) => {
                self.server.counters.timed_out(phase);
                unsent.discard();
            }
        }
    }

    /// Speaks TLS if that is what is wanted. False if the connection was cut off.
    async fn secure<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: S) -> bool {
        let Some(tls) = &self.security.tls else { return self.speak(socket).await };
        let handshake = pin!(TlsAcceptor::from(Arc::clone(tls)).accept(socket));
        let slot = Arc::clone(self.place.slot());
        match bounded(handshake, &slot, &self.server.settings.limits, stopped(&mut self.stop)).await {
            Ended::Done(Ok(stream)) => {
                slot.enter(Phase::Header);
                self.speak(stream).await
            }
            Ended::Done(Err(_)) => {
                self.server.counters.failed_handshakes.fetch_add(1, Relaxed);
                false
            }
            Ended::TimedOut(phase) => {
                self.server.counters.timed_out(phase);
                false
            }
            Ended::Evicted => false,
            Ended::Stopped => true,
        }
    }

    /// Speaks HTTP/1. False if the connection was cut off.
    async fn speak<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: S) -> bool {
        let slot = self.place.slot();
        let limits = &self.server.settings.limits;
        let service = service_fn(|request| respond(&self.server, &self.security, slot, request));
        let most = limits.header_bytes.max(SMALLEST_BUFFER);
        let mut http = pin!(
            http1::Builder::new()
                .max_buf_size(most)
                .max_header_size(most)
                // Ours covers more.
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(Watched::new(stream, Arc::clone(slot))), service)
        );
        let mut ended = bounded(http.as_mut(), slot, limits, stopped(&mut self.stop)).await;
        if matches!(ended, Ended::Stopped) && matches!(slot.state().0, Phase::Serving | Phase::Writing) {
            // Whoever has asked gets an answer, and no second one.
            http.as_mut().graceful_shutdown();
            ended = bounded(http, slot, limits, pending::<()>()).await;
        }
        match ended {
            Ended::Done(Err(error)) if error.is_parse_too_large() => {
                self.server.counters.answered(Handler::Unreadable, 431);
            }
            Ended::Done(Err(error)) if error.is_parse() => self.server.counters.answered(Handler::Unreadable, 400),
            Ended::Done(_) | Ended::Stopped => {}
            Ended::TimedOut(phase) => {
                self.server.counters.timed_out(phase);
                return false;
            }
            Ended::Evicted => return false,
        }
        true
    }
}

async fn respond(
    server: &Server,
    security: &Arc<Security>,
    slot: &Slot,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    slot.enter(Phase::Serving);
    let handler = handler(request.uri().path(), &server.settings.metrics_path);
    let answered = timeout(server.settings.limits.request, answer(server, security, handler, &request)).await;
    let mut answer = answered.unwrap_or_else(|_| answer::too_late());
    for (name, value) in &security.headers {
        answer.headers_mut().insert(name, value.clone());
    }
    if !Arc::ptr_eq(security, &server.security()) {
        // The next request is to come by the certificates and passwords of now.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    server.counters.answered(handler, answer.status().as_u16());
    slot.enter(Phase::Writing);
    Ok(answer)
}

/// Waits until the server is told to end.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell, which is the end too.
    let _told = stop.wait_for(|stop| *stop).await;
}

/// Runs what belongs to a place for as long as the limits let it.
async fn bounded<F: Future>(
    mut future: Pin<&mut F>,
    slot: &Slot,
    limits: &Limits,
    stopped: impl Future<Output = ()>,
) -> Ended<F::Output> {
    let mut evicted = pin!(slot.evicted.notified());
    let mut stopped = pin!(stopped);
    let mut timer = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ended::Done(output));
        }
        if evicted.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ended::Evicted);
        }
        if stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ended::Stopped);
        }
        // The phase only changes when the future is polled, so it is enough to look after that.
        let (phase, since) = slot.state();
        if let Some(limit) = limits.of(phase) {
            let deadline = since + limit;
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ended::TimedOut(phase));
            }
        }
        Poll::Pending
    })
    .await
}
