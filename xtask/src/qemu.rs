//! The QEMU process of a guest: its command line, its console, its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::console;
use crate::guest::{End, Guest};
use crate::shell;

/// Reads lines until there is a verdict, a sign of a hang, the end of the console, or no time left.
pub(crate) fn watch(lines: &Receiver<String>, deadline: Instant, mut each: impl FnMut(&str)) -> End {
    let mut hang = None;
    let mut deadline = deadline;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                each(&line);
                if let Some(status) = console::verdict(&line) {
                    return hang.map_or(End::Exit(status), End::Hang);
                }
                if let (None, Some(marker)) = (hang, console::hang(&line)) {
                    hang = Some(marker);
                    // The registers and the call trace follow.
                    deadline = Instant::now() + Duration::from_secs(3);
                }
            }
            Err(RecvTimeoutError::Timeout) => return hang.map_or(End::Timeout, End::Hang),
            Err(RecvTimeoutError::Disconnected) => return hang.map_or(End::NoVerdict, End::Hang),
        }
    }
}

/// The kernel's command line.
///
/// An emulated timer is late while other processes have the host's processors. Linux would panic
/// over it at boot ("IO-APIC + timer doesn't work", `check_timer`, arch/x86/kernel/apic/io_apic.c,
/// v6.12), and later take it as a sign that the TSC is unstable (`clocksource_watchdog`,
/// kernel/time/clocksource.c, v6.12) and read the far slower HPET. The emulated TSC is the host's.
const APPEND: &str = "console=ttyS0 quiet panic=1 random.trust_cpu=on no_timer_check tsc=reliable";

/// A running QEMU; killed when it is dropped.
pub(crate) struct Qemu {
    child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Qemu {
    pub(crate) fn start(guest: &Guest, initramfs: &File) -> Result<Qemu> {
        let program =
            shell::find("qemu-system-x86_64").context("qemu-system-x86_64 is missing: run `cargo xtask setup`")?;
        let nice = shell::find("nice").context("nice is missing (package coreutils)")?;
        let mut command = shell::dying_with_us(&nice);
        command.args(["-n", &guest.nice.to_string()]).arg(&program);
        let memory = guest.memory_mib.to_string();
        let cpus = if guest.icount { 1 } else { guest.cpus }.to_string();
        command.args(["-accel", "tcg", "-cpu", "max", "-m", &memory, "-smp", &cpus]);
        command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.arg("-kernel").arg(&guest.kernel.vmlinuz);
        // The initramfs has no name; QEMU reads it through this process.
        command.arg("-initrd");
        command.arg(format!("/proc/{}/fd/{}", std::process::id(), initramfs.as_raw_fd()));
        command.args(["-append", APPEND]);
        if guest.icount {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start QEMU")?;
        let out = child.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line);
                if sender.send(text.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Qemu { child, lines })
    }

    /// Ends QEMU: by itself when the guest is powering off, else at once. Returns what was still to be read.
    pub(crate) fn stop(&mut self, powering_off: bool) -> Vec<String> {
        let patience = Duration::from_secs(if powering_off { 10 } else { 0 });
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
        self.kill();
        // Its end of the console is closed now, so this ends; a last line without an end names the test that hangs.
        self.lines.iter().collect()
    }

    fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lines: &[&str]) -> (End, usize) {
        let (sender, receiver) = mpsc::channel();
        for line in lines {
            sender.send((*line).to_owned()).unwrap();
        }
        drop(sender);
        let mut count = 0;
        let end = watch(&receiver, Instant::now() + Duration::from_secs(5), |_| {
            count += 1;
        });
        (end, count)
    }

    #[test]
    fn the_verdict_ends_it() {
        assert_eq!(watched(&["guest-begin", "x", "guest-exit: 3", "y"]), (End::Exit(3), 3));
    }

    #[test]
    fn an_end_without_a_verdict_is_no_success() {
        assert_eq!(watched(&["guest-begin", "x"]), (End::NoVerdict, 2));
    }

    #[test]
    fn a_hang_is_told_with_its_trace() {
        let lines = ["BUG: unable to handle page fault", "RIP: 0010:x", "Kernel panic - not syncing"];
        assert_eq!(watched(&lines), (End::Hang("BUG: unable to handle"), 3));
    }

    #[test]
    fn silence_is_a_timeout() {
        let (sender, receiver) = mpsc::channel::<String>();
        assert_eq!(watch(&receiver, Instant::now(), |_| ()), End::Timeout);
        drop(sender);
    }
}
