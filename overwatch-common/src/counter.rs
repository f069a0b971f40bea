//! What the kernel side counts about itself: one slot each in a per-CPU array.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Index of a counter in the per-CPU array `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        /// Every counter with the name it is shown under.
        pub const COUNTERS: &[(Counter, &str)] = &[$((Counter::$name, $text),)*];
    };
}

counters! {
    /// Bytes sent that could be put on no connection or process.
    UnattributedSent = "unattributed_sent_bytes",
    /// Bytes received that could be put on no connection or process.
    UnattributedReceived = "unattributed_received_bytes",
    /// Calls that found the connection table full.
    TableFull = "table_full",
    /// Calls that found the table of shares full.
    SharesFull = "shares_full",
    /// Activity notices that did not fit into the ring buffer: the next drain reads the whole table instead.
    ActivityDeferred = "activity_deferred",
    /// Final records that did not fit into the ring buffer and were put into a map for the next drain.
    ClosedDeferred = "closed_deferred",
    /// Final records that fitted nowhere; their unreported bytes are in the unattributed counters, and all of their bytes in
    /// the map of what was lost.
    ClosedLost = "closed_lost",
    /// Changes of state or owner that did not fit into the ring buffer. Somebody who follows them must look at the whole table.
    ChangeLost = "change_lost",
    /// Returns whose entry was not seen (kprobe tier). Their bytes are made good from the kernel's counters.
    ReturnUnmatched = "return_unmatched",
    /// Calls whose return was not seen (kprobe tier): more were in the function than the kernel follows. Their bytes are
    /// made good at close.
    ReturnMissed = "return_missed",
    /// Accepted connections for which there was no room in the connection table, so that nobody was told of their accept.
    AcceptLost = "accept_lost",
    /// Listening sockets for which there was no room.
    ListenersFull = "listeners_full",
    /// Connections that were open before the start and were put into the table.
    Seeded = "seeded",
}
