//! Where the tests run: which programs, which kernel, which tiers it must have, how patient to be.

use std::env;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::overwatch;

/// Set in a guest, to the kernel that it runs.
const GUEST: &str = "OVERWATCH_GUEST_KERNEL";

/// A way to attach.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Tier {
    /// Function entry and exit.
    Fentry,
    /// Kernel probes.
    Kprobe,
    /// Trace points only.
    Tracepoint,
}

impl Tier {
    /// Every tier.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// The name that `--attach` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|tier| tier.name() == name.trim());
        known.with_context(|| format!("{name:?} is no tier"))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// The host, for one test alone: what overwatch counts beside its rows is of the whole host.
#[derive(Debug)]
pub struct Host {
    _alone: Flock<File>,
}

impl Host {
    /// Waits until no other test runs, and checks that one which needs overwatch can.
    pub fn take() -> Result<Self> {
        let program = overwatch_binary();
        ensure!(program.is_file(), "{} is not there: build it, or name it in OVERWATCH_BIN", program.display());
        Self::take_for_traffic()
    }

    /// The same for a test that makes traffic only.
    pub fn take_for_traffic() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "these tests load BPF programs and make namespaces: run them as root"
        );
        let program = traffic_binary()?;
        ensure!(program.is_file(), "{} is not there: build it, or name it in OVERWATCH_TRAFFIC_BIN", program.display());
        let path = env::temp_dir().join("overwatch-tests.lock");
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let alone = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        Ok(Self { _alone: alone })
    }

    /// The tiers that must work here: those that were named, or the one that overwatch chooses.
    pub fn tiers(&self) -> Result<Vec<Tier>> {
        if let Some(named) = demanded_tiers()? {
            return Ok(named);
        }
        let answer = overwatch::check(&[])?;
        let Some(tier) = answer["tier"].as_str() else {
            bail!("overwatch check names no tier that works here: {answer}")
        };
        Ok(vec![Tier::from_name(tier)?])
    }

    /// A tier that does not work here, if there is one.
    pub fn missing_tier(&self) -> Result<Option<Tier>> {
        let present = self.tiers()?;
        Ok(Tier::ALL.into_iter().find(|tier| !present.contains(tier)))
    }
}

/// The tiers that this kernel is known to have, when whoever runs the tests knows it.
pub fn demanded_tiers() -> Result<Option<Vec<Tier>>> {
    let Ok(named) = env::var("OVERWATCH_TIERS") else {
        return Ok(None);
    };
    named.split(',').map(Tier::from_name).collect::<Result<Vec<_>>>().map(Some)
}

/// The program under test.
#[must_use]
pub fn overwatch_binary() -> PathBuf {
    env::var_os("OVERWATCH_BIN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/overwatch")),
        PathBuf::from,
    )
}

/// The program that makes the traffic: cargo puts it above the directory that the tests are in.
pub fn traffic_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("OVERWATCH_TRAFFIC_BIN") {
        return Ok(path.into());
    }
    let this = env::current_exe()?;
    let profile = this.parent().and_then(|deps| deps.parent()).context("the tests run from target/PROFILE/deps")?;
    Ok(profile.join("traffic"))
}

/// Whether this is a guest under emulation, of which every test has a boot to itself.
#[must_use]
pub fn in_guest() -> bool {
    env::var_os(GUEST).is_some()
}

/// `count` scaled down where everything takes twenty times as long, in steps that a flood can divide.
pub fn scale(count: usize) -> Result<usize> {
    let factor: f64 = match env::var("OVERWATCH_TEST_SCALE") {
        Ok(text) => text.parse().with_context(|| format!("OVERWATCH_TEST_SCALE={text:?}"))?,
        Err(_) if in_guest() => 0.1,
        Err(_) => 1.0,
    };
    ensure!(factor > 0.0 && factor <= 100.0, "OVERWATCH_TEST_SCALE must be above 0 and at most 100");
    let steps = (count as f64 * factor / 8.0).round() as usize;
    Ok(steps.max(1) * 8)
}

/// How long to wait for what should take less than `seconds` on a plain host.
#[must_use]
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(if in_guest() { seconds * 5 } else { seconds })
}

/// Major and minor version of the running kernel. Only tests may ask: they know what a kernel must offer.
pub fn kernel_version() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("the kernel's version {release:?} has no two numbers"),
    }
}
