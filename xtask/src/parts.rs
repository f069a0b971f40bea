//! Which tests a guest runs, and in which order guests run.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use crate::cases::{self, CaseFile};
use crate::kernels::{Kernel, Unpacked};

/// Files and tests whose outcome does not depend on the kernel: they run on the host's own, and in
/// guests only when `--file` names them.
const SAME_ON_EVERY_KERNEL: [&str; 18] = [
    // Levels are derived from what is degraded, which `refused_programs` holds on every kernel.
    "capabilities",
    // Signals and their handlers, on a terminal and without. That definitions in tracefs are taken away is the other test of this file.
    "startup::a_signal_ends_every_verb_that_attaches",
    "startup::an_overloaded_host_does_not_delay_the_end",
    "startup::a_slow_start_is_announced_on_a_terminal_only",
    // What `check` prints beside the causes.
    "messages::check_shows_the_facts_that_a_cause_rests_on",
    "messages::check_says_more_when_it_is_asked_to",
    // The servers and clients of the scenarios: the scenarios themselves hold them against the
    // guest's kernel.
    "queue_selfcheck",
    // The caps on series are in the models.
    "serve_bounded",
    // HTTP clients and the web process.
    "serve_hostile",
    // Files, sockets and signals.
    "serve_service",
    // A real Prometheus, which no guest has.
    "serve_prometheus",
    // nginx and wrk, which no guest has. It would start overwatch in every tier, and skip.
    "listener_scenarios::real_nginx_under_full_load_is_never_worse_than_busy",
    // A terminal with tmux, which no guest has.
    "top_screen",
    "counted_tables",
    // Formats, help and exit codes. That intervals are whole in a guest is part of every other test
    // of `top`.
    "top_cli",
    // Escaping of names in the three formats, and closed pipes. That the kernel's names are read is
    // in `exact_bytes`.
    "hostile_output",
    // Schemas, CSV and the filters of `life`, which compare the fields of a line that is complete.
    "life_filters",
    // 17 runs of `top`, whose filters compare the fields of rows in user space. The fields are held
    // against the kernel by `exact_bytes` (process, name, addresses), `namespaces`, and the other
    // test of this file (control groups).
    "filters::each_shows_what_it_should_and_hides_the_rest",
];

/// Files that hold times against a clock: they have a guest of their own per kernel, one such guest
/// at a time, and the others give way to it. `cargo xtask test` runs them before the tests on the
/// host's kernel, whose storms of connections would take the processors away from them.
const TIMED: [&str; 1] = ["listener_scenarios"];

/// The niceness of guests without timed tests.
const BACKGROUND: u8 = 10;

/// A choice of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Guests whose tests hold times against a clock.
    Timed,
    /// The others.
    Untimed,
}

/// The tests of one guest.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) kernel: &'static Kernel,
    pub(crate) unpacked: Unpacked,
    pub(crate) files: Vec<CaseFile>,
    /// What the guest is called.
    pub(crate) name: String,
    pub(crate) nice: u8,
}

/// Without the tests that say the same on every kernel, unless `file` names their file.
pub(crate) fn for_guests(mut files: Vec<CaseFile>, file: Option<&str>) -> Result<Vec<CaseFile>> {
    let is_there = |name: &str| files.iter().any(|of| of.name == name || of.cases.iter().any(|case| case == name));
    if let Some(unknown) = SAME_ON_EVERY_KERNEL.iter().chain(&TIMED).find(|name| !is_there(name)) {
        bail!("there are no tests {unknown}");
    }
    if file.is_none() {
        for of in &mut files {
            let whole = SAME_ON_EVERY_KERNEL.contains(&of.name.as_str());
            of.cases.retain(|case| !whole && !SAME_ON_EVERY_KERNEL.contains(&case.as_str()));
        }
    }
    cases::select(files, file, None)
}

/// The guests that have not begun.
pub(crate) struct Queue {
    timed: Mutex<VecDeque<Part>>,
    others: Mutex<VecDeque<Part>>,
}

impl Queue {
    /// Two guests per kernel, or one where only one kind is wanted or has tests.
    pub(crate) fn new(kernels: Vec<(&'static Kernel, Unpacked)>, files: &[CaseFile], only: Option<Kind>) -> Queue {
        let (timed, others): (Vec<_>, Vec<_>) =
            files.iter().cloned().partition(|file| TIMED.contains(&file.name.as_str()));
        let mut kernels = kernels;
        // The longest first, which are those with the most tiers, so that no guest is left to run
        // alone at the end.
        kernels.sort_by_key(|(kernel, _)| std::cmp::Reverse(kernel.tiers.split(',').count()));
        let parts = |kind, files: &[CaseFile], suffix: &str, nice| -> Mutex<VecDeque<Part>> {
            let none = files.is_empty() || only.is_some_and(|only| only != kind);
            let part = |(kernel, unpacked): &(&'static Kernel, Unpacked)| Part {
                kernel,
                unpacked: unpacked.clone(),
                files: files.to_vec(),
                name: format!("{}{suffix}", kernel.name),
                nice,
            };
            Mutex::new(if none { VecDeque::new() } else { kernels.iter().map(part).collect() })
        };
        Queue { timed: parts(Kind::Timed, &timed, "-timed", 0), others: parts(Kind::Untimed, &others, "", BACKGROUND) }
    }

    /// The next guest for one of the workers that run them. The first takes the timed ones, so that
    /// they run one after the other.
    pub(crate) fn next(&self, worker: usize) -> Option<Part> {
        let take = |queue: &Mutex<VecDeque<Part>>| queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if worker == 0 { take(&self.timed).or_else(|| take(&self.others)) } else { take(&self.others) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;
    use std::path::PathBuf;

    fn files() -> Vec<CaseFile> {
        let file = |name: &&str| {
            let (file, case) = name.split_once("::").unwrap_or((name, "a"));
            let cases = [case, "other"].map(|case| format!("{file}::{case}")).to_vec();
            CaseFile { name: file.to_owned(), cases }
        };
        SAME_ON_EVERY_KERNEL.iter().chain(&TIMED).chain(&["bursts"]).map(file).collect()
    }

    fn names(files: &[CaseFile]) -> Vec<String> {
        files.iter().flat_map(|file| file.cases.clone()).collect()
    }

    #[test]
    fn what_is_the_same_on_every_kernel_runs_in_a_guest_when_its_file_is_named() {
        let usual = names(&for_guests(files(), None).unwrap());
        for (name, expected) in [
            ("bursts::a", true),
            ("queue_selfcheck::a", false),
            ("filters::each_shows_what_it_should_and_hides_the_rest", false),
            ("filters::other", true),
        ] {
            assert_eq!(usual.iter().any(|case| case == name), expected, "{name}");
        }
        assert_eq!(names(&for_guests(files(), Some("queue")).unwrap()).len(), 2);
    }

    #[test]
    fn a_name_that_no_test_has_is_an_error() {
        let without = files().into_iter().filter(|file| file.name != "serve_hostile").collect();
        assert!(for_guests(without, None).is_err());
    }

    #[test]
    fn timed_tests_run_one_guest_at_a_time_and_every_kernel_runs_every_test_once() {
        let files = for_guests(files(), None).unwrap();
        let unpacked = Unpacked { vmlinuz: PathBuf::new(), modules: PathBuf::new(), release: String::new() };
        let kernels = kernels::select(&[]).unwrap();
        let all = || kernels.iter().map(|kernel| (*kernel, unpacked.clone())).collect();
        let queue = Queue::new(all(), &files, None);
        let others: Vec<Part> = std::iter::from_fn(|| queue.next(1)).collect();
        let timed: Vec<Part> = std::iter::from_fn(|| queue.next(0)).collect();
        assert!(timed.iter().all(|part| part.nice < BACKGROUND && part.name.ends_with("-timed")));
        assert_eq!(others[0].kernel.tiers.split(',').count(), 3);
        let untimed = Queue::new(all(), &files, Some(Kind::Untimed));
        assert!(std::iter::from_fn(|| untimed.next(0)).all(|part| part.nice == BACKGROUND));
        let timed_only = Queue::new(all(), &files, Some(Kind::Timed));
        assert_eq!(std::iter::from_fn(|| timed_only.next(0)).count(), kernels.len());
        assert!(timed_only.next(1).is_none());
        for kernel in &kernels {
            let of = |parts: &[Part]| {
                let parts = parts.iter().filter(|part| part.kernel.name == kernel.name);
                parts.flat_map(|part| names(&part.files)).collect::<Vec<_>>()
            };
            let mut both = [of(&timed), of(&others)].concat();
            let mut expected = names(&files);
            both.sort();
            expected.sort();
            assert_eq!(both, expected, "{}", kernel.name);
        }
    }
}
