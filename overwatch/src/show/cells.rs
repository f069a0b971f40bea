//! What stands in the cells of more than one table.

use std::net::{IpAddr, SocketAddr};

use super::text::printable;
use crate::model::snapshot::{Process, Role, state_name};

/// Stands for what is not known.
pub(super) const UNKNOWN: &str = "-";

/// Shows what is known.
pub(super) fn known<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

pub(super) fn pid(process: Option<&Process>) -> String {
    known(process, |process| process.pid.to_string())
}

pub(super) fn comm(process: Option<&Process>) -> String {
    known(process, |process| printable(&process.comm))
}

pub(super) fn role(role: Option<Role>) -> String {
    known(role, |role| role.name().to_owned())
}

pub(super) fn state(number: u32) -> String {
    known(state_name(number), str::to_owned)
}

pub(super) fn endpoint(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// An end of which perhaps the port is not known (0), perhaps all.
pub(super) fn known_endpoint(address: Option<IpAddr>, port: Option<u16>) -> String {
    known(address, |address| match port {
        None | Some(0) => {
            let with_port = endpoint(address, 0);
            format!("{}{UNKNOWN}", with_port.trim_end_matches('0'))
        }
        Some(port) => endpoint(address, port),
    })
}
