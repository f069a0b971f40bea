//! Running overwatch and judging what it prints.

pub mod bpf;
pub mod cgroup;
pub mod chains;
pub mod daemon;
pub mod host;
pub mod judge;
pub mod lines;
pub mod listeners;
pub mod lives;
pub mod netns;
pub mod operations;
pub mod overwatch;
pub mod party;
pub mod problems;
pub mod proc;
pub mod rows;
pub mod schema;
pub mod servers;
pub mod sockets;
pub mod stream;
pub mod tmux;
pub mod traffic;
pub mod unit;
pub mod visits;
pub mod watch;
