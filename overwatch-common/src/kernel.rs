//! What the kernel side must know of the running kernel. Nothing of it is fixed: at start the user side looks each
//! fact up in the kernel's BTF and hands it over as a read-only global, which the verifier then sees as a constant.
//!
//! The tables below are the only place where a fact is declared; both sides are made from them.

/// Stands for a fact that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Calls `$callback!` with every struct member whose offset the kernel side uses:
/// `NAME = "struct", "member.path", needed;` where `needed` is `required` or `optional`.
#[macro_export]
macro_rules! with_offsets {
    ($callback:ident) => {
        $callback! {
            SOCK_FAMILY = "sock", "__sk_common.skc_family", required;
            SOCK_STATE = "sock", "__sk_common.skc_state", required;
            SOCK_LOCAL_PORT = "sock", "__sk_common.skc_num", required;
            SOCK_REMOTE_PORT = "sock", "__sk_common.skc_dport", required;
            SOCK_LOCAL_ADDR = "sock", "__sk_common.skc_rcv_saddr", required;
            SOCK_REMOTE_ADDR = "sock", "__sk_common.skc_daddr", required;
            SOCK_LOCAL_ADDR_V6 = "sock", "__sk_common.skc_v6_rcv_saddr", optional;
            SOCK_REMOTE_ADDR_V6 = "sock", "__sk_common.skc_v6_daddr", optional;
            SOCK_NET = "sock", "__sk_common.skc_net.net", required;
            SOCK_FLAGS = "sock", "__sk_common.skc_flags", required;
            SOCK_PROTOCOL = "sock", "sk_protocol", required;
            SOCK_SOCKET = "sock", "sk_socket", required;
            SOCK_ACK_BACKLOG = "sock", "sk_ack_backlog", required;
            SOCK_MAX_ACK_BACKLOG = "sock", "sk_max_ack_backlog", required;
            SOCK_DROPS = "sock", "sk_drops.counter", required;
            SOCK_SHUTDOWN = "sock", "sk_shutdown", required;
            SOCK_ERROR = "sock", "sk_err", required;
            INET_SOURCE_PORT = "inet_sock", "inet_sport", required;
            QUEUE_SYN_LENGTH = "inet_connection_sock", "icsk_accept_queue.qlen.counter", required;
            QUEUE_SYN_YOUNG = "inet_connection_sock", "icsk_accept_queue.young.counter", required;
            QUEUE_DEFER_ACCEPT = "inet_connection_sock", "icsk_accept_queue.rskq_defer_accept", required;
            QUEUE_ACCEPT_HEAD = "inet_connection_sock", "icsk_accept_queue.rskq_accept_head", required;
            REQUEST_NEXT = "request_sock", "dl_next", required;
            REQUEST_CHILD = "request_sock", "sk", required;
            REQUEST_LISTENER = "request_sock", "__req_common.skc_listener", required;
            NET_INUM = "net", "ns.inum", required;
            NET_SYNCOOKIES = "net", "ipv4.sysctl_tcp_syncookies", required;
            TCP_BYTES_RECEIVED = "tcp_sock", "bytes_received", required;
            TCP_BYTES_SENT = "tcp_sock", "bytes_sent", required;
            TCP_BYTES_RETRANS = "tcp_sock", "bytes_retrans", required;
            TCP_BYTES_ACKED = "tcp_sock", "bytes_acked", required;
            TCP_SND_UNA = "tcp_sock", "snd_una", required;
            TCP_RCV_NXT = "tcp_sock", "rcv_nxt", required;
            TCP_COPIED_SEQ = "tcp_sock", "copied_seq", required;
            TCP_SND_NXT = "tcp_sock", "snd_nxt", required;
            TCP_WRITE_SEQ = "tcp_sock", "write_seq", required;
            TCP_SRTT_US = "tcp_sock", "srtt_us", required;
            TCP_SEGMENTS_OUT = "tcp_sock", "segs_out", required;
            TCP_SEGMENTS_IN = "tcp_sock", "segs_in", required;
            TCP_TOTAL_RETRANS = "tcp_sock", "total_retrans", required;
            TCP_LOST = "tcp_sock", "lost", required;
            TCP_LAST_SENT = "tcp_sock", "lsndtime", required;
            SKB_PROTOCOL = "sk_buff", "protocol", required;
            TASK_GROUP_LEADER = "task_struct", "group_leader", required;
            TASK_COMM = "task_struct", "comm", required;
            TASK_FILES = "task_struct", "files", required;
            FILES_FDT = "files_struct", "fdt", required;
            FDTABLE_MAX_FDS = "fdtable", "max_fds", required;
            FDTABLE_FD = "fdtable", "fd", required;
            FILE_PRIVATE_DATA = "file", "private_data", required;
            SOCKET_SK = "socket", "sk", required;
            SOCKET_FILE = "socket", "file", required;
            SOCKET_ALLOC_SOCKET = "socket_alloc", "socket", required;
            SOCKET_ALLOC_INODE_NUMBER = "socket_alloc", "vfs_inode.i_ino", required;
            STATE_RECORD_SOCK = "trace_event_raw_inet_sock_set_state", "skaddr", optional;
            STATE_RECORD_OLD = "trace_event_raw_inet_sock_set_state", "oldstate", optional;
            STATE_RECORD_NEW = "trace_event_raw_inet_sock_set_state", "newstate", optional;
            DESTROY_RECORD_SOCK = "trace_event_raw_tcp_event_sk", "skaddr", optional;
            MPTCP_FIRST = "mptcp_sock", "first", optional;
            SYSCALL_EXIT_RET = "syscall_trace_exit", "ret", optional;
        }
    };
}

/// Calls `$callback!` with every enumerator whose value the kernel side uses: `NAME = "enumerator", needed;` as above.
#[macro_export]
macro_rules! with_enumerators {
    ($callback:ident) => {
        $callback! {
            TCP_ESTABLISHED = "TCP_ESTABLISHED", required;
            TCP_SYN_SENT = "TCP_SYN_SENT", required;
            TCP_CLOSE_WAIT = "TCP_CLOSE_WAIT", required;
            TCP_CLOSING = "TCP_CLOSING", required;
            TCP_FIN_WAIT2 = "TCP_FIN_WAIT2", required;
            TCP_FIN_WAIT1 = "TCP_FIN_WAIT1", required;
            TCP_LAST_ACK = "TCP_LAST_ACK", required;
            TCP_SYN_RECV = "TCP_SYN_RECV", required;
            TCP_CLOSE = "TCP_CLOSE", required;
            TCP_LISTEN = "TCP_LISTEN", required;
            SOCK_DONE = "SOCK_DONE", required;
            SKB_DROP_REASON_TCP_LISTEN_OVERFLOW = "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW", optional;
        }
    };
}

/// Calls `$callback!` with every argument position that the kernel side uses: `NAME = "prototype", "argument";`.
///
/// The prototype is a function or, for a tracepoint, the type `btf_trace_<name>`. The argument is a parameter's name;
/// `return` for the slot behind the last argument, where an fexit program finds the result; or, since the parameters
/// of tracepoints have no names, `sock` for the pointer to a socket, `int 0`, `int 1` for the integers in order, and `enum NAME` for
/// a value of that enumeration.
#[macro_export]
macro_rules! with_arguments {
    ($callback:ident) => {
        $callback! {
            SENDMSG_SK = "tcp_sendmsg", "sk";
            SENDMSG_RETURN = "tcp_sendmsg", "return";
            SENDPAGE_SK = "tcp_sendpage", "sk";
            SENDPAGE_RETURN = "tcp_sendpage", "return";
            RECVMSG_SK = "tcp_recvmsg", "sk";
            RECVMSG_FLAGS = "tcp_recvmsg", "flags";
            RECVMSG_RETURN = "tcp_recvmsg", "return";
            SPLICE_READ_SOCKET = "tcp_splice_read", "sock";
            SPLICE_READ_RETURN = "tcp_splice_read", "return";
            ACCEPT_SK = "inet_csk_accept", "sk";
            ACCEPT_RETURN = "inet_csk_accept", "return";
            CONN_REQUEST_SK = "tcp_conn_request", "sk";
            SYN_RECV_V4_SK = "tcp_v4_syn_recv_sock", "sk";
            SYN_RECV_V6_SK = "tcp_v6_syn_recv_sock", "sk";
            SYN_RECV_V6_SKB = "tcp_v6_syn_recv_sock", "skb";
            ITER_TCP_SK = "bpf_iter_tcp", "sk_common";
            ITER_FILE_FILE = "bpf_iter_task_file", "file";
            CONNECT_V4_SK = "tcp_v4_connect", "sk";
            CONNECT_V4_ADDRESS = "tcp_v4_connect", "uaddr";
            CONNECT_V4_RETURN = "tcp_v4_connect", "return";
            CONNECT_V6_SK = "tcp_v6_connect", "sk";
            CONNECT_V6_ADDRESS = "tcp_v6_connect", "uaddr";
            CONNECT_V6_RETURN = "tcp_v6_connect", "return";
            STATE_SK = "btf_trace_inet_sock_set_state", "sock";
            STATE_OLD = "btf_trace_inet_sock_set_state", "int 0";
            STATE_NEW = "btf_trace_inet_sock_set_state", "int 1";
            DESTROY_SK = "btf_trace_tcp_destroy_sock", "sock";
            SEND_RESET_SK = "btf_trace_tcp_send_reset", "sock";
            RECEIVE_RESET_SK = "btf_trace_tcp_receive_reset", "sock";
            SEND_LENGTH_SK = "btf_trace_sock_send_length", "sock";
            SEND_LENGTH_RESULT = "btf_trace_sock_send_length", "int 0";
            RECV_LENGTH_SK = "btf_trace_sock_recv_length", "sock";
            RECV_LENGTH_RESULT = "btf_trace_sock_recv_length", "int 0";
            RECV_LENGTH_FLAGS = "btf_trace_sock_recv_length", "int 1";
            KFREE_SKB_REASON = "btf_trace_kfree_skb", "enum skb_drop_reason";
            KFREE_SKB_SK = "btf_trace_kfree_skb", "sock";
        }
    };
}

/// Prototypes whose existence matters although none of their arguments is used.
pub const OTHER_PROTOTYPES: &[&str] = &["btf_trace_sched_process_exit"];
