//! Real servers: of the host's distribution, in a namespace, with a configuration and a directory of their own.

use std::env;
use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
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

use super::host::{in_guest, patience};
use super::netns::NetNs;
use super::proc::Proc;
use super::sockets::backlogs;

/// Where programs are that are for administrators, beside those in PATH.
const MORE_PLACES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Where a program is. When it is missing: an error where everything must be there (`CI=true`), else said aloud.
fn find(program: &str) -> Result<Option<PathBuf>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(MORE_PLACES.iter().map(PathBuf::from));
    let found = places.map(|place| place.join(program)).find(|path| path.is_file());
    if found.is_none() {
        ensure!(env::var("CI").as_deref() != Ok("true"), "{program} is missing: cargo xtask setup tests");
        println!("skipped: {program} is not installed");
    }
    Ok(found)
}

/// Whether all of these are there; said aloud when not. A guest has none of the host's servers.
pub fn installed(programs: &[&str]) -> Result<bool> {
    if in_guest() {
        println!("skipped: a guest has no {}", programs.join(", "));
        return Ok(false);
    }
    for program in programs {
        if find(program)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A server may not run as root, and somebody must own its files.
const USER: &str = "www-data";
const FILE_BYTES: u64 = 32 * 1024 * 1024;

/// A request for the file that [`RealServer::apache`] has, for `traffic call`.
pub const HTTP_REQUEST: &str = "GET /file HTTP/1.1\\r\\nHost: overwatch.test\\r\\nUser-Agent: traffic\\r\\n\\r\\n";

/// A running server with all of its processes, which are one process group.
#[derive(Debug)]
pub struct RealServer {
    process: Proc,
    directory: TempDir,
}

/// What a configuration may refer to.
struct Site<'a> {
    /// A directory of the server's own that everybody may read.
    directory: &'a Path,
    at: SocketAddr,
}

impl RealServer {
    /// Apache with one process per client and five of them, and one large file.
    pub fn apache(netns: &NetNs, at: SocketAddr) -> Result<Self> {
        Self::start(netns, at, &["apache2", "-f", "CONFIG", "-D", "FOREGROUND"], apache_configuration)
    }

    /// HAProxy with at most ten connections, before a server at that port of the same host.
    pub fn haproxy(netns: &NetNs, at: SocketAddr, backend: u16) -> Result<Self> {
        Self::start(netns, at, &["haproxy", "-db", "-f", "CONFIG"], |site| Ok(haproxy_configuration(site, backend)))
    }

    /// nginx with one worker and a small page.
    pub fn nginx(netns: &NetNs, at: SocketAddr) -> Result<Self> {
        // Before it has read its configuration it would write to the log of the distribution's server.
        Self::start(netns, at, &["nginx", "-e", "stderr", "-c", "CONFIG"], nginx_configuration)
    }

    /// Starts a server in a namespace: writes its configuration, runs it in the foreground, waits until it listens.
    ///
    /// `CONFIG` among the arguments is where the configuration is.
    fn start(
        netns: &NetNs,
        at: SocketAddr,
        words: &[&str],
        configuration: impl FnOnce(&Site<'_>) -> Result<String>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("overwatch-server-").tempdir()?;
        // The server's processes are not root.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let path = directory.path().join("server.conf");
        fs::write(&path, configuration(&Site { directory: directory.path(), at })?)?;
        let path = path.to_str().context("a path that is text")?;
        let words: Vec<&str> = words.iter().map(|word| if *word == "CONFIG" { path } else { word }).collect();
        let mut command = netns.command(&words);
        command.process_group(0);
        let mut process = Proc::start(command)?;
        process.close_stdin();
        let server = Self { process, directory };
        let deadline = Instant::now() + patience(20);
        while backlogs(netns, at.port())?.is_empty() {
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
    fn files(&self) -> Result<PathBuf> {
        let files = self.directory.join("www");
        fs::create_dir_all(&files)?;
        fs::set_permissions(&files, Permissions::from_mode(0o755))?;
        Ok(files)
    }
}

fn apache_configuration(site: &Site<'_>) -> Result<String> {
    let files = site.files()?;
    File::create(files.join("file"))?.set_len(FILE_BYTES)?;
    let (directory, files) = (site.directory.display(), files.display());
    let at = site.at;
    Ok(format!(
        "ServerRoot {directory}
ServerName overwatch.test
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
DefaultRuntimeDir {directory}
PidFile {directory}/pid
ErrorLog {directory}/error.log
Listen {at}
User {USER}
Group {USER}
DocumentRoot {files}
<Directory {files}>
    Require all granted
</Directory>
StartServers 5
MinSpareServers 5
MaxSpareServers 5
ServerLimit 5
MaxRequestWorkers 5
"
    ))
}

/// Without a backlog, it would listen with one as small as `maxconn`, and refuse clients.
fn haproxy_configuration(site: &Site<'_>, backend: u16) -> String {
    let at = site.at;
    format!(
        "defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend clients
    bind {at}
    maxconn 10
    backlog 511
    default_backend slow
backend slow
    server one 127.0.0.1:{backend}
"
    )
}

fn nginx_configuration(site: &Site<'_>) -> Result<String> {
    let files = site.files()?;
    fs::write(files.join("index.html"), "x".repeat(600))?;
    let (directory, at) = (site.directory.display(), site.at);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {directory}/{name};\n"))
        .collect();
    Ok(format!(
        "daemon off;
user {USER};
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
{temporary}    keepalive_requests 100000000;
    server {{
        listen {at};
        root {files};
    }}
}}
",
        files = files.display()
    ))
}
