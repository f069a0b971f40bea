//! What the HTTP server says about itself.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    family::{Family, Kind, family},
    http::Counters,
};

#[rustfmt::skip]
pub(super) const FAMILIES: &[Family<Counters>] = &[
    family("overwatch_http_requests_total", Kind::Counter, &["handler", "code"],
        "Requests by what was asked for (unknown: a path that there is not; unreadable: no request) and the answer's status.",
        |of, points| for (handler, code, count) in of.requests() {
            points.put_at(&[handler.name(), &code.to_string()], count as f64);
        }),
    family("overwatch_http_connections_open", Kind::Gauge, &[],
        "Connections of the HTTP server that are open.",
        |of, points| points.count(of.open_connections.load(Relaxed))),
    family("overwatch_http_connections_total", Kind::Counter, &[],
        "Connections that were taken.",
        |of, points| points.count(of.connections.load(Relaxed))),
    family("overwatch_http_connections_refused_total", Kind::Counter, &[],
        "Connections that were closed at once, since as many as may be were busy.",
        |of, points| points.count(of.refused_connections.load(Relaxed))),
    family("overwatch_http_connections_evicted_total", Kind::Counter, &[],
        "Connections that waited or were slow, and were closed to make room for a new one.",
        |of, points| points.count(of.evicted_connections.load(Relaxed))),
    family("overwatch_http_timeouts_total", Kind::Counter, &["phase"],
        "Connections that were closed since something took too long: the TLS handshake, the request's header, the answer being made or written, the time between two requests.",
        |of, points| for (phase, count) in of.timeouts() {
            points.put_at(&[phase.name()], count as f64);
        }),
    family("overwatch_http_failed_handshakes_total", Kind::Counter, &[],
        "TLS handshakes that failed.",
        |of, points| points.count(of.failed_handshakes.load(Relaxed))),
    family("overwatch_http_accept_errors_total", Kind::Counter, &[],
        "Connections that the kernel could not hand over, most often for want of file descriptors.",
        |of, points| points.count(of.accept_errors.load(Relaxed))),
    family("overwatch_scrapes_total", Kind::Counter, &[],
        "Times the metrics were computed.",
        |of, points| points.count(of.computations.load(Relaxed))),
    family("overwatch_scrapes_shared_total", Kind::Counter, &[],
        "Requests that got what was being computed for another.",
        |of, points| points.count(of.shared_computations.load(Relaxed))),
];
