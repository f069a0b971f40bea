//! Kretprobes that follow many calls at a time.
//!
//! A kretprobe holds an instance for each call that has not returned. By way of a perf event the kernel makes max(10, 2 x
//! CPUs) of them (`register_kretprobe`, kernel/kprobes.c), and the returns of all further calls are missed: a server whose
//! threads wait in `recv` would be seen hardly at all. A definition in tracefs may ask for more.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::kernel::tracefs::with_tracefs;

/// Calls of one function that are followed at a time; the kernel's own limit (`KRETPROBE_MAXACTIVE_MAX`).
pub const MAX_ACTIVE: u32 = 4096;

/// Our definitions stand in this group.
const GROUP: &str = "overwatch";
const DEFINITIONS: &str = "kprobe_events";

/// `enum perf_type_id` and the requests of linux/perf_event.h.
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;

/// An attached kretprobe. Dropping it detaches it and takes its definition away.
#[derive(Debug)]
pub struct Kretprobe {
    // Dropped first: a definition in use cannot be taken away.
    _event: OwnedFd,
    _definition: Definition,
}

/// A line in tracefs.
#[derive(Debug)]
struct Definition {
    file: File,
    name: String,
}

impl Drop for Definition {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next start sweeps it.
        let _stays = write_line(&mut self.file, &format!("-:{GROUP}/{}", self.name));
    }
}

/// The kretprobes of a session, shared with the thread that ends a start-up.
#[derive(Clone, Debug, Default)]
pub struct Kretprobes(Arc<Mutex<Vec<Kretprobe>>>);

impl Kretprobes {
    /// Attaches one more. Under the lock, so that no definition is half made when [`Self::close`] has it.
    pub fn attach(&self, root: &Path, program: &impl AsFd, function: &str) -> io::Result<()> {
        let mut kretprobes = self.lock();
        kretprobes.push(Kretprobe::attach(root, program, function)?);
        Ok(())
    }

    /// Detaches all, and keeps others from being attached while what it returns lives.
    pub fn close(&self) -> impl Drop + '_ {
        let mut kretprobes = self.lock();
        kretprobes.clear();
        kretprobes
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kretprobe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kretprobe {
    /// Runs `program`, a loaded one, at each return of `function`.
    pub fn attach(root: &Path, program: &impl AsFd, function: &str) -> io::Result<Self> {
        let program = program.as_fd();
        let attached = with_tracefs(root, |tracefs| {
            let definition = Definition::make(tracefs, function)?;
            let id = fs::read_to_string(tracefs.join("events").join(GROUP).join(&definition.name).join("id"))?;
            let id: u64 = id.trim().parse().map_err(io::Error::other)?;
            let event = open_tracepoint(id)?;
            ioctl(&event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())?;
            ioctl(&event, PERF_EVENT_IOC_ENABLE, 0)?;
            Ok(Self { _event: event, _definition: definition })
        });
        attached.map_err(io::Error::other)?
    }
}

impl Definition {
    fn make(tracefs: &Path, function: &str) -> io::Result<Self> {
        let path = tracefs.join(DEFINITIONS);
        sweep(&path)?;
        // Appending: to open it for writing alone would take away everybody's definitions.
        let mut file = OpenOptions::new().append(true).open(path)?;
        let name = format!("{function}_{}", std::process::id());
        write_line(&mut file, &format!("r{MAX_ACTIVE}:{GROUP}/{name} {function}"))?;
        Ok(Self { file, name })
    }
}

/// Takes away what was left behind by an overwatch that was killed.
fn sweep(path: &Path) -> io::Result<()> {
    let definitions = fs::read_to_string(path)?;
    let mut file = OpenOptions::new().append(true).open(path)?;
    for (name, pid) in definitions.lines().filter_map(ours) {
        if !Path::new("/proc").join(pid.to_string()).exists() {
            // Refused when somebody uses it after all.
            let _used = write_line(&mut file, &format!("-:{GROUP}/{name}"));
        }
    }
    Ok(())
}

/// `r4096:overwatch/tcp_sendmsg_123 tcp_sendmsg` is the definition `tcp_sendmsg_123` of process 123.
fn ours(definition: &str) -> Option<(&str, u32)> {
    let (_, rest) = definition.split_once(':')?;
    let name = rest.strip_prefix(GROUP)?.strip_prefix('/')?.split_whitespace().next()?;
    let (_, pid) = name.rsplit_once('_')?;
    Some((name, pid.parse().ok()?))
}

/// One command must come in one write.
fn write_line(file: &mut File, line: &str) -> io::Result<()> {
    file.write_all(format!("{line}\n").as_bytes())
}

fn open_tracepoint(id: u64) -> io::Result<OwnedFd> {
    /// The first 64 bytes of `struct perf_event_attr`, which every kernel accepts (`PERF_ATTR_SIZE_VER0`).
    #[repr(C)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        rest: [u64; 6],
    }
    const SIZE: u32 = size_of::<Attributes>() as u32;
    let attributes = Attributes { kind: PERF_TYPE_TRACEPOINT, size: SIZE, config: id, rest: [0; 6] };
    // One event on one CPU is enough: the program runs for hits on all (`kretprobe_perf_func`).
    let (any_process, cpu, no_group): (libc::pid_t, libc::c_int, libc::c_int) = (-1, 0, -1);
    // SAFETY: the attributes are as long as they say and live through the call; the rest are plain numbers.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            any_process,
            cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ioctl(event: &OwnedFd, request: libc::c_ulong, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: both requests take a number.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::ours;

    #[test]
    fn only_our_definitions_are_swept() {
        for (definition, wanted) in [
            ("r4096:overwatch/tcp_sendmsg_123 tcp_sendmsg", Some(("tcp_sendmsg_123", 123))),
            ("r4096:overwatch/inet_csk_accept_7 inet_csk_accept", Some(("inet_csk_accept_7", 7))),
            ("r:kprobes/r_tcp_sendmsg_123 tcp_sendmsg", None),
            ("p:overwatcher/x_1 x", None),
            ("r4096:overwatch/mine x", None),
            ("", None),
        ] {
            assert_eq!(ours(definition), wanted, "{definition}");
        }
    }
}
