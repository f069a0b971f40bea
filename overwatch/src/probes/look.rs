//! A look at every listening socket: the kernel's walk over the map of them, with a program that writes what it finds.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use aya::{
    Btf, Ebpf,
    maps::Map,
    programs::{Iter, ProgramError},
};

/// Name of the program in the object, of what it iterates over, and of the map.
const PROGRAM: &str = "look";
const ITERATES: &str = "bpf_map_elem";
const MAP: &str = "LISTENERS";

/// Commands of bpf(2) and the type of attachment (`enum bpf_cmd` and `enum bpf_attach_type`, linux/bpf.h).
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// The kernel gives no more at once (`bpf_seq_read`, kernel/bpf/bpf_iter.c).
const MOST_AT_ONCE: usize = 32 * 1024;

/// Why there can be no look.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The object lacks it.
    #[error("the object has no {0}")]
    Missing(&'static str),
    /// The program could not be loaded.
    #[error("{0}")]
    Program(#[from] ProgramError),
    /// It could not be put to the map.
    #[error("cannot walk the map of listening sockets: {0}")]
    Link(#[from] io::Error),
}

/// A program that is ready to look.
#[derive(Debug)]
pub struct Look {
    link: OwnedFd,
    /// Kept, so that a look sets nothing aside.
    found: Vec<u8>,
}

impl Look {
    /// What a host loses that cannot look.
    pub const LOSS: &str = "nothing is known of what waits at listening sockets";

    /// Loads the program and names the map. To be called before the maps are taken out of `ebpf`.
    pub fn prepare(ebpf: &mut Ebpf, btf: &Btf) -> Result<Self, LookError> {
        let program: &mut Iter = ebpf.program_mut(PROGRAM).ok_or(LookError::Missing("program look"))?.try_into()?;
        program.load(ITERATES, btf)?;
        let Some(Map::HashMap(map)) = ebpf.map(MAP) else {
            return Err(LookError::Missing("map LISTENERS"));
        };
        let program = ebpf.program(PROGRAM).ok_or(LookError::Missing("program look"))?.fd()?;
        let link = create_link(program.as_fd().as_raw_fd(), map.fd().as_fd().as_raw_fd())?;
        Ok(Self { link, found: Vec::new() })
    }

    /// Looks. What it gives is a row of records: see `overwatch_common::look`.
    pub fn take(&mut self) -> io::Result<&[u8]> {
        let mut walk = File::from(create_iterator(&self.link)?);
        give_back(&mut self.found);
        self.found.clear();
        loop {
            let length = self.found.len();
            self.found.resize(length + MOST_AT_ONCE, 0);
            let result = walk.read(&mut self.found[length..]);
            self.found.truncate(length + result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => return Ok(&self.found),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where the last look has found far less than one before it, as after an attack, what it does not need goes back.
fn give_back(found: &mut Vec<u8>) {
    let needed = found.len() + MOST_AT_ONCE;
    // Growing doubles, so that twice as much is usual.
    if found.capacity() > 4 * needed {
        found.shrink_to(needed);
    }
}

/// The library makes links of iterators that need no more than the program; this one needs the map.
fn create_link(program: RawFd, map: RawFd) -> io::Result<OwnedFd> {
    /// `link_create` of `union bpf_attr`.
    #[repr(C)]
    struct Attributes {
        program: RawFd,
        target: u32,
        attach_type: u32,
        flags: u32,
        information: u64,
        information_len: u32,
        pad: u32,
    }
    /// `map` of `union bpf_iter_link_info`.
    #[repr(C)]
    struct Information {
        map: RawFd,
    }
    let information = Information { map };
    let attributes = Attributes {
        program,
        target: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        information: (&raw const information) as u64,
        information_len: size_of::<Information>() as u32,
        pad: 0,
    };
    bpf(BPF_LINK_CREATE, &attributes)
}

fn create_iterator(link: &OwnedFd) -> io::Result<OwnedFd> {
    /// `iter_create` of `union bpf_attr`.
    #[repr(C)]
    struct Attributes {
        link: RawFd,
        flags: u32,
    }
    bpf(BPF_ITER_CREATE, &Attributes { link: link.as_raw_fd(), flags: 0 })
}

/// A command that makes a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are of that command, as long as they say, and what they point to lives through the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_large_look_needed_is_given_back_after_a_small_one() {
        const KIB: usize = 1024;
        // Room, bytes of the last look, and the room that is left, in KiB.
        for (room, found, left) in
            [(0, 0, 0), (64, 1, 64), (128, 0, 128), (132, 0, 32), (4_096, 1_000, 4_096), (9_000, 100, 132)]
        {
            let mut bytes = Vec::with_capacity(room * KIB);
            bytes.resize(found * KIB, 7);
            give_back(&mut bytes);
            assert_eq!((bytes.capacity() / KIB, bytes.len()), (left, found * KIB), "{room} {found}");
        }
    }
}
