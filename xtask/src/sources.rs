//! A fingerprint of all that the eBPF object is made of.
//!
//! The object is in the tree, so that nobody needs a BPF toolchain to use overwatch. The fingerprint beside it tells
//! whether it was built from the sources beside it. It is of the sources and not of the object: the same sources give
//! other bytes with every new compiler.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The packages that end up in the object.
const PACKAGES: [&str; 2] = ["overwatch-ebpf", "overwatch-common"];

/// In hexadecimal, the SHA-256 over the sorted paths and contents below `root`.
pub(crate) fn fingerprint(root: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for package in PACKAGES {
        collect(root, &root.join(package), &mut parts)?;
    }
    let lock = root.join("Cargo.lock");
    let text = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    parts.push(("Cargo.lock".to_owned(), locked(&text).into_bytes()));
    parts.sort();
    let mut hash = Sha256::new();
    for (path, content) in parts {
        // The lengths keep one list from looking like another.
        hash.update(format!("{}:{path}{}:", path.len(), content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(root: &Path, dir: &Path, parts: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_dir() {
            // A target directory here would be cargo's.
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, parts)?;
            }
            continue;
        }
        let manifest = path.file_name().is_some_and(|name| name == "Cargo.toml");
        if manifest || path.extension().is_some_and(|e| e == "rs") {
            let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            parts.push((name, content));
        }
    }
    Ok(())
}

/// The versions of the aya-ebpf crates in a Cargo.lock. Others do not reach the object.
fn locked(lock: &str) -> String {
    let mut versions: Vec<String> = Vec::new();
    for package in lock.split("[[package]]") {
        let field = |key: &str| {
            let value = package.lines().find_map(|line| line.strip_prefix(key))?;
            Some(value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version)) = (field("name = "), field("version = "))
            && name.starts_with("aya-ebpf")
        {
            versions.push(format!("{name} {version}\n"));
        }
    }
    versions.sort();
    versions.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"aya-ebpf-macros\"\nversion = \"0.2.0\"\n\n\
                        [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\ndependencies = [\n \"libc\",\n]\n\n\
                        [[package]]\nname = \"libc\"\nversion = \"0.2.1\"\n";

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("overwatch-ebpf/Cargo.toml", "a"),
            ("overwatch-ebpf/src/main.rs", "b"),
            ("overwatch-common/Cargo.toml", "c"),
            ("overwatch-common/src/lib.rs", "d"),
            ("Cargo.lock", LOCK),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn only_crates_in_the_object_count() {
        assert_eq!(locked(LOCK), "aya-ebpf 0.2.1\naya-ebpf-macros 0.2.0\n");
    }

    #[test]
    fn it_changes_with_every_source_and_with_nothing_else() {
        let dir = tree();
        let before = fingerprint(dir.path()).unwrap();
        assert_eq!(before.len(), 64);
        fs::write(dir.path().join("overwatch-ebpf/README.md"), "x").unwrap();
        fs::write(
            dir.path().join("Cargo.lock"),
            LOCK.replace("\"libc\"\nversion = \"0.2.1\"", "\"libc\"\nversion = \"0.2.2\""),
        )
        .unwrap();
        assert_eq!(fingerprint(dir.path()).unwrap(), before);

        for (path, content) in [
            ("overwatch-common/src/lib.rs", "dd"),
            ("overwatch-common/src/new.rs", ""),
            ("overwatch-ebpf/Cargo.toml", "aa"),
            ("Cargo.lock", &LOCK.replace("0.2.0", "0.2.9")),
        ] {
            let dir = tree();
            fs::write(dir.path().join(path), content).unwrap();
            assert_ne!(fingerprint(dir.path()).unwrap(), before, "{path}");
        }
    }
}
