//! The facts of five kernels, as their own headers and their own programs show them: the numbers come from pahole and
//! from measurements on the running kernels, not from this reader.

use overwatch_common::kernel::ABSENT;

use super::*;
use crate::kernel::fixtures::{Builder, KERNELS, kind};

/// Not on this kernel.
const NO: u32 = ABSENT;

/// 5.10, 6.1, 6.12, 6.18, 7.2
#[rustfmt::skip]
const FACTS: &[(&str, [u32; 5])] = &[
    ("SOCK_FAMILY", [16; 5]),
    ("SOCK_STATE", [18; 5]),
    ("SOCK_LOCAL_PORT", [14; 5]),
    ("SOCK_REMOTE_PORT", [12; 5]),
    ("SOCK_LOCAL_ADDR", [4; 5]),
    ("SOCK_REMOTE_ADDR", [0; 5]),
    ("SOCK_LOCAL_ADDR_V6", [72; 5]),
    ("SOCK_REMOTE_ADDR_V6", [56; 5]),
    ("SOCK_NET", [48; 5]),
    ("SOCK_FLAGS", [96; 5]),
    ("SOCK_PROTOCOL", [540, 516, 574, 532, 540]),
    ("SOCK_SOCKET", [640, 624, 288, 288, 288]),
    ("SOCK_MAX_ACK_BACKLOG", [580, 556, 608, 604, 620]),
    ("NET_INUM", [136, 144, 136, 176, 280]),
    ("TCP_BYTES_RECEIVED", [1400, 1448, 1784, 1752, 1864]),
    ("TCP_BYTES_SENT", [1440, 1488, 1608, 1544, 1616]),
    ("TCP_BYTES_RETRANS", [2088, 2136, 2208, 2192, 2296]),
    ("TCP_BYTES_ACKED", [1448, 1496, 1840, 1824, 1608]),
    ("TCP_SND_UNA", [1460, 1508, 1720, 1672, 1776]),
    ("TCP_RCV_NXT", [1416, 1464, 1712, 1664, 1768]),
    ("TCP_COPIED_SEQ", [1420, 1468, 1472, 1464, 1504]),
    ("TCP_SND_NXT", [1428, 1476, 1716, 1668, 1772]),
    ("TCP_WRITE_SEQ", [1804, 1852, 1636, 1576, 1668]),
    ("TASK_GROUP_LEADER", [2296, 2480, 2496, 1328, 2872]),
    ("TASK_COMM", [2736, 2976, 2976, 1752, 3344]),
    ("TASK_FILES", [2808, 3048, 3048, 1824, 3416]),
    ("FILES_FDT", [32; 5]),
    ("FDTABLE_MAX_FDS", [0; 5]),
    ("FDTABLE_FD", [8; 5]),
    ("FILE_PRIVATE_DATA", [200, 200, 32, 24, 24]),
    ("SOCKET_SK", [24; 5]),
    ("SOCKET_FILE", [16; 5]),
    ("SOCKET_ALLOC_SOCKET", [0; 5]),
    ("SOCKET_ALLOC_INODE_NUMBER", [128 + 64; 5]),
    ("SYSCALL_EXIT_RET", [16; 5]),

    ("TCP_ESTABLISHED", [1; 5]),
    ("TCP_SYN_SENT", [2; 5]),
    ("TCP_SYN_RECV", [3; 5]),
    ("TCP_FIN_WAIT1", [4; 5]),
    ("TCP_LAST_ACK", [9; 5]),
    ("TCP_CLOSE", [7; 5]),
    ("TCP_LISTEN", [10; 5]),
    ("SOCK_DONE", [1; 5]),

    ("SENDMSG_SK", [0; 5]),
    ("SENDMSG_RETURN", [3; 5]),
    ("SENDPAGE_SK", [0, 0, NO, NO, NO]),
    ("SENDPAGE_RETURN", [5, 5, NO, NO, NO]),
    ("RECVMSG_SK", [0; 5]),
    ("RECVMSG_FLAGS", [4, 3, 3, 3, 3]),
    ("RECVMSG_RETURN", [6, 5, 5, 4, 4]),
    ("SPLICE_READ_SOCKET", [0; 5]),
    ("SPLICE_READ_RETURN", [5; 5]),
    ("ACCEPT_RETURN", [4, 4, 2, 2, 2]),
    ("ITER_TCP_SK", [1; 5]),
    ("STATE_SK", [0; 5]),
    ("STATE_OLD", [1; 5]),
    ("STATE_NEW", [2; 5]),
    ("DESTROY_SK", [0; 5]),
    ("SEND_LENGTH_SK", [NO, NO, 0, 0, 0]),
    ("SEND_LENGTH_RESULT", [NO, NO, 1, 1, 1]),
    ("RECV_LENGTH_SK", [NO, NO, 0, 0, 0]),
    ("RECV_LENGTH_RESULT", [NO, NO, 1, 1, 1]),
    ("RECV_LENGTH_FLAGS", [NO, NO, 2, 2, 2]),
];

fn facts_of(builder: &Builder) -> KernelFacts {
    KernelFacts::from_btf(&builder.bytes()).unwrap()
}

#[test]
fn every_fact_of_five_kernels_has_its_known_value() {
    for (column, kernel) in KERNELS.iter().enumerate() {
        let facts = KernelFacts::from_btf(kernel.btf).unwrap();
        let known: BTreeMap<_, _> = FACTS.iter().map(|(global, values)| (*global, values[column])).collect();
        assert_eq!(known.len(), FACTS.len(), "a fact stands in the table twice");
        for (global, value) in &facts.globals {
            let known = known.get(global).unwrap_or_else(|| panic!("{global} is not in the table of known values"));
            assert_eq!(value, known, "{global} on {}", kernel.name);
        }
        assert_eq!(facts.globals.len(), known.len(), "the table has a fact that nobody looks up");
        assert_eq!(facts.missing, Vec::<String>::new(), "on {}", kernel.name);
    }
}

#[test]
fn functions_and_tracepoints_are_there_where_they_are_known_to_be() {
    let old = ["5.10", "6.1"];
    for kernel in &KERNELS {
        let facts = KernelFacts::from_btf(kernel.btf).unwrap();
        let is_old = old.contains(&kernel.name);
        for (function, exists) in [
            ("tcp_sendmsg", true),
            ("tcp_sendpage", is_old),
            ("tcp_recvmsg", true),
            ("tcp_splice_read", true),
            ("inet_csk_accept", true),
            ("bpf_iter_tcp", true),
            ("no_such_function", false),
        ] {
            assert_eq!(facts.has_function(function), exists, "{function} on {}", kernel.name);
            if exists {
                assert_eq!(facts.strange_arguments(function), [""; 0], "{function} on {}", kernel.name);
            }
        }
        for (tracepoint, exists) in [
            ("inet_sock_set_state", true),
            ("tcp_destroy_sock", true),
            ("sock_send_length", !is_old),
            ("sock_recv_length", !is_old),
            ("tcp_sendmsg", false),
        ] {
            assert_eq!(facts.has_tracepoint(tracepoint), exists, "{tracepoint} on {}", kernel.name);
        }
    }
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let facts = facts_of(&Builder::new());
    assert!(facts.missing.contains(&"member bytes_received of struct tcp_sock".to_owned()), "{:?}", facts.missing);
    assert!(facts.missing.contains(&"enumerator SOCK_DONE".to_owned()), "{:?}", facts.missing);
    for optional in ["skc_v6_daddr", "skc_v6_rcv_saddr", "syscall_trace_exit"] {
        assert!(!facts.missing.iter().any(|missing| missing.contains(optional)), "{optional}");
    }
    assert!(facts.globals.values().all(|value| *value == ABSENT));
    assert!(facts.prototypes.is_empty());
}

/// A kernel with the function or tracepoint `name`, which has these parameters: `sock`, another pointer, an int, a long.
fn with_prototype(name: &str, parameters: &[(&str, char)]) -> KernelFacts {
    let mut builder = Builder::new();
    let sock = builder.structure("sock", &[]);
    let sock = builder.add(kind::CONST, "", sock, 0, &[]);
    let sock = builder.add(kind::PTR, "", sock, 0, &[]);
    let void = builder.add(kind::PTR, "", 0, 0, &[]);
    let int = builder.add(kind::INT, "int", 4, 0, &[32]);
    let int = builder.add(kind::CONST, "", int, 0, &[]);
    let long = builder.add(kind::INT, "long", 8, 0, &[64]);
    let numbered = |kind| match kind {
        's' => sock,
        'i' => int,
        'l' => long,
        _ => void,
    };
    let parameters: Vec<_> = parameters.iter().map(|(name, kind)| (*name, numbered(*kind))).collect();
    let prototype = builder.prototype(&parameters);
    if name.starts_with("btf_trace_") {
        let pointer = builder.add(kind::PTR, "", prototype, 0, &[]);
        builder.add(kind::TYPEDEF, name, pointer, 0, &[]);
    } else {
        builder.add(kind::FUNC, name, prototype, 0, &[]);
    }
    facts_of(&builder)
}

#[test]
fn arguments_of_tracepoints_are_found_by_what_they_are() {
    let state = "btf_trace_inet_sock_set_state";
    let (hidden, sock, int, long, other) = (("", 'v'), ("", 's'), ("", 'i'), ("", 'l'), ("", 'p'));
    for (parameters, positions, strange) in [
        (&[hidden, sock, int, int][..], [0, 1, 2], vec![]),
        // A later kernel may put something in front or in between.
        (&[hidden, other, sock, long, int, int], [1, 3, 4], vec![]),
        (&[hidden, int, int, sock], [2, 0, 1], vec![]),
        (&[hidden, sock, int], [0, 1, NO], vec!["int 1"]),
        (&[hidden, sock, long, long], [0, NO, NO], vec!["int 0", "int 1"]),
        (&[hidden, other, int, int], [NO, 1, 2], vec!["sock"]),
        // The first one is private to the kernel, whatever it is.
        (&[sock, int, int], [NO, 0, 1], vec!["sock"]),
        (&[hidden], [NO, NO, NO], vec!["sock", "int 0", "int 1"]),
        (&[], [NO, NO, NO], vec!["sock", "int 0", "int 1"]),
    ] {
        let facts = with_prototype(state, parameters);
        let found = ["STATE_SK", "STATE_OLD", "STATE_NEW"].map(|global| facts.globals[global]);
        assert_eq!(found, positions, "{parameters:?}");
        assert_eq!(facts.strange_arguments(state), strange, "{parameters:?}");
        assert!(facts.has_tracepoint("inet_sock_set_state"));
    }
}

#[test]
fn arguments_of_functions_are_found_by_name_and_within_reach() {
    let sk = ("sk", 's');
    let more = |count: usize| std::iter::repeat_n(("more", 'l'), count);
    let flags_at =
        |index: usize| std::iter::once(sk).chain(more(index - 1)).chain([("flags", 'i')]).collect::<Vec<_>>();
    for (parameters, positions, strange) in [
        (flags_at(3), [0, 3, 4], vec![]),
        (vec![("flags", 'i'), sk], [1, 0, 2], vec![]),
        (vec![sk], [0, NO, 1], vec!["flags"]),
        (vec![("sock", 's'), ("flags", 'i')], [NO, 1, 2], vec!["sk"]),
        (flags_at(5), [0, 5, 6], vec![]),
        // Kernel side programs load six arguments (those in registers) and the result in the seventh slot.
        (flags_at(3).into_iter().chain(more(3)).collect(), [0, 3, NO], vec!["return"]),
        (flags_at(6), [0, NO, NO], vec!["flags", "return"]),
    ] {
        let facts = with_prototype("tcp_recvmsg", &parameters);
        let found = ["RECVMSG_SK", "RECVMSG_FLAGS", "RECVMSG_RETURN"].map(|global| facts.globals[global]);
        assert_eq!(found, positions, "{parameters:?}");
        assert_eq!(facts.strange_arguments("tcp_recvmsg"), strange, "{parameters:?}");
    }
}
