//! What `overwatch serve` reads from strangers and from files, for the fuzzer (`tests/fuzz`, `cargo xtask fuzz`) and, with the inputs
//! that are in the tree, as a unit test. Each function takes any bytes and panics when something is not as it must be.

use std::future::Future;

mod link;
mod settings;

pub use self::{link::link, settings::settings};
pub use crate::export::http::fuzz::{request, web_config};

/// Runs to the end at once: the clock goes on by itself when everybody waits for it.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    match tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("there is no runtime: {error}"),
    }
}

/// What is said of a mistake is one line that does nothing to a terminal.
pub(crate) fn assert_is_one_line(message: &str) {
    assert!(!message.is_empty() && !message.contains(char::is_control), "{message:?}");
}

/// The lines of a text; what is missing at its end is missing in the last of them.
pub(crate) fn lines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    type Target = fn(&[u8]);

    /// Fewer would mean that they are looked for in the wrong place.
    const FEWEST: usize = 10;

    #[test]
    fn every_input_in_the_tree_has_an_answer() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let targets: [(&str, Target); 4] =
            [("link", link), ("request", request), ("settings", settings), ("web_config", web_config)];
        let mut names: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, targets.map(|(name, _)| name));
        for (name, target) in targets {
            let mut count = 0;
            for entry in fs::read_dir(corpus.join(name)).unwrap() {
                let path = entry.unwrap().path();
                // Shown when it fails.
                println!("{}", path.display());
                target(&fs::read(path).unwrap());
                count += 1;
            }
            assert!(count >= FEWEST, "{name}: {count}");
        }
    }
}
