//! `cargo xtask cut-btf`: a kernel's type information (BTF), cut down to what overwatch looks up in it.
//!
//! The unit tests read five kernels' types from `overwatch/testdata`. A whole kernel has 5 MB of them, and the tables in
//! `overwatch_common::kernel` name a few dozen. What is kept is valid BTF, in the kernel's own order, so that whoever
//! looks up one of those names gets the answer that the whole file gives. Format: <https://docs.kernel.org/bpf/btf.html>.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_common::{kernel::OTHER_PROTOTYPES, with_arguments, with_enumerators, with_offsets};

/// Cut a kernel's BTF down to what overwatch looks up in it, for the unit tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A kernel's BTF, such as /sys/kernel/btf/vmlinux.
    source: PathBuf,
    /// Where the cut goes.
    target: PathBuf,
}

macro_rules! structures {
    ($($name:ident = $structure:literal, $member:literal, $needed:ident;)*) => {
        const STRUCTURES: &[&str] = &[$($structure,)*];
    };
}
macro_rules! enumerators {
    ($($name:ident = $enumerator:literal, $needed:ident;)*) => {
        const ENUMERATORS: &[&str] = &[$($enumerator,)*];
    };
}
macro_rules! prototypes {
    ($($name:ident = $prototype:literal, $argument:literal;)*) => {
        const PROTOTYPES: &[&str] = &[$($prototype,)*];
    };
}
with_offsets!(structures);
with_enumerators!(enumerators);
with_arguments!(prototypes);

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted: HashSet<&str> =
        STRUCTURES.iter().chain(ENUMERATORS).chain(PROTOTYPES).chain(OTHER_PROTOTYPES).copied().collect();
    let source = fs::read(&args.source).with_context(|| format!("cannot read {}", args.source.display()))?;
    let cut = cut(&source, &wanted).with_context(|| format!("cannot understand {}", args.source.display()))?;
    fs::write(&args.target, &cut).with_context(|| format!("cannot write {}", args.target.display()))?;
    println!("{}: {} of {} bytes", args.target.display(), cut.len(), source.len());
    Ok(ExitCode::SUCCESS)
}

fn cut(source: &[u8], wanted: &HashSet<&str>) -> Result<Vec<u8>> {
    let whole = Btf::parse(source)?;
    let keep = closure(&whole, wanted)?;
    let cut = write(&whole, &keep)?;
    // A cut that lacks something would make tests fail for a reason that is hard to find.
    let again = Btf::parse(&cut).context("what was written cannot be read back")?;
    let (before, after) = (whole.found(wanted)?, again.found(wanted)?);
    ensure!(before == after, "the cut has {} of the {} names that the source has", after.len(), before.len());
    Ok(cut)
}

/// Everything behind the common part of a type is made of words too.
struct Type {
    words: Vec<u32>,
}

impl Type {
    fn kind(&self) -> u32 {
        self.words[1] >> 24 & 0x1f
    }

    /// Which words are names and which are types; those that are neither stay as they are.
    fn layout(&self) -> (Vec<usize>, Vec<usize>) {
        let every = |step: usize, at: usize| (3..self.words.len()).step_by(step).map(move |start| start + at);
        let mut names = vec![0];
        let mut types = Vec::new();
        match self.kind() {
            kind::INT | kind::FWD | kind::FLOAT => {}
            kind::ARRAY => types.extend([3, 4]),
            kind::STRUCT | kind::UNION => {
                names.extend(every(3, 0));
                types.extend(every(3, 1));
            }
            kind::ENUM => names.extend(every(2, 0)),
            kind::ENUM64 => names.extend(every(3, 0)),
            kind::FUNC_PROTO => {
                types.push(2);
                names.extend(every(2, 0));
                types.extend(every(2, 1));
            }
            kind::DATASEC => types.extend(every(3, 0)),
            // Pointers, typedefs, qualifiers, functions, variables, tags.
            _ => types.push(2),
        }
        (names, types)
    }

    /// The same without members.
    fn emptied(&self) -> Self {
        Self { words: vec![self.words[0], self.kind() << 24, self.words[2]] }
    }
}

struct Btf<'a> {
    /// Type 0 is void and has no words.
    types: Vec<Type>,
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let header = bytes.get(..HEADER_LEN).context("shorter than its header")?;
        ensure!(u16::from_ne_bytes([header[0], header[1]]) == MAGIC, "not BTF of this machine");
        let field =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let section = |at: usize| -> Result<&'a [u8]> {
            let start = field(4) + field(at);
            bytes.get(start..start + field(at + 4)).context("a section reaches behind the end")
        };
        let strings = section(16)?;
        let words: Vec<u32> =
            section(8)?.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect();
        let mut types = vec![Type { words: Vec::new() }];
        let mut at = 0;
        while at < words.len() {
            let common = words.get(at..at + 3).context("the last type is truncated")?;
            let count = (common[1] & 0xffff) as usize;
            let rest = match common[1] >> 24 & 0x1f {
                kind::INT | kind::VAR | kind::DECL_TAG => 1,
                kind::ARRAY => 3,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 3 * count,
                kind::ENUM | kind::FUNC_PROTO => 2 * count,
                2 | 7..=12 | 16 | 18 => 0,
                kind => bail!("type {} is of unknown kind {kind}", types.len()),
            };
            let words = words.get(at..at + 3 + rest).context("the last type is truncated")?;
            types.push(Type { words: words.to_vec() });
            at += words.len();
        }
        Ok(Self { types, strings })
    }

    fn name(&self, at: u32) -> Result<&'a str> {
        let rest = self.strings.get(at as usize..).context("a name is not in the table of names")?;
        let end = rest.iter().position(|byte| *byte == 0).context("a name has no end")?;
        Ok(std::str::from_utf8(&rest[..end])?)
    }

    /// Whether somebody who looks up the wanted names looks at this type, and by which names.
    fn wanted_by(&self, item: &Type, wanted: &HashSet<&str>) -> Result<Vec<&'a str>> {
        let names = match item.kind() {
            kind::STRUCT | kind::FUNC | kind::TYPEDEF => vec![item.words[0]],
            kind::ENUM | kind::ENUM64 => item.layout().0[1..].iter().map(|at| item.words[*at]).collect(),
            _ => Vec::new(),
        };
        let names = names.into_iter().map(|name| self.name(name)).collect::<Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| wanted.contains(name)).collect())
    }

    fn found(&self, wanted: &HashSet<&str>) -> Result<Vec<(u32, &'a str)>> {
        let mut found = Vec::new();
        for item in &self.types[1..] {
            found.extend(self.wanted_by(item, wanted)?.into_iter().map(|name| (item.kind(), name)));
        }
        Ok(found)
    }
}

/// How much of a type is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Keep {
    Nothing,
    /// Behind a pointer: a structure is kept by its name and size only.
    Name,
    Whole,
}

/// The wanted types and all that they refer to. Nobody looks through a pointer, so what stands behind one is only named.
fn closure(btf: &Btf<'_>, wanted: &HashSet<&str>) -> Result<Vec<Keep>> {
    let mut keep = vec![Keep::Nothing; btf.types.len()];
    let mut todo = Vec::new();
    for (id, item) in btf.types.iter().enumerate().skip(1) {
        if !btf.wanted_by(item, wanted)?.is_empty() {
            todo.push((id, Keep::Whole));
        }
    }
    while let Some((id, how)) = todo.pop() {
        let item = btf.types.get(id).with_context(|| format!("there is no type {id}"))?;
        if id == 0 || keep[id] >= how {
            continue;
        }
        keep[id] = how;
        let next = match (item.kind(), how) {
            (kind::STRUCT | kind::UNION, Keep::Name) => continue,
            (kind::PTR, _) => Keep::Name,
            (kind::FUNC_PROTO, _) => Keep::Whole,
            _ => how,
        };
        todo.extend(item.layout().1.into_iter().map(|at| (item.words[at] as usize, next)));
    }
    Ok(keep)
}

fn write(btf: &Btf<'_>, keep: &[Keep]) -> Result<Vec<u8>> {
    let mut numbers = vec![0; keep.len()];
    let kept: Vec<usize> = (1..keep.len()).filter(|id| keep[*id] != Keep::Nothing).collect();
    for (number, id) in kept.iter().enumerate() {
        numbers[*id] = u32::try_from(number + 1)?;
    }
    // Name 0 is the empty one.
    let mut strings = vec![0];
    let mut places: HashMap<&str, u32> = HashMap::from([("", 0)]);
    let mut words = Vec::new();
    for id in kept {
        let whole = &btf.types[id];
        let is_structure = matches!(whole.kind(), kind::STRUCT | kind::UNION);
        let mut item =
            if is_structure && keep[id] == Keep::Name { whole.emptied() } else { Type { words: whole.words.clone() } };
        let (names, types) = item.layout();
        for at in names {
            let name = btf.name(item.words[at])?;
            let next = u32::try_from(strings.len())?;
            item.words[at] = *places.entry(name).or_insert(next);
            if item.words[at] == next {
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
            }
        }
        for at in types {
            item.words[at] = numbers[item.words[at] as usize];
        }
        words.extend(item.words);
    }
    let (types_len, strings_len) = (u32::try_from(words.len() * 4)?, u32::try_from(strings.len())?);
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    // Version 1, no flags; then length of the header, place and length of the types, of the names.
    bytes.extend([1, 0]);
    for word in [HEADER_LEN as u32, 0, types_len, types_len, strings_len].into_iter().chain(words) {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(strings);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str) -> Vec<u8> {
        fs::read(crate::shell::root().join(format!("overwatch/testdata/btf-{name}.btf"))).unwrap()
    }

    #[test]
    fn what_is_wanted_is_whole_and_what_stands_behind_a_pointer_is_named() {
        let bytes = kernel("6.12");
        let wanted = HashSet::from(["socket", "TCP_CLOSE", "tcp_sendmsg", "btf_trace_tcp_destroy_sock", "absent"]);
        let smaller = cut(&bytes, &wanted).unwrap();
        assert!(smaller.len() * 10 < bytes.len(), "{} bytes", smaller.len());
        let btf = Btf::parse(&smaller).unwrap();
        let members = |name: &str| {
            let of_name = |item: &&Type| item.kind() == kind::STRUCT && btf.name(item.words[0]).unwrap() == name;
            btf.types[1..].iter().find(of_name).map(|item| (item.words.len() - 3) / 3)
        };
        assert_eq!(members("socket"), Some(7));
        assert_eq!(members("sock"), Some(0));
        assert_eq!(members("task_struct"), None);
        let found: HashSet<_> = btf.found(&wanted).unwrap().into_iter().map(|(_, name)| name).collect();
        assert_eq!(found.len(), wanted.len() - 1);
    }

    #[test]
    fn a_cut_of_a_cut_is_the_same() {
        let wanted = HashSet::from(["socket", "TCP_CLOSE", "tcp_sendmsg", "btf_trace_tcp_destroy_sock"]);
        let once = cut(&kernel("5.10"), &wanted).unwrap();
        assert_eq!(cut(&once, &wanted).unwrap(), once);
    }

    #[test]
    fn what_is_no_type_information_is_refused() {
        let bytes = kernel("5.10");
        for bytes in [&bytes[..0], &bytes[..23], &bytes[..100], &bytes[1..], &bytes[..bytes.len() - 1]] {
            assert!(cut(bytes, &HashSet::new()).is_err(), "{} bytes", bytes.len());
        }
    }
}
