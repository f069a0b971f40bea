//! Running overwatch and judging what it prints.

pub mod bpf;
pub mod cgroup;
pub mod host;
pub mod judge;
pub mod netns;
pub mod operations;
pub mod overwatch;
pub mod proc;
pub mod rows;
pub mod traffic;
