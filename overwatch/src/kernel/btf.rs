//! A reader of the kernel's type information (BTF): member offsets, enumerators and prototypes by name.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>. The bytes come from the kernel, but they are read with bounds all
//! the same: a file may be given instead, and a reader that can be made to panic is a reader that will.

use std::collections::{HashMap, HashSet};

#[cfg(test)]
mod tests;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
/// Chains of typedefs and qualifiers are short; a cycle would be malformed.
const CHAIN_LIMIT: usize = 32;
/// The kernel's own limit on names (`KSYM_NAME_LEN`). Without one, names that never end would be read over and over.
const NAME_LIMIT: usize = 512;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why type information could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are not BTF, or not of this machine's byte order.
    #[error("not BTF of this machine (magic {0:#06x})")]
    Magic(u16),
    /// A header, type or string reaches behind the end.
    #[error("truncated at byte {0}")]
    Truncated(usize),
    /// A kind that this reader does not know: it cannot tell how long the type is.
    #[error("type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

/// One parameter of a prototype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; empty in prototypes of tracepoints.
    pub name: String,
    /// Its type, as far as hooks care.
    pub shape: Shape,
}

/// What a parameter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A pointer to the structure of this name.
    Pointer(String),
    /// An integer of this many bytes.
    Integer(u32),
    /// A value of the enumeration of this name.
    Enumeration(String),
    /// Anything else.
    Other,
}

/// The type information of one kernel, indexed by the names that were asked for.
pub struct Btf<'a> {
    data: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts in `data`; type 0 is void and has no place.
    places: Vec<u32>,
    named: HashMap<(u32, &'a str), u32>,
    enumerators: HashMap<&'a str, u32>,
}

impl std::fmt::Debug for Btf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf").field("types", &self.places.len()).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    count: usize,
    bitfields: bool,
    /// Size, or the type referred to.
    size_or_type: u32,
    /// Where the data behind the 12 common bytes starts.
    rest: usize,
}

impl<'a> Btf<'a> {
    /// Reads `bytes` and indexes structures, functions, typedefs and enumerators whose names are in `wanted`.
    pub fn parse(bytes: &'a [u8], wanted: &HashSet<&str>) -> Result<Self, BtfError> {
        let magic = u16_at(bytes, 0)?;
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header = u32_at(bytes, 4)? as usize;
        if header < HEADER_LEN {
            return Err(BtfError::Truncated(4));
        }
        let section = |at: usize| -> Result<&'a [u8], BtfError> {
            let start = header.checked_add(u32_at(bytes, at)? as usize).ok_or(BtfError::Truncated(at))?;
            let end = start.checked_add(u32_at(bytes, at + 4)? as usize).ok_or(BtfError::Truncated(at))?;
            bytes.get(start..end).ok_or(BtfError::Truncated(bytes.len()))
        };
        let (data, strings) = (section(8)?, section(16)?);
        let mut btf = Self { data, strings, places: vec![0], named: HashMap::new(), enumerators: HashMap::new() };
        btf.index(wanted)?;
        Ok(btf)
    }

    fn index(&mut self, wanted: &HashSet<&str>) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.data.len() {
            let id = self.places.len() as u32;
            let item = self.type_at(at)?;
            let rest_len = match item.kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * item.count,
                kind::ENUM | kind::FUNC_PROTO => 8 * item.count,
                // Pointer, forward, typedef, qualifiers, function, float, type tag: nothing behind the common part.
                2 | 7..=12 | 16 | 18 => 0,
                kind => return Err(BtfError::UnknownKind { id, kind }),
            };
            let end = item.rest + rest_len;
            if end > self.data.len() {
                return Err(BtfError::Truncated(at));
            }
            self.places.push(at as u32);
            if matches!(item.kind, kind::STRUCT | kind::FUNC | kind::TYPEDEF)
                && let Some(name) = self.string(item.name).filter(|name| wanted.contains(name))
            {
                // Static functions may share a name; none of those that matter here does.
                self.named.entry((item.kind, name)).or_insert(id);
            }
            if matches!(item.kind, kind::ENUM | kind::ENUM64) {
                let step = rest_len / item.count.max(1);
                for value in 0..item.count {
                    let place = item.rest + value * step;
                    let name = self.string(u32_at(self.data, place)?);
                    if let Some(name) = name.filter(|name| wanted.contains(name)) {
                        self.enumerators.entry(name).or_insert(u32_at(self.data, place + 4)?);
                    }
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Offset in bytes of a member such as `__sk_common.skc_net.net`, looked for in unnamed members too.
    pub fn member_offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = *self.named.get(&(kind::STRUCT, structure))?;
        let mut bits = 0u32;
        for name in path.split('.') {
            let (offset, member) = self.member(id, name, CHAIN_LIMIT, &mut HashSet::new())?;
            bits = bits.checked_add(offset)?;
            id = member;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Value of an enumerator, in whichever enumeration it stands.
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        self.enumerators.get(name).copied()
    }

    /// Parameters of a function; of a tracepoint when `name` is `btf_trace_<tracepoint>`, without the private first
    /// one that programs do not see.
    pub fn prototype(&self, name: &str) -> Option<Vec<Parameter>> {
        if let Some(function) = self.named.get(&(kind::FUNC, name)) {
            return self.parameters(self.get(*function)?.size_or_type);
        }
        let typedef = self.get(*self.named.get(&(kind::TYPEDEF, name))?)?;
        let pointer = self.get(typedef.size_or_type)?;
        if pointer.kind != kind::PTR {
            return None;
        }
        let parameters = self.parameters(pointer.size_or_type)?;
        Some(parameters.into_iter().skip(1).collect())
    }

    /// `seen` holds the structures that were looked through: a malformed one may contain itself many times over.
    fn member(&self, id: u32, name: &str, depth: usize, seen: &mut HashSet<u32>) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        let id = self.resolve(id)?;
        let structure = self.get(id)?;
        if !matches!(structure.kind, kind::STRUCT | kind::UNION) || !seen.insert(id) {
            return None;
        }
        for member in 0..structure.count {
            let place = structure.rest + member * 12;
            let member_name = self.string(u32_at(self.data, place).ok()?)?;
            let member_type = u32_at(self.data, place + 4).ok()?;
            let word = u32_at(self.data, place + 8).ok()?;
            // With bit-fields the upper byte holds the width.
            let offset = if structure.bitfields { word & 0x00ff_ffff } else { word };
            if member_name.is_empty() {
                if let Some((inner, found)) = self.member(member_type, name, depth, seen) {
                    return Some((offset.checked_add(inner)?, found));
                }
            } else if member_name == name {
                return Some((offset, member_type));
            }
        }
        None
    }

    fn parameters(&self, id: u32) -> Option<Vec<Parameter>> {
        let prototype = self.get(id)?;
        if prototype.kind != kind::FUNC_PROTO {
            return None;
        }
        (0..prototype.count)
            .map(|parameter| {
                let place = prototype.rest + parameter * 8;
                Some(Parameter {
                    name: self.string(u32_at(self.data, place).ok()?)?.to_owned(),
                    shape: self.shape(u32_at(self.data, place + 4).ok()?),
                })
            })
            .collect()
    }

    fn shape(&self, id: u32) -> Shape {
        let shape = || {
            let item = self.get(self.resolve(id)?)?;
            match item.kind {
                kind::PTR => {
                    let target = self.get(self.resolve(item.size_or_type)?)?;
                    (target.kind == kind::STRUCT).then(|| Some(Shape::Pointer(self.string(target.name)?.to_owned())))?
                }
                kind::INT => Some(Shape::Integer(item.size_or_type)),
                kind::ENUM => Some(Shape::Enumeration(self.string(item.name)?.to_owned())),
                _ => None,
            }
        };
        shape().unwrap_or(Shape::Other)
    }

    /// Through typedefs, qualifiers and tags to the type itself.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..CHAIN_LIMIT {
            let item = self.get(id)?;
            match item.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = item.size_or_type;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.type_at(*self.places.get(id as usize)? as usize).ok()
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = u32_at(self.data, at + 4)?;
        Ok(Type {
            name: u32_at(self.data, at)?,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            bitfields: info >> 31 == 1,
            size_or_type: u32_at(self.data, at + 8)?,
            rest: at + TYPE_LEN,
        })
    }

    fn string(&self, at: u32) -> Option<&'a str> {
        let rest = self.strings.get(at as usize..)?;
        let end = rest.iter().take(NAME_LIMIT).position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BtfError> {
    let field = bytes.get(at..at + 2).and_then(|field| field.try_into().ok());
    field.map(u16::from_ne_bytes).ok_or(BtfError::Truncated(at))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map(u32::from_ne_bytes).ok_or(BtfError::Truncated(at))
}
