//! Network namespaces that a test makes and that go away with it, also when it fails.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::host::patience;
use super::proc::must;

/// A named network namespace with its loopback up.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    path: PathBuf,
    inode: u64,
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    must(command, patience(20)).map(drop)
}

impl NetNs {
    /// Makes one. `tag` tells apart those of one test; the process id those of different runs.
    pub fn new(tag: &str) -> Result<Self> {
        let name = format!("ow-{}-{tag}", std::process::id());
        ip(&["netns", "add", &name])?;
        // From here on Drop removes it.
        let mut netns = Self { path: Path::new("/var/run/netns").join(&name), name, inode: 0 };
        netns.inode = fs::metadata(&netns.path).with_context(|| format!("{}", netns.path.display()))?.ino();
        ip(&["-n", &netns.name, "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it can be entered.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, as text for an argument.
    #[must_use]
    pub fn path_text(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// The number by which overwatch names it.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Joins this namespace, with `address/prefix`, to another one by a pair of virtual interfaces.
    pub fn join(&self, address: &str, other: &Self, other_address: &str) -> Result<()> {
        let (here, there) = (self.name.as_str(), other.name.as_str());
        ip(&["link", "add", "ow0", "netns", here, "type", "veth", "peer", "name", "ow0", "netns", there])?;
        for (name, address) in [(here, address), (there, other_address)] {
            ip(&["-n", name, "addr", "add", address, "dev", "ow0"])?;
            ip(&["-n", name, "link", "set", "ow0", "up"])?;
        }
        Ok(())
    }

    /// Loses all that is sent to `address` over `device` from now on, or no longer.
    pub fn lose(&self, address: &str, device: &str, lost: bool) -> Result<()> {
        let place = [address, "dev", device];
        let how = if lost { &["lladdr", "02:0b:ad:0b:ad:0b", "nud", "permanent"][..] } else { &[] };
        let what = if lost { "replace" } else { "delete" };
        ip(&[&["-n", &self.name, "neighbour", what], &place[..], how].concat())
    }

    /// Gives `device` one more `address/prefix`.
    pub fn add_address(&self, address: &str, device: &str) -> Result<()> {
        ip(&["-n", &self.name, "addr", "add", address, "dev", device])
    }

    /// Lets the interface to the other namespace send so slowly, with so short a queue, that packets cannot leave the host.
    pub fn throttle(&self) -> Result<()> {
        self.limit(&["rate", "50mbit", "burst", "32kb", "limit", "30000"])
    }

    /// Lets the interface to the other namespace send only so fast, in the words of `tc ... tbf`.
    pub fn limit(&self, how: &[&str]) -> Result<()> {
        let tbf = ["tc", "qdisc", "add", "dev", Joined::DEVICE, "root", "tbf"];
        must(self.command(&[&tbf, how].concat()), patience(20)).map(drop)
    }

    /// Sends what is for `prefix` to the host with this address.
    pub fn route(&self, prefix: &str, via: &str) -> Result<()> {
        ip(&["-n", &self.name, "route", "add", prefix, "via", via])
    }

    /// A command that runs in this namespace.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words);
        command
    }
}

/// A namespace for clients and one for servers, joined by a pair of interfaces called [`Joined::DEVICE`].
#[derive(Debug)]
pub struct Joined {
    /// Where the clients are.
    pub client: NetNs,
    /// Where the servers are.
    pub server: NetNs,
}

impl Joined {
    /// The interface, on both sides.
    pub const DEVICE: &str = "ow0";
    /// The client's address.
    pub const CLIENT: &str = "10.213.6.1";
    /// The server's address.
    pub const SERVER: &str = "10.213.6.2";

    /// Makes both.
    pub fn new(tag: &str) -> Result<Self> {
        let client = NetNs::new(&format!("{tag}-cli"))?;
        let server = NetNs::new(&format!("{tag}-srv"))?;
        client.join(&format!("{}/24", Self::CLIENT), &server, &format!("{}/24", Self::SERVER))?;
        Ok(Self { client, server })
    }

    /// An address that nobody has.
    pub const NOBODY: &str = "10.99.0.1";
    const NOBODIES: &str = "10.99.0.0/16";

    /// Makes both, where the client's can speak for addresses that nobody has, and hears what is said to them.
    pub fn with_nobodies(tag: &str) -> Result<Self> {
        let joined = Self::new(tag)?;
        joined.server.route(Self::NOBODIES, Self::CLIENT)?;
        Ok(joined)
    }

    /// The arguments that tell the traffic program where to be.
    #[must_use]
    pub fn place(&self) -> [&str; 6] {
        let (client, server) = (self.client.path_text(), self.server.path_text());
        ["--address", Self::SERVER, "--client-netns", client, "--server-netns", server]
    }

    /// Whether that is one of the two.
    #[must_use]
    pub fn has(&self, netns: u64) -> bool {
        [self.client.inode(), self.server.inode()].contains(&netns)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("network namespace {} stays behind: {error:#}", self.name);
        }
    }
}
