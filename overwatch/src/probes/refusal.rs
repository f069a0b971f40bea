//! From an error of the kernel to what a user reads: what failed, why as far as the facts show it, and what to do. Pure.

use std::{error::Error, fmt, io};

use aya::{maps::MapError, programs::ProgramError};
use nix::errno::Errno;

use super::{
    attach::Degradation,
    capabilities::{Capability, Level},
    plan::Refusal,
};
use crate::kernel::host::HostFacts;

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creating the maps, and their size in bytes, about.
    CreateMaps(u64),
    /// Loading a program or attaching it, by its hook.
    Attach(String),
    /// Loading the program that lists the open sockets, or running it.
    ListSockets,
    /// Reading a file.
    Read(String),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateMaps(_) => f.write_str("create the maps"),
            Self::Attach(hook) => write!(f, "attach {hook}"),
            Self::ListSockets => f.write_str("list the open sockets"),
            Self::Read(path) => write!(f, "read {path}"),
        }
    }
}

const MORE_FILES: &str = "raise the limit on open files to 1024: ulimit -n 1024, or LimitNOFILE=1024 in the unit";
const HOST_FILES: &str = "raise the sysctl fs.file-max, or find the process that has them: cat /proc/sys/fs/file-nr";
/// What to do in a user namespace.
pub(super) const OUTSIDE: &str =
    "run overwatch as root of the host, outside of the user namespace (rootless container, unshare --user)";
/// From this kernel on maps are charged to the control group, not to RLIMIT_MEMLOCK.
const NO_MEMLOCK: (u32, u32) = (5, 11);
/// Fewer free descriptors than this do not suffice to read /proc while overwatch runs.
const SPARE_FILES: u64 = 16;

/// What to do about an error of `operation`, of which `line` is all that is known beside the number.
pub fn explain(operation: &Operation, errno: Option<Errno>, line: &str, host: &HostFacts) -> Refusal {
    let cannot = |why: String| format!("cannot {operation}: {why}");
    let is_bpf = !matches!(operation, Operation::Read(_));
    match (errno, operation) {
        (Some(Errno::EMFILE), _) => {
            let limit = host.open_files_limit.map_or_else(String::new, |limit| format!(", its limit is {limit}"));
            Refusal::new(cannot(format!("this process may not open more files (EMFILE){limit}")), MORE_FILES)
        }
        (Some(Errno::ENFILE), _) => {
            Refusal::new(cannot("the host cannot open more files (ENFILE)".to_owned()), HOST_FILES)
        }
        (Some(Errno::ENOMEM), Operation::CreateMaps(bytes)) => Refusal::new(
            cannot(format!("the kernel has no memory for them (ENOMEM), they need about {} MiB", bytes >> 20)),
            "use a smaller --max-connections, or raise the memory limit of the control group (MemoryMax=)",
        ),
        (Some(Errno::ENOMEM), _) => Refusal::new(
            cannot("the kernel has no memory for it (ENOMEM)".to_owned()),
            "free memory, or raise the memory limit of the control group (MemoryMax=)",
        ),
        (Some(Errno::E2BIG), Operation::CreateMaps(_)) => Refusal::new(
            cannot("one is too large for this kernel (E2BIG)".to_owned()),
            "use a smaller --max-connections",
        ),
        (Some(Errno::E2BIG), _) if is_bpf => Refusal::new(
            cannot("the program is too large for this kernel's verifier (E2BIG)".to_owned()),
            "try another --attach, and please report this kernel's version",
        ),
        (Some(Errno::ENOSYS), _) if is_bpf => Refusal::new(
            cannot("there is no bpf(2) here (ENOSYS)".to_owned()),
            "overwatch needs a kernel with CONFIG_BPF_SYSCALL=y; in a container, its seccomp profile may hide bpf(2)",
        ),
        (Some(Errno::EPERM), _) if is_bpf => not_permitted(&cannot, host),
        (Some(Errno::EACCES | Errno::EPERM), Operation::Read(_)) => Refusal::new(
            cannot(line.to_owned()),
            "run it as root, for instance with sudo; a service needs CAP_DAC_READ_SEARCH for files of root",
        ),
        _ => Refusal::new(cannot(line.to_owned()), "overwatch check -v shows what this host offers"),
    }
}

/// The kernel has one number for many reasons, and says no more.
fn not_permitted(cannot: &dyn Fn(String) -> String, host: &HostFacts) -> Refusal {
    if !host.initial_user_namespace {
        return Refusal::new(
            cannot(
                "bpf(2) is not permitted (EPERM) in a user namespace, whatever capabilities a process has there"
                    .to_owned(),
            ),
            OUTSIDE,
        );
    }
    let memlock = host.memlock_bytes.filter(|_| version(&host.kernel_release).is_none_or(|of| of < NO_MEMLOCK));
    let reasons = [
        memlock.map(|bytes| {
            let reason =
                format!("the limit on locked memory of {bytes} bytes, which kernels before 5.11 hold maps against");
            (reason, "ulimit -l unlimited, LimitMEMLOCK=infinity, or a smaller --max-connections")
        }),
        (host.seccomp_filter == Some(true)).then(|| {
            let reason = "the seccomp filter of this process (Docker's default profile forbids bpf(2))".to_owned();
            (
                reason,
                "run the container with --privileged or a profile that permits bpf(2); in a unit, SystemCallFilter=bpf",
            )
        }),
        Some((
            "a security module (SELinux, AppArmor) or a hardened kernel".to_owned(),
            "look into the audit log and the kernel's log: dmesg, journalctl -k",
        )),
    ];
    let (reasons, advice): (Vec<_>, Vec<_>) = reasons.into_iter().flatten().unzip();
    Refusal::new(
        cannot(format!("the kernel refused it (EPERM) and gives no reason. Likely reasons: {}", reasons.join("; or "))),
        advice.join("; or "),
    )
}

/// True when no other hook can be had either: the process or the host has run out of something.
pub fn is_exhausted(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
}

/// What to do about an error of a verb that runs, where that is known without more facts.
pub fn advice(errno: Option<Errno>) -> Option<&'static str> {
    match errno {
        Some(Errno::EMFILE) => Some(MORE_FILES),
        Some(Errno::ENFILE) => Some(HOST_FILES),
        _ => None,
    }
}

/// What is lost with this many files open; `None` where no file could be opened to count them.
pub fn few_files(open: Option<u64>, limit: Option<u64>) -> Option<Degradation> {
    let limit = limit.filter(|limit| open.is_none_or(|open| limit.saturating_sub(open) < SPARE_FILES))?;
    let open = open.map_or_else(|| "all that may be".to_owned(), |open| open.to_string());
    Some(Degradation {
        what: "open files".to_owned(),
        why: format!("{open} are open and the limit is {limit}: {MORE_FILES}"),
        loss: "while no file can be opened, owners of sockets are not found and network namespaces are not entered",
        concerns: &[Capability::Life, Capability::Listeners],
        leaves: Level::Partial,
    })
}

/// The number that an error has, or one of its causes.
pub fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| {
        if let Some(errno) = error.downcast_ref::<Errno>() {
            return Some(*errno);
        }
        let io_error = error.downcast_ref::<io::Error>();
        // Transparent ones have the source of what they stand for, and so are not followed by it.
        let io_error = io_error.or_else(|| match error.downcast_ref::<ProgramError>()? {
            ProgramError::IOError(io_error) | ProgramError::MapError(MapError::IoError(io_error)) => Some(io_error),
            _ => None,
        });
        io_error?.raw_os_error().map(Errno::from_raw)
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests;
