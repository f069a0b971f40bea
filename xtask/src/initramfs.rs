//! Writes the initramfs that a guest boots from: a cpio archive in the `newc` format.
//!
//! It is not compressed, since unpacking costs an emulated kernel more time than reading.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive being written. Paths in the guest are absolute.
pub(crate) struct Initramfs {
    out: BufWriter<File>,
    written: BTreeSet<String>,
    inode: u32,
}

impl Initramfs {
    /// Starts an archive in a file without a name, which is gone when it is closed, however this process ends.
    pub(crate) fn new(dir: &Path) -> Result<Initramfs> {
        shell::create_dir(dir)?;
        let file =
            tempfile::tempfile_in(dir).with_context(|| format!("cannot make an initramfs in {}", dir.display()))?;
        Ok(Initramfs { out: BufWriter::new(file), written: BTreeSet::new(), inode: 0 })
    }

    /// Adds a directory and its parents.
    pub(crate) fn dir(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let parent = &path[..end];
            if !parent.is_empty() && self.written.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY | 0o755, b"")?;
            }
        }
        Ok(())
    }

    /// Adds a file with this content, unless the path is taken.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.dir(parent)?;
        }
        if self.written.insert(path.to_owned()) {
            self.entry(path, REGULAR | (mode & 0o777), content)?;
        }
        Ok(())
    }

    /// Copies a file, or a directory with all that is in it. Symbolic links are followed.
    pub(crate) fn copy(&mut self, host: &Path, guest: &str) -> Result<()> {
        let meta = fs::metadata(host).with_context(|| format!("cannot read {}", host.display()))?;
        if !meta.is_dir() {
            let content = fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
            return self.file(guest, meta.permissions().mode(), &content);
        }
        self.dir(guest)?;
        for entry in fs::read_dir(host).with_context(|| format!("cannot list {}", host.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", host.display()))?;
            let name = entry.file_name();
            self.copy(&entry.path(), &format!("{guest}/{}", name.to_string_lossy()))?;
        }
        Ok(())
    }

    /// Copies a program and the shared libraries that it needs.
    pub(crate) fn program(&mut self, host: &Path, guest: &str) -> Result<()> {
        self.copy(host, guest)?;
        // ldd fails on scripts and static programs, which need nothing.
        let said = Command::new("ldd").arg(host).output().context("cannot start ldd")?;
        for library in libraries(&String::from_utf8_lossy(&said.stdout)) {
            let path = library.to_string_lossy().into_owned();
            self.copy(&library, &path)?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<File> {
        self.entry("TRAILER!!!", 0, b"")?;
        self.out.into_inner().map_err(std::io::IntoInnerError::into_error).context("cannot write an initramfs")
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let header = header(self.inode, mode, content.len(), name)?;
        let padding = [0; 4];
        (|| {
            self.out.write_all(&header)?;
            self.out.write_all(content)?;
            self.out.write_all(&padding[..content.len().wrapping_neg() % 4])
        })()
        .context("cannot write an initramfs")
    }
}

/// The header with the name, padded to where the content begins.
fn header(inode: u32, mode: u32, size: usize, name: &str) -> Result<Vec<u8>> {
    let Ok(size) = u32::try_from(size) else { bail!("{name} is too large for an initramfs") };
    let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
    let name_size = u32::try_from(name.len() + 1).context("a name too long for an initramfs")?;
    // inode, mode, uid, gid, links, mtime, size, device major and minor, special device major and minor, name, checksum
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
    let mut header = b"070701".to_vec();
    for field in fields {
        header.extend(format!("{field:08x}").bytes());
    }
    header.extend(name.bytes());
    header.push(0);
    header.resize(header.len().next_multiple_of(4), 0);
    Ok(header)
}

/// The files that `ldd` names: `libc.so.6 => /lib/libc.so.6 (0x1)` or `/lib64/ld.so (0x1)`.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let word = line.split_whitespace().find(|word| word.starts_with('/'))?;
        word.contains(".so").then(|| PathBuf::from(word))
    };
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _};

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f1)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x7f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(text), expected.map(PathBuf::from));
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_archive_has_parents_first_and_is_aligned() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Initramfs::new(dir.path()).unwrap();
        archive.file("/a/b/c", 0o755, b"hello").unwrap();
        archive.file("/a/b/c", 0o755, b"the second one is not taken").unwrap();
        let mut file = archive.finish().unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name) = (field(6), field(11));
            names.push(String::from_utf8_lossy(&bytes[at + 110..at + 109 + name]).into_owned());
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/c", "TRAILER!!!"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
