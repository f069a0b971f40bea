//! Plans for five kernels, none of which runs here.

use nix::errno::Errno;
use overwatch_common::kernel::ABSENT;

use super::*;
use crate::kernel::{
    fixtures::{Builder, KERNELS},
    host::BtfUnavailable,
};

/// A host that may run overwatch on this kernel.
fn host(facts: KernelFacts, kprobes: bool) -> HostFacts {
    HostFacts {
        host: "web1".into(),
        kernel_release: "6.1.0-50-cloud-amd64".into(),
        btf: Ok(facts),
        kprobes,
        lockdown: Some("none".into()),
        may_load: true,
        may_inspect: true,
        initial_pid_namespace: true,
        proc_error: None,
        initial_user_namespace: true,
        seccomp_filter: Some(false),
        open_files_limit: Some(1_024),
        memlock_bytes: None,
        bpf_stats_enabled: Some(false),
    }
}

fn facts(kernel: &str) -> KernelFacts {
    let kernel = KERNELS.iter().find(|of| of.name == kernel).unwrap();
    KernelFacts::from_btf(kernel.btf).unwrap()
}

fn plans(facts: KernelFacts, kprobes: bool, attach: Attach) -> Vec<TierPlan> {
    let host = host(facts, kprobes);
    plan(&host, prerequisites(&host).unwrap(), attach, Interest::Rows)
}

/// The hooks of a plan as `program@target`.
fn hooks(plan: &TierPlan) -> Vec<String> {
    plan.hooks.iter().map(|hook| format!("{}@{}", hook.program, hook.target)).collect()
}

fn impossible(plan: &TierPlan) -> Option<String> {
    plan.impossible.as_ref().map(|(hook, absence)| format!("{}: {absence}", hook.target))
}

const NO_KPROBES: &str = "kprobe:tcp_sendmsg: this kernel is built without kprobes";
const NO_SEND_LENGTH: &str = "tp_btf:sock_send_length: not in this kernel";

#[test]
fn tiers_are_possible_where_the_kernel_has_what_they_need() {
    for kernel in &KERNELS {
        let old = ["5.10", "6.1"].contains(&kernel.name);
        for kprobes in [false, true] {
            let expected = [
                (Tier::Fentry, None),
                (Tier::Kprobe, (!kprobes).then_some(NO_KPROBES)),
                (Tier::Tracepoint, old.then_some(NO_SEND_LENGTH)),
            ];
            let found: Vec<_> = plans(facts(kernel.name), kprobes, Attach::Auto)
                .iter()
                .map(|plan| (plan.tier, impossible(plan)))
                .collect();
            let expected = expected.map(|(tier, reason)| (tier, reason.map(str::to_owned)));
            assert_eq!(found, expected, "{} with kprobes: {kprobes}", kernel.name);
            // Asked for one, that one is tried and no other, whether it is possible or not.
            for (tier, reason) in expected {
                let only = plans(facts(kernel.name), kprobes, Attach::Only(tier));
                let found: Vec<_> = only.iter().map(|plan| (plan.tier, impossible(plan))).collect();
                assert_eq!(found, [(tier, reason)], "{} with kprobes: {kprobes}", kernel.name);
            }
        }
    }
}

#[test]
fn every_plan_has_its_hooks_in_order_and_sendpage_only_where_it_exists() {
    const COMMON: [&str; 6] = [
        "destroyed@tp_btf:tcp_destroy_sock",
        "state_changed@tp_btf:inet_sock_set_state",
        "destroyed_again@tracepoint:tcp:tcp_destroy_sock",
        "state_changed_again@tracepoint:sock:inet_sock_set_state",
        "reset_sent@tp_btf:tcp_send_reset",
        "reset_received@tp_btf:tcp_receive_reset",
    ];
    const FENTRY: [&str; 7] = [
        "sendmsg_exit@fexit:tcp_sendmsg",
        "sendpage_exit@fexit:tcp_sendpage",
        "recvmsg_exit@fexit:tcp_recvmsg",
        "splice_read_exit@fexit:tcp_splice_read",
        "accept_exit@fexit:inet_csk_accept",
        "connect_v4_exit@fexit:tcp_v4_connect",
        "connect_v6_exit@fexit:tcp_v6_connect",
    ];
    const KPROBE: [&str; 14] = [
        "thread_ended@tp_btf:sched_process_exit",
        "sendmsg_enter@kprobe:tcp_sendmsg",
        "send_return@kretprobe:tcp_sendmsg",
        "sendpage_enter@kprobe:tcp_sendpage",
        "send_return@kretprobe:tcp_sendpage",
        "recvmsg_enter@kprobe:tcp_recvmsg",
        "recvmsg_return@kretprobe:tcp_recvmsg",
        "splice_read_enter@kprobe:tcp_splice_read",
        "splice_read_return@kretprobe:tcp_splice_read",
        "accept_return@kretprobe:inet_csk_accept",
        "connect_v4_enter@kprobe:tcp_v4_connect",
        "connect_return@kretprobe:tcp_v4_connect",
        "connect_v6_enter@kprobe:tcp_v6_connect",
        "connect_return@kretprobe:tcp_v6_connect",
    ];
    const TRACEPOINT: [&str; 5] = [
        "send_length@tp_btf:sock_send_length",
        "recv_length@tp_btf:sock_recv_length",
        "accept_syscall@tracepoint:syscalls:sys_exit_accept4",
        "accept_syscall@tracepoint:syscalls:sys_exit_accept",
        "connect_syscall@tracepoint:syscalls:sys_exit_connect",
    ];
    for kernel in &KERNELS {
        let old = ["5.10", "6.1"].contains(&kernel.name);
        for plan in plans(facts(kernel.name), true, Attach::Auto) {
            let own = match plan.tier {
                Tier::Fentry => &FENTRY[..],
                Tier::Kprobe => &KPROBE[..],
                Tier::Tracepoint if old => &TRACEPOINT[2..],
                Tier::Tracepoint => &TRACEPOINT[..],
            };
            let expected: Vec<_> =
                COMMON.iter().chain(own).copied().filter(|hook| old || !hook.ends_with(":tcp_sendpage")).collect();
            assert_eq!(hooks(&plan), expected, "{} tier on {}", plan.tier, kernel.name);
            // A function that is not missed is not reported as missing.
            assert!(plan.absent.is_empty(), "{} tier on {}: {:?}", plan.tier, kernel.name, plan.absent);
        }
    }
}

/// What the plans for queues have beside those for rows, and what they do without.
#[test]
fn hooks_for_queues_are_in_plans_of_those_who_want_queues_only() {
    const REFUSALS: [&str; 3] = [
        "syn_received@kprobe:tcp_conn_request",
        "last_ack_v4@kprobe:tcp_v4_syn_recv_sock",
        "last_ack_v6@kprobe:tcp_v6_syn_recv_sock",
    ];
    const ACCEPT: &str = "accept_enter@kprobe:inet_csk_accept";
    const DROPPED: &str = "packet_dropped@tp_btf:kfree_skb";
    const NO_REASON: &str = "this kernel has no SKB_DROP_REASON_TCP_LISTEN_OVERFLOW";
    for kernel in &KERNELS {
        for (kprobes, interest) in [
            (true, Interest::Queues),
            (false, Interest::Queues),
            (true, Interest::Service),
            (false, Interest::Service),
            (true, Interest::Rows),
            (true, Interest::Ends),
            (true, Interest::Changes),
        ] {
            let host = host(facts(kernel.name), kprobes);
            let facts = prerequisites(&host).unwrap();
            let rows = plan(&host, facts, Attach::Auto, Interest::Rows);
            for (plan, rows) in plan(&host, facts, Attach::Auto, interest).iter().zip(&rows) {
                let common = hooks(rows);
                let more: Vec<_> = hooks(plan).into_iter().filter(|hook| !common.contains(hook)).collect();
                let absent: Vec<_> = plan.absent.iter().map(|(hook, why)| format!("{}: {why}", hook.target)).collect();
                let has_reason = ["6.18", "7.2"].contains(&kernel.name);
                let (expected, missing) = match (interest.wants_queues(), plan.tier, kprobes) {
                    (true, Tier::Fentry, true) => (REFUSALS.to_vec(), Vec::new()),
                    (true, Tier::Kprobe, true) => ([&[ACCEPT], &REFUSALS[..]].concat(), Vec::new()),
                    (true, Tier::Fentry, false) => {
                        let why = |hook: &str| {
                            let target = hook.split_once('@').unwrap().1;
                            format!("{target}: this kernel is built without kprobes")
                        };
                        (Vec::new(), REFUSALS.map(why).to_vec())
                    }
                    (true, Tier::Tracepoint, _) if has_reason => (vec![DROPPED], Vec::new()),
                    (true, Tier::Tracepoint, _) => (Vec::new(), vec![format!("tp_btf:kfree_skb: {NO_REASON}")]),
                    (_, _, true) => (Vec::new(), Vec::new()),
                    // Without kprobes this tier is impossible anyhow.
                    (_, _, false) => continue,
                };
                let what = format!("{interest:?} in the {} tier on {}, kprobes: {kprobes}", plan.tier, kernel.name);
                assert_eq!(more, expected, "{what}");
                assert_eq!(absent, missing, "{what}");
                assert_eq!(plan.interest, interest, "{what}");
            }
        }
    }
}

#[test]
fn entry_probes_stand_before_the_return_probes_of_the_same_function() {
    let mut pairs = 0;
    for (index, hook) in HOOKS.iter().enumerate() {
        if let Target::Kprobe(function) = hook.target
            && let Some(back) = HOOKS.iter().position(|other| other.target == Target::Kretprobe(function))
        {
            assert_eq!(back, index + 1, "{function}");
            pairs += 1;
        }
    }
    let returns = HOOKS.iter().filter(|hook| matches!(hook.target, Target::Kretprobe(_))).count();
    assert_eq!(pairs, returns, "each return probe has an entry probe");
}

/// What a doctored fact does to the three tiers: `!` makes one impossible, `-` takes that many wanted hooks from it.
#[test]
fn a_strange_prototype_makes_a_required_hook_impossible_and_a_wanted_one_absent() {
    for (kernel, global, argument, expected) in [
        ("6.12", "SENDMSG_SK", "sk", ["!", "!", ""]),
        ("6.12", "SENDMSG_RETURN", "return", ["!", "!", ""]),
        ("6.12", "RECVMSG_SK", "sk", ["!", "!", ""]),
        ("6.12", "RECVMSG_FLAGS", "flags", ["!", "!", ""]),
        ("6.12", "SPLICE_READ_SOCKET", "sock", ["-", "--", ""]),
        ("6.12", "SPLICE_READ_RETURN", "return", ["-", "--", ""]),
        ("6.12", "ACCEPT_SK", "sk", ["-", "-", ""]),
        ("6.12", "ACCEPT_RETURN", "return", ["-", "-", ""]),
        ("6.12", "CONNECT_V4_SK", "sk", ["-", "--", ""]),
        ("6.12", "CONNECT_V4_ADDRESS", "uaddr", ["-", "--", ""]),
        ("6.12", "CONNECT_V4_RETURN", "return", ["-", "--", ""]),
        ("6.12", "CONNECT_V6_SK", "sk", ["-", "--", ""]),
        ("6.12", "CONNECT_V6_ADDRESS", "uaddr", ["-", "--", ""]),
        ("6.12", "CONNECT_V6_RETURN", "return", ["-", "--", ""]),
        ("6.12", "STATE_SK", "sock", ["-", "-", "-"]),
        ("6.12", "STATE_OLD", "int 0", ["-", "-", "-"]),
        ("6.12", "STATE_NEW", "int 1", ["-", "-", "-"]),
        ("6.12", "DESTROY_SK", "sock", ["-", "-", "-"]),
        // Every tier has these, and every tier works without them.
        ("6.12", "SEND_RESET_SK", "sock", ["-", "-", "-"]),
        ("6.12", "RECEIVE_RESET_SK", "sock", ["-", "-", "-"]),
        ("6.12", "SEND_LENGTH_SK", "sock", ["", "", "!"]),
        ("6.12", "SEND_LENGTH_RESULT", "int 0", ["", "", "!"]),
        ("6.12", "RECV_LENGTH_SK", "sock", ["", "", "!"]),
        ("6.12", "RECV_LENGTH_FLAGS", "int 1", ["", "", "!"]),
        // Where it exists, its bytes would be missing; where it does not, nothing is.
        ("5.10", "SENDPAGE_SK", "sk", ["!", "!", "!"]),
        ("6.1", "SENDPAGE_RETURN", "return", ["!", "!", "!"]),
        ("6.12", "SENDPAGE_RETURN", "return", ["", "", ""]),
    ] {
        let mut doctored = facts(kernel);
        *doctored.globals.get_mut(global).unwrap() = ABSENT;
        let plans = plans(doctored, true, Attach::Auto);
        let found = plans.iter().map(|plan| match &plan.impossible {
            Some(_) => "!".to_owned(),
            None => "-".repeat(plan.absent.len()),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{global} on {kernel}");
        let absences = plans.iter().flat_map(|plan| plan.impossible.iter().chain(&plan.absent));
        for (hook, absence) in absences.filter(|(_, absence)| *absence != Absence::NotInKernel) {
            assert_eq!(*absence, Absence::StrangePrototype(vec![argument]), "{global} on {kernel}: {}", hook.target);
            assert_eq!(absence.to_string(), format!("this kernel's prototype has no argument {argument}"));
        }
    }
}

#[test]
fn a_function_that_is_gone_costs_what_it_was_needed_for() {
    for (function, expected) in [
        ("tcp_sendmsg", ["!", "!", ""]),
        ("tcp_recvmsg", ["!", "!", ""]),
        ("tcp_splice_read", ["-", "--", ""]),
        ("inet_csk_accept", ["-", "-", ""]),
        ("tcp_v4_connect", ["-", "--", ""]),
        // As on kernels with IPv6 in a module.
        ("tcp_v6_connect", ["-", "--", ""]),
        ("btf_trace_tcp_destroy_sock", ["-", "-", "-"]),
        ("btf_trace_inet_sock_set_state", ["-", "-", "-"]),
        ("btf_trace_tcp_send_reset", ["-", "-", "-"]),
        ("btf_trace_tcp_receive_reset", ["-", "-", "-"]),
        ("btf_trace_sched_process_exit", ["", "!", ""]),
        ("btf_trace_sock_send_length", ["", "", "!"]),
        ("btf_trace_sock_recv_length", ["", "", "!"]),
    ] {
        let mut without = facts("7.2");
        assert!(without.prototypes.remove(function), "{function}");
        let found = plans(without, true, Attach::Auto).iter().map(marks).collect::<Vec<_>>();
        assert_eq!(found, expected, "{function}");
    }
}

/// Whether a tracepoint with a record exists shows when it is attached, so that no plan may leave it out or take it for
/// impossible. Only its layout is asked of BTF.
#[test]
fn tracepoints_with_records_are_in_every_plan_whatever_prototypes_the_kernel_has() {
    const COMMON: [&str; 2] =
        ["destroyed_again@tracepoint:tcp:tcp_destroy_sock", "state_changed_again@tracepoint:sock:inet_sock_set_state"];
    const SYSCALLS: [&str; 3] = [
        "accept_syscall@tracepoint:syscalls:sys_exit_accept4",
        "accept_syscall@tracepoint:syscalls:sys_exit_accept",
        "connect_syscall@tracepoint:syscalls:sys_exit_connect",
    ];
    for kernel in &KERNELS {
        let mut without = facts(kernel.name);
        without.prototypes.clear();
        let plans = plans(without, true, Attach::Auto);
        let found: Vec<_> = plans.iter().map(|plan| (plan.tier, hooks(plan))).collect();
        let expected = [(Tier::Fentry, &[][..]), (Tier::Kprobe, &[]), (Tier::Tracepoint, &SYSCALLS)]
            .map(|(tier, own)| (tier, COMMON.iter().chain(own).map(|hook| (*hook).to_owned()).collect::<Vec<_>>()));
        assert_eq!(found, expected, "{}", kernel.name);
        // They stand in for the others at the same tracepoint, and not for what sees bytes.
        for (plan, missing) in
            plans.iter().zip(["fexit:tcp_sendmsg", "tp_btf:sched_process_exit", "tp_btf:sock_send_length"])
        {
            let reason = Some(format!("{missing}: not in this kernel"));
            assert_eq!(impossible(plan), reason, "{} tier on {}", plan.tier, kernel.name);
        }
    }
}

fn marks(plan: &TierPlan) -> String {
    match &plan.impossible {
        Some((_, absence)) => {
            assert_eq!(absence.to_string(), "not in this kernel");
            "!".to_owned()
        }
        None => "-".repeat(plan.absent.len()),
    }
}

#[test]
fn a_host_that_cannot_run_it_is_told_why_and_what_would_help() {
    let good = || host(facts("6.1"), true);
    let refused = |host: &HostFacts| prerequisites(host).err().map(|refusal| refusal.to_string());
    let nothing = || KernelFacts::from_btf(&Builder::new().bytes()).unwrap();
    let mut no_state = facts("6.1");
    no_state.missing.push("member sk_state of struct sock".into());
    let unavailable = |btf| HostFacts { btf: Err(btf), ..good() };
    let path = || "/sys/kernel/btf/vmlinux".to_owned();
    let unreadable =
        |errno: Errno| BtfUnavailable::Unreadable { path: path(), line: errno.to_string(), errno: Some(errno) };
    for (host, words) in [
        (HostFacts { may_load: false, ..good() }, ["CAP_BPF", "root"]),
        (HostFacts { lockdown: Some("confidentiality".into()), ..good() }, ["locked down", "lockdown=integrity"]),
        (unavailable(BtfUnavailable::Absent(path())), ["vmlinux does not exist", "CONFIG_DEBUG_INFO_BTF=y"]),
        (unavailable(BtfUnavailable::NoSysfs(path())), ["no sysfs is mounted at /sys", "mount -t sysfs"]),
        (unavailable(unreadable(Errno::EACCES)), ["cannot read /sys/kernel/btf/vmlinux: EACCES", "sudo"]),
        (unavailable(unreadable(Errno::EMFILE)), ["its limit is 1024", "ulimit -n"]),
        (
            HostFacts { proc_error: Some("not there".into()), may_load: false, ..good() },
            ["/proc/self/status", "mount -t proc"],
        ),
        (
            HostFacts { initial_user_namespace: false, may_load: false, ..good() },
            ["CAP_BPF", "outside of the user namespace"],
        ),
        (unavailable(BtfUnavailable::Malformed(path(), "not BTF".into())), ["not BTF", "CONFIG_DEBUG_INFO_BTF=y"]),
        (host(no_state, true), ["6.1.0-50-cloud-amd64", "report"]),
        (host(nothing(), true), ["no member bytes_received of struct tcp_sock", "report"]),
        // The reason that comes first is the one that the user can do something about.
        (
            HostFacts {
                may_load: false,
                lockdown: Some("confidentiality".into()),
                ..unavailable(BtfUnavailable::Absent(path()))
            },
            ["CAP_BPF", "root"],
        ),
    ] {
        let line = refused(&host).unwrap();
        assert!(!line.contains('\n'), "{line}");
        for word in words {
            assert!(line.contains(word), "{line} does not say {word}");
        }
    }
    // The layout of a record that shows nothing new is no reason.
    assert!(!refused(&host(nothing(), true)).unwrap().contains("trace_event_raw_"));
    // Not reasons to refuse: integrity lockdown, an unreadable lockdown file, no right to look into other processes.
    for lockdown in [None, Some("none"), Some("integrity")] {
        let host = HostFacts { lockdown: lockdown.map(str::to_owned), may_inspect: false, ..good() };
        assert_eq!(refused(&host), None, "{lockdown:?}");
    }
}
