//! The views. Another one is a file here and a line in the table.

use super::listing::Listing;

mod connections;
mod itself;
mod listeners;
mod processes;
mod states;

/// A view.
pub(super) struct View {
    pub(super) name: &'static str,
    pub(super) listing: &'static dyn Listing,
    /// What is said where there is nothing.
    pub(super) nothing: &'static str,
}

/// All of them, as the digits choose them.
pub(super) static VIEWS: [View; 5] = [
    View { name: "Listeners", listing: &listeners::TABLE, nothing: "nothing listens" },
    View { name: "Connections", listing: &connections::TABLE, nothing: "no connection is open" },
    View { name: "Processes", listing: &processes::TABLE, nothing: "no process has a connection" },
    View { name: "States", listing: &states::TABLE, nothing: "nothing has happened yet" },
    View { name: "Overwatch", listing: &itself::TABLE, nothing: "" },
];

/// Places of those that others lead to.
pub(super) const LISTENERS: usize = 0;
pub(super) const CONNECTIONS: usize = 1;
