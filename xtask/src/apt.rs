//! apt for suites other than the host's own, without touching the host's configuration.
//!
//! Kernels and QEMU come from other Debian suites. The address of the archive is never written here: the host's own
//! Debian entry is copied and only its suites are changed, so that mirrors and proxies keep working.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A suite of the host's Debian archive, with package lists of its own.
pub(crate) struct Suite {
    name: String,
    options: Vec<String>,
}

impl Suite {
    /// Reads the lists of `name`. With `beside_host`, the host's own suites can be used beside it for dependencies.
    pub(crate) fn open(name: &str, beside_host: bool) -> Result<Suite> {
        let dir = shell::cache_dir().join("apt").join(name);
        let parts = dir.join("sources");
        if parts.exists() {
            fs::remove_dir_all(&parts).with_context(|| format!("cannot empty {}", parts.display()))?;
        }
        shell::create_dir(&parts)?;
        shell::create_dir(&dir.join("lists/partial"))?;
        let host = host_sources()?;
        let codename = codename()?;
        let entry =
            host.iter().find_map(|source| rewrite(source, &codename, name).map(|text| (text, source.extension)));
        let Some((text, extension)) = entry else {
            bail!("no entry for Debian {codename} among the apt sources of this host, so {name} cannot be reached");
        };
        write(&parts.join(format!("zz-{name}.{extension}")), &text)?;
        if beside_host {
            for (index, source) in host.iter().enumerate() {
                write(&parts.join(format!("{index}.{}", source.extension)), &source.text)?;
            }
        }
        let options = [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={}", parts.display()),
            format!("Dir::State::Lists={}", dir.join("lists").display()),
            // The host's caches describe the host's lists.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // Only indices are wanted, not the archive's descriptions of desktop programs.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        let suite = Suite { name: name.to_owned(), options: options.to_vec() };
        shell::output(suite.apt("apt-get").args(["-q", "-o", "APT::Update::Error-Mode=any", "update"])).with_context(
            || format!("cannot read the package lists of Debian {name}; the suite may have moved to the archive, or its key is not in this host's keyring"),
        )?;
        Ok(suite)
    }

    /// The names of the packages that `package` depends on directly.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = shell::output(self.apt("apt-cache").args(["depends", package]))
            .with_context(|| format!("Debian {} has no package {package}", self.name))?;
        Ok(text.lines().filter_map(|l| l.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// Downloads packages into `dir`; nothing is installed.
    pub(crate) fn download(&self, packages: &[String], dir: &Path) -> Result<()> {
        shell::output(self.apt("apt-get").args(["-q", "download"]).args(packages).current_dir(dir))?;
        Ok(())
    }

    /// Installs packages from this suite, for root.
    pub(crate) fn install(&self, packages: &[&str]) -> Result<()> {
        install(self.apt("apt-get").args(["-t", &self.name]), packages)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Reads the package lists of the host's own suites anew, for root.
pub(crate) fn update_host() -> Result<()> {
    shell::output(Command::new("apt-get").args(["-q", "update"])).map(drop)
}

/// Installs packages of the host's own suites, for root.
pub(crate) fn install_from_host(packages: &[&str]) -> Result<()> {
    update_host()?;
    install(&mut Command::new("apt-get"), packages)
}

/// Says that no service may be started, for as long as it is there. The format is that of invoke-rc.d.
struct NothingStarts(&'static Path);

impl NothingStarts {
    /// An administrator's own policy stays, whatever it says.
    fn now() -> Result<Option<NothingStarts>> {
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(None);
        }
        // Removed also when the rest fails.
        let policy = NothingStarts(path);
        write(path, "#!/bin/sh\n# For as long as cargo xtask setup installs programs for tests.\nexit 101\n")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(Some(policy))
    }
}

impl Drop for NothingStarts {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// Installs a package of the host's own suites for its program alone: its service is neither started now nor at the next boot.
pub(crate) fn install_without_service(package: &str, service: Option<&str>) -> Result<()> {
    let _policy = NothingStarts::now()?;
    install(&mut Command::new("apt-get"), &[package])?;
    if let Some(service) = service {
        shell::output(Command::new("update-rc.d").args([service, "disable"]))?;
    }
    Ok(())
}

fn install(apt: &mut Command, packages: &[&str]) -> Result<()> {
    apt.args(["-q", "-y", "--no-install-recommends"])
        // Somebody else's apt may hold the lock for a while.
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0", "install"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    shell::output(apt).map(drop)
}

/// `bookworm` and the like, when the host is a Debian.
pub(crate) fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim_matches('"').to_owned());
    if value("ID=").as_deref() != Some("debian") {
        bail!("this host is not a Debian");
    }
    value("VERSION_CODENAME=").context("/etc/os-release has no VERSION_CODENAME")
}

struct Source {
    extension: &'static str,
    text: String,
}

fn host_sources() -> Result<Vec<Source>> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut listed: Vec<PathBuf> = dir.filter_map(|entry| Some(entry.ok()?.path())).collect();
        listed.sort();
        paths.extend(listed);
    }
    let mut sources = Vec::new();
    for path in paths {
        let extension = match path.extension().and_then(|e| e.to_str()) {
            Some("list") => "list",
            Some("sources") => "sources",
            _ => continue,
        };
        if path.is_file() {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.push(Source { extension, text });
        }
    }
    Ok(sources)
}

/// The entry of `source` that serves `codename`, asking for `suite` instead.
fn rewrite(source: &Source, codename: &str, suite: &str) -> Option<String> {
    match source.extension {
        "list" => source.text.lines().find_map(|line| rewrite_line(line, codename, suite)),
        _ => {
            let text = source.text.replace("\r\n", "\n");
            text.split("\n\n").find_map(|stanza| rewrite_stanza(stanza, codename, suite))
        }
    }
}

/// One-line format: `deb [options] URI suite component...`.
fn rewrite_line(line: &str, codename: &str, suite: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (options, rest) = inner.split_once(']')?;
            (format!("[{options}] "), rest)
        }
        None => (String::new(), rest),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let mut words = rest.split_whitespace();
    let (uri, found) = (words.next()?, words.next()?);
    let components: Vec<&str> = words.collect();
    // `main` tells Debian's own archive from others that name their suites after Debian's.
    if found != codename || !components.contains(&"main") {
        return None;
    }
    Some(format!("deb {options}{uri} {suite} {}\n", components.join(" ")))
}

/// deb822 format: a stanza of fields.
fn rewrite_stanza(stanza: &str, codename: &str, suite: &str) -> Option<String> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.split_whitespace().collect::<Vec<_>>())
        })
    };
    let has = |name: &str, word: &str| field(name).is_some_and(|words| words.contains(&word));
    if has("Enabled", "no") || !has("Types", "deb") {
        return None;
    }
    if !has("Suites", codename) || !has("Components", "main") {
        return None;
    }
    let mut text = String::new();
    for line in stanza.lines() {
        let key = line.split_once(':').map_or("", |(key, _)| key);
        if key.eq_ignore_ascii_case("Suites") {
            text.push_str("Suites: ");
            text.push_str(suite);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    Some(text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# a comment: with a colon\nURIs: mirror:/one\nSuites: bookworm bookworm-updates\n\
                           Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: mirror:/two\n\
                           Suites: bookworm-security\nComponents: main\n";

    fn source(extension: &'static str, text: &str) -> Source {
        Source { extension, text: text.to_owned() }
    }

    #[test]
    fn a_stanza_keeps_everything_but_its_suites() {
        let text = rewrite(&source("sources", STANZAS), "bookworm", "sid");
        let expected = "Types: deb\n# a comment: with a colon\nURIs: mirror:/one\nSuites: sid\nComponents: main\n\
                        Signed-By: /k.gpg\n";
        assert_eq!(text.as_deref(), Some(expected));
    }

    #[test]
    fn a_stanza_that_is_switched_off_or_only_for_sources_is_not_used() {
        let off = STANZAS.replace("Types: deb\n#", "Enabled: no\nTypes: deb\n#");
        assert_eq!(rewrite(&source("sources", &off), "bookworm", "sid"), None);
        let sources = STANZAS.replace("Types: deb\n", "Types: deb-src\n");
        assert_eq!(rewrite(&source("sources", &sources), "bookworm", "sid"), None);
    }

    #[test]
    fn a_line_keeps_its_options_and_components() {
        let text = "# deb mirror:/old bookworm main\ndeb-src mirror:/one bookworm main\n\
                    deb mirror:/other bookworm stable\ndeb [arch=amd64 signed-by=/k.gpg] mirror:/one bookworm main contrib # ours\n";
        assert_eq!(
            rewrite(&source("list", text), "bookworm", "bullseye").as_deref(),
            Some("deb [arch=amd64 signed-by=/k.gpg] mirror:/one bullseye main contrib\n")
        );
    }

    #[test]
    fn a_host_without_a_debian_entry_has_none() {
        assert_eq!(rewrite(&source("list", "deb mirror:/x noble main\n"), "bookworm", "sid"), None);
    }
}
