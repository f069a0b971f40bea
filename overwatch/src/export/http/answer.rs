//! From a request to an answer.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Body,
    header::{
        ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue,
        RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    },
};
use thiserror::Error;

use super::{Security, Server, counters::Handler, users::Credentials};

/// Prometheus' text format.
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";

/// Where the metrics are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsPath(String);

/// Why a text is not where metrics can be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MetricsPathError {
    /// `metrics`.
    #[error("it does not begin with /")]
    Relative,
    /// A space, a question mark and the like.
    #[error("it has a character other than letters, digits, / - . _ and ~")]
    Character,
    /// `/-/ready`.
    #[error("{HEALTHY} and {READY} are taken")]
    Taken,
}

impl Default for MetricsPath {
    fn default() -> Self {
        Self("/metrics".to_owned())
    }
}

impl FromStr for MetricsPath {
    type Err = MetricsPathError;

    fn from_str(text: &str) -> Result<Self, MetricsPathError> {
        if !text.starts_with('/') {
            return Err(MetricsPathError::Relative);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte)) {
            return Err(MetricsPathError::Character);
        }
        if [HEALTHY, READY].contains(&text) {
            return Err(MetricsPathError::Taken);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MetricsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) type Answer = Response<Full<Bytes>>;

/// What a path is for.
pub(super) fn handler(path: &str, metrics: &MetricsPath) -> Handler {
    match path {
        path if path == metrics.0 => Handler::Metrics,
        HEALTHY => Handler::Healthy,
        READY => Handler::Ready,
        "/" => Handler::Landing,
        _ => Handler::Unknown,
    }
}

/// Answers; the answer to HEAD has a body here, which hyper leaves out.
pub(super) async fn answer<B: Body>(
    server: &Server,
    security: &Security,
    handler: Handler,
    request: &Request<B>,
) -> Answer {
    if !request.body().is_end_stream() {
        // What is still to come is not read: the connection ends.
        let mut answer = text(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here\n");
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    if !admitted(server, security, request.headers()).await {
        return unauthorized();
    }
    content(server, handler, request).await
}

/// Said when an answer takes too long, by the metrics or by the passwords of others.
pub(super) fn too_late() -> Answer {
    unavailable("there was no answer in time\n")
}

async fn admitted(server: &Server, security: &Security, headers: &HeaderMap) -> bool {
    let Some(users) = &security.users else { return true };
    match headers.get(AUTHORIZATION).and_then(Credentials::of_header) {
        None => false,
        Some(credentials) => server.gate.admits(users, credentials).await,
    }
}

async fn content<B>(server: &Server, handler: Handler, request: &Request<B>) -> Answer {
    if handler == Handler::Unknown {
        return text(StatusCode::NOT_FOUND, "there is nothing here\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match handler {
        Handler::Metrics => metrics(server, request.headers()).await,
        Handler::Ready if !server.is_ready() => unavailable("overwatch is not ready\n"),
        Handler::Ready => text(StatusCode::OK, "overwatch is ready\n"),
        Handler::Landing => with(StatusCode::OK, HTML, landing(&server.settings.metrics_path).into()),
        _ => text(StatusCode::OK, "overwatch is healthy\n"),
    }
}

async fn metrics(server: &Server, headers: &HeaderMap) -> Answer {
    let page = match server.scrapes.page().await {
        Ok(page) => page,
        Err(why) => return text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{why}\n")),
    };
    let compressed = if accepts_gzip(headers) { Arc::clone(&page).gzip().await } else { None };
    let is_compressed = compressed.is_some();
    let mut answer = with(StatusCode::OK, EXPOSITION, compressed.unwrap_or_else(|| page.text()));
    answer.headers_mut().insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
    if is_compressed {
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// Whether `gzip` is named and not refused by a weight of 0 (RFC 9110, 12.5.3). `*` does not name it.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), |weight| weight.trim().parse::<f64>());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

fn landing(metrics: &MetricsPath) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>overwatch</title></head>\n<body>\n\
         <h1>overwatch {version}</h1>\n\
         <p>Who moves the bytes, and why a server does not answer.</p>\n\
         <ul>\n<li><a href=\"{metrics}\">Metrics</a></li>\n<li><a href=\"{HEALTHY}\">Healthy</a></li>\n\
         <li><a href=\"{READY}\">Ready</a></li>\n</ul>\n</body>\n</html>\n"
    )
}

fn unauthorized() -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, "a name and a password are wanted\n");
    let challenge = HeaderValue::from_static("Basic realm=\"overwatch\", charset=\"UTF-8\"");
    answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    answer
}

fn unavailable(why: &str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    with(status, PLAIN, Bytes::copy_from_slice(text.as_bytes()))
}

fn with(status: StatusCode, kind: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    // Nobody is to guess what it is.
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (values, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["deflate, GZIP;q=0.5, br"], true),
            (&["deflate", "gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip;q=x"], false),
            (&["gzipped, x-gzip"], false),
            (&["*"], false),
            (&["identity"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(accepts_gzip(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn a_path_is_one_that_a_link_can_have() {
        for (text, expected) in [
            ("/metrics", Ok(())),
            ("/", Ok(())),
            ("/a/b-c.d_e~f", Ok(())),
            ("", Err(MetricsPathError::Relative)),
            ("metrics", Err(MetricsPathError::Relative)),
            ("/me trics", Err(MetricsPathError::Character)),
            ("/metrics?x", Err(MetricsPathError::Character)),
            ("/\"><script>", Err(MetricsPathError::Character)),
            ("/-/ready", Err(MetricsPathError::Taken)),
            ("/-/healthy", Err(MetricsPathError::Taken)),
        ] {
            assert_eq!(text.parse::<MetricsPath>().map(|_| ()), expected, "{text}");
        }
    }
}
