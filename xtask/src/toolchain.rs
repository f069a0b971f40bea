//! Finds a compiler for the eBPF side: it needs the sources of `core`, and a linker for BPF.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The LLVM that bpf-linker is built with; not older than the one inside the compiler.
pub(crate) const LLVM: &str = "22";

/// The version that the object in the tree is linked with.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// aya-ebpf, at the version in Cargo.lock, builds from this compiler on.
const OLDEST: (u32, u32) = (1, 88);

/// A compiler that can build `core` for BPF.
#[derive(Debug)]
pub(crate) struct Compiler {
    cargo: PathBuf,
    rustc: PathBuf,
    /// The root of the library's sources.
    sources: PathBuf,
    /// What it says that it is.
    pub(crate) version: String,
}

impl Compiler {
    /// Whether it has a clippy of its own version.
    pub(crate) fn has_clippy(&self) -> bool {
        self.cargo.with_file_name("cargo-clippy").is_file()
    }
}

/// A compiler and the linker to go with it.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    pub(crate) fn find() -> Result<Toolchain> {
        Ok(Toolchain { compiler: compiler()?, linker: linker()? })
    }

    /// A cargo command for the eBPF package, at the root of the tree: `build`, `clippy`.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.compiler.cargo);
        command.current_dir(shell::root()).env("RUSTC", &self.compiler.rustc);
        // -Z build-std is not stable, and the distribution's compiler is.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\u{1f}"));
        command.env("PATH", self.path());
        // The cargo that started us left the libraries of its own compiler here.
        command.env_remove("LD_LIBRARY_PATH");
        let endian = if cfg!(target_endian = "big") { "bpfeb" } else { "bpfel" };
        let target = format!("{endian}-unknown-none");
        command.args([verb, "--package", "overwatch-ebpf", "--release", "-Z", "build-std=core"]);
        command.args(["--target", &target]).arg("--target-dir").arg(target_dir());
        command
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
        ];
        // BTF names the source of every line; where they lie on this machine is nobody's business.
        let mut prefixes = vec![(shell::root(), "."), (self.compiler.sources.clone(), "rust")];
        let registry = shell::cargo_home().map(|home| home.join("registry/src"));
        if let Some(entries) = registry.and_then(|dir| std::fs::read_dir(dir).ok()) {
            prefixes.extend(entries.filter_map(|entry| Some((entry.ok()?.path(), "crates"))));
        }
        for (from, to) in prefixes {
            flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        }
        flags
    }

    /// Where `cargo("build")` leaves the object.
    pub(crate) fn object(&self) -> PathBuf {
        let endian = if cfg!(target_endian = "big") { "bpfeb" } else { "bpfel" };
        target_dir().join(format!("{endian}-unknown-none/release/overwatch-ebpf"))
    }

    /// Both cargo's own commands (cargo-clippy) and the linker are looked up on PATH.
    fn path(&self) -> OsString {
        let first = [&self.compiler.cargo, &self.linker].map(|p| p.parent().unwrap_or(Path::new("/")).to_owned());
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = first.into_iter().chain(env::split_paths(&path));
        env::join_paths(dirs).unwrap_or(path)
    }
}

/// A target directory of its own: other flags and another compiler would only push the rest out of the cache.
fn target_dir() -> PathBuf {
    shell::target_dir().join("ebpf")
}

/// The distribution's own compiler with its library sources, or else rustup's nightly with rust-src.
pub(crate) fn compiler() -> Result<Compiler> {
    let mut candidates = vec![(PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"))];
    let which = |program: &str| {
        let mut rustup = Command::new("rustup");
        let path = shell::output(rustup.args(["which", "--toolchain", "nightly", program])).ok()?;
        Some(PathBuf::from(path.trim()))
    };
    if let (Some(cargo), Some(rustc)) = (which("cargo"), which("rustc")) {
        candidates.push((cargo, rustc));
    }
    for (cargo, rustc) in candidates {
        let ask = |args: &[&str]| shell::output(Command::new(&rustc).args(args).env_remove("LD_LIBRARY_PATH"));
        let Ok(version) = ask(&["--version"]) else {
            continue;
        };
        let Ok(sysroot) = ask(&["--print", "sysroot"]) else {
            continue;
        };
        let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
        let usable = release(&version).is_some_and(|version| version >= OLDEST);
        if usable && cargo.is_file() && sources.join("library/core").is_dir() {
            let version = version.trim().to_owned();
            return Ok(Compiler { cargo, rustc, sources, version });
        }
    }
    bail!("no compiler with the sources of `core` (nothing but the eBPF side needs one): run `cargo xtask setup`")
}

/// bpf-linker, wherever cargo puts it.
pub(crate) fn linker() -> Result<PathBuf> {
    shell::find("bpf-linker").context("bpf-linker is missing: run `cargo xtask setup`")
}

/// A program of LLVM that understands BPF.
pub(crate) fn llvm(program: &str) -> Option<PathBuf> {
    let own = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin/{program}"));
    if own.is_file() { Some(own) } else { shell::find(program) }
}

/// `rustc 1.96.0 (...)` is (1, 96).
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_two_numbers() {
        assert_eq!(release("rustc 1.96.0 (abc 2026-05-25) (built from a source tarball)"), Some((1, 96)));
        assert_eq!(release("rustc 1.97.0-nightly (abc 2026-05-25)"), Some((1, 97)));
        assert_eq!(release("rustc 1.63.0"), Some((1, 63)));
        assert_eq!(release("zsh: command not found"), None);
        assert!((1, 63) < OLDEST);
    }
}
