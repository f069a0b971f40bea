use std::path::Path;

use aya::sys::SyscallError;

use super::*;
use crate::probes::attach::cause;

/// A host on which nothing is wrong.
fn host() -> HostFacts {
    HostFacts {
        kernel_release: "6.1.0-50-cloud-amd64".into(),
        may_load: true,
        proc_error: None,
        initial_user_namespace: true,
        seccomp_filter: Some(false),
        open_files_limit: Some(1_024),
        memlock_bytes: Some(8_388_608),
        ..HostFacts::read(Path::new("/nonexistent"))
    }
}

/// Error, operation, host, what the line has, what it has not.
type Case = (Errno, Operation, HostFacts, &'static [&'static str], &'static [&'static str]);

#[test]
fn an_error_says_what_failed_why_and_what_to_do() {
    let maps = || Operation::CreateMaps(64 << 20);
    let attach = || Operation::Attach("fexit:tcp_sendmsg".to_owned());
    let btf = || Operation::Read("/sys/kernel/btf/vmlinux".to_owned());
    let in_namespace = || HostFacts { initial_user_namespace: false, ..host() };
    let filtered = || HostFacts { seccomp_filter: Some(true), ..host() };
    let old = || HostFacts { kernel_release: "5.10.0-32-cloud-amd64".into(), ..host() };
    let unlimited = || HostFacts { memlock_bytes: None, ..old() };
    let of = |limit| HostFacts { open_files_limit: limit, ..host() };
    #[rustfmt::skip]
    let cases: &[Case] = &[
        (Errno::EMFILE, maps(), of(Some(20)), &["cannot create the maps", "EMFILE", "its limit is 20", "ulimit -n"], &["5.11", "fentry"]),
        (Errno::EMFILE, attach(), of(Some(20)), &["cannot attach fexit:tcp_sendmsg", "its limit is 20", "LimitNOFILE="], &["5.11"]),
        (Errno::EMFILE, btf(), of(None), &["cannot read /sys/kernel/btf/vmlinux", "(EMFILE);"], &["limit is", "CONFIG_"]),
        (Errno::ENFILE, Operation::ListSockets, host(), &["cannot list the open sockets", "ENFILE", "fs.file-max"], &["ulimit"]),
        (Errno::ENOMEM, maps(), host(), &["about 64 MiB", "--max-connections", "MemoryMax="], &["5.11"]),
        (Errno::ENOMEM, attach(), host(), &["cannot attach", "ENOMEM", "MemoryMax="], &["--max-connections"]),
        (Errno::E2BIG, maps(), host(), &["too large", "--max-connections"], &["verifier"]),
        (Errno::E2BIG, attach(), host(), &["verifier", "report"], &["--max-connections"]),
        (Errno::ENOSYS, maps(), host(), &["no bpf(2)", "CONFIG_BPF_SYSCALL", "seccomp"], &[]),
        (Errno::EPERM, maps(), in_namespace(), &["in a user namespace", "root of the host"], &["Likely", "5.11", "seccomp"]),
        // A filter does not change what the kernel itself says in a user namespace.
        (Errno::EPERM, maps(), HostFacts { seccomp_filter: Some(true), ..in_namespace() }, &["in a user namespace"], &["seccomp"]),
        (Errno::EPERM, maps(), filtered(), &["gives no reason", "Likely reasons: the seccomp filter", "security module", "--privileged"], &["5.11"]),
        (Errno::EPERM, maps(), old(), &["gives no reason", "Likely reasons: the limit on locked memory of 8388608", "ulimit -l"], &["seccomp"]),
        (Errno::EPERM, maps(), unlimited(), &["gives no reason", "security module", "audit log"], &["locked memory", "seccomp"]),
        (Errno::EPERM, attach(), host(), &["cannot attach", "gives no reason", "hardened kernel"], &["locked memory", "5.11"]),
        // A release that is not understood may be an old one.
        (Errno::EPERM, maps(), HostFacts { kernel_release: "custom".into(), ..host() }, &["locked memory"], &[]),
        (Errno::EACCES, btf(), host(), &["cannot read /sys/kernel/btf/vmlinux: LINE", "sudo"], &["CONFIG_"]),
        (Errno::EIO, btf(), host(), &["cannot read /sys/kernel/btf/vmlinux: LINE", "overwatch check -v"], &["sudo"]),
        (Errno::EINVAL, maps(), host(), &["cannot create the maps: LINE", "overwatch check -v"], &["5.11", "seccomp"]),
    ];
    for (errno, operation, host, has, has_not) in cases {
        let refusal = explain(operation, Some(*errno), "LINE", host).to_string();
        assert!(!refusal.contains('\n'), "one line: {refusal}");
        for word in *has {
            assert!(refusal.contains(word), "{errno:?} {operation}: {word:?} is not in: {refusal}");
        }
        for word in *has_not {
            assert!(!refusal.contains(word), "{errno:?} {operation}: {word:?} is in: {refusal}");
        }
    }
    let unknown = explain(&maps(), None, "LINE", &host());
    assert_eq!(unknown.reason, "cannot create the maps: LINE");
}

#[test]
fn the_number_of_an_error_is_found_wherever_it_is() {
    let denied = || io::Error::from_raw_os_error(libc::EACCES);
    let errors: [(Box<dyn Error>, Option<Errno>); 7] = [
        (Box::new(denied()), Some(Errno::EACCES)),
        (Box::new(Errno::EMFILE), Some(Errno::EMFILE)),
        (Box::new(ProgramError::IOError(denied())), Some(Errno::EACCES)),
        (Box::new(ProgramError::MapError(MapError::IoError(denied()))), Some(Errno::EACCES)),
        (Box::new(ProgramError::SyscallError(SyscallError { call: "x", io_error: denied() })), Some(Errno::EACCES)),
        (Box::new(MapError::CreateError { name: "x".to_owned(), io_error: denied() }), Some(Errno::EACCES)),
        (Box::new(ProgramError::NotLoaded), None),
    ];
    for (error, expected) in errors {
        assert_eq!(errno(error.as_ref()), expected, "{error:?}");
        assert_eq!(cause(error.as_ref()).errno, expected, "{error:?}");
    }
}

#[test]
fn a_limit_that_leaves_few_files_is_said() {
    for (open, limit, is_said) in [
        (Some(60), Some(1_024), false),
        (Some(60), Some(76), false),
        (Some(60), Some(75), true),
        (Some(60), Some(60), true),
        // The limit was lowered since.
        (Some(60), Some(20), true),
        (None, Some(60), true),
        (Some(60), None, false),
        (None, None, false),
    ] {
        let degradation = few_files(open, limit);
        assert_eq!(degradation.is_some(), is_said, "{open:?} of {limit:?}: {degradation:?}");
    }
}

#[test]
fn a_release_begins_with_two_numbers() {
    for (release, expected) in
        [("6.18.44-fc", Some((6, 18))), ("5.10.0-32", Some((5, 10))), ("6.1", Some((6, 1))), ("x", None), ("6", None)]
    {
        assert_eq!(version(release), expected, "{release}");
    }
}
