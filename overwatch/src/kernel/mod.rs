//! Facts about this host. Reads only; every root is a parameter, so that tests can read a host made of files.

pub mod activity;
pub mod btf;
pub mod cgroups;
pub mod facts;
pub mod holders;
pub mod host;
pub mod namespaces;
pub mod netstat;
pub mod processes;
pub mod sock_diag;
pub mod throttling;
pub mod tracefs;

#[cfg(test)]
pub(crate) mod fixtures;
