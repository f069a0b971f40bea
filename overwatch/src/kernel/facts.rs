//! The facts that the kernel side is given, looked up in the running kernel's BTF. Which facts those are is declared
//! once, in `overwatch_common::kernel`.

use std::collections::{BTreeMap, HashSet};

use overwatch_common::{
    kernel::{ABSENT, OTHER_PROTOTYPES},
    with_arguments, with_enumerators, with_offsets,
};

use super::btf::{Btf, BtfError, Parameter, Shape};

#[cfg(test)]
mod tests;

struct OffsetFact {
    global: &'static str,
    structure: &'static str,
    member: &'static str,
    required: bool,
}

struct EnumeratorFact {
    global: &'static str,
    enumerator: &'static str,
    required: bool,
}

struct ArgumentFact {
    global: &'static str,
    prototype: &'static str,
    argument: &'static str,
}

macro_rules! offsets {
    ($($name:ident = $structure:literal, $member:literal, $needed:ident;)*) => {
        const OFFSETS: &[OffsetFact] = &[$(OffsetFact {
            global: stringify!($name), structure: $structure, member: $member, required: needed!($needed),
        },)*];
    };
}
macro_rules! needed {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}
macro_rules! enumerators {
    ($($name:ident = $enumerator:literal, $needed:ident;)*) => {
        const ENUMERATORS: &[EnumeratorFact] = &[$(EnumeratorFact {
            global: stringify!($name), enumerator: $enumerator, required: needed!($needed),
        },)*];
    };
}
macro_rules! arguments {
    ($($name:ident = $prototype:literal, $argument:literal;)*) => {
        const ARGUMENTS: &[ArgumentFact] =
            &[$(ArgumentFact { global: stringify!($name), prototype: $prototype, argument: $argument },)*];
    };
}
with_offsets!(offsets);
with_enumerators!(enumerators);
with_arguments!(arguments);

/// What the running kernel's BTF says about everything that the kernel side uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// Value of each read-only global, [`ABSENT`] where this kernel has no such thing.
    pub globals: BTreeMap<&'static str, u32>,
    /// Functions and tracepoint prototypes that exist, of those we know.
    pub prototypes: HashSet<&'static str>,
    /// Required facts that are missing, in words; the programs cannot work without them.
    pub missing: Vec<String>,
}

impl KernelFacts {
    /// Looks every fact up in BTF bytes.
    pub fn from_btf(bytes: &[u8]) -> Result<Self, BtfError> {
        let wanted: HashSet<&str> = OFFSETS
            .iter()
            .map(|fact| fact.structure)
            .chain(ENUMERATORS.iter().map(|fact| fact.enumerator))
            .chain(ARGUMENTS.iter().map(|fact| fact.prototype))
            .chain(OTHER_PROTOTYPES.iter().copied())
            .collect();
        let btf = Btf::parse(bytes, &wanted)?;
        let mut facts = Self::default();
        for fact in OFFSETS {
            let offset = btf.member_offset(fact.structure, fact.member);
            if offset.is_none() && fact.required {
                facts.missing.push(format!("member {} of struct {}", fact.member, fact.structure));
            }
            facts.globals.insert(fact.global, offset.unwrap_or(ABSENT));
        }
        for fact in ENUMERATORS {
            let value = btf.enumerator(fact.enumerator);
            if value.is_none() && fact.required {
                facts.missing.push(format!("enumerator {}", fact.enumerator));
            }
            facts.globals.insert(fact.global, value.unwrap_or(ABSENT));
        }
        for fact in ARGUMENTS {
            let prototype = btf.prototype(fact.prototype);
            if prototype.is_some() {
                facts.prototypes.insert(fact.prototype);
            }
            let position = prototype.and_then(|parameters| position(&parameters, fact.argument));
            facts.globals.insert(fact.global, position.unwrap_or(ABSENT));
        }
        facts.prototypes.extend(OTHER_PROTOTYPES.iter().filter(|name| btf.prototype(name).is_some()));
        Ok(facts)
    }

    /// True when this kernel has the function.
    pub fn has_function(&self, name: &str) -> bool {
        self.prototypes.contains(name)
    }

    /// True when this kernel has the tracepoint.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.prototypes.iter().any(|prototype| prototype.strip_prefix("btf_trace_") == Some(name))
    }

    /// True when this kernel has what the global stands for.
    pub fn has(&self, global: &str) -> bool {
        self.globals.get(global).is_some_and(|value| *value != ABSENT)
    }

    /// The arguments of a function or tracepoint that could not be found although it exists: its prototype is not
    /// one that we understand.
    pub fn strange_arguments(&self, prototype: &str) -> Vec<&'static str> {
        ARGUMENTS
            .iter()
            .filter(|fact| fact.prototype == prototype && self.globals.get(fact.global) == Some(&ABSENT))
            .map(|fact| fact.argument)
            .collect()
    }
}

/// The kernel side reads six arguments, those that a function gets in registers, and the result behind them. What it could
/// not read it would take for 0, so that bytes would be missing and nobody would know.
const LAST_SLOT: u32 = 6;

/// Position of an argument within the kernel side's reach, written as in `overwatch_common::kernel::with_arguments`.
fn position(parameters: &[Parameter], argument: &str) -> Option<u32> {
    let index = if argument == "return" {
        Some(parameters.len())
    } else if argument == "sock" && parameters.iter().all(|parameter| parameter.name.is_empty()) {
        let sock = Shape::Pointer("sock".to_owned());
        parameters.iter().position(|parameter| parameter.shape == sock)
    } else if let Some(number) = argument.strip_prefix("int ") {
        let number: usize = number.parse().ok()?;
        let integers = parameters.iter().enumerate().filter(|(_, parameter)| parameter.shape == Shape::Integer(4));
        integers.map(|(index, _)| index).nth(number)
    } else if let Some(name) = argument.strip_prefix("enum ") {
        let enumeration = Shape::Enumeration(name.to_owned());
        parameters.iter().position(|parameter| parameter.shape == enumeration)
    } else {
        parameters.iter().position(|parameter| parameter.name == argument)
    };
    let last = if argument == "return" { LAST_SLOT } else { LAST_SLOT - 1 };
    index.and_then(|index| u32::try_from(index).ok()).filter(|index| *index <= last)
}
