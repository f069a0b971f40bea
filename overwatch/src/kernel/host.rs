//! What this host offers to overwatch, as far as files tell.

use std::{fs, io, ops::RangeInclusive, os::unix::fs::MetadataExt as _, path::Path};

use nix::errno::Errno;

use super::{btf::BtfError, facts::KernelFacts};

/// Where the kernel shows its own type information.
pub const BTF_PATH: &str = "sys/kernel/btf/vmlinux";

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Inode of the initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
/// `Seccomp:` of /proc/PID/status (`SECCOMP_MODE_FILTER`, linux/seccomp.h).
const SECCOMP_FILTER: &str = "2";

/// Capability numbers of `linux/capability.h`.
mod capability {
    pub(super) const SYS_PTRACE: u32 = 19;
    pub(super) const SYS_ADMIN: u32 = 21;
    pub(super) const PERFMON: u32 = 38;
    pub(super) const BPF: u32 = 39;
}

/// Facts about the host. Nothing is decided here: see `probes::plan`.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Host name, as shown in the output.
    pub host: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel's type information, or why there is none.
    pub btf: Result<KernelFacts, BtfUnavailable>,
    /// Whether the kernel can place kprobes for perf events.
    pub kprobes: bool,
    /// Kernel lockdown mode: `none`, `integrity`, `confidentiality`; `None` when it cannot be read.
    pub lockdown: Option<String>,
    /// Why `/proc/self/status` cannot be read, which has the rights of this process; `None` when it can.
    pub proc_error: Option<String>,
    /// In the initial user namespace, where capabilities count for bpf(2).
    pub initial_user_namespace: bool,
    /// Whether a seccomp filter may forbid system calls; `None` when that is not known.
    pub seccomp_filter: Option<bool>,
    /// How many files this process may have open; `None` is no limit.
    pub open_files_limit: Option<u64>,
    /// May load and attach programs.
    pub may_load: bool,
    /// May look into the descriptors of other users' processes and enter their network namespaces.
    pub may_inspect: bool,
    /// In the host's own pid namespace, so that `/proc` has the numbers that the kernel side sees.
    pub initial_pid_namespace: bool,
    /// Limit on locked memory in bytes, which kernels before 5.11 hold BPF maps against; `None` is no limit.
    pub memlock_bytes: Option<u64>,
    /// Programs that count their running time slow every event down a little.
    pub bpf_stats_enabled: Option<bool>,
}

/// Why there is no type information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfUnavailable {
    /// The file is not there.
    #[error("this kernel has no BTF: {0} does not exist")]
    Absent(String),
    /// Nothing is mounted where the file would be.
    #[error("cannot read {0}: no sysfs is mounted at /sys")]
    NoSysfs(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {line}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        line: String,
        /// The same as a number.
        errno: Option<Errno>,
    },
    /// The file is not understood.
    #[error("cannot understand {0}: {1}")]
    Malformed(String, String),
}

impl HostFacts {
    /// True where tasks are preempted inside of programs by default, so that the kernel skips those of others: from Linux 7 on (ADR 6). Others do it
    /// with `preempt=full`, which shows when it has happened.
    pub fn may_skip_programs(&self) -> bool {
        const FIRST: u32 = 7;
        let major = self.kernel_release.split('.').next().and_then(|major| major.parse::<u32>().ok());
        major.is_none_or(|major| major >= FIRST)
    }

    /// Reads the facts below `root`, which is `/` but for tests.
    pub fn read(root: &Path) -> Self {
        let (status, proc_error) = match fs::read_to_string(root.join("proc/self/status")) {
            Ok(status) => (status, None),
            Err(error) => (String::new(), Some(error.to_string())),
        };
        let limits = fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
        let effective = effective_capabilities(&status);
        let has = |number: u32| effective >> number & 1 == 1;
        Self {
            host: trimmed(&root.join("proc/sys/kernel/hostname")).unwrap_or_default(),
            kernel_release: trimmed(&root.join("proc/sys/kernel/osrelease")).unwrap_or_default(),
            btf: read_btf(root),
            kprobes: root.join("sys/bus/event_source/devices/kprobe/type").exists(),
            lockdown: trimmed(&root.join("sys/kernel/security/lockdown")).as_deref().and_then(lockdown_mode),
            proc_error,
            // Without such namespaces (CONFIG_USER_NS=n) there is no such file, and everybody is in the initial one.
            initial_user_namespace: fs::metadata(root.join("proc/self/ns/user"))
                .map_or(true, |metadata| metadata.ino() == INITIAL_USER_NAMESPACE),
            seccomp_filter: field(&status, "Seccomp:").map(|mode| mode == SECCOMP_FILTER),
            open_files_limit: limit(&limits, "Max open files", Limit::Soft),
            may_load: has(capability::SYS_ADMIN) || has(capability::BPF) && has(capability::PERFMON),
            may_inspect: has(capability::SYS_PTRACE) && has(capability::SYS_ADMIN),
            initial_pid_namespace: fs::metadata(root.join("proc/self/ns/pid"))
                .is_ok_and(|metadata| metadata.ino() == INITIAL_PID_NAMESPACE),
            memlock_bytes: limit(&limits, "Max locked memory", Limit::Hard),
            bpf_stats_enabled: trimmed(&root.join("proc/sys/kernel/bpf_stats_enabled")).map(|text| text != "0"),
        }
    }
}

fn read_btf(root: &Path) -> Result<KernelFacts, BtfUnavailable> {
    let path = root.join(BTF_PATH);
    let shown = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if !root.join("sys/kernel").exists() => BtfUnavailable::NoSysfs(shown.clone()),
        io::ErrorKind::NotFound => BtfUnavailable::Absent(shown.clone()),
        _ => BtfUnavailable::Unreadable {
            path: shown.clone(),
            line: error.to_string(),
            errno: error.raw_os_error().map(Errno::from_raw),
        },
    })?;
    KernelFacts::from_btf(&bytes).map_err(|error: BtfError| BtfUnavailable::Malformed(shown, error.to_string()))
}

fn trimmed(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The mode in brackets of `none [integrity] confidentiality`.
fn lockdown_mode(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

fn effective_capabilities(status: &str) -> u64 {
    field(status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Which of the two limits counts.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Soft,
    /// Overwatch raises the soft one to it.
    Hard,
}

fn limit(limits: &str, name: &str, which: Limit) -> Option<u64> {
    let mut numbers = field(limits, name)?.split_whitespace();
    match which {
        Limit::Soft => numbers.next(),
        Limit::Hard => numbers.nth(1),
    }?
    .parse()
    .ok()
}

/// The ports that the kernel chooses for clients (`net.ipv4.ip_local_port_range`); its default where that cannot be read.
pub fn ephemeral_ports(root: &Path) -> RangeInclusive<u16> {
    let text = fs::read_to_string(root.join("proc/sys/net/ipv4/ip_local_port_range")).unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32_768..=60_999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_mode_is_the_one_in_brackets() {
        for (text, mode) in [
            ("[none] integrity confidentiality", Some("none")),
            ("none integrity [confidentiality]", Some("confidentiality")),
            ("none integrity", None),
            ("", None),
        ] {
            assert_eq!(lockdown_mode(text).as_deref(), mode, "{text}");
        }
    }

    #[test]
    fn programs_are_skipped_from_linux_7_on() {
        for (release, may_skip) in [
            ("5.10.0-32-cloud-amd64", false),
            ("6.18.44", false),
            ("7.0.0-rc1", true),
            ("7.2.13+deb14-cloud-amd64", true),
            ("10.1", true),
            ("", true),
        ] {
            let facts = HostFacts { kernel_release: release.to_owned(), ..HostFacts::read(Path::new("/nonexistent")) };
            assert_eq!(facts.may_skip_programs(), may_skip, "{release}");
        }
    }

    #[test]
    fn capabilities_come_from_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000000c000000000\n";
        assert_eq!(effective_capabilities(status), 0b11 << 38);
        assert_eq!(effective_capabilities("nonsense"), 0);
    }

    #[test]
    fn a_limit_has_two_numbers_and_unlimited_is_none() {
        const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max locked memory         8388608              unlimited            bytes     \n\
            Max open files            1024                 20000                files     \n";
        for (name, which, expected) in [
            ("Max locked memory", Limit::Soft, Some(8_388_608)),
            ("Max locked memory", Limit::Hard, None),
            ("Max open files", Limit::Soft, Some(1_024)),
            ("Max open files", Limit::Hard, Some(20_000)),
            ("Max pending signals", Limit::Soft, None),
        ] {
            assert_eq!(limit(LIMITS, name, which), expected, "{name} {which:?}");
        }
    }

    #[test]
    fn a_host_without_files_offers_nothing_and_says_why() {
        let facts = HostFacts::read(Path::new("/nonexistent"));
        assert!(!facts.may_load && !facts.kprobes);
        assert!(matches!(facts.btf, Err(BtfUnavailable::NoSysfs(_))));
        assert!(facts.proc_error.is_some_and(|error| error.contains("No such file")));
        assert_eq!((facts.initial_user_namespace, facts.seccomp_filter, facts.open_files_limit), (true, None, None));
    }
}
