//! What explains a failure in the log of test programs, without what passed beside it.

/// The sections that did not pass, without the tests in them that did. All of it, if no test program says that it failed: then it was
/// something else.
pub(crate) fn of(log: &str) -> String {
    if !log.contains(FAILED) {
        return log.to_owned();
    }
    let mut kept = Vec::new();
    let mut section = Vec::new();
    for line in log.lines() {
        if begins_section(line) {
            keep(&mut kept, &section);
            section.clear();
        }
        section.push(line);
    }
    keep(&mut kept, &section);
    kept.join("\n")
}

const OK: &str = "test result: ok.";
const FAILED: &str = "test result: FAILED.";

/// A test program: in a guest as our script names it, natively as cargo does.
fn begins_section(line: &str) -> bool {
    line.starts_with("== ") || ["Running ", "Doc-tests "].iter().any(|word| line.trim_start().starts_with(word))
}

fn keep<'a>(kept: &mut Vec<&'a str>, section: &[&'a str]) {
    if section.iter().any(|line| line.contains(OK)) && !section.iter().any(|line| line.contains(FAILED)) {
        return;
    }
    let mut passed = false;
    for line in section {
        match *line {
            "successes:" => passed = true,
            "failures:" => passed = false,
            _ => {}
        }
        let noise =
            line.starts_with("test ") && line.ends_with(" ... ok") || line.trim_start().starts_with("Compiling ");
        if !passed && !noise {
            kept.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "\
== good

running 1 test
test a ... ok

test result: ok. 1 passed; 0 failed; 0 ignored

== mixed

running 2 tests
test b ... ok
test c ... FAILED

successes:

---- b stdout ----
words of b

successes:
    b

failures:

---- c stdout ----
words of c

failures:
    c

test result: FAILED. 1 passed; 1 failed; 0 ignored

== killed
test d ... Terminated";

    #[test]
    fn only_what_failed_is_kept() {
        let kept = of(GUEST);
        for word in ["== mixed", "test c ... FAILED", "words of c", "test result: FAILED", "== killed", "Terminated"] {
            assert!(kept.contains(word), "{word}: {kept}");
        }
        for word in ["== good", "test a", "test b", "words of b"] {
            assert!(!kept.contains(word), "{word}: {kept}");
        }
    }

    #[test]
    fn the_sections_of_cargo_are_told_apart() {
        let kept = of(
            "   Compiling x v0.1.0\n     Running tests/a.rs (target/a-1)\ntest result: ok. 3 passed; 0 failed\n\
                       \n     Running tests/b.rs (target/b-1)\ntest x ... FAILED\ntest result: FAILED. 0 passed; 1 failed",
        );
        assert_eq!(
            kept,
            "     Running tests/b.rs (target/b-1)\ntest x ... FAILED\ntest result: FAILED. 0 passed; 1 failed"
        );
    }

    #[test]
    fn a_log_without_a_failing_test_is_kept_whole() {
        for log in ["error[E0308]: mismatched types\n", "test result: ok. 1 passed; 0 failed\nKilled\n"] {
            assert_eq!(of(log), log);
        }
    }
}
