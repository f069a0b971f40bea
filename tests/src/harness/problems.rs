//! What is wrong with what overwatch printed, and how much of it a kernel that leaves out runs of programs excuses.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

/// So many problems are shown.
const SHOWN: usize = 40;

/// How something differs from what it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It is not there: a run of a program that the kernel left out can be the reason.
    Missing,
    /// It says what is not so. Nothing excuses that.
    Wrong,
}

/// One thing that is not as it should be, in a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// How it differs.
    pub kind: Kind,
    /// What it is.
    pub text: String,
}

/// All that is not as it should be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Something is not there.
    pub fn missing(&mut self, text: impl Into<String>) {
        self.0.push(Problem { kind: Kind::Missing, text: text.into() });
    }

    /// Something is not so.
    pub fn wrong(&mut self, text: impl Into<String>) {
        self.0.push(Problem { kind: Kind::Wrong, text: text.into() });
    }

    /// Wrong unless it holds.
    pub fn must(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.wrong(text());
        }
    }

    /// `shown` must be `expected`. It is missing when nothing is shown.
    pub fn must_be<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, shown: Option<&T>, expected: &T) {
        match shown {
            None => self.missing(format!("no {what}, expected {expected:?}")),
            Some(shown) => self.must(shown == expected, || format!("{what} {shown:?} instead of {expected:?}")),
        }
    }

    /// Takes the problems of one connection. However much of it is missing, one run that was left out can be the reason.
    pub fn of_one(&mut self, place: &str, found: Self) {
        let (missing, wrong): (Vec<_>, Vec<_>) = found.0.into_iter().partition(|one| one.kind == Kind::Missing);
        for problem in wrong {
            self.wrong(format!("{place}: {}", problem.text));
        }
        if !missing.is_empty() {
            let texts: Vec<String> = missing.into_iter().map(|problem| problem.text).collect();
            self.missing(format!("{place}: {}", texts.join("; ")));
        }
    }

    /// Takes all of another lot.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are of that kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.0.iter().filter(|problem| problem.kind == kind).count()
    }

    /// An error unless nothing is wrong, and no more is missing than the runs that were left out can explain.
    pub fn judge(&self, left_out: u64) -> Result<()> {
        let missing = self.count(Kind::Missing);
        let mut shown = String::new();
        for problem in self.0.iter().take(SHOWN) {
            write!(shown, "\n{:?}: {}", problem.kind, problem.text)?;
        }
        let holds = missing as u64 <= left_out && missing == self.len();
        ensure!(
            holds,
            "{} problems, {missing} of them something missing, with {left_out} runs left out:{shown}",
            self.len()
        );
        if missing > 0 {
            println!("excused by {left_out} runs left out:{shown}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_excused_by_runs_left_out_and_what_is_wrong_never() {
        let cases = [(0, 0, 0, true), (1, 0, 0, false), (1, 0, 1, true), (2, 0, 1, false), (0, 1, 9, false)];
        for (missing, wrong, left_out, holds) in cases {
            let mut problems = Problems::default();
            (0..missing).for_each(|_| problems.missing("a fact"));
            (0..wrong).for_each(|_| problems.wrong("a fact"));
            assert_eq!(
                problems.judge(left_out).is_ok(),
                holds,
                "{missing} missing, {wrong} wrong, {left_out} left out"
            );
        }
    }

    #[test]
    fn what_is_missing_of_one_connection_counts_once() {
        let mut one = Problems::default();
        one.must_be("pid", None, &3);
        one.must_be("port", None, &4);
        one.must_be("role", Some(&5), &6);
        one.must_be("state", Some(&7), &7);
        let mut all = Problems::default();
        all.of_one("here", one);
        assert_eq!((all.count(Kind::Missing), all.count(Kind::Wrong)), (1, 1));
    }
}
