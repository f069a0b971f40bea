//! The privileged tests: one program, so that it is linked once, with a module for each thing that
//! must hold.
//!
//! `cargo xtask test` and `cargo xtask vm` run each module in a process of its own, in the order of
//! the names: what a module changes in its process (a resource limit, for example) does not reach
//! the next one.

mod address_reuse;
mod bad_input;
mod before_after;
mod bursts;
mod capabilities;
mod check_cli;
mod counted_tables;
mod endings;
mod exact_bytes;
mod filters;
mod hostile_output;
mod life_against_both_ends;
mod life_filters;
mod listener_scenarios;
mod messages;
mod namespaces;
mod nothing_lost;
mod odd_connections;
mod open_counts;
mod queue_selfcheck;
mod refused_programs;
mod serve_bounded;
mod serve_faults;
mod serve_hostile;
mod serve_metrics;
mod serve_privileges;
mod serve_prometheus;
mod serve_service;
mod shared_sockets;
mod startup;
mod states_against_tcpstates;
mod states_sequence;
mod top_cli;
mod top_screen;
mod traffic_selfcheck;
mod waiting_lists;
mod zz_lockdown;
