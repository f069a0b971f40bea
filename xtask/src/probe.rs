//! `cargo xtask guest`: boots one kernel and runs a script in it, to try something out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::guest::{End, Guest};
use crate::kernels;
use crate::shell;

/// Boot one kernel with overwatch and the given programs, and run a script in it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel: 5.10, 6.1, 6.12 or 7.2.
    kernel: String,
    /// Count instructions instead of time: one instruction is one nanosecond. One CPU.
    #[arg(long)]
    icount: bool,
    /// A program to take along, with its libraries, as /usr/bin/NAME, or elsewhere with PATH:DEST.
    #[arg(long = "bin", value_name = "PATH[:DEST]")]
    programs: Vec<String>,
    /// A file or directory to take along.
    #[arg(long = "file", value_name = "PATH:DEST")]
    files: Vec<String>,
    /// One more kernel module to load, after those that it needs.
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Memory in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds after which the guest is given up.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// The script, for the shell that is /bin/sh here.
    #[arg(last = true, required = true)]
    script: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernel = kernels::by_name(&args.kernel)?.fetch()?;
    let mut guest = Guest::new(kernel, args.script.join(" "));
    guest.icount = args.icount;
    guest.memory_mib = args.memory;
    guest.cpus = args.cpus;
    guest.timeout = Duration::from_secs(args.timeout);
    guest.modules.extend(args.modules.iter().cloned());
    for (name, variable) in [("overwatch", "OVERWATCH_BIN"), ("traffic", "OVERWATCH_TRAFFIC_BIN")] {
        match built(name, variable) {
            Some(path) => {
                eprintln!("{name}: {}", path.display());
                guest.programs.push((path, format!("/usr/bin/{name}")));
            }
            None => eprintln!("{name}: not built, so not in the guest"),
        }
    }
    for program in &args.programs {
        let (path, dest) = program.split_once(':').map_or((program.as_str(), None), |(p, d)| (p, Some(d)));
        let path = if path.contains('/') { Some(PathBuf::from(path)) } else { shell::find(path) };
        let path = path.with_context(|| format!("no program {program} on PATH"))?;
        match dest {
            Some(dest) => guest.programs.push((path, dest.to_owned())),
            None => guest.program(&path),
        }
    }
    for file in &args.files {
        let (path, dest) = file.split_once(':').with_context(|| format!("{file} is not PATH:DEST"))?;
        guest.files.push((PathBuf::from(path), dest.to_owned()));
    }
    let report = guest.boot(|line| println!("{line}"))?;
    match report.end {
        End::Exit(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
        _ => {
            eprintln!("{}", report.tail());
            anyhow::bail!("guest {}: {}", args.kernel, report.problem().unwrap_or_default())
        }
    }
}

/// The newest build of one of our own programs, or the one that a variable names.
fn built(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path));
    }
    let candidates = ["release", "debug"].map(|dir| shell::target_dir().join(dir).join(name));
    let age = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    candidates.into_iter().filter(|path| path.is_file()).max_by_key(age)
}
