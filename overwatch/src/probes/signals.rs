//! What overwatch observes in the kernel, and for each signal a second way to observe it: no single hook is trusted to exist. This table is
//! part of docs/requirements.md.

/// Something that happens in the kernel, or that the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The signal of hooks in the catalogue.
    pub name: &'static str,
    /// How it is observed where nothing is refused.
    pub first: &'static str,
    /// How it is observed where the first way is refused.
    pub second: &'static str,
    /// What is lost without both.
    pub without_both: &'static str,
}

const fn signal(name: &'static str, first: &'static str, second: &'static str, without_both: &'static str) -> Signal {
    Signal { name, first, second, without_both }
}

const NO_BYTES: &str =
    "`top`, `life`, `states`, `open` and `serve` end with exit code 3; `listeners` shows what `ss` shows";

/// All signals, in the order of the catalogue.
#[rustfmt::skip]
pub const SIGNALS: &[Signal] = &[
    signal("end of a socket", "tp_btf tcp_destroy_sock, and a tracepoint of the same",
        "raw_tp of the same; then the tracepoint alone, without bytes of unknown connections at their end", NO_BYTES),
    signal("states", "tp_btf inet_sock_set_state, and a tracepoint of the same",
        "raw_tp of the same; then the tracepoint alone, without loss where no programs are skipped", NO_BYTES),
    signal("resets", "tp_btf tcp_send_reset, tcp_receive_reset", "raw_tp of the same",
        "a reset of data for a socket that its process had closed is taken for the peer's"),
    signal("bytes sent", "fexit, kprobes, or tp_btf sock_send_length", "the next tier; in the tracepoint tier raw_tp of the same", NO_BYTES),
    signal("bytes received", "fexit, kprobes, or tp_btf sock_recv_length",
        "the next tier; in the tracepoint tier raw_tp of the same; for splice(2) the kernel's counters, at the end", NO_BYTES),
    signal("end of a thread", "tp_btf sched_process_exit (kprobe tier)", "raw_tp of the same", "the kprobe tier does not work: the next one"),
    signal("accepted", "fexit or kretprobe of inet_csk_accept, or tracepoints at the end of accept(2)",
        "owners from the first bytes that a process moves on the connection",
        "accepts, waits and served connections are not known; `listeners` names no cause that rests on them"),
    signal("failed connects", "fexit or kretprobe of tcp_v4_connect, tcp_v6_connect, or a tracepoint at the end of connect(2)",
        "the transition from SYN_SENT to CLOSE", "connects that fail before a SYN is sent (no route, no port left) are not seen"),
    signal("refused SYNs", "kprobe of tcp_conn_request",
        "drops of the socket and ListenOverflows of its namespace; SYN cookies are not counted",
        "refusals are not known"),
    signal("refused ACKs", "kprobes of tcp_v4_syn_recv_sock, tcp_v6_syn_recv_sock, or tp_btf kfree_skb",
        "raw_tp kfree_skb in the tracepoint tier; then drops of the socket and ListenOverflows of its namespace",
        "refusals are not known"),
    signal("initial dump", "iter/tcp in every network namespace", "iter/task_file: sockets that a process has open",
        "sockets from before the start are unknown until their next state or bytes; listening sockets are read by sock_diag"),
    signal("listener scan", "raw_tp scan_listener and scan_waiting, run over listening sockets", "sock_diag, without the SYN queue",
        "`listeners` ends with exit code 3; `serve` warns and exports `overwatch_capability`"),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::probes::catalogue::HOOKS;

    #[test]
    fn every_hook_has_a_signal_with_a_second_way() {
        for hook in HOOKS {
            assert!(SIGNALS.iter().any(|signal| signal.name == hook.signal), "{}: {}", hook.program, hook.signal);
        }
        // Two have no hook of the catalogue.
        let unhooked: Vec<_> =
            SIGNALS.iter().filter(|signal| HOOKS.iter().all(|hook| hook.signal != signal.name)).collect();
        assert_eq!(unhooked.iter().map(|signal| signal.name).collect::<Vec<_>>(), ["initial dump", "listener scan"]);
    }

    #[test]
    fn the_documentation_has_the_table() {
        let mut table = String::from("| signal | first way | second way | without both |\n|---|---|---|---|\n");
        for Signal { name, first, second, without_both } in SIGNALS {
            writeln!(table, "| {name} | {first} | {second} | {without_both} |").unwrap();
        }
        assert!(include_str!("../../../docs/requirements.md").contains(&table), "docs/requirements.md lacks\n{table}");
    }
}
