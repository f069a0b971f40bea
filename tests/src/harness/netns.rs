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

    /// Lets the interface to the other namespace send so slowly, with so short a queue, that packets cannot leave the host.
    pub fn throttle(&self) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "tc", "qdisc", "add", "dev", "ow0", "root"]);
        command.args(["tbf", "rate", "50mbit", "burst", "32kb", "limit", "30000"]);
        must(command, patience(20)).map(drop)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("network namespace {} stays behind: {error:#}", self.name);
        }
    }
}
