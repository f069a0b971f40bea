//! The network namespaces of this host: those that a process is in, and those that `ip netns` keeps by name.

use std::{
    collections::HashSet,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where `ip netns` keeps named namespaces.
pub const NAMED: &str = "run/netns";

/// A network namespace and a file that refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkNamespace {
    /// Inode number: the namespace's name towards the user.
    pub inode: u64,
    /// A file to open for entering it.
    pub path: PathBuf,
}

/// Every namespace once. Those that only an open descriptor or a socket keeps alive cannot be found.
pub fn list(root: &Path) -> Vec<NetworkNamespace> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let processes = entries(&root.join("proc")).filter(|path| is_number(path)).map(|path| path.join("ns/net"));
    for path in processes.chain(entries(&root.join(NAMED))) {
        // Follows the link: /proc/PID/ns/net leads to the namespace's own inode.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if seen.insert((metadata.dev(), metadata.ino())) {
            found.push(NetworkNamespace { inode: metadata.ino(), path });
        }
    }
    found
}

/// Number of the namespace that `ip netns` knows as `name`.
pub fn inode_of_name(root: &Path, name: &str) -> Option<u64> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    fs::metadata(root.join(NAMED).join(name)).ok().map(|metadata| metadata.ino())
}

/// Runs `work` inside the namespace, on a thread of its own that ends with it. `None` when the namespace could not be
/// entered: it has gone, or the right to enter it is missing. Also when the process by which it was found has entered another one since, or its
/// number is another process's by now: what is read there would be taken for this one's.
pub fn inside<T: Send>(namespace: &NetworkNamespace, work: impl FnOnce() -> T + Send) -> Option<T> {
    let file = File::open(&namespace.path).ok()?;
    file.metadata().ok().filter(|metadata| metadata.ino() == namespace.inode)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            Some(work())
        });
        thread.join().ok().flatten()
    })
}

/// Returns true while the file that refers to the namespace still does.
pub fn is_there(namespace: &NetworkNamespace) -> bool {
    fs::metadata(&namespace.path).is_ok_and(|metadata| metadata.ino() == namespace.inode)
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_found_once() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let found = list(Path::new("/"));
        assert_eq!(found.iter().filter(|namespace| namespace.inode == own).count(), 1);
    }

    #[test]
    fn a_file_that_leads_to_another_namespace_by_now_is_not_followed() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let other = NetworkNamespace { inode: own + 1, path: "/proc/self/ns/net".into() };
        assert_eq!(inside(&other, || panic!("in another namespace")), None);
        assert!(!is_there(&other));
        assert!(is_there(&NetworkNamespace { inode: own, path: "/proc/self/ns/net".into() }));
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        for name in ["", ".", "..", "../../etc/passwd", "a/b"] {
            assert_eq!(inode_of_name(Path::new("/"), name), None, "{name}");
        }
    }
}
