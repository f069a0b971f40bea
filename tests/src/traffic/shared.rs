//! One socket and more than one process or thread that uses it: the bytes belong to whoever made the call.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags};

use super::args::Args;
use super::end::End;
use super::family::Family;
use super::process::{fork_child, set_comm, wait_all};
use super::report::Report;

/// The options of this mode.
pub const OPTIONS: &[&str] = &["how", "bytes"];

const FAMILY: Family = Family::V4;

/// Runs one of the ways to share a socket. `bytes` go to the server and, with 1,003 more, back from it.
pub fn run(args: &Args) -> Result<()> {
    let how = args.text("how", "fork").to_owned();
    let bytes: usize = args.value("bytes", 50_021)?;
    let listener = FAMILY.listen(None, 0)?;
    let target = FAMILY.target(None, listener.local_addr()?.port());
    let name = how.clone();
    let mut socket = Some(listener);
    let server = fork_child("ow-accept", || {
        let listener = socket.take().context("taken once")?;
        match how.as_str() {
            "fork" => serve_in_child(listener, bytes),
            "scm" => pass_on(&listener, bytes),
            "turns" => take_turns(&listener, bytes),
            "thread" => serve_in_thread(&listener, bytes),
            other => bail!("no way to share a socket called {other:?}"),
        }
    })?;
    drop(socket);
    let client = fork_child("ow-cli", || {
        let mut end = End::new(FAMILY.connect(target, 0)?, "client")?;
        end.send_plainly(bytes)?;
        end.receive_plainly(bytes + 1_003)?;
        end.receive_to_end()?;
        report(&end, &name)
    })?;
    wait_all(vec![server, client])
}

fn report(end: &End, how: &str) -> Result<()> {
    Ok(Report::of(end, how, FAMILY.name())?.print()?)
}

fn accept(listener: &TcpListener) -> Result<End> {
    Ok(End::new(listener.accept()?.0, "server")?)
}

/// Accept in the parent, everything else in a child, as PostgreSQL and sshd do.
fn serve_in_child(listener: TcpListener, bytes: usize) -> Result<()> {
    let mut end = Some(accept(&listener)?);
    drop(listener);
    let child = fork_child("ow-worker", || {
        let mut end = end.take().context("taken once")?;
        end.receive_plainly(bytes)?;
        end.send_plainly(bytes + 1_003)?;
        report(&end, "fork")
    })?;
    // The parent's copy must not hold the connection open.
    if let Some(end) = end {
        report(&end, "fork")?;
    }
    child.wait()
}

/// Accept here, pass the socket to another process, which was there before the connection.
fn pass_on(listener: &TcpListener, bytes: usize) -> Result<()> {
    let (here, there) = UnixStream::pair()?;
    let taker = fork_child("ow-taker", || {
        let mut end = End::new(take_socket(&there)?, "server")?;
        end.receive_plainly(bytes)?;
        end.send_plainly(bytes + 1_003)?;
        report(&end, "scm")
    })?;
    let end = accept(listener)?;
    let fds = [end.stream.as_raw_fd()];
    let note = [IoSlice::new(b"x")];
    socket::sendmsg::<()>(here.as_raw_fd(), &note, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
    report(&end, "scm")?;
    drop(end);
    taker.wait()
}

fn take_socket(from: &UnixStream) -> Result<TcpStream> {
    let mut byte = [0_u8; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = socket::recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    for note in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = note {
            let fd = *fds.first().context("a socket was passed")?;
            // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
            return Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    bail!("no socket was passed")
}

/// Parent and child use the same socket, one after the other, three times each; the child does more.
fn take_turns(listener: &TcpListener, bytes: usize) -> Result<()> {
    const ROUNDS: usize = 3;
    let mut end = accept(listener)?;
    let (mut here, mut there) = UnixStream::pair()?;
    let parent_share = |total: usize| total / 3 / ROUNDS;
    let child_share = |total: usize, round: usize| {
        let both = total / ROUNDS;
        let rest = if round == 0 { total % ROUNDS } else { 0 };
        both + rest - parent_share(total)
    };
    let mut copy = Some(End::new(end.stream.try_clone()?, "server")?);
    let child = fork_child("ow-turn", || {
        let mut end = copy.take().context("taken once")?;
        let mut token = [0_u8; 1];
        for receiving in [true, false] {
            for round in 0..ROUNDS {
                there.read_exact(&mut token)?;
                if receiving {
                    end.receive_plainly(child_share(bytes, round))?;
                } else {
                    end.send_plainly(child_share(bytes + 1_003, round))?;
                }
                there.write_all(&token)?;
            }
        }
        report(&end, "turns")
    })?;
    drop(copy);
    let mut token = [b'x'; 1];
    for receiving in [true, false] {
        for _ in 0..ROUNDS {
            if receiving {
                end.receive_plainly(parent_share(bytes))?;
            } else {
                end.send_plainly(parent_share(bytes + 1_003))?;
            }
            here.write_all(&token)?;
            here.read_exact(&mut token)?;
        }
    }
    report(&end, "turns")?;
    drop(end);
    child.wait()
}

/// A thread with a name of its own does the work: the bytes are its process's.
fn serve_in_thread(listener: &TcpListener, bytes: usize) -> Result<()> {
    let mut end = accept(listener)?;
    let thread = std::thread::spawn(move || {
        set_comm("ow-thread")?;
        end.receive_plainly(bytes)?;
        end.send_plainly(bytes + 1_003)?;
        report(&end, "thread")
    });
    thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
}
