//! Connections that are open already: put into the table by the kernel's own walk over its sockets, in every network
//! namespace.

use std::{
    collections::HashSet,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use aya::{
    Btf, Ebpf,
    maps::{HashMap, MapError},
    programs::{Iter, ProgramError, links::LinkError},
};
use overwatch_common::connection::Owner;

use crate::kernel::namespaces::{self, NetworkNamespace};

/// Name of the program in the object, and of what it iterates over.
const PROGRAM: &str = "seed";
const ITERATES: &str = "tcp";

/// Why seeding failed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The object lacks it.
    #[error("the object has no {0}")]
    Missing(&'static str),
    /// The program could not be loaded or attached.
    #[error("cannot walk the open sockets: {0}")]
    Program(#[from] ProgramError),
    /// The link could not be opened for reading.
    #[error("cannot walk the open sockets: {0}")]
    Link(#[from] LinkError),
    /// The owners could not be handed over.
    #[error("cannot hand over the owners of the open sockets: {0}")]
    Map(#[from] MapError),
    /// The walk itself failed.
    #[error("walking the open sockets: {0}")]
    Walk(#[from] io::Error),
}

/// What was seeded and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Namespaces whose sockets were walked.
    pub namespaces: usize,
    /// Namespaces that could not be entered; their open connections get an owner with their next bytes.
    pub unreachable: usize,
}

/// Walks every namespace. `owners` says who holds which socket.
pub fn seed(
    ebpf: &mut Ebpf,
    btf: &Btf,
    root: &Path,
    owners: std::collections::HashMap<u64, Owner>,
) -> Result<Seeded, SeedError> {
    let mut map: HashMap<_, u64, Owner> = ebpf.map_mut("OWNERS").ok_or(SeedError::Missing("map OWNERS"))?.try_into()?;
    for (inode, owner) in owners {
        map.insert(inode, owner, 0)?;
    }
    let program: &mut Iter = ebpf.program_mut(PROGRAM).ok_or(SeedError::Missing("program seed"))?.try_into()?;
    program.load(ITERATES, btf)?;
    let (seeded, walked) = walk_all(program, root)?;
    let mut map: HashMap<_, u32, u8> =
        ebpf.map_mut("SEEDED_NETNS").ok_or(SeedError::Missing("map SEEDED_NETNS"))?.try_into()?;
    for inode in walked {
        map.insert(inode, 1, 0)?;
    }
    Ok(seeded)
}

/// Walks every namespace again, after the kernel has skipped programs: makes entries for what has none, and marks all that it finds with
/// the number of the audit. Gives the namespaces that were walked, by inode number.
pub fn audit(ebpf: &mut Ebpf, root: &Path) -> Result<HashSet<u32>, SeedError> {
    let program: &mut Iter = ebpf.program_mut(PROGRAM).ok_or(SeedError::Missing("program seed"))?.try_into()?;
    let (_, walked) = walk_all(program, root)?;
    Ok(walked)
}

fn walk_all(program: &mut Iter, root: &Path) -> Result<(Seeded, HashSet<u32>), SeedError> {
    let mut seeded = Seeded::default();
    let mut walked_inodes = HashSet::new();
    let own = std::fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).ok();
    for namespace in namespaces::list(root) {
        let walked = if Some(namespace.inode) == own { Some(walk(program)) } else { walk_inside(program, &namespace) };
        match walked {
            Some(result) => {
                result?;
                seeded.namespaces += 1;
                walked_inodes.extend(u32::try_from(namespace.inode).ok());
            }
            None => seeded.unreachable += 1,
        }
    }
    Ok((seeded, walked_inodes))
}

fn walk_inside(program: &mut Iter, namespace: &NetworkNamespace) -> Option<Result<(), SeedError>> {
    namespaces::inside(namespace, || walk(program))
}

/// The iterator walks the namespace of the thread that opens it. It prints nothing: reading it is what makes it run.
fn walk(program: &mut Iter) -> Result<(), SeedError> {
    let link = program.attach()?;
    let mut walk = program.take_link(link)?.into_file()?;
    let mut nothing = [0; 64];
    loop {
        match walk.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // After a million sockets in one read the kernel asks to go on (bpf_seq_read).
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
