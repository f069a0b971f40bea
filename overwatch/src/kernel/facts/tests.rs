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
    ("SOCK_ACK_BACKLOG", [576, 552, 604, 600, 616]),
    ("SOCK_MAX_ACK_BACKLOG", [580, 556, 608, 604, 620]),
    ("SOCK_DROPS", [168, 184, 136, 136, 136]),
    ("SOCK_SHUTDOWN", [626, 610, 571, 575, 591]),
    ("SOCK_ERROR", [568, 544, 284, 284, 284]),
    ("INET_SOURCE_PORT", [776, 804, 798, 814, 830]),
    ("QUEUE_SYN_LENGTH", [980, 1004, 1004, 1024, 1056]),
    ("QUEUE_SYN_YOUNG", [984, 1008, 1008, 1028, 1060]),
    ("QUEUE_DEFER_ACCEPT", [972, 996, 996, 1020, 1052]),
    ("QUEUE_ACCEPT_HEAD", [992, 1016, 1016, 1032, 1064]),
    ("REQUEST_NEXT", [136; 5]),
    ("REQUEST_CHILD", [200; 5]),
    ("REQUEST_LISTENER", [96; 5]),
    ("NET_INUM", [136, 144, 136, 176, 280]),
    ("NET_SYNCOOKIES", [979, 1123, 1231, 1343, 1535]),
    ("TCP_BYTES_RECEIVED", [1400, 1448, 1784, 1752, 1864]),
    ("TCP_BYTES_SENT", [1440, 1488, 1608, 1544, 1616]),
    ("TCP_BYTES_RETRANS", [2088, 2136, 2208, 2192, 2296]),
    ("TCP_BYTES_ACKED", [1448, 1496, 1840, 1824, 1608]),
    ("TCP_SND_UNA", [1460, 1508, 1720, 1672, 1776]),
    ("TCP_RCV_NXT", [1416, 1464, 1712, 1664, 1768]),
    ("TCP_COPIED_SEQ", [1420, 1468, 1472, 1464, 1504]),
    ("TCP_SND_NXT", [1428, 1476, 1716, 1668, 1772]),
    ("TCP_WRITE_SEQ", [1804, 1852, 1636, 1576, 1668]),
    ("TCP_SRTT_US", [1624, 1672, 1728, 1680, 1784]),
    ("TCP_SEGMENTS_OUT", [1432, 1480, 1600, 1536, 1856]),
    ("TCP_SEGMENTS_IN", [1408, 1456, 1792, 1760, 1852]),
    ("TCP_TOTAL_RETRANS", [2096, 2144, 2216, 2200, 2304]),
    ("TCP_LOST", [1768, 1816, 1500, 1488, 1528]),
    ("TCP_LAST_SENT", [1472, 1520, 1644, 1584, 1676]),
    ("SKB_PROTOCOL", [176, 180, 180, 176, 180]),
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
    ("STATE_RECORD_SOCK", [8; 5]),
    ("STATE_RECORD_OLD", [16; 5]),
    ("STATE_RECORD_NEW", [20; 5]),
    ("DESTROY_RECORD_SOCK", [8; 5]),
    ("MPTCP_FIRST", [NO, 1736, 1744, 1712, 1744]),
    ("SYSCALL_EXIT_RET", [16; 5]),

    ("TCP_ESTABLISHED", [1; 5]),
    ("TCP_SYN_SENT", [2; 5]),
    ("TCP_SYN_RECV", [3; 5]),
    ("TCP_FIN_WAIT1", [4; 5]),
    ("TCP_FIN_WAIT2", [5; 5]),
    ("TCP_CLOSE", [7; 5]),
    ("TCP_CLOSE_WAIT", [8; 5]),
    ("TCP_LAST_ACK", [9; 5]),
    ("TCP_LISTEN", [10; 5]),
    ("TCP_CLOSING", [11; 5]),
    ("SOCK_DONE", [1; 5]),
    ("SKB_DROP_REASON_TCP_LISTEN_OVERFLOW", [NO, NO, NO, 40, 40]),

    ("SENDMSG_SK", [0; 5]),
    ("SENDMSG_RETURN", [3; 5]),
    ("SENDPAGE_SK", [0, 0, NO, NO, NO]),
    ("SENDPAGE_RETURN", [5, 5, NO, NO, NO]),
    ("RECVMSG_SK", [0; 5]),
    ("RECVMSG_FLAGS", [4, 3, 3, 3, 3]),
    ("RECVMSG_RETURN", [6, 5, 5, 4, 4]),
    ("SPLICE_READ_SOCKET", [0; 5]),
    ("SPLICE_READ_RETURN", [5; 5]),
    ("ACCEPT_SK", [0; 5]),
    ("ACCEPT_RETURN", [4, 4, 2, 2, 2]),
    ("CONN_REQUEST_SK", [2; 5]),
    ("SYN_RECV_V4_SK", [0; 5]),
    ("SYN_RECV_V6_SK", [0; 5]),
    ("SYN_RECV_V6_SKB", [1; 5]),
    ("ITER_TCP_SK", [1; 5]),
    ("ITER_FILE_FILE", [3; 5]),
    ("CONNECT_V4_SK", [0; 5]),
    ("CONNECT_V4_ADDRESS", [1; 5]),
    ("CONNECT_V4_RETURN", [3; 5]),
    ("CONNECT_V6_SK", [0; 5]),
    ("CONNECT_V6_ADDRESS", [1; 5]),
    ("CONNECT_V6_RETURN", [3; 5]),
    ("STATE_SK", [0; 5]),
    ("STATE_OLD", [1; 5]),
    ("STATE_NEW", [2; 5]),
    ("DESTROY_SK", [0; 5]),
    ("SEND_RESET_SK", [0; 5]),
    ("RECEIVE_RESET_SK", [0; 5]),
    ("SEND_LENGTH_SK", [NO, NO, 0, 0, 0]),
    ("SEND_LENGTH_RESULT", [NO, NO, 1, 1, 1]),
    ("RECV_LENGTH_SK", [NO, NO, 0, 0, 0]),
    ("RECV_LENGTH_RESULT", [NO, NO, 1, 1, 1]),
    ("RECV_LENGTH_FLAGS", [NO, NO, 2, 2, 2]),
    ("KFREE_SKB_REASON", [NO, 2, 2, 2, 2]),
    ("KFREE_SKB_SK", [NO, NO, 3, 3, 3]),
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
            ("tcp_conn_request", true),
            ("tcp_v4_syn_recv_sock", true),
            ("tcp_v6_syn_recv_sock", true),
            ("tcp_v4_connect", true),
            ("tcp_v6_connect", true),
            ("bpf_iter_tcp", true),
            ("bpf_iter_task_file", true),
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
            ("tcp_send_reset", true),
            ("tcp_receive_reset", true),
            ("sched_process_exit", true),
            ("sock_send_length", !is_old),
            ("sock_recv_length", !is_old),
            ("tcp_sendmsg", false),
        ] {
            assert_eq!(facts.has_tracepoint(tracepoint), exists, "{tracepoint} on {}", kernel.name);
            if exists {
                let strange = facts.strange_arguments(&format!("btf_trace_{tracepoint}"));
                assert_eq!(strange, [""; 0], "{tracepoint} on {}", kernel.name);
            }
        }
    }
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let facts = facts_of(&Builder::new());
    for required in ["member bytes_received of struct tcp_sock", "enumerator SOCK_DONE"] {
        assert!(facts.missing.iter().any(|missing| missing == required), "{required} is not in {:?}", facts.missing);
    }
    for optional in [
        "skc_v6_daddr",
        "skc_v6_rcv_saddr",
        "trace_event_raw_inet_sock_set_state",
        "trace_event_raw_tcp_event_sk",
        "mptcp_sock",
        "syscall_trace_exit",
        "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW",
    ] {
        assert!(!facts.missing.iter().any(|missing| missing.contains(optional)), "{optional}");
    }
    assert!(facts.globals.values().all(|value| *value == ABSENT));
    assert!(facts.prototypes.is_empty());
}

/// The records of tracepoints are read where this kernel puts their fields. `missing` names none of them: what they
/// show has been seen before.
#[test]
fn fields_of_records_are_found_wherever_they_stand_and_any_may_be_missing() {
    const STATE: &str = "trace_event_raw_inet_sock_set_state";
    const DESTROY: &str = "trace_event_raw_tcp_event_sk";
    for (record, fields, positions) in [
        (STATE, &[("skaddr", 8), ("oldstate", 16), ("newstate", 20)][..], [8, 16, 20, NO]),
        // A later kernel may put something in front or change the order.
        (STATE, &[("more", 8), ("newstate", 16), ("oldstate", 20), ("skaddr", 24)], [24, 20, 16, NO]),
        (STATE, &[("skaddr", 8), ("oldstate", 16)], [8, 16, NO, NO]),
        (STATE, &[("skaddr", 8), ("newstate", 20)], [8, NO, 20, NO]),
        (STATE, &[("sk", 8), ("oldstate", 16), ("newstate", 20)], [NO, 16, 20, NO]),
        (STATE, &[], [NO; 4]),
        (DESTROY, &[("skaddr", 8), ("sport", 16)], [NO, NO, NO, 8]),
        (DESTROY, &[("sport", 8), ("skaddr", 16)], [NO, NO, NO, 16]),
        (DESTROY, &[("sport", 16)], [NO; 4]),
    ] {
        let mut builder = Builder::new();
        let int = builder.add(kind::INT, "int", 4, 0, &[32]);
        let members: Vec<_> = fields.iter().map(|(name, bytes)| (*name, int, bytes * 8)).collect();
        builder.structure(record, &members);
        let facts = facts_of(&builder);
        let found = ["STATE_RECORD_SOCK", "STATE_RECORD_OLD", "STATE_RECORD_NEW", "DESTROY_RECORD_SOCK"]
            .map(|global| facts.globals[global]);
        assert_eq!(found, positions, "{record} {fields:?}");
        let named: Vec<_> = facts.missing.iter().filter(|missing| missing.contains(record)).collect();
        assert_eq!(named, [""; 0], "{record} {fields:?}");
    }
}

/// A kernel with the function or tracepoint `name`, which has these parameters: `sock`, another pointer, an int, a long, the reason
/// of a drop, another enumeration.
fn with_prototype(name: &str, parameters: &[(&str, char)]) -> KernelFacts {
    let mut builder = Builder::new();
    let sock = builder.structure("sock", &[]);
    let sock = builder.add(kind::CONST, "", sock, 0, &[]);
    let sock = builder.add(kind::PTR, "", sock, 0, &[]);
    let void = builder.add(kind::PTR, "", 0, 0, &[]);
    let int = builder.add(kind::INT, "int", 4, 0, &[32]);
    let int = builder.add(kind::CONST, "", int, 0, &[]);
    let long = builder.add(kind::INT, "long", 8, 0, &[64]);
    let reason = builder.add(kind::ENUM, "skb_drop_reason", 4, 0, &[]);
    let other_enum = builder.add(kind::ENUM, "sk_rst_reason", 4, 0, &[]);
    let numbered = |kind| match kind {
        's' => sock,
        'i' => int,
        'l' => long,
        'r' => reason,
        'e' => other_enum,
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
        for (name, globals) in [
            ("inet_sock_set_state", ["STATE_SK", "STATE_OLD", "STATE_NEW"]),
            ("sock_recv_length", ["RECV_LENGTH_SK", "RECV_LENGTH_RESULT", "RECV_LENGTH_FLAGS"]),
        ] {
            let prototype = format!("btf_trace_{name}");
            let facts = with_prototype(&prototype, parameters);
            assert_eq!(globals.map(|global| facts.globals[global]), positions, "{name} {parameters:?}");
            assert_eq!(facts.strange_arguments(&prototype), strange, "{name} {parameters:?}");
            assert!(facts.has_tracepoint(name), "{name} {parameters:?}");
        }
    }
    let (reason, other_enum) = (("", 'r'), ("", 'e'));
    for (parameters, positions, strange) in [
        (&[hidden, other, other, reason, sock][..], [2, 3], vec![]),
        (&[hidden, sock, other_enum, int, reason], [3, 0], vec![]),
        // As before Linux 6.11, before 5.17, and with the reason as a number.
        (&[hidden, other, other, reason], [2, NO], vec!["sock"]),
        (&[hidden, other, other], [NO, NO], vec!["enum skb_drop_reason", "sock"]),
        (&[hidden, other, other_enum, int, sock], [NO, 3], vec!["enum skb_drop_reason"]),
    ] {
        let facts = with_prototype("btf_trace_kfree_skb", parameters);
        let found = ["KFREE_SKB_REASON", "KFREE_SKB_SK"].map(|global| facts.globals[global]);
        assert_eq!(found, positions, "{parameters:?}");
        assert_eq!(facts.strange_arguments("btf_trace_kfree_skb"), strange, "{parameters:?}");
    }
    // One that is asked for nothing but its socket has nothing else to be strange about.
    for (name, global) in [
        ("tcp_destroy_sock", "DESTROY_SK"),
        ("tcp_send_reset", "SEND_RESET_SK"),
        ("tcp_receive_reset", "RECEIVE_RESET_SK"),
    ] {
        let prototype = format!("btf_trace_{name}");
        for (parameters, position, strange) in [
            (&[hidden, sock][..], 0, vec![]),
            (&[hidden, sock, other, int], 0, vec![]),
            (&[hidden, int, other, sock], 2, vec![]),
            // The first of two, as all of them have the socket that they are about first.
            (&[hidden, sock, sock], 0, vec![]),
            (&[hidden, other], NO, vec!["sock"]),
            (&[sock], NO, vec!["sock"]),
        ] {
            let facts = with_prototype(&prototype, parameters);
            assert_eq!(facts.globals[global], position, "{name} {parameters:?}");
            assert_eq!(facts.strange_arguments(&prototype), strange, "{name} {parameters:?}");
            assert!(facts.has_tracepoint(name), "{name} {parameters:?}");
        }
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
