//! A snapshot to Prometheus: what the metrics are, and the HTTP server that hands them out.

pub mod http;
