//! Overwatch as systemd runs it: another user, few capabilities, no new privileges.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::overwatch;

/// Those of `overwatch.service`, bits of `linux/capability.h`: DAC_OVERRIDE, SYS_PTRACE, SYS_ADMIN, PERFMON, BPF.
pub const CAPABILITIES: u64 = 1 << 1 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;
/// A user that owns nothing.
pub const USER: u32 = 61_234;

/// A command that runs overwatch with the user and the privileges that the unit gives it.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = overwatch::command(arguments);
    // SAFETY: what runs between fork and exec are system calls.
    unsafe { command.pre_exec(become_the_unit) };
    command
}

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
    let half = |part: u32| (CAPABILITIES >> (32 * part)) as u32;
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
    for number in (0..u64::BITS).filter(|number| CAPABILITIES >> number & 1 == 0) {
        let _not_there = prctl(libc::PR_CAPBSET_DROP, number as libc::c_int, 0);
    }
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    // SAFETY: as above.
    unsafe {
        // LimitMEMLOCK=infinity: kernels before 5.11 hold maps against it. Elsewhere nobody needs it, nor may raise it here perhaps.
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        let _best_effort = libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all);
        done(libc::setgroups(0, std::ptr::null()))?;
        done(libc::setresgid(USER, USER, USER))?;
        done(libc::setresuid(USER, USER, USER))?;
        done(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) as libc::c_int)?;
    }
    for number in (0..u64::BITS).filter(|number| CAPABILITIES >> number & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number)?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_are_the_capabilities_of_the_unit() {
        const NAMES: [(&str, u32); 5] =
            [("DAC_OVERRIDE", 1), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];
        let unit = include_str!("../../../overwatch/dist/systemd/overwatch.service");
        for setting in ["CapabilityBoundingSet=", "AmbientCapabilities="] {
            let lines: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(setting)).collect();
            let bits = lines.iter().flat_map(|line| line.split(' ')).map(|name| {
                let name = name.strip_prefix("CAP_").unwrap();
                NAMES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} is known")).1
            });
            assert_eq!(bits.fold(0, |set, bit| set | 1 << bit), CAPABILITIES, "{setting}");
        }
    }
}
