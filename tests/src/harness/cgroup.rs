//! Control groups that a test makes and that go away with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A control group of the unified hierarchy.
#[derive(Debug)]
pub struct CGroup {
    path: PathBuf,
}

/// Where a file system of that kind and with those options is mounted.
fn mounted(wanted: impl Fn(&str, &str) -> bool) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, at, kind, options, ..] if wanted(kind, options) => Some(PathBuf::from(at)),
        _ => None,
    });
    Ok(found)
}

impl CGroup {
    /// Makes one below the root of the unified hierarchy, wherever that is mounted.
    pub fn new(tag: &str) -> Result<Self> {
        let mounted = mounted(|kind, _| kind == "cgroup2")?;
        let root = mounted.context("the unified hierarchy of control groups is mounted nowhere")?;
        Self::below(&root, tag)
    }

    /// One whose processes have only so many percent of one processor; none where no hierarchy can do that.
    pub fn with_processor_limit(tag: &str, percent: u64) -> Result<Option<Self>> {
        const PERIOD_MICROSECONDS: u64 = 100_000;
        let quota = percent * PERIOD_MICROSECONDS / 100;
        if let Some(root) = mounted(|kind, _| kind == "cgroup2")? {
            let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
            if controllers.split_whitespace().any(|name| name == "cpu") {
                fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
                let group = Self::below(&root, tag)?;
                fs::write(group.path.join("cpu.max"), format!("{quota} {PERIOD_MICROSECONDS}"))?;
                return Ok(Some(group));
            }
        }
        // Version 1 has a hierarchy for each controller.
        let has_cpu = |options: &str| options.split(',').any(|option| option == "cpu");
        let Some(root) = mounted(|kind, options| kind == "cgroup" && has_cpu(options))? else { return Ok(None) };
        let group = Self::below(&root, tag)?;
        fs::write(group.path.join("cpu.cfs_period_us"), PERIOD_MICROSECONDS.to_string())?;
        fs::write(group.path.join("cpu.cfs_quota_us"), quota.to_string())?;
        Ok(Some(group))
    }

    fn below(root: &Path, tag: &str) -> Result<Self> {
        let path = root.join(format!("ow-{}-{tag}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory, as text for an argument.
    #[must_use]
    pub fn path_text(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for CGroup {
    fn drop(&mut self) {
        // Its last process may still be on its way out.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("control group {} stays behind", self.path.display());
    }
}
