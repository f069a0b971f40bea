//! An honest small server, one thread per process, that accepts as it is told.
//!
//! - `--accept prompt` accepts what there is as soon as it is there; `never`; `one-per:MS` accepts one in every MS
//!   milliseconds; `after:MS` empties its queue MS milliseconds after it has seen that it is no longer empty; `refused` empties it
//!   when the kernel has refused a client, or when one has waited for half a second.
//! - `--at-most N` has no more than N connections open in each process and leaves the others in the queue.
//! - `--then close` closes what it has accepted at once; `keep` keeps it; `hold` keeps it for `--think-ms`; `answer` waits for
//!   a request, thinks for `--think-ms`, sends `--answer-bytes` at `--answer-rate` bytes per second, and closes; `answer-on` does
//!   the same and keeps the connection.
//! - `--burn-ms` takes that much processor time for each connection.
//! - `--processes N` share one listener; with `--reuseport yes` each has one of its own.
//! - `--open-files N` may be open in each process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::PollFlags;
use nix::time::{ClockId, clock_gettime};

use crate::traffic::args::Args;
use crate::traffic::process::{enter_netns, fork_child, set_comm, wait_all};

use super::listen::{Place, drops, inode};
use super::served::{Fate, Served, Treatment};
use super::{Taken, allow_files, earlier, happened, interest, milliseconds, now, step, wait};

/// The options of this mode.
pub const OPTIONS: &[&str] = &[
    "address",
    "port",
    "netns",
    "comm",
    "cgroup",
    "backlog",
    "processes",
    "reuseport",
    "defer-seconds",
    "open-files",
    "accept",
    "at-most",
    "then",
    "think-ms",
    "answer-bytes",
    "answer-rate",
    "burn-ms",
];

/// How often a server looks whether the kernel has refused a client.
const REFUSAL_LOOK: Duration = Duration::from_millis(5);
/// How long a client waits at most until the queue is emptied, also when nobody was refused.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long a server without a descriptor waits before it tries again.
const WITHOUT_DESCRIPTOR: Duration = Duration::from_millis(100);

/// When connections are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Accept {
    Prompt,
    Never,
    /// One, and the next no sooner than that.
    OnePer(Duration),
    /// All, that long after there was one.
    After(Duration),
    /// All, when one was refused.
    Refused,
}

impl Accept {
    fn from_text(text: &str) -> Result<Self> {
        let (name, time) = text.split_once(':').unwrap_or((text, ""));
        let time =
            || time.parse().map(milliseconds).with_context(|| format!("--accept {text}: milliseconds are missing"));
        Ok(match name {
            "prompt" => Self::Prompt,
            "never" => Self::Never,
            "one-per" => Self::OnePer(time()?),
            "after" => Self::After(time()?),
            "refused" => Self::Refused,
            _ => bail!("--accept {text}: there are prompt, never, one-per:MS, after:MS, refused"),
        })
    }
}

#[derive(Clone, Debug)]
struct How {
    accept: Accept,
    at_most: usize,
    treatment: Treatment,
    burns: Duration,
    open_files: Option<u64>,
}

/// Serves until it is killed. Says `listening` for each listener.
pub fn run(args: &Args) -> Result<()> {
    let comm = args.text("comm", "ow-serve");
    set_comm(comm)?;
    if let Some(cgroup) = args.path("cgroup") {
        // 0 is the process that writes; its children are made after this.
        std::fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| format!("joining {}", cgroup.display()))?;
    }
    enter_netns(args.path("netns").as_deref())?;
    let address = args.address("address")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let shared = args.text("reuseport", "no") == "yes";
    let defer: i32 = args.value("defer-seconds", 0)?;
    let place = Place {
        at: SocketAddr::new(address, args.value("port", 0)?),
        backlog: args.value("backlog", 128)?,
        shared,
        defer_seconds: (defer > 0).then_some(defer),
    };
    let how = how(args)?;
    let processes = args.value("processes", 1_usize)?.clamp(1, 64);
    if processes == 1 {
        return Server::new(listen(&place)?, how)?.serve();
    }
    let mut children = Vec::new();
    if shared {
        for _ in 0..processes {
            children.push(fork_child(comm, || Server::new(listen(&place)?, how.clone())?.serve())?);
        }
    } else {
        let mut listener = Some(listen(&place)?);
        for _ in 0..processes {
            children
                .push(fork_child(comm, || Server::new(listener.take().context("taken once")?, how.clone())?.serve())?);
        }
    }
    wait_all(children)
}

fn how(args: &Args) -> Result<How> {
    let then = args.text("then", "keep");
    let (asked, answer_bytes, closes) = match then {
        "close" | "hold" => (false, 0, true),
        "keep" => (true, 0, false),
        "answer" => (true, args.value("answer-bytes", 1_000)?, true),
        "answer-on" => (true, args.value("answer-bytes", 1_000)?, false),
        _ => bail!("--then {then}: there are close, keep, hold, answer, answer-on"),
    };
    let open_files: u64 = args.value("open-files", 0)?;
    Ok(How {
        accept: Accept::from_text(args.text("accept", "prompt"))?,
        at_most: args.value("at-most", usize::MAX)?,
        treatment: Treatment {
            asked,
            thinks: milliseconds(args.value("think-ms", 0)?),
            answer_bytes,
            answer_rate: args.value("answer-rate", 0)?,
            closes,
        },
        burns: milliseconds(args.value("burn-ms", 0)?),
        open_files: (open_files > 0).then_some(open_files),
    })
}

fn listen(place: &Place) -> Result<TcpListener> {
    let from = now();
    let listener = place.listen().with_context(|| format!("listening at {}", place.at))?;
    Taken::new(step::LISTENING, listener.local_addr()?, from).inode(inode(&listener)?).print()?;
    Ok(listener)
}

/// Takes processor time, however long that lasts.
fn burn(time: Duration) -> Result<()> {
    let spent = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let enough = spent()? + time;
    while spent()? < enough {
        std::hint::spin_loop();
    }
    Ok(())
}

struct Server {
    listener: TcpListener,
    at: SocketAddr,
    how: How,
    open: Vec<Served>,
    /// Not before this time; none where the queue itself tells when.
    next: Option<Instant>,
    /// When there was somebody in the queue, and how many clients the kernel had refused when it was emptied.
    queued: Option<Instant>,
    refused: u32,
    /// It could not accept, and has said so.
    without_descriptor: bool,
}

impl Server {
    fn new(listener: TcpListener, how: How) -> Result<Self> {
        allow_files(how.open_files)?;
        let at = listener.local_addr()?;
        Ok(Self {
            listener,
            at,
            how,
            open: Vec::new(),
            next: None,
            queued: None,
            refused: 0,
            without_descriptor: false,
        })
    }

    fn serve(mut self) -> Result<()> {
        loop {
            let clock = Instant::now();
            let room = self.how.accept != Accept::Never && self.open.len() < self.how.at_most;
            let later = self.next.filter(|next| *next > clock);
            let looks = room && later.is_none();
            let mut fds: Vec<_> = self.open.iter().map(|served| interest(&served.stream, PollFlags::POLLIN)).collect();
            if looks {
                fds.push(interest(&self.listener, PollFlags::POLLIN));
            }
            let until = later.filter(|_| room);
            let until = self.open.iter().fold(until, |until, served| earlier(until, served.due()));
            wait(&mut fds, until)?;
            let mut heard: Vec<bool> = fds.iter().map(happened).collect();
            let queued = looks && heard.pop() == Some(true);
            self.work(&heard)?;
            if queued {
                self.accept()?;
            }
        }
    }

    fn work(&mut self, heard: &[bool]) -> Result<()> {
        let how = &self.how.treatment;
        for (mut served, &heard) in std::mem::take(&mut self.open).into_iter().zip(heard) {
            let from = now();
            let mut fate = if heard { served.hear(how) } else { Fate::GoesOn };
            if fate == Fate::GoesOn {
                fate = served.work(how);
            }
            if fate == Fate::GoesOn {
                self.open.push(served);
                continue;
            }
            let (client, sent) = (served.client, served.sent);
            drop(served);
            Taken::new(step::CLOSED, self.at, from).client(client).bytes(sent).print()?;
        }
        Ok(())
    }

    /// There is something in the queue, and it is time to look.
    fn accept(&mut self) -> Result<()> {
        let clock = Instant::now();
        match self.how.accept {
            Accept::Never => {}
            Accept::Prompt => self.accept_all()?,
            Accept::OnePer(time) => {
                if self.accept_one()? {
                    self.next = Some(clock + time);
                }
            }
            Accept::After(time) if self.next.is_none() => self.next = Some(clock + time),
            Accept::After(_) => {
                self.next = None;
                self.accept_all()?;
            }
            Accept::Refused => {
                let refused = drops(&self.listener)?;
                let queued = *self.queued.get_or_insert(clock);
                if refused != self.refused || clock - queued >= LONGEST_WAIT {
                    self.refused = refused;
                    self.queued = None;
                    self.accept_all()?;
                }
                self.next = Some(clock + REFUSAL_LOOK);
            }
        }
        Ok(())
    }

    fn accept_all(&mut self) -> Result<()> {
        while self.open.len() < self.how.at_most && self.accept_one()? {}
        Ok(())
    }

    /// Whether there was one.
    fn accept_one(&mut self) -> Result<bool> {
        let from = now();
        match self.listener.accept() {
            Ok((stream, client)) => {
                Taken::new(step::ACCEPTED, self.at, from).client(client).print()?;
                self.without_descriptor = false;
                burn(self.how.burns)?;
                let served = Served::new(stream, client, &self.how.treatment)?;
                self.open.push(served);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // Given up while it waited.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE)) => {
                if !std::mem::replace(&mut self.without_descriptor, true) {
                    Taken::new(step::NOT_ACCEPTED, self.at, from).error(&error).print()?;
                }
                self.next = Some(Instant::now() + WITHOUT_DESCRIPTOR);
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("accepting at {}", self.at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_accept_are_understood() {
        let cases = [
            ("prompt", Some(Accept::Prompt)),
            ("never", Some(Accept::Never)),
            ("one-per:200", Some(Accept::OnePer(milliseconds(200)))),
            ("after:0", Some(Accept::After(Duration::ZERO))),
            ("refused", Some(Accept::Refused)),
            ("after", None),
            ("one-per:fast", None),
            ("sometimes", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Accept::from_text(text).ok(), expected, "{text}");
        }
    }
}
