//! The tracing file system, where classic tracepoints have their numbers and kprobes can be defined.

use std::path::Path;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const PLACES: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// Runs `work` where the tracing file system is mounted, with its path: here, if it is, or else on a thread with a mount
/// namespace of its own, which takes the mount away with it. Where that is not allowed `work` runs all the same and finds
/// nothing.
pub fn with_tracefs<T: Send>(root: &Path, work: impl FnOnce(&Path) -> T + Send) -> Option<T> {
    if let Some(mounted) = PLACES.iter().map(|place| root.join(place)).find(|place| place.join("events").is_dir()) {
        return Some(work(&mounted));
    }
    let target = root.join(PLACES[0]);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _not_mounted = mount_privately(&target);
            work(&target)
        });
        thread.join().ok()
    })
}

fn mount_privately(target: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this the mount would spread back to where we came from.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tracefs"), target, Some("tracefs"), MsFlags::empty(), None::<&str>)
}
