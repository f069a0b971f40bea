//! Type information for tests: of five real kernels, cut down by `cargo xtask cut-btf`, and made by hand. Hosts made of files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::random::Random;

/// A kernel's series and its type information.
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) btf: &'static [u8],
}

macro_rules! kernels {
    ($($name:literal,)*) => {
        [$(Kernel { name: $name, btf: include_bytes!(concat!("../../testdata/btf-", $name, ".btf")) },)*]
    };
}

/// Debian's of bullseye, bookworm, trixie and sid, and the development machines' own (6.18).
pub(crate) const KERNELS: [Kernel; 5] = kernels!["5.10", "6.1", "6.12", "6.18", "7.2",];

/// Kinds of types, with the numbers that the format gives them.
pub(crate) mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const ENUM64: u32 = 19;
}

/// Type information made by hand, also such as no compiler writes.
pub(crate) struct Builder {
    types: Vec<u32>,
    count: u32,
    strings: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), count: 0, strings: vec![0] }
    }

    /// Place of a name in the table of names.
    pub(crate) fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let place = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        place
    }

    /// Adds a type with `count` members behind it and gives its number.
    pub(crate) fn add(&mut self, kind: u32, name: &str, size_or_type: u32, count: usize, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.types.extend([name, kind << 24 | count as u32, size_or_type]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    /// Adds a structure; a member is its name, type and offset in bits.
    pub(crate) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members.iter().flat_map(|(name, id, offset)| [self.name(name), *id, *offset]).collect();
        self.add(kind::STRUCT, name, 64, members.len(), &rest)
    }

    /// Adds a prototype; a parameter is its name and type.
    pub(crate) fn prototype(&mut self, parameters: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = parameters.iter().flat_map(|(name, id)| [self.name(name), *id]).collect();
        self.add(kind::FUNC_PROTO, "", 0, parameters.len(), &rest)
    }

    /// The number that the next type will have.
    pub(crate) fn next(&self) -> u32 {
        self.count + 1
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let types_len = self.types.len() as u32 * 4;
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types_len, types_len, self.strings.len() as u32].iter().chain(&self.types) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.strings);
        bytes
    }
}

/// Texts like this one but damaged: bytes changed, left out, doubled, cut off. The same ones for the same seed.
pub(crate) fn mutated(text: &[u8], seed: u64) -> impl Iterator<Item = Vec<u8>> {
    const BYTES: &[u8] = b"\0 \n:/,.()[]-0189aZ\xff";
    let mut random = Random::new(seed);
    let text = text.to_vec();
    (0..5_000).map(move |_| {
        let mut text = text.clone();
        for _ in 0..=random.below(4) {
            let place = random.below(text.len().max(1));
            match random.below(5) {
                0 => text.truncate(place),
                1 => text.extend_from_within(place.min(text.len())..),
                2 => text.insert(place, *random.pick(BYTES)),
                3 if place < text.len() => drop(text.remove(place)),
                _ if place < text.len() => text[place] = *random.pick(BYTES),
                _ => {}
            }
        }
        text
    })
}

/// A host made of files, which goes away with this.
pub(crate) struct Host {
    root: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A process with one thread that began at this time and has these descriptors.
    pub(crate) fn process(&self, pid: u32, started_ticks: u64, descriptors: &[(u32, &str)]) {
        let directory = format!("proc/{pid}");
        self.end(pid);
        self.file(&format!("{directory}/comm"), &format!("server{pid}\n"));
        let stat = format!("{pid} (server) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started_ticks} 0\n");
        self.file(&format!("{directory}/stat"), &stat);
        self.file(&format!("{directory}/task/{pid}/stat"), &stat);
        fs::create_dir_all(self.root().join(&directory).join("fd")).unwrap();
        for (descriptor, target) in descriptors {
            self.open(pid, *descriptor, target);
        }
    }

    pub(crate) fn open(&self, pid: u32, descriptor: u32, target: &str) {
        std::os::unix::fs::symlink(target, self.descriptor(pid, descriptor)).unwrap();
    }

    pub(crate) fn close(&self, pid: u32, descriptor: u32) {
        fs::remove_file(self.descriptor(pid, descriptor)).unwrap();
    }

    /// The directory is kept elsewhere, since file systems give the inode of one that was removed to the next.
    pub(crate) fn end(&self, pid: u32) {
        let directory = self.root().join("proc").join(pid.to_string());
        let ended = self.root().join("ended");
        fs::create_dir_all(&ended).unwrap();
        if directory.exists() {
            let place = fs::read_dir(&ended).unwrap().count();
            fs::rename(directory, ended.join(place.to_string())).unwrap();
        }
    }

    fn descriptor(&self, pid: u32, descriptor: u32) -> PathBuf {
        self.root().join(format!("proc/{pid}/fd/{descriptor}"))
    }
}
