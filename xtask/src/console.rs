//! What a guest's serial console says: its verdict, signs that it hangs, the results of its tests.

/// The guest prints this when its kernel and file systems are up, before anything of ours runs.
pub(crate) const BEGIN: &str = "guest-begin";
/// The guest prints this and a status when all is done.
pub(crate) const EXIT: &str = "guest-exit: ";

/// The status that the guest's script ended with.
pub(crate) fn verdict(line: &str) -> Option<i32> {
    // A test that is killed in the middle of a line leaves its words before ours.
    let (_, status) = line.rsplit_once(EXIT)?;
    status.trim().parse().ok()
}

/// What the kernel prints when nothing good can follow, so that waiting for the timeout is a waste.
const HANGS: [&str; 8] = [
    "Kernel panic - not syncing",
    "watchdog: BUG: soft lockup",
    "NMI watchdog: Watchdog detected hard LOCKUP",
    "self-detected stall on CPU",
    "detected stalls on CPUs/tasks",
    "detected expedited stalls on CPUs/tasks",
    "BUG: unable to handle",
    "blocked for more than",
];

/// The hang marker in a line of the console.
pub(crate) fn hang(line: &str) -> Option<&'static str> {
    HANGS.into_iter().find(|marker| line.contains(marker))
}

/// Tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl Tally {
    /// Adds up the result lines of libtest: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            if let Some((_, counts)) = line.split_once("test result: ") {
                tally.add(Tally::counts(counts));
            }
        }
        tally
    }

    /// The sum in a whole log: its closing line when it has one, else of its libtest lines.
    pub(crate) fn of_log(log: &str) -> Tally {
        let last = log.trim_end().lines().next_back().unwrap_or_default();
        let closing = Tally::counts(last);
        if closing.to_string() == last { closing } else { Tally::of(log.lines()) }
    }

    fn counts(text: &str) -> Tally {
        let mut tally = Tally::default();
        for part in text.split([';', '.', ',']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u32>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => tally.passed += number,
                (Some(number), Some("failed")) => tally.failed += number,
                _ => {}
            }
        }
        tally
    }

    pub(crate) fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_number_at_the_end() {
        assert_eq!(verdict("guest-exit: 0"), Some(0));
        assert_eq!(verdict("test a ... guest-exit: 101\r"), Some(101));
        assert_eq!(verdict("guest-exit: soon"), None);
        assert_eq!(verdict("guest-begin"), None);
    }

    #[test]
    fn hangs_are_known() {
        for line in [
            "[   12.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[   31.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [x:12]",
            "[   31.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[   31.0] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
            "[    3.0] BUG: unable to handle page fault for address: ffff",
        ] {
            assert!(hang(line).is_some(), "{line}");
        }
        assert_eq!(hang("test a_panic_is_reported ... ok"), None);
        assert_eq!(hang("thread 'main' panicked at tests/x.rs:1"), None);
    }

    #[test]
    fn libtest_lines_are_added_up() {
        let lines = [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "3 passed; 4 failed",
            "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 10.25s",
        ];
        assert_eq!(Tally::of(lines), Tally { passed: 15, failed: 2 });
        assert_eq!(Tally::of([""]), Tally::default());
    }

    #[test]
    fn a_log_with_a_closing_line_is_summed_up_already() {
        let libtest = "test result: ok. 3 passed; 1 failed; 0 ignored; 0 measured";
        assert_eq!(Tally::of_log(libtest), Tally { passed: 3, failed: 1 });
        let log = format!("{libtest}\n5.10  ok\n7 passed, 2 failed\n");
        assert_eq!(Tally::of_log(&log), Tally { passed: 7, failed: 2 });
        assert_eq!(Tally::of_log("nothing is missing\n"), Tally::default());
    }
}
