//! The reader on type information made by hand, and on such as nobody should have made.

use std::time::Instant;

use super::*;
use crate::{
    kernel::{
        facts::KernelFacts,
        fixtures::{Builder, KERNELS, kind},
    },
    random::Random,
};

fn parse<'a>(bytes: &'a [u8], wanted: &[&str]) -> Result<Btf<'a>, BtfError> {
    Btf::parse(bytes, &wanted.iter().copied().collect())
}

#[test]
fn members_are_found_in_unnamed_members_and_behind_typedefs() {
    let mut builder = Builder::new();
    let int = builder.add(kind::INT, "int", 4, 0, &[32]);
    let inner = builder.structure("", &[("a", int, 0), ("b", int, 32)]);
    let outer = builder.structure("", &[("c", int, 0), ("", inner, 64)]);
    let constant = builder.add(kind::CONST, "", outer, 0, &[]);
    let typedef = builder.add(kind::TYPEDEF, "named_t", constant, 0, &[]);
    let pointer = builder.add(kind::PTR, "", outer, 0, &[]);
    let top = builder.structure(
        "top",
        &[("x", int, 0), ("", outer, 64), ("t", typedef, 256), ("p", pointer, 512), ("odd", int, 515)],
    );
    // A second structure of the same name, as different files of a kernel may have: the first one counts.
    builder.structure("top", &[("x", top, 8)]);
    let bytes = builder.bytes();
    let btf = parse(&bytes, &["top", "named_t"]).unwrap();
    for (path, offset) in [
        ("x", Some(0)),
        ("c", Some(8)),
        ("a", Some(16)),
        ("b", Some(20)),
        ("t", Some(32)),
        ("t.c", Some(32)),
        ("t.b", Some(32 + 8 + 4)),
        ("p", Some(64)),
        // Not through a pointer, not into an integer, not between bytes.
        ("p.c", None),
        ("x.a", None),
        ("odd", None),
        ("absent", None),
        ("t.absent", None),
        ("", None),
        (".", None),
    ] {
        assert_eq!(btf.member_offset("top", path), offset, "{path}");
    }
    assert_eq!(btf.member_offset("absent", "x"), None);
    assert_eq!(btf.member_offset("named_t", "c"), None, "a typedef is no structure");
}

#[test]
fn a_structure_with_bit_fields_keeps_the_width_beside_the_offset() {
    let mut builder = Builder::new();
    let int = builder.add(kind::INT, "int", 4, 0, &[32]);
    let (flags, counter) = (builder.name("flags"), builder.name("counter"));
    // The highest bit of the count says that there are bit-fields.
    let with_bit_fields = kind::STRUCT | 1 << 7;
    builder.add(with_bit_fields, "bits", 8, 2, &[flags, int, 3 << 24, counter, int, 32]);
    let bytes = builder.bytes();
    let btf = parse(&bytes, &["bits"]).unwrap();
    assert_eq!(btf.member_offset("bits", "flags"), Some(0));
    assert_eq!(btf.member_offset("bits", "counter"), Some(4));
}

#[test]
fn enumerators_are_found_in_whichever_enumeration_they_stand() {
    let mut builder = Builder::new();
    let names = ["A", "B", "C", "A"].map(|name| builder.name(name));
    builder.add(kind::ENUM, "first", 4, 2, &[names[0], 7, names[1], u32::MAX - 1]);
    builder.add(kind::ENUM64, "second", 8, 2, &[names[2], 9, 1, names[3], 8, 0]);
    builder.add(kind::ENUM, "empty", 4, 0, &[]);
    let bytes = builder.bytes();
    let btf = parse(&bytes, &["A", "B", "C"]).unwrap();
    for (name, value) in [("A", Some(7)), ("B", Some(u32::MAX - 1)), ("C", Some(9)), ("D", None), ("first", None)] {
        assert_eq!(btf.enumerator(name), value, "{name}");
    }
}

#[test]
fn what_cannot_be_type_information_is_refused_with_a_reason() {
    let good = Builder::new().bytes();
    let with = |place: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        bytes
    };
    let mut other_byte_order = good.clone();
    other_byte_order.swap(0, 1);
    let mut unknown = Builder::new();
    unknown.add(kind::INT, "int", 4, 0, &[32]);
    unknown.add(20, "later", 0, 0, &[]);
    for (bytes, error) in [
        (vec![], BtfError::Truncated(0)),
        (b"\x7fELF\x02\x01\x01\0".to_vec(), BtfError::Magic(u16::from_ne_bytes(*b"\x7fE"))),
        (other_byte_order, BtfError::Magic(0x9feb)),
        (good[..20].to_vec(), BtfError::Truncated(20)),
        (with(4, 23), BtfError::Truncated(4)),
        (with(4, u32::MAX), BtfError::Truncated(25)),
        (with(8, u32::MAX), BtfError::Truncated(25)),
        (with(12, u32::MAX), BtfError::Truncated(25)),
        (with(20, 2), BtfError::Truncated(25)),
        // One byte of types: not even the common part of one.
        (with(12, 1), BtfError::Truncated(4)),
        (unknown.bytes(), BtfError::UnknownKind { id: 2, kind: 20 }),
    ] {
        assert_eq!(parse(&bytes, &[]).unwrap_err(), error, "{bytes:?}");
    }
    assert!(parse(&good, &[]).is_ok());
}

#[test]
fn structures_that_contain_themselves_come_to_an_end() {
    let mut builder = Builder::new();
    // Each unnamed member is the structure itself: without a memory, a search would take 100 to the power of 32 steps.
    let own = builder.next();
    builder.structure("sock", &[("", own, 0); 100]);
    // Two that contain each other, and a chain of typedefs that bites its tail.
    let first = builder.next();
    builder.structure("net", &[("", first + 1, 0), ("", first + 1, 8)]);
    builder.structure("", &[("", first, 0), ("", first, 8), ("found", first, 16)]);
    let snake = builder.next();
    builder.add(kind::TYPEDEF, "snake", snake + 1, 0, &[]);
    builder.add(kind::CONST, "", snake, 0, &[]);
    builder.structure("file", &[("", snake, 0), ("private_data", snake, 64)]);
    let bytes = builder.bytes();
    let btf = parse(&bytes, &["sock", "net", "file", "snake"]).unwrap();
    assert_eq!(btf.member_offset("sock", "absent"), None);
    assert_eq!(btf.member_offset("net", "absent"), None);
    assert_eq!(btf.member_offset("net", "found"), Some(2));
    assert_eq!(btf.member_offset("file", "private_data"), Some(8));
    assert_eq!(btf.member_offset("file", "private_data.x"), None);
    assert_eq!(btf.prototype("snake"), None);
}

#[test]
fn a_table_of_names_without_an_end_is_not_read_over_and_over() {
    let mut builder = Builder::new();
    for _ in 0..50_000 {
        builder.add(kind::STRUCT, "", 0, 0, &[]);
    }
    let mut bytes = builder.bytes();
    // Every type's name starts at the first byte of a megabyte without a zero.
    let strings = 1 << 20;
    bytes.pop();
    bytes.resize(bytes.len() + strings, b'a');
    bytes[20..24].copy_from_slice(&(strings as u32).to_ne_bytes());
    let started = Instant::now();
    assert!(parse(&bytes, &["sock"]).is_ok());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Looks up all that a program looks up and some things that nobody should. Any answer will do.
fn ask_everything(bytes: &[u8]) -> bool {
    const NAMES: [&str; 8] = [
        "sock",
        "tcp_sock",
        "task_struct",
        "socket_alloc",
        "TCP_CLOSE",
        "tcp_recvmsg",
        "btf_trace_inet_sock_set_state",
        "bpf_iter_tcp",
    ];
    const PATHS: [&str; 6] = ["__sk_common.skc_v6_daddr", "vfs_inode.i_ino", "comm", "", "..", "absent.absent"];
    let facts = KernelFacts::from_btf(bytes);
    let Ok(btf) = parse(bytes, &NAMES) else {
        assert!(facts.is_err());
        return false;
    };
    let facts = facts.unwrap();
    assert_eq!(facts.globals.len(), KernelFacts::from_btf(KERNELS[0].btf).unwrap().globals.len());
    for name in NAMES {
        btf.enumerator(name);
        let parameters = btf.prototype(name).map_or(0, |parameters| parameters.len());
        assert!(parameters <= 0xffff);
        for path in PATHS {
            btf.member_offset(name, path);
        }
    }
    true
}

#[test]
fn a_truncated_file_is_never_more_than_an_error() {
    for kernel in &KERNELS {
        let whole = kernel.btf;
        let field = |at: usize| u32::from_ne_bytes(whole[at..at + 4].try_into().unwrap()) as usize;
        let (types, strings) = (field(4) + field(8), field(4) + field(16));
        let mut ends: Vec<usize> = (0..64).chain(types..types + 64).collect();
        ends.extend(strings - 64..strings + 64);
        ends.extend(whole.len() - 64..whole.len());
        ends.extend((1..32).map(|part| whole.len() * part / 32));
        for end in ends {
            assert!(KernelFacts::from_btf(&whole[..end]).is_err(), "{} cut at {end}", kernel.name);
        }
        // Cut and with a header that says so, which only the types themselves can contradict.
        let mut random = Random::new(1);
        for _ in 0..20 {
            let mut bytes = whole.to_vec();
            let len = random.below(field(12));
            bytes[12..16].copy_from_slice(&(len as u32).to_ne_bytes());
            ask_everything(&bytes);
            let mut bytes = whole.to_vec();
            let len = random.below(field(20));
            bytes[20..24].copy_from_slice(&(len as u32).to_ne_bytes());
            ask_everything(&bytes);
        }
    }
}

#[test]
fn a_header_with_extreme_fields_is_never_more_than_an_error() {
    for kernel in &KERNELS {
        let len = kernel.btf.len() as u32;
        for place in [0, 4, 8, 12, 16, 20] {
            for value in [
                0,
                1,
                3,
                4,
                11,
                12,
                23,
                24,
                25,
                len - 1,
                len,
                len + 1,
                i32::MAX as u32,
                1 << 31,
                u32::MAX - 24,
                u32::MAX,
            ] {
                let mut bytes = kernel.btf.to_vec();
                bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
                ask_everything(&bytes);
            }
        }
    }
}

#[test]
fn a_damaged_file_is_never_more_than_an_error() {
    const EXTREMES: [u32; 8] = [0, 1, 0x7f, 0xffff, 0x0fff_ffff, i32::MAX as u32, 1 << 31, u32::MAX];
    let mut random = Random::new(2);
    let mut read = 0;
    for kernel in &KERNELS {
        for _ in 0..60 {
            let mut bytes = kernel.btf.to_vec();
            for _ in 0..=random.below(24) {
                let at = random.below(bytes.len() / 4) * 4;
                match random.below(4) {
                    0 => bytes[at] = random.next() as u8,
                    1 => bytes[at + 3] ^= 1 << random.below(8),
                    2 => bytes[at..at + 4].copy_from_slice(&random.pick(&EXTREMES).to_ne_bytes()),
                    // Another type or name that exists, where damage is the hardest to notice.
                    _ => bytes[at..at + 4].copy_from_slice(&(random.below(2000) as u32).to_ne_bytes()),
                }
            }
            read += u32::from(ask_everything(&bytes));
        }
    }
    // Otherwise only the first checks were tried.
    assert!(read > 50, "{read}");
}
