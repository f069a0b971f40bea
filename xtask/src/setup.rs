//! `cargo xtask setup`: what building and testing need beside stable Rust.
//!
//! On Debian, as root, it installs what is missing. Elsewhere it says what is missing and how to get it.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Suite};
use crate::shell;
use crate::toolchain::{self, BPF_LINKER, LLVM};

/// Install what is missing (on Debian, as root), or say what it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these groups; all of them without any.
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Install nothing.
    #[arg(long)]
    check: bool,
}

/// What a part of the work needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// To build the eBPF object.
    Toolchain,
    /// To check the style of the sources.
    Lint,
    /// To boot kernels.
    Guest,
    /// To run the privileged tests here.
    Tests,
    /// To compare overwatch with others.
    Bench,
    /// To build libFuzzer.
    Fuzz,
}

/// One thing that must be there.
struct Item {
    group: Group,
    what: &'static str,
    present: Present,
    get: Get,
    /// For people on other systems.
    hint: &'static str,
}

/// How to tell that it is there.
enum Present {
    Program,
    Check(fn() -> bool),
}

impl Item {
    fn present(&self) -> bool {
        match self.present {
            Present::Program => shell::find(self.what).is_some(),
            Present::Check(check) => check(),
        }
    }
}

/// A program that is in the package of this name.
const fn program(group: Group, what: &'static str, package: &'static [&'static str]) -> Item {
    Item { group, what, present: Present::Program, get: Get::Packages(package), hint: package[0] }
}

/// A server that tests run themselves, each time with a configuration of their own, or the tools that come with one.
const fn server(group: Group, what: &'static str, package: &'static str, service: Option<&'static str>) -> Item {
    Item { group, what, present: Present::Program, get: Get::Server { package, service }, hint: package }
}

/// How to get it on Debian.
#[derive(Clone, Copy)]
enum Get {
    Packages(&'static [&'static str]),
    /// Only for its program: the service that comes with it, if one does, must not run.
    Server {
        package: &'static str,
        service: Option<&'static str>,
    },
    Qemu,
    BpfLinker,
    RustComponent(&'static str),
}

const ITEMS: &[Item] = &[
    Item {
        group: Group::Toolchain,
        what: "a Rust compiler with the sources of `core`",
        present: Present::Check(|| toolchain::compiler().is_ok()),
        get: Get::Packages(&["rustc-web", "cargo-web", "rust-web-src"]),
        hint: "rustup toolchain install nightly --component rust-src",
    },
    Item {
        group: Group::Toolchain,
        what: "bpf-linker",
        present: Present::Check(|| toolchain::linker().is_ok()),
        get: Get::BpfLinker,
        hint: "cargo binstall bpf-linker, or cargo install bpf-linker with a new LLVM",
    },
    Item {
        group: Group::Lint,
        what: "rustfmt",
        present: Present::Check(|| shell::output(shell::cargo().args(["fmt", "--version"])).is_ok()),
        get: Get::RustComponent("rustfmt"),
        hint: "rustup component add rustfmt",
    },
    Item {
        group: Group::Lint,
        what: "clippy",
        present: Present::Check(|| shell::output(shell::cargo().args(["clippy", "--version"])).is_ok()),
        get: Get::RustComponent("clippy"),
        hint: "rustup component add clippy",
    },
    Item {
        group: Group::Lint,
        what: "clippy for the eBPF side",
        present: Present::Check(|| toolchain::compiler().is_ok_and(|c| c.has_clippy())),
        get: Get::Packages(&["rust-web-clippy"]),
        hint: "rustup component add --toolchain nightly clippy",
    },
    server(Group::Lint, "promtool", "prometheus", Some("prometheus")),
    program(Group::Lint, "systemd-analyze", &["systemd"]),
    Item {
        group: Group::Guest,
        what: "QEMU 8 or later for x86_64",
        present: Present::Check(|| qemu_version().is_some_and(|version| version >= OLDEST_QEMU)),
        get: Get::Qemu,
        hint: "package qemu-system-x86 or qemu-system-x86-core",
    },
    program(Group::Guest, "busybox", &["busybox-static"]),
    program(Group::Guest, "depmod", &["kmod"]),
    program(Group::Guest, "dpkg", &["dpkg"]),
    program(Group::Guest, "xz", &["xz-utils"]),
    program(Group::Guest, "zstd", &["zstd"]),
    program(Group::Guest, "tcpstates", &["libbpf-tools"]),
    program(Group::Tests, "ip", &["iproute2"]),
    program(Group::Tests, "ss", &["iproute2"]),
    program(Group::Tests, "tc", &["iproute2"]),
    // The program and its modules; the service is in another package.
    server(Group::Tests, "apache2", "apache2-bin", None),
    server(Group::Tests, "haproxy", "haproxy", Some("haproxy")),
    server(Group::Tests, "nginx", "nginx", Some("nginx")),
    server(Group::Tests, "prometheus", "prometheus", Some("prometheus")),
    program(Group::Tests, "tmux", &["tmux"]),
    program(Group::Tests, "wrk", &["wrk"]),
    program(Group::Bench, "bpftool", &["bpftool"]),
    program(Group::Bench, "tcptop", &["libbpf-tools"]),
    program(Group::Fuzz, "c++", &["g++"]),
];

/// The TCG of 7.2 corrupts one boot of 6.12 in three, around cmpxchg16b; 10.0 was clean in all of 14.
const OLDEST_QEMU: u32 = 8;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let asked = |item: &&Item| args.groups.is_empty() || args.groups.contains(&item.group);
    let missing: Vec<&Item> = ITEMS.iter().filter(asked).filter(|item| !item.present()).collect();
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    let debian = apt::codename().is_ok() && shell::find("apt-get").is_some();
    if args.check || !debian || !shell::is_root() {
        for item in &missing {
            println!("missing: {} ({})", item.what, item.hint);
        }
        println!("on Debian, `cargo xtask setup` as root installs all of it");
        return Ok(ExitCode::FAILURE);
    }
    install(&missing)?;
    if let Some(item) = missing.iter().find(|item| !item.present()) {
        bail!("installed all that was missing, yet there is no {}; by hand: {}", item.what, item.hint);
    }
    println!("installed: {}", missing.iter().map(|item| item.what).collect::<Vec<_>>().join(", "));
    Ok(ExitCode::SUCCESS)
}

fn install(missing: &[&Item]) -> Result<()> {
    let mut packages: Vec<&str> = Vec::new();
    for item in missing {
        match item.get {
            Get::Packages(names) => packages.extend(names),
            Get::BpfLinker => packages.push(LLVM_PACKAGE),
            Get::Server { .. } | Get::Qemu | Get::RustComponent(_) => {}
        }
    }
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        eprintln!("installing {}", packages.join(" "));
        apt::install_from_host(&packages)?;
    } else if missing.iter().any(|item| matches!(item.get, Get::Server { .. })) {
        apt::update_host()?;
    }
    for item in missing {
        match item.get {
            Get::Packages(_) => {}
            Get::Server { package, service } => {
                eprintln!("installing {package}, whose service will not be started");
                apt::install_without_service(package, service)?;
            }
            Get::Qemu => install_qemu()?,
            Get::BpfLinker => install_bpf_linker()?,
            Get::RustComponent(name) => {
                shell::output(Command::new("rustup").args(["component", "add", name]))?;
            }
        }
    }
    Ok(())
}

const LLVM_PACKAGE: &str = "llvm-22-dev";

/// The linker is LLVM with a thin coat, and must read the bitcode of the compiler: hence this LLVM and no other.
fn install_bpf_linker() -> Result<()> {
    eprintln!("installing bpf-linker {BPF_LINKER}, which takes a minute");
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut cargo = shell::cargo();
    cargo.args(["install", "bpf-linker", "--version", BPF_LINKER, "--no-default-features"]);
    cargo.args(["--features", &format!("llvm-{LLVM}")]);
    // Not with the flags that somebody set for his own programs.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("LLVM_PREFIX", &prefix).env("PATH", format!("{prefix}/bin:{path}"));
    shell::output(&mut cargo).map(drop)
}

/// From the host's own suites when they have one that is new enough, else from its backports.
fn install_qemu() -> Result<()> {
    let package = "qemu-system-x86";
    let policy = shell::output(Command::new("apt-cache").args(["policy", package]))?;
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    if candidate.and_then(major).is_some_and(|version| version >= OLDEST_QEMU) {
        eprintln!("installing {package}");
        return apt::install_from_host(&[package]);
    }
    let backports = format!("{}-backports", apt::codename()?);
    eprintln!("installing {package} from {backports}");
    Suite::open(&backports, true)?
        .install(&[package])
        .with_context(|| format!("cannot install {package} from {backports}"))
}

fn qemu_version() -> Option<u32> {
    let qemu = shell::find("qemu-system-x86_64")?;
    let text = shell::output(Command::new(qemu).arg("--version")).ok()?;
    major(text.split_once("version ")?.1)
}

/// `1:10.0.2+ds-2` and `10.0.2 (Debian ...)` are 10.
fn major(version: &str) -> Option<u32> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(major("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some(10));
        assert_eq!(major("7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"), Some(7));
        assert_eq!(major("(none)"), None);
    }
}
