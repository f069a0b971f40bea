//! A steady stream for measurements: every message is sent with one call and received with one call, by one thread.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result};

use super::args::Args;

/// What it can be told.
pub const OPTIONS: &[&str] = &["connections", "messages", "size"];

/// Opens the connections, moves the messages over each, says so, and keeps them open until its input ends.
pub fn run(args: &Args) -> Result<()> {
    let connections = args.value("connections", 1_usize)?;
    let messages = args.value("messages", 1_usize)?;
    let message = vec![b'x'; args.value("size", 512_usize)?];
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let address = listener.local_addr()?;
    let mut ends = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = TcpStream::connect(address).context("cannot connect")?;
        client.set_nodelay(true)?;
        let (mut server, _) = listener.accept().context("cannot accept")?;
        let mut received = vec![0; message.len()];
        for _ in 0..messages {
            client.write_all(&message)?;
            server.read_exact(&mut received)?;
        }
        ends.push((client, server));
    }
    println!("done {}", connections * messages);
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
