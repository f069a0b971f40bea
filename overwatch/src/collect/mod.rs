//! Drains the kernel side's maps and ring buffer into samples.

mod about;
mod audit;
mod clocks;
mod diag_session;
mod processes;
mod queues;
mod record;
mod resets;
mod restrictions;
mod sample;
mod scan;
mod session;
mod shares;
mod skips;
mod table;

pub use about::{KernelObject, MapReading, ProgramReading};
pub use diag_session::DiagSession;
pub use processes::{ActivityReading, HolderReading, ProcessWatch};
pub use queues::{ListenerReading, NamespaceReading, SynQueueReading, WaitingReading};
pub use restrictions::NETWORK_NAMESPACES;
pub use sample::{ClosedConnection, Counters, OpenConnection, ProcessShare, RefusalsSeen, Sample};
pub use scan::ScanError;
pub use session::{Session, SessionError};
