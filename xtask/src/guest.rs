//! Boots a kernel in QEMU, runs a script in it and reports what it said.
//!
//! Only software emulation is used: it works on every host, also inside a virtual machine, and one is like the other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::console;
use crate::initramfs::Initramfs;
use crate::kernels::Unpacked;
use crate::modules;
use crate::qemu::{self, Qemu};
use crate::shell;

/// How a guest is made. All that it must give back, it prints.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) kernel: Unpacked,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    /// One instruction is one nanosecond: times become counts that two runs agree on. One CPU only.
    pub(crate) icount: bool,
    pub(crate) timeout: Duration,
    /// How far its processors give way to other processes of the host, as in nice(1).
    pub(crate) nice: u8,
    /// Programs, with their libraries: where they are here, and where they go.
    pub(crate) programs: Vec<(PathBuf, String)>,
    /// Files and directories: where they are here, and where they go.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Kernel modules, loaded in this order, each after those that it needs.
    pub(crate) modules: Vec<String>,
    /// Run by the shell that is /bin/sh here; its status is the guest's.
    pub(crate) script: String,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The script ran to its end, with this status.
    Exit(i32),
    /// The kernel said something that it does not recover from.
    Hang(&'static str),
    /// It took longer than it may.
    Timeout,
    /// QEMU ended, and the guest never came to a verdict.
    NoVerdict,
}

/// All that a guest said.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) end: End,
    pub(crate) console: Vec<String>,
    pub(crate) took: Duration,
}

impl Report {
    /// The last words, for a guest that came to no verdict.
    pub(crate) fn tail(&self) -> String {
        let from = self.console.len().saturating_sub(60);
        self.console[from..].join("\n")
    }

    /// What the script said.
    pub(crate) fn script(&self) -> String {
        let up = self.console.iter().position(|line| line.trim_end() == console::BEGIN);
        self.console[up.map_or(0, |up| up + 1)..].join("\n")
    }

    /// In a few words, what went wrong, if anything did.
    pub(crate) fn problem(&self) -> Option<String> {
        let took = self.took.as_secs();
        match &self.end {
            End::Exit(0) => None,
            End::Exit(status) => Some(format!("its script ended with status {status}")),
            End::Hang(marker) => Some(format!("its kernel hangs: {marker}")),
            End::Timeout => Some(format!("no verdict after {took} s")),
            End::NoVerdict => Some("it ended without a verdict".to_owned()),
        }
    }
}

/// What every guest has beside its own programs.
const TOOLS: [&str; 3] = ["ip", "ss", "tc"];
const MODULES: [&str; 5] = ["inet_diag", "tcp_diag", "veth", "sch_tbf", "sch_netem"];

impl Guest {
    /// A guest of two CPUs and 2 GiB with the usual modules and tools.
    pub(crate) fn new(kernel: Unpacked, script: String) -> Guest {
        Guest {
            kernel,
            memory_mib: 2048,
            cpus: 2,
            icount: false,
            timeout: Duration::from_secs(900),
            nice: 0,
            programs: Vec::new(),
            files: Vec::new(),
            modules: MODULES.map(str::to_owned).to_vec(),
            script,
        }
    }

    /// Adds a program at /usr/bin under its own name.
    pub(crate) fn program(&mut self, host: &Path) {
        if let Some(name) = host.file_name() {
            let guest = format!("/usr/bin/{}", name.to_string_lossy());
            self.programs.push((host.to_owned(), guest));
        }
    }

    /// Boots it and waits for its end. `each` sees every line as it comes, once the guest is up.
    pub(crate) fn boot(&self, mut each: impl FnMut(&str)) -> Result<Report> {
        let initramfs = self.initramfs()?;
        let start = Instant::now();
        let mut qemu = Qemu::start(self, &initramfs)?;
        let mut console = Vec::new();
        let mut up = false;
        let end = qemu::watch(&qemu.lines, start + self.timeout, |line| {
            if up {
                each(line);
            }
            up |= line.trim_end() == console::BEGIN;
            console.push(line.to_owned());
        });
        console.extend(qemu.stop(matches!(end, End::Exit(_))));
        Ok(Report { end, console, took: start.elapsed() })
    }

    fn initramfs(&self) -> Result<File> {
        let mut root = Initramfs::new(&shell::cache_dir().join("guest"))?;
        for dir in ["proc", "sys", "dev", "tmp", "run", "root", "sbin", "var/log", "usr/sbin", "mnt"] {
            root.dir(dir)?;
        }
        for (path, text) in [
            ("etc/passwd", include_str!("../guest/passwd")),
            ("etc/group", include_str!("../guest/group")),
            ("etc/hosts", "127.0.0.1 localhost guest\n::1 localhost\n"),
            ("script", self.script.as_str()),
        ] {
            root.file(path, 0o644, text.as_bytes())?;
        }
        root.file("init", 0o755, include_bytes!("../guest/init"))?;
        let busybox = shell::find("busybox").context("busybox is missing: run `cargo xtask setup`")?;
        root.program(&busybox, "bin/busybox")?;
        // Busybox's own shell would take its own `ip` and `tc` before the real ones.
        let sh = fs::canonicalize("/bin/sh").context("cannot find /bin/sh")?;
        root.program(&sh, "bin/sh")?;
        for (host, guest) in &self.programs {
            // A program that tests find by its name may be a link here, for example to an alternative.
            let host = fs::canonicalize(host).with_context(|| format!("cannot find {}", host.display()))?;
            root.program(&host, guest)?;
        }
        for tool in TOOLS {
            let host = shell::find(tool).with_context(|| format!("{tool} is missing (package iproute2)"))?;
            root.program(&fs::canonicalize(&host).unwrap_or(host), &format!("usr/bin/{tool}"))?;
        }
        for (host, guest) in &self.files {
            root.copy(host, guest)?;
        }
        for (index, module) in modules::load_order(&self.kernel.modules, &self.modules)?.iter().enumerate() {
            let content = modules::read(module)?;
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            let name = name.split('.').next().unwrap_or_default();
            root.file(&format!("lib/m/{index:03}-{name}.ko"), 0o644, &content)?;
        }
        root.finish()
    }
}
