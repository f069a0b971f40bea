//! A terminal that a program is used in: tmux, with a server of its own.

use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::host::{overwatch_binary, patience};

/// A terminal with a shell in it.
#[derive(Debug)]
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Starts a shell in a terminal of that size.
    pub fn start(width: u16, height: u16) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("overwatch-tmux-").tempdir()?;
        let tmux = Self { directory };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = "PS1='READY> ' exec sh";
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-s", "it", "-x", &width, "-y", &height, shell])?;
        tmux.wait_for(10, "a prompt", |screen| screen.contains("READY>"))?;
        Ok(tmux)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let socket = self.directory.path().join("socket");
        let mut command = Command::new("tmux");
        command.arg("-S").arg(socket).args(words).current_dir(self.directory.path());
        // The one that this may run in is not meant.
        let output = command.env_remove("TMUX").env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").output();
        let output = output.context("running tmux")?;
        ensure!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Where the shell is.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Types overwatch with these arguments, and Enter.
    pub fn overwatch(&self, arguments: &str) -> Result<()> {
        self.keys(&["-l", &format!("{} {arguments}", overwatch_binary().display())])?;
        self.keys(&["Enter"])
    }

    /// Presses keys, by tmux's names for them.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys", "-t", "it"], keys].concat()).map(drop)
    }

    /// Another size.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.run(&["resize-window", "-t", "it", "-x", &width.to_string(), "-y", &height.to_string()]).map(drop)
    }

    /// What is on it.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-t", "it", "-p"])
    }

    /// What is on it and what has scrolled away.
    pub fn history(&self) -> Result<String> {
        self.run(&["capture-pane", "-t", "it", "-p", "-S", "-"])
    }

    /// What tmux knows of it, such as `#{alternate_on}`.
    pub fn property(&self, format: &str) -> Result<String> {
        Ok(self.run(&["display-message", "-t", "it", "-p", format])?.trim().to_owned())
    }

    /// Waits until the screen is as it is wanted.
    pub fn wait_for(&self, seconds: u64, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + patience(seconds);
        loop {
            let screen = self.screen()?;
            if wanted(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("not {what} after {seconds} seconds; the screen is\n{screen}");
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// The settings of the terminal, as `stty` says them: after a command, to compare with those before.
    pub fn settings(&self, name: &str) -> Result<String> {
        let file = self.directory.path().join(name);
        self.keys(&["-l", &format!("stty -g > {name}; echo done-$((1+1))-{name}")])?;
        self.keys(&["Enter"])?;
        self.wait_for(10, "stty's end", |screen| screen.contains(&format!("done-2-{name}")))?;
        std::fs::read_to_string(file).context("what stty said")
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.run(&["kill-server"]);
    }
}
