//! Forced refusals: a switch that makes named programs fail as on a kernel that refuses them, so that each degradation can be tested
//! on every kernel.

use std::collections::BTreeSet;

/// Environment variable with names of programs (as `overwatch check` lists them), separated by commas.
pub const VARIABLE: &str = "OVERWATCH_REFUSE";

/// Why a program was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused by {VARIABLE}")]
pub struct Forced;

/// The programs that are not to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refuse(BTreeSet<String>);

impl Refuse {
    /// From the environment of this process.
    pub fn from_environment() -> Self {
        Self::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        Self(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// Names that are no program's.
    pub fn unknown(&self, is_program: impl Fn(&str) -> bool) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|name| !is_program(name)).collect()
    }

    /// An error for a program that is to be refused.
    pub fn check(&self, program: &str) -> Result<(), Forced> {
        if self.0.contains(program) { Err(Forced) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_programs_are_refused_and_no_others() {
        for (text, refused, loaded) in [
            ("", vec![], vec!["seed", ""]),
            ("seed", vec!["seed"], vec!["see", "seeds"]),
            (" seed, sock_diag,,", vec!["seed", "sock_diag"], vec!["", "scan_listener"]),
        ] {
            let refuse = Refuse::parse(text);
            assert!(refused.iter().all(|program| refuse.check(program) == Err(Forced)), "{text}");
            assert_eq!(
                refuse.unknown(|name| name == "seed"),
                refused.iter().filter(|name| **name != "seed").copied().collect::<Vec<_>>()
            );
            assert!(loaded.iter().all(|program| refuse.check(program).is_ok()), "{text}");
        }
    }
}
