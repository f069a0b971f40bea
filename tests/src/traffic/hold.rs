//! A connection that stays: it moves bytes when it is told to.
//!
//! Commands come on stdin, one per line. After each, both ends print what they have counted since the beginning. At
//! the end of stdin both close.
//!
//! - `send N M [OPERATION]` moves N bytes to the server and M back, plainly or by an operation of the table.
//! - `push N` sends N bytes to the server, which leaves them where they are.
//! - `pull N [OPERATION]` lets the server receive N bytes that were pushed.
//! - `accept` lets the server accept, if it was told to be late with that.
//! - `move PATH` takes the client to another network namespace.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::args::Args;
use super::end::End;
use super::family::Family;
use super::ops::{self, Mover, Script};
use super::process::{enter_netns, fork_child, wait_all};
use super::report::{Report, event};

/// The options of this mode.
pub const OPTIONS: &[&str] = &[
    "family",
    "address",
    "port",
    "client-port",
    "server-netns",
    "client-netns",
    "server-comm",
    "client-comm",
    "cgroup",
    "accept",
    "close",
];

struct Place {
    family: Family,
    address: Option<IpAddr>,
    port: u16,
    client_port: u16,
    server_netns: Option<PathBuf>,
    client_netns: Option<PathBuf>,
    accepts_late: bool,
    resets: bool,
}

/// Opens the connection, says `ready`, and follows commands.
pub fn run(args: &Args) -> Result<()> {
    let family = args.text("family", "v4");
    let place = Place {
        family: Family::from_name(family).with_context(|| format!("no family {family:?}"))?,
        address: args.address("address")?,
        port: args.value("port", 0)?,
        client_port: args.value("client-port", 0)?,
        server_netns: args.path("server-netns"),
        client_netns: args.path("client-netns"),
        accepts_late: args.text("accept", "early") == "late",
        resets: args.text("close", "politely") == "by-reset",
    };
    if let Some(cgroup) = args.path("cgroup") {
        // 0 is the process that writes; both ends are made after this.
        std::fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    let (to_server, server_side) = UnixStream::pair()?;
    let (to_client, client_side) = UnixStream::pair()?;
    // Each child must see the end of its commands, so no child may hold another one's ends.
    let mut sockets = Some((to_server, server_side, to_client, client_side));
    let server = fork_child(args.text("server-comm", "ow-srv"), || {
        let (_, commands, ..) = sockets.take().context("taken once")?;
        serve(&place, &commands)
    })?;
    let client = fork_child(args.text("client-comm", "ow-cli"), || {
        let (_, _, _, commands) = sockets.take().context("taken once")?;
        call(&place, &commands)
    })?;
    let (to_server, _, to_client, _) = sockets.take().context("taken once")?;
    conduct(&to_server, &to_client)?;
    // The ends of their commands: both close.
    drop((to_server, to_client));
    wait_all(vec![server, client])
}

/// Hands the port to the client, then each command to both, and waits until both have done it.
fn conduct(mut to_server: &UnixStream, mut to_client: &UnixStream) -> Result<()> {
    let mut from_server = BufReader::new(to_server.try_clone()?);
    let mut from_client = BufReader::new(to_client.try_clone()?);
    let port = answer(&mut from_server)?;
    to_client.write_all(port.as_bytes())?;
    answer(&mut from_client)?;
    answer(&mut from_server)?;
    event("ready", 0)?;
    for line in io::stdin().lock().lines() {
        let line = line? + "\n";
        to_server.write_all(line.as_bytes())?;
        to_client.write_all(line.as_bytes())?;
        answer(&mut from_server)?;
        answer(&mut from_client)?;
        event("done", 0)?;
    }
    Ok(())
}

fn answer(from: &mut impl io::BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    if line.is_empty() {
        bail!("the other process is gone");
    }
    Ok(line)
}

fn serve(place: &Place, commands: &UnixStream) -> Result<()> {
    enter_netns(place.server_netns.as_deref())?;
    let listener = place.family.listen(place.address, place.port)?;
    say(commands, &listener.local_addr()?.port().to_string())?;
    let end = if place.accepts_late { None } else { Some(accept(&listener)?) };
    say(commands, "connected")?;
    follow(end, place, commands, || accept(&listener))
}

fn accept(listener: &TcpListener) -> Result<End> {
    Ok(End::new(listener.accept()?.0, "server")?)
}

fn call(place: &Place, commands: &UnixStream) -> Result<()> {
    enter_netns(place.client_netns.as_deref())?;
    let mut digits = Vec::new();
    let mut byte = [0_u8; 1];
    let mut from = commands;
    while from.read(&mut byte)? == 1 && byte != *b"\n" {
        digits.push(byte[0]);
    }
    let port: u16 = String::from_utf8(digits)?.parse()?;
    let target = place.family.target(place.address, port);
    let end = End::new(place.family.connect(target, place.client_port)?, "client")?;
    say(commands, "connected")?;
    follow(Some(end), place, commands, || bail!("a client accepts nothing"))
}

fn say(mut to: &UnixStream, what: &str) -> io::Result<()> {
    to.write_all(format!("{what}\n").as_bytes())
}

/// Does what the commands say. A server that is late has no `end` before it is told to `accept`.
fn follow(mut end: Option<End>, place: &Place, commands: &UnixStream, accept: impl Fn() -> Result<End>) -> Result<()> {
    for line in BufReader::new(commands).lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match (words.as_slice(), &mut end) {
            (["accept"], None) => end = Some(accept()?),
            (["accept"], Some(end)) if end.role == "client" => {}
            (["push", _], None) => {}
            (_, Some(end)) => obey(end, &words).with_context(|| line.clone())?,
            (_, None) => bail!("{line:?} before the connection was accepted"),
        }
        if let Some(end) = &end {
            Report::of(end, "hold", place.family.name())?.print()?;
        }
        say(commands, "done")?;
    }
    if let Some(end) = end.filter(|_| place.resets) {
        setsockopt(&end, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    }
    Ok(())
}

fn obey(end: &mut End, words: &[&str]) -> Result<()> {
    let (words, movers) = match words {
        [command @ ("send" | "pull"), rest @ .., operation] if operation.parse::<u64>().is_err() => {
            let op = ops::by_name(operation).with_context(|| format!("no operation {operation:?}"))?;
            let Script::Exchange { send, receive } = op.script else { bail!("{operation} is no exchange") };
            ([&[*command], rest].concat(), (send, receive))
        }
        _ => (words.to_vec(), (End::send_plainly as Mover, End::receive_plainly as Mover)),
    };
    let (send, receive) = movers;
    match (words.as_slice(), end.role) {
        (["send", up, down], "server") => {
            receive(end, up.parse()?)?;
            send(end, down.parse()?)?;
        }
        (["send", up, down], _) => {
            send(end, up.parse()?)?;
            receive(end, down.parse()?)?;
        }
        (["push", bytes], "client") => end.send_plainly(bytes.parse()?)?,
        (["pull", bytes], "server") => receive(end, bytes.parse()?)?,
        (["move", path], "client") => enter_netns(Some(Path::new(path)))?,
        (["push" | "pull" | "move", _], _) => {}
        _ => bail!("no such command"),
    }
    Ok(())
}
