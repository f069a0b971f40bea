//! How long each test took, from the times at which the lines of the test program came.
//!
//! The tests run one after the other, so a test has lasted since the result of the one before it.
//! libtest measures single tests only with an unstable option.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Follows the output of test programs.
#[derive(Debug)]
pub(crate) struct Durations {
    /// When the last file began or the last test ended.
    last: Instant,
    files: Vec<(String, Duration)>,
    tests: Vec<(String, Duration)>,
}

/// Single tests are listed from this on.
const LONG: Duration = Duration::from_secs(5);

impl Durations {
    pub(crate) fn new(now: Instant) -> Durations {
        Durations { last: now, files: Vec::new(), tests: Vec::new() }
    }

    /// Takes a line of output: the heading of a file, or the result of a test.
    pub(crate) fn line(&mut self, line: &str, now: Instant) {
        let took = now.saturating_duration_since(self.last);
        if let Some(file) = line.strip_prefix("== ") {
            self.files.push((file.trim_end().to_owned(), Duration::ZERO));
        } else if let Some((name, _)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.tests.push((name.to_owned(), took));
            if let Some((_, sum)) = self.files.last_mut() {
                *sum += took;
            }
        } else {
            return;
        }
        self.last = now;
    }

    /// Files, and tests that took long, the longest first: one to a line.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        for (what, list, least) in [("file", &self.files, Duration::ZERO), ("test", &self.tests, LONG)] {
            let mut list: Vec<_> = list.iter().filter(|(_, took)| *took >= least).collect();
            list.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
            for (name, took) in list {
                let _ = writeln!(text, "took {:>7.1} s  {what} {name}", took.as_secs_f64());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_has_lasted_since_the_result_before_it() {
        let start = Instant::now();
        let mut durations = Durations::new(start);
        for (second, line) in [
            (1, "== a"),
            (1, "running 2 tests"),
            (3, "test a::x ... ok"),
            (9, "test a::y ... FAILED"),
            (10, "== b"),
            (12, "words ... of a test"),
            (20, "test b::z ... ok\r"),
        ] {
            durations.line(line, start + Duration::from_secs(second));
        }
        assert_eq!(
            durations.report(),
            "took    10.0 s  file b\ntook     8.0 s  file a\ntook    10.0 s  test b::z\ntook     6.0 s  test a::y\n"
        );
    }
}
