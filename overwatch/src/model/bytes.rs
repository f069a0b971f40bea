//! Bytes in both directions, and what no hook saw of them.

use serde::{Deserialize, Serialize};

use overwatch_common::connection::Connection;

use crate::collect::ProcessShare;

/// Bytes in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

impl Bytes {
    /// In both directions.
    pub fn both(self) -> u64 {
        self.sent + self.received
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self { sent: self.sent.saturating_sub(before.sent), received: self.received.saturating_sub(before.received) }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self { sent: self.sent.max(other.sent), received: self.received.max(other.received) }
    }

    pub(super) fn min(self, other: Self) -> Self {
        Self { sent: self.sent.min(other.sent), received: self.received.min(other.received) }
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }

    pub(super) fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// What the hooks saw of a connection, whoever moved it.
pub(super) fn seen(connection: &Connection, shares: &[ProcessShare]) -> Bytes {
    let owner = Bytes {
        sent: connection.sent + connection.unattributed_sent,
        received: connection.received + connection.unattributed_received,
    };
    shares
        .iter()
        .fold(owner, |sum, ProcessShare { share, .. }| sum.plus(Bytes { sent: share.sent, received: share.received }))
}

/// What the kernel knows of and no hook saw.
pub(super) fn unseen(kernel: Bytes, connection: &Connection, shares: &[ProcessShare]) -> Bytes {
    kernel.since(seen(connection, shares))
}
