//! Type information for tests: of five real kernels, cut down by `cargo xtask cut-btf`, and made by hand.

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
