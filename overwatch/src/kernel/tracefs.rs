//! The tracing file system, where classic tracepoints have their numbers and kprobes can be defined.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const PLACES: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// Why the tracing file system cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// It is there.
    #[error("may not read tracefs at {0}: {1}: run as root, or with CAP_DAC_READ_SEARCH")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is not there, or only where this process may not see it.
    #[error("tracefs is not mounted, and overwatch may not mount it for itself: {1}: mount -t tracefs tracefs {0}")]
    NotMounted(PathBuf, #[source] io::Error),
    /// A panic.
    #[error("the thread that mounts tracefs failed")]
    Thread,
}

/// Runs `work` where the tracing file system is mounted, with its path: here, if it is, or else on a thread with a mount
/// namespace of its own, which takes the mount away with it.
pub fn with_tracefs<T: Send>(root: &Path, work: impl FnOnce(&Path) -> T + Send) -> Result<T, TracefsError> {
    let mut places = PLACES.iter().map(|place| root.join(place));
    if let Some(mounted) = places.find(|place| is_readable(place).is_ok()) {
        return Ok(work(&mounted));
    }
    let target = root.join(PLACES[0]);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let is_mounted = mount_privately(&target);
            match is_readable(&target) {
                Ok(()) => Ok(work(&target)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err(TracefsError::Unreadable(target, error))
                }
                Err(error) => Err(TracefsError::NotMounted(target, is_mounted.err().map_or(error, io::Error::from))),
            }
        });
        thread.join().unwrap_or(Err(TracefsError::Thread))
    })
}

fn is_readable(place: &Path) -> io::Result<()> {
    std::fs::read_dir(place.join("events")).map(drop)
}

fn mount_privately(target: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this the mount would spread back to where we came from.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tracefs"), target, Some("tracefs"), MsFlags::empty(), None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_none_the_work_is_not_done() {
        let root = tempfile::tempdir().unwrap();
        let outcome = with_tracefs(root.path(), |_| panic!("no tracefs is here"));
        let error = outcome.unwrap_err().to_string();
        assert!(error.starts_with("tracefs is not mounted, and overwatch may not mount it for itself: "), "{error}");
        assert!(error.ends_with("/sys/kernel/tracing"), "{error}");
    }

    #[test]
    fn where_it_is_it_is_used_as_it_is() {
        for place in PLACES {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join(place).join("events")).unwrap();
            assert_eq!(with_tracefs(root.path(), Path::to_owned).unwrap(), root.path().join(place));
        }
    }
}
