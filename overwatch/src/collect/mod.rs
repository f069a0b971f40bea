//! Drains the kernel side's maps and ring buffer into samples.

mod record;
mod sample;
mod session;
mod shares;
mod table;

pub use sample::{ClosedConnection, Counters, OpenConnection, ProcessShare, Sample};
pub use session::{Session, SessionError};
