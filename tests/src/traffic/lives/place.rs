//! Changes of a place that a scenario needs, undone when it is over. Only for namespaces that a test has made.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A neighbour that does not hear: what is sent to it is lost on the way.
#[derive(Debug)]
pub(super) struct Silence {
    address: IpAddr,
    device: String,
}

/// No interface has this address.
const NOBODY: &str = "02:0b:ad:0b:ad:0b";

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running ip")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Silence {
    /// Nothing that this namespace sends to `address` arrives any more.
    pub(super) fn of(address: IpAddr, device: &str) -> Result<Self> {
        let text = address.to_string();
        ip(&["neighbour", "replace", &text, "lladdr", NOBODY, "nud", "permanent", "dev", device])?;
        Ok(Self { address, device: device.to_owned() })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = ip(&["neighbour", "delete", &self.address.to_string(), "dev", &self.device]) {
            eprintln!("traffic: {error:#}");
        }
    }
}

/// A route to nowhere, of a kind that `ip route` knows: `unreachable`, `prohibit`.
#[derive(Debug)]
pub(super) struct NoRoute {
    kind: &'static str,
    address: IpAddr,
}

impl NoRoute {
    /// Adds it.
    pub(super) fn to(address: IpAddr, kind: &'static str) -> Result<Self> {
        ip(&["route", "add", kind, &address.to_string()])?;
        Ok(Self { kind, address })
    }
}

impl Drop for NoRoute {
    fn drop(&mut self) {
        if let Err(error) = ip(&["route", "delete", self.kind, &self.address.to_string()]) {
            eprintln!("traffic: {error:#}");
        }
    }
}

/// A setting of this network namespace.
#[derive(Debug)]
pub(super) struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// Sets `/proc/sys/net/ipv4/NAME`.
    pub(super) fn set(name: &str, value: &str) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/sys/net/ipv4/{name}"));
        let before = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        fs::write(&path, value).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("traffic: {} stays as it is: {error}", self.path.display());
        }
    }
}

/// An address in the subnet of `address` that no host has, and that is silent while connections are made.
pub(super) fn silent(address: IpAddr) -> IpAddr {
    beside(address, 254)
}

/// An address in the subnet of `address` that no host has.
pub(super) fn missing(address: IpAddr) -> IpAddr {
    beside(address, 253)
}

fn beside(address: IpAddr, last: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, last).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, _] = v6.segments();
            Ipv6Addr::new(a, b, c, d, e, f, g, last.into()).into()
        }
    }
}

/// An address in no subnet that a test has.
pub(super) fn elsewhere(than: IpAddr) -> IpAddr {
    match than {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The address that this namespace uses to talk to `target`.
pub(super) fn address_towards(target: SocketAddr) -> Result<IpAddr> {
    let any: IpAddr = if target.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}
