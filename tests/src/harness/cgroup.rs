//! A control group that a test makes and that goes away with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A control group of the unified hierarchy.
#[derive(Debug)]
pub struct CGroup {
    path: PathBuf,
}

impl CGroup {
    /// Makes one below the root of the unified hierarchy, wherever that is mounted.
    pub fn new(tag: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounted = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (_, Some(at), Some("cgroup2")) => Some(at),
                _ => None,
            }
        });
        let root = Path::new(mounted.context("the unified hierarchy of control groups is mounted nowhere")?);
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
