//! Kernel modules of an unpacked kernel package: what must be loaded before what, and their content.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The files of `wanted` and of what they depend on, in the order in which they must be loaded.
///
/// `dir` is `lib/modules/VERSION`. A module without a file is taken to be built into the kernel.
pub(crate) fn load_order(dir: &Path, wanted: &[String]) -> Result<Vec<PathBuf>> {
    let path = dir.join("modules.dep");
    let dep = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(order(&dep, wanted).into_iter().map(|path| dir.join(path)).collect())
}

/// A module's content, decompressed: busybox's insmod takes nothing else.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let out = Command::new(program).arg("-dc").arg(path).output().with_context(|| format!("cannot start {program}"))?;
    if !out.status.success() {
        bail!("{program} cannot decompress {}", path.display());
    }
    Ok(out.stdout)
}

/// `dep` is depmod's: `PATH: DEPENDENCY...`, with the last dependency to be loaded first.
fn order(dep: &str, wanted: &[String]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let rows = || dep.lines().filter_map(|line| line.split_once(':'));
    for name in wanted {
        let Some((path, dependencies)) = rows().find(|(path, _)| module_name(path) == *name) else {
            continue;
        };
        for path in dependencies.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    order
}

/// `kernel/net/sched/sch-tbf.ko.xz` is `sch_tbf`.
fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/lib/libcrc32c.ko.xz:\n\
                       kernel/net/nf_tables.ko.xz: kernel/net/nfnetlink.ko.xz kernel/lib/libcrc32c.ko.xz\n\
                       kernel/net/nfnetlink.ko.xz:\nkernel/net/sch-tbf.ko:\n";

    fn names(wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        order(DEP, &wanted)
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let expected = [
            "kernel/lib/libcrc32c.ko.xz",
            "kernel/net/nfnetlink.ko.xz",
            "kernel/net/nf_tables.ko.xz",
            "kernel/net/sch-tbf.ko",
        ];
        assert_eq!(names(&["libcrc32c", "nf_tables", "sch_tbf"]), expected);
    }

    #[test]
    fn what_has_no_file_is_left_out() {
        assert_eq!(names(&["veth", "nfnetlink"]), ["kernel/net/nfnetlink.ko.xz"]);
    }
}
