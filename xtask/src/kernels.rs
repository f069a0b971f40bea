//! The kernels that overwatch is tested on, and how to get them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::Suite;
use crate::shell;

/// One row of the matrix.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What the command line calls it: the series.
    pub(crate) name: &'static str,
    /// The Debian suite that carries it.
    pub(crate) suite: &'static str,
    /// The package that always depends on the newest build of it.
    package: &'static str,
    /// The attach tiers that must work there: a test that skips one of them on this kernel has failed.
    pub(crate) tiers: &'static str,
}

/// The cloud flavour has what we need and is a fifth of the full one. All four have BTF, kprobes and fentry.
const MATRIX: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye", package: "linux-image-cloud-amd64", tiers: "fentry,kprobe" },
    Kernel { name: "6.1", suite: "bookworm", package: "linux-image-cloud-amd64", tiers: "fentry,kprobe" },
    Kernel { name: "6.12", suite: "trixie", package: "linux-image-cloud-amd64", tiers: "fentry,kprobe,tracepoint" },
    Kernel { name: "7.2", suite: "sid", package: "linux-image-cloud-amd64", tiers: "fentry,kprobe,tracepoint" },
];

/// The kernels called `names`, or all of them.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(MATRIX.iter().collect());
    }
    names.iter().map(|name| by_name(name)).collect()
}

pub(crate) fn by_name(name: &str) -> Result<&'static Kernel> {
    MATRIX.iter().find(|kernel| kernel.name == name).with_context(|| {
        let known: Vec<&str> = MATRIX.iter().map(|kernel| kernel.name).collect();
        format!("no kernel {name} in the matrix, which has {}", known.join(", "))
    })
}

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    pub(crate) vmlinuz: PathBuf,
    /// `lib/modules/VERSION`, with a `modules.dep`.
    pub(crate) modules: PathBuf,
    /// `uname -r`.
    pub(crate) release: String,
}

impl Kernel {
    /// The unpacked kernel in the cache, downloading it the first time.
    ///
    /// A cached kernel is used as it is: a later build of it comes after `rm -r target/kernels/NAME`.
    pub(crate) fn fetch(&self) -> Result<Unpacked> {
        let dir = shell::cache_dir().join("kernels").join(self.name);
        // The rename below is the last step, so whatever has the name is complete.
        if !dir.exists() {
            eprintln!("kernel {}: downloading it from Debian {}", self.name, self.suite);
            self.download(&dir).with_context(|| format!("cannot get kernel {} of Debian {}", self.name, self.suite))?;
        }
        let unpacked = open(&dir)?;
        if !unpacked.release.starts_with(&format!("{}.", self.name)) {
            eprintln!("kernel {}: Debian {} now carries {}", self.name, self.suite, unpacked.release);
        }
        Ok(unpacked)
    }

    fn download(&self, dir: &Path) -> Result<()> {
        let parent = shell::cache_dir().join("kernels");
        shell::create_dir(&parent)?;
        let work = tempfile::tempdir_in(&parent).context("cannot make a directory for packages")?;
        let suite = Suite::open(self.suite, false)?;
        let packages = kernel_packages(self.package, |package| suite.depends(package))?;
        suite.download(&packages, work.path())?;
        let root = work.path().join("root");
        shell::create_dir(&root)?;
        let mut count = 0;
        for entry in fs::read_dir(work.path()).context("cannot list the packages")? {
            let path = entry.context("cannot list the packages")?.path();
            if path.extension().is_some_and(|e| e == "deb") {
                shell::output(Command::new("dpkg").arg("-x").args([&path, &root]))?;
                count += 1;
            }
        }
        if count == 0 {
            bail!("apt-get download left no package behind");
        }
        if !root.join("lib").exists() {
            // Since trixie everything is below /usr; depmod and we look in /lib.
            std::os::unix::fs::symlink("usr/lib", root.join("lib")).context("cannot link lib")?;
        }
        let unpacked = open(&root)?;
        let depmod = shell::find("depmod").context("depmod is missing (package kmod)")?;
        shell::output(Command::new(depmod).arg("-b").arg(&root).arg(&unpacked.release))?;
        fs::rename(&root, dir).with_context(|| format!("cannot move a kernel to {}", dir.display()))
    }
}

/// The packages that hold the files: up to 6.12 the image alone, later an empty image with a binary and modules.
fn kernel_packages(first: &str, depends: impl Fn(&str) -> Result<Vec<String>>) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut todo = vec![first.to_owned()];
    while let Some(package) = todo.pop() {
        for dependency in depends(&package)? {
            let rest = ["linux-image-", "linux-binary-", "linux-modules-"]
                .iter()
                .find_map(|prefix| dependency.strip_prefix(prefix));
            let versioned = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if versioned && !found.contains(&dependency) {
                found.push(dependency.clone());
                todo.push(dependency);
            }
        }
    }
    if found.is_empty() {
        bail!("{first} depends on no kernel package");
    }
    Ok(found)
}

fn open(root: &Path) -> Result<Unpacked> {
    let lib = root.join("lib/modules");
    let modules = fs::read_dir(&lib)
        .with_context(|| format!("cannot list {}", lib.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.join("kernel").is_dir())
        .with_context(|| format!("no modules in {}", lib.display()))?;
    let release = modules
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .context("a modules directory without a name")?;
    let candidates = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let vmlinuz = candidates
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("no vmlinuz for {release} in {}", root.display()))?;
    Ok(Unpacked { vmlinuz, modules, release })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(depends: &[(&str, &[&str])]) -> Vec<String> {
        let mut found = kernel_packages("linux-image-cloud-amd64", |package| {
            let row = depends.iter().find(|(name, _)| *name == package);
            Ok(row.map_or_else(Vec::new, |(_, d)| d.iter().map(|d| (*d).to_owned()).collect()))
        })
        .unwrap();
        found.sort();
        found
    }

    #[test]
    fn an_old_kernel_is_one_package() {
        let depends: &[(&str, &[&str])] = &[
            ("linux-image-cloud-amd64", &["linux-image-6.1.0-50-cloud-amd64"]),
            ("linux-image-6.1.0-50-cloud-amd64", &["kmod", "linux-base", "initramfs-tools"]),
        ];
        assert_eq!(names(depends), ["linux-image-6.1.0-50-cloud-amd64"]);
    }

    #[test]
    fn a_new_kernel_is_split() {
        let depends: &[(&str, &[&str])] = &[
            ("linux-image-cloud-amd64", &["linux-base-cloud-amd64", "linux-image-7.2.13+deb14-cloud-amd64"]),
            (
                "linux-image-7.2.13+deb14-cloud-amd64",
                &["linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"],
            ),
        ];
        let expected = [
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-modules-7.2.13+deb14-cloud-amd64",
        ];
        assert_eq!(names(depends), expected);
    }

    #[test]
    fn an_unknown_kernel_is_refused_with_the_ones_that_exist() {
        let error = by_name("4.19").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12, 7.2"), "{error}");
    }
}
