//! What can be lost on the way from the kernel side.

use overwatch_common::counter::Counter;

/// One kind of loss.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// In the label of a metric.
    pub event: &'static str,
    /// For people.
    pub what: &'static str,
    /// What counts it.
    pub counter: Counter,
}

const fn loss(event: &'static str, what: &'static str, counter: Counter) -> Loss {
    Loss { event, what, counter }
}

/// All of them.
pub const LOSSES: &[Loss] = &[
    loss("closed", "ends of connections", Counter::ClosedLost),
    loss("change", "changes of state (all was read anew then)", Counter::ChangeLost),
    loss("accept", "accepts", Counter::AcceptLost),
    loss("listener", "listening sockets without room", Counter::ListenersFull),
    loss("connection", "calls without room for their connection", Counter::TableFull),
    loss("share", "calls without room for their share", Counter::SharesFull),
];
