//! Real servers: of the host's distribution, in a namespace, with a configuration and a directory of their own.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::host::patience;
use super::netns::NetNs;
use super::proc::Proc;
use super::sockets::backlogs;

/// Where programs are that are for administrators, beside those in PATH.
const MORE_PLACES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Where a program is. When it is missing: an error where everything must be there (`CI=true`), else said aloud.
pub fn find(program: &str) -> Result<Option<PathBuf>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(MORE_PLACES.iter().map(PathBuf::from));
    let found = places.map(|place| place.join(program)).find(|path| path.is_file());
    if found.is_none() {
        ensure!(env::var("CI").as_deref() != Ok("true"), "{program} is missing: cargo xtask setup tests");
        println!("skipped: {program} is not installed");
    }
    Ok(found)
}

/// A running server with all of its processes, which are one process group.
#[derive(Debug)]
pub struct RealServer {
    process: Proc,
    directory: TempDir,
}

/// What a configuration may refer to.
pub struct Site<'a> {
    /// A directory of the server's own that everybody may read.
    pub directory: &'a Path,
}

impl RealServer {
    /// Starts a server in a namespace: writes its configuration, runs it in the foreground, waits until it listens on `port`.
    ///
    /// `CONFIG` among the arguments is where the configuration is.
    pub fn start(
        netns: &NetNs,
        port: u16,
        words: &[&str],
        configuration: impl FnOnce(&Site<'_>) -> Result<String>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("overwatch-server-").tempdir()?;
        // The server's processes are not root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let path = directory.path().join("server.conf");
        fs::write(&path, configuration(&Site { directory: directory.path() })?)?;
        let path = path.to_str().context("a path that is text")?;
        let words: Vec<&str> = words.iter().map(|word| if *word == "CONFIG" { path } else { word }).collect();
        let mut command = netns.command(&words);
        command.process_group(0);
        let mut process = Proc::start(command)?;
        process.close_stdin();
        let server = Self { process, directory };
        let deadline = Instant::now() + patience(20);
        while backlogs(netns, port)?.is_empty() {
            ensure!(Instant::now() < deadline, "{} does not listen:\n{}", server.process.what(), server.said());
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// What it wrote to stderr and into its directory.
    fn said(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default();
        format!("{}\n{log}", self.process.stderr())
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().map(Pid::from_raw)
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        let Some(group) = self.group() else { return };
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(3);
        // Not taken note of by the parent, the first process keeps its number, which is the group's.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while matches!(waitid(Id::Pid(group), flags), Ok(WaitStatus::StillAlive)) && Instant::now() < deadline {
            sleep(Duration::from_millis(20));
        }
        let _ = killpg(group, Signal::SIGKILL);
    }
}

impl Site<'_> {
    /// A directory below, for files that are served.
    pub fn files(&self) -> Result<PathBuf> {
        let files = self.directory.join("www");
        fs::create_dir_all(&files)?;
        fs::set_permissions(&files, Permissions::from_mode(0o755))?;
        Ok(files)
    }
}
