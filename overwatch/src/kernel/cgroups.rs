//! Control groups (version 2): from the number that the kernel side sees to the path that a person knows.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// Deeper trees are not walked further.
const DEPTH_LIMIT: usize = 32;

/// Where the version 2 hierarchy is mounted: alone, or beside version 1.
pub fn mount_point(root: &Path) -> Option<PathBuf> {
    ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.join("cgroup.controllers").exists())
}

/// Paths of control groups by number. The tree is walked again only when a number is unknown.
#[derive(Debug, Default)]
pub struct Cgroups {
    paths: HashMap<u64, Option<String>>,
}

impl Cgroups {
    /// Paths of the given groups, `/` for the root; a group that is gone has none.
    pub fn resolve(&mut self, root: &Path, numbers: impl Iterator<Item = u64>) {
        let unknown: Vec<u64> = numbers.filter(|number| !self.paths.contains_key(number)).collect();
        if unknown.is_empty() {
            return;
        }
        if let Some(mount) = mount_point(root) {
            if let Ok(metadata) = fs::metadata(&mount) {
                self.paths.insert(metadata.ino(), Some("/".to_owned()));
            }
            self.walk(&mount, "", DEPTH_LIMIT);
        }
        for number in unknown {
            // Asked once: a group that is not there any more does not come back.
            self.paths.entry(number).or_insert(None);
        }
    }

    /// Forgets all but these, so that months of groups that come and go take no memory.
    pub fn keep(&mut self, numbers: &HashSet<u64>) {
        self.paths.retain(|number, _| numbers.contains(number));
    }

    /// The path of a group that was resolved before.
    pub fn path(&self, number: u64) -> Option<&str> {
        self.paths.get(&number)?.as_deref()
    }

    fn walk(&mut self, directory: &Path, path: &str, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                self.walk(&entry.path(), &path, depth);
                self.paths.insert(entry.ino(), Some(path));
            }
        }
    }
}
