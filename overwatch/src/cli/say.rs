//! What people are told on standard error.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Says a line. A disk that is full, or a reader that has gone, is no reason to end: the work goes on without being told of.
pub(super) fn say(what: impl Display) {
    let _untold = writeln!(io::stderr().lock(), "overwatch: {what}");
}
