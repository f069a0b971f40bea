//! A snapshot to Prometheus: what the metrics are, and the HTTP server that hands them out.

use prometheus::{core::Collector as _, process_collector::ProcessCollector};

pub mod http;
pub mod link;

mod family;
mod itself;
mod listeners;
mod services;
#[cfg(test)]
mod tests;
mod web;

pub use self::{
    family::{Declared, Kind},
    itself::{Itself, Timing},
};
use self::{
    itself::{Capped, Facts},
    listeners::Listeners,
    services::States,
};
use crate::{
    config::Series,
    model::{open::Open, queue::Row, services::Services},
};

/// The value of every label of the series that has what is beyond a cap.
const OTHER: &str = "other";
/// The value of a label that is not known.
const UNKNOWN: &str = "unknown";

/// Every metric of overwatch's own, as it is declared, by subject.
pub fn declarations() -> Vec<(&'static str, Vec<Declared>)> {
    vec![
        ("Listening sockets", family::declared(listeners::FAMILIES, listeners::LABELS)),
        ("Services", family::declared(services::FAMILIES, services::LABELS)),
        ("Ports", family::declared(services::PORT_FAMILIES, services::PORT_LABELS)),
        ("Connections", family::declared(services::STATE_FAMILIES, &[])),
        ("Overwatch itself", family::declared(itself::FAMILIES, &[])),
        ("Its HTTP server", family::declared(web::FAMILIES, &[])),
    ]
}

/// What is kept from scrape to scrape.
#[derive(Debug, Default)]
pub struct Exporter {
    listeners: Listeners,
}

impl Exporter {
    /// Takes the listening sockets of an interval; at most so many have series of their own.
    pub fn update(&mut self, rows: Vec<Row>, most: usize) {
        self.listeners.update(rows, most);
    }

    /// The control groups whose paths are wanted.
    pub fn cgroups(&self) -> impl Iterator<Item = u64> {
        self.listeners.cgroups()
    }

    /// The page as of the last interval, but for what the HTTP server says about itself. Peaks begin anew.
    pub fn page<'a>(
        &mut self,
        services: &Services,
        open: &Open,
        limits: &Series,
        itself: Itself,
        path: &dyn Fn(u64) -> Option<&'a str>,
    ) -> Result<String, String> {
        let (now, folded) = self.listeners.series();
        let capped = [
            Capped { name: "listeners", most: limits.listeners as u64, now, folded },
            services::capped("services", services.service_counts()),
            services::capped("ports", services.port_counts()),
        ];
        let mut families = Vec::new();
        family::write(listeners::FAMILIES, listeners::LABELS, &self.listeners.take(path), &mut families);
        family::write(services::FAMILIES, services::LABELS, &services::series(services, path), &mut families);
        family::write(services::PORT_FAMILIES, services::PORT_LABELS, &services::ports(services), &mut families);
        family::write_one(services::STATE_FAMILIES, &States::of(open), &mut families);
        family::write_one(
            itself::FAMILIES,
            &Facts { itself, capped, unattributed: services.unattributed_bytes() },
            &mut families,
        );
        families.extend(ProcessCollector::for_self().collect());
        family::text(&families)
    }
}

/// What the HTTP server says about itself.
pub fn web_text(counters: &http::Counters) -> Result<String, String> {
    let mut families = Vec::new();
    family::write_one(web::FAMILIES, counters, &mut families);
    family::text(&families)
}
