//! What the daemon may still do once it runs: little, and the process that reads what strangers send, nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::daemon::Daemon;
use overwatch_tests::harness::host::{Host, Tier};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch;
use overwatch_tests::harness::party::Party;

/// Bits of `linux/capability.h` that the collecting process keeps: DAC_OVERRIDE, DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN, BPF.
const KEPT: u64 = 1 << 1 | 1 << 2 | 1 << 19 | 1 << 21 | 1 << 39;

/// What the kernel says of a thread.
fn status(task: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(format!("{task}/status"))?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

/// All threads of a process.
fn threads(pid: u32) -> Result<Vec<String>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    entries.map(|entry| Ok(entry?.path().display().to_string())).collect()
}

fn has_at_most(pid: u32, kept: u64, bounding: u64) -> Result<()> {
    for thread in threads(pid)? {
        let status = status(&thread)?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
            let bits = status.get(set).with_context(|| format!("{thread} has {set}"))?;
            let bits = u64::from_str_radix(bits, 16)?;
            let most = if set == "CapBnd" { bounding } else { kept };
            ensure!(bits & !most == 0, "{thread}: {set} is {bits:x}, at most {most:x} was expected");
        }
        println!("{thread}: {} CapEff {} NoNewPrivs {}", status["Name"], status["CapEff"], status["NoNewPrivs"]);
        ensure!(status["NoNewPrivs"] == "1", "{thread} could get new privileges");
    }
    Ok(())
}

/// The capabilities of the unit: those that are kept, and PERFMON.
const OF_THE_UNIT: u64 = KEPT | 1 << 38;
/// A user that owns nothing.
const NOBODYS: u32 = 61_234;

/// `struct __user_cap_header_struct` and twice `struct __user_cap_data_struct` (linux/capability.h, version 3).
#[repr(C)]
struct Capabilities {
    version: u32,
    pid: i32,
}

/// Becomes another user, as systemd does for a unit with `DynamicUser=` and `AmbientCapabilities=`. Between fork and exec.
fn become_the_unit() -> std::io::Result<()> {
    fn done(outcome: libc::c_int) -> std::io::Result<()> {
        if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
    let header = Capabilities { version: 0x2008_0522, pid: 0 };
    let half = |part: u32| (OF_THE_UNIT >> (32 * part)) as u32;
    // Effective, permitted, inheritable; the low half first.
    let sets = [[half(0); 3], [half(1); 3]];
    // SAFETY: system calls with numbers, and some that read the structures given, which are as the kernel wants them.
    let prctl = |option: libc::c_int, two: libc::c_int, three: u32| {
        // Its further arguments are as wide as registers.
        let none: libc::c_ulong = 0;
        // SAFETY: only numbers.
        done(unsafe { libc::prctl(option, two as libc::c_ulong, libc::c_ulong::from(three), none, none) })
    };
    // CapabilityBoundingSet=. The kernel has no more than 41 of them today; of others it says that there are none.
    for number in (0..u64::BITS).filter(|number| OF_THE_UNIT >> number & 1 == 0) {
        let _not_there = prctl(libc::PR_CAPBSET_DROP, number as libc::c_int, 0);
    }
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    // SAFETY: as above.
    unsafe {
        // LimitMEMLOCK=infinity: kernels before 5.11 hold maps against it. Elsewhere nobody needs it, nor may raise it here perhaps.
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        let _best_effort = libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all);
        done(libc::setgroups(0, std::ptr::null()))?;
        done(libc::setresgid(NOBODYS, NOBODYS, NOBODYS))?;
        done(libc::setresuid(NOBODYS, NOBODYS, NOBODYS))?;
        done(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) as libc::c_int)?;
    }
    for number in (0..u64::BITS).filter(|number| OF_THE_UNIT >> number & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number)?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// As the unit runs it, in a tier.
fn as_the_unit(tier: Tier) -> Result<()> {
    let arguments = ["serve", "-v", "--web.listen-address", "127.0.0.1:0", "--attach", tier.name()];
    let mut command = overwatch::command(&arguments);
    // SAFETY: what runs between fork and exec are system calls.
    unsafe { command.pre_exec(become_the_unit) };
    let daemon = Daemon::start_command(command)?;
    let status = status(&format!("/proc/{}", daemon.id()))?;
    ensure!(status["Uid"].split_whitespace().all(|id| id == NOBODYS.to_string()), "{}", status["Uid"]);
    // Who is not root cannot make the bounding set smaller; without new privileges it gives nothing.
    has_at_most(daemon.id(), KEPT, OF_THE_UNIT)?;
    for child in children(&daemon)? {
        has_at_most(child, 0, OF_THE_UNIT)?;
    }
    still_sees(&daemon)?;
    daemon.stop().map(drop)
}

#[test]
fn as_the_unit_runs_it_it_sees_all_the_same() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(as_the_unit)
}

fn children(daemon: &Daemon) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.id()))?;
    Ok(children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// Who listens in a namespace that is made now, who waits there, and why.
fn still_sees(daemon: &Daemon) -> Result<()> {
    let netns = NetNs::new("svpriv")?;
    let server = Party::serve(&netns, 1, &["--accept", "never"])?;
    let _clients = Party::call(&netns, server.port()?, &["--count", "3", "--request-bytes", "5"])?;
    let inode = netns.inode().to_string();
    let at = [("netns", inode.as_str())];
    let judged = [("cause", "not_accepting"), at[0]];
    let scrape = daemon.scrape_until(15, |scrape| scrape.sum("overwatch_listener_cause", &judged) == 1.0)?;
    ensure!(scrape.sum("overwatch_listener_waiting_clients", &at) == 3.0, "{}", scrape.text);
    let (labels, _) = scrape.of("overwatch_listener_info", &at).next().context("it is described")?;
    ensure!(labels["processes"] == "ow-serve", "{labels:?}");
    ensure!(scrape.sum("overwatch_listener_open_files", &at) > 3.0, "its descriptors are counted:\n{}", scrape.text);
    Ok(())
}

#[test]
fn the_process_that_answers_has_no_privileges_and_the_other_few() -> Result<()> {
    let _host = Host::take()?;
    // A name is looked up before the privileges are given up.
    let daemon = Daemon::start(None, &["--web.listen-address", "localhost:0"])?;
    let children = children(&daemon)?;
    ensure!(children.len() == 1, "one child: {children:?}");
    has_at_most(children[0], 0, 0)?;
    has_at_most(daemon.id(), KEPT, KEPT)?;
    still_sees(&daemon)?;
    daemon.stop().map(drop)
}
