//! Initial dump: sockets from before the start are put into the maps by a walk of the kernel's own over its TCP sockets, in every network
//! namespace; where the kernel refuses that, over all open files.

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

use super::{
    attach::{self, Degradation},
    capabilities::{Capability, Level},
    refuse::{Forced, Refuse},
};
use crate::kernel::namespaces::{self, NetworkNamespace};

/// A walk of the kernel's that runs a program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over the TCP sockets of a network namespace: that of the thread that opens the walk.
    Sockets,
    /// Over the open files of all processes.
    Files,
}

impl Way {
    /// In the order in which they are tried.
    const ALL: [Self; 2] = [Self::Sockets, Self::Files];

    /// Name of the program in the object.
    fn program(self) -> &'static str {
        match self {
            Self::Sockets => "seed",
            Self::Files => "seed_files",
        }
    }

    /// What the kernel walks over.
    fn iterates(self) -> &'static str {
        match self {
            Self::Sockets => "tcp",
            Self::Files => "task_file",
        }
    }

    /// The capabilities that this loss leaves partial.
    fn concerns(way: Option<Self>) -> &'static [Capability] {
        match way {
            Some(Self::Sockets) => &[],
            Some(Self::Files) => &[Capability::Life],
            None => &[Capability::Life, Capability::Listeners],
        }
    }

    /// What is lost when this is the first way that works; `None` when all fail.
    fn loss(way: Option<Self>) -> &'static str {
        match way {
            Some(Self::Sockets) => "nothing",
            Some(Self::Files) => {
                "connections from before the start that wait in an accept queue, or that no process has open any more, are unknown until their \
                 next state or bytes; what kernels miss when they skip programs is found only when a connection ends"
            }
            None => {
                "connections and listening sockets from before the start are unknown until their next state or bytes; listening sockets are \
                 read by sock_diag"
            }
        }
    }
}

/// Why a walk failed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The object lacks it.
    #[error("the object has no {0}")]
    Missing(&'static str),
    /// A test asked for this failure.
    #[error(transparent)]
    Forced(#[from] Forced),
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

/// The result of the initial dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Namespaces whose sockets were walked; `None` where the walk was over files, or there was none.
    pub namespaces: Option<usize>,
    /// Namespaces that could not be entered; their open connections get an owner with their next bytes.
    pub unreachable: Vec<NetworkNamespace>,
}

/// The walk that works on this host.
#[derive(Debug)]
pub struct Seed {
    way: Option<Way>,
    /// What came of the first walk.
    pub seeded: Seeded,
    /// The ways that do not work here.
    pub degradations: Vec<Degradation>,
}

impl Seed {
    /// Walks for the first time. `owners` has the process that holds each socket, by inode.
    pub fn start(
        ebpf: &mut Ebpf,
        btf: &Btf,
        root: &Path,
        owners: std::collections::HashMap<u64, Owner>,
        refuse: &Refuse,
    ) -> Result<Self, SeedError> {
        let mut map: HashMap<_, u64, Owner> =
            ebpf.map_mut("OWNERS").ok_or(SeedError::Missing("map OWNERS"))?.try_into()?;
        for (inode, owner) in owners {
            map.insert(inode, owner, 0)?;
        }
        let mut refused = Vec::new();
        let mut first = None;
        for way in Way::ALL {
            match load(ebpf, btf, way, refuse).and_then(|()| walk_all(ebpf, way, root)) {
                Ok(walked) => {
                    first = Some((way, walked));
                    break;
                }
                Err(error) => refused.push((way, error)),
            }
        }
        let way = first.as_ref().map(|(way, _)| *way);
        let degradations = refused.iter().map(|(refused, error)| Degradation {
            what: format!("iter:{}", refused.iterates()),
            why: attach::cause(error).line,
            loss: Way::loss(way),
            concerns: Way::concerns(way),
            leaves: Level::Partial,
        });
        let (seeded, inodes) = first.map(|(_, walked)| walked).unwrap_or_default();
        let mut map: HashMap<_, u32, u8> =
            ebpf.map_mut("SEEDED_NETNS").ok_or(SeedError::Missing("map SEEDED_NETNS"))?.try_into()?;
        for inode in inodes {
            map.insert(inode, 1, 0)?;
        }
        Ok(Self { way, seeded, degradations: degradations.collect() })
    }

    /// True when sockets from before the start are known.
    pub fn works(&self) -> bool {
        self.way.is_some()
    }

    /// Walks again, after the kernel has skipped programs: makes entries for sockets without one, and marks all that it finds with the number
    /// of the audit. Returns the namespaces whose TCP sockets were all walked, by inode number.
    pub fn audit(&self, ebpf: &mut Ebpf, root: &Path) -> Result<HashSet<u32>, SeedError> {
        let Some(way) = self.way else { return Ok(HashSet::new()) };
        Ok(walk_all(ebpf, way, root)?.1)
    }
}

fn program(ebpf: &mut Ebpf, way: Way) -> Result<&mut Iter, SeedError> {
    Ok(ebpf.program_mut(way.program()).ok_or(SeedError::Missing(way.program()))?.try_into()?)
}

fn load(ebpf: &mut Ebpf, btf: &Btf, way: Way, refuse: &Refuse) -> Result<(), SeedError> {
    refuse.check(way.program())?;
    Ok(program(ebpf, way)?.load(way.iterates(), btf)?)
}

fn walk_all(ebpf: &mut Ebpf, way: Way, root: &Path) -> Result<(Seeded, HashSet<u32>), SeedError> {
    let program = program(ebpf, way)?;
    if way == Way::Files {
        walk(program)?;
        return Ok((Seeded::default(), HashSet::new()));
    }
    let (mut namespaces, mut unreachable) = (0, Vec::new());
    let mut walked_inodes = HashSet::new();
    let own = std::fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino()).ok();
    for namespace in namespaces::list(root) {
        let walked = if Some(namespace.inode) == own { Some(walk(program)) } else { walk_inside(program, &namespace) };
        match walked {
            Some(result) => {
                result?;
                namespaces += 1;
                walked_inodes.extend(u32::try_from(namespace.inode).ok());
            }
            None if namespaces::is_there(&namespace) => unreachable.push(namespace),
            // It has gone since it was listed, and its sockets with it.
            None => {}
        }
    }
    Ok((Seeded { namespaces: Some(namespaces), unreachable }, walked_inodes))
}

fn walk_inside(program: &mut Iter, namespace: &NetworkNamespace) -> Option<Result<(), SeedError>> {
    namespaces::inside(namespace, || walk(program))
}

/// The programs print nothing: reading the iterator is what makes it run.
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
