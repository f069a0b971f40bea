//! The operations: every way in which a process moves bytes over TCP.
//!
//! Most of them are one way to send or one way to receive; the other direction is then plain. A few are a whole
//! conversation of their own, because what matters is when something happens.

mod endings;
mod receive;
mod send;
mod splice;
mod support;
mod uring;
mod zerocopy;

use std::io;
use std::net::{TcpListener, TcpStream};

use super::end::End;

/// Moves that many bytes through the end, and counts them there.
pub type Mover = fn(&mut End, usize) -> io::Result<()>;

/// One side of a conversation: the end, what goes to the server, what goes to the client.
pub type Side = fn(&mut End, usize, usize) -> io::Result<()>;

/// What the two ends do.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// Client sends, server receives, server sends, client receives; then one of them closes.
    Exchange {
        /// How both send.
        send: Mover,
        /// How both receive.
        receive: Mover,
    },
    /// As they like.
    Own {
        /// What the client does.
        client: Side,
        /// What the server does.
        server: Side,
    },
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Its name in arguments, reports and tables.
    pub name: &'static str,
    /// What the two ends do.
    pub script: Script,
    /// How the server gets its socket.
    pub accept: fn(&TcpListener) -> io::Result<TcpStream>,
    /// Whether the client leaves connecting to its first send.
    pub connects_by_sending: bool,
    /// Bytes from client to server.
    pub to_server: usize,
    /// Bytes from server to client.
    pub to_client: usize,
    /// Why this kernel cannot do it, if it cannot.
    pub cannot: fn() -> Option<String>,
    /// The first kernel, major and minor, that certainly can: there, leaving the operation out is a failure.
    pub since: (u32, u32),
}

const fn op(name: &'static str, script: Script) -> Op {
    Op {
        name,
        script,
        accept: plain_accept,
        connects_by_sending: false,
        to_server: 0,
        to_client: 0,
        cannot: || None,
        since: (5, 10),
    }
}

const fn sending(name: &'static str, send: Mover) -> Op {
    op(name, Script::Exchange { send, receive: End::receive_plainly })
}

const fn receiving(name: &'static str, receive: Mover) -> Op {
    op(name, Script::Exchange { send: End::send_plainly, receive })
}

const fn conversation(name: &'static str, client: Side, server: Side) -> Op {
    op(name, Script::Own { client, server })
}

fn plain_accept(listener: &TcpListener) -> io::Result<TcpStream> {
    Ok(super::end::retry(|| listener.accept())?.0)
}

/// Every operation, with different odd sizes for each and for each direction: a swap or a double count shows.
#[must_use]
pub fn table() -> Vec<Op> {
    let mut ops = vec![
        sending("write", send::write),
        sending("writev", send::writev),
        sending("send", send::send),
        sending("sendmsg", send::sendmsg),
        sending("sendmmsg", send::sendmmsg),
        op("nonblocking_write", Script::Exchange { send: send::nonblocking, receive: receive::slowly }),
        Op { since: (4, 14), cannot: zerocopy::cannot_send, ..sending("msg_zerocopy", zerocopy::send) },
        sending("error_queue", zerocopy::send_with_timestamps),
        sending("sendfile", splice::sendfile),
        sending("splice_to_socket", splice::to_socket),
        receiving("splice_from_socket", splice::from_socket),
        receiving("read", receive::read),
        receiving("readv", receive::readv),
        receiving("recv", receive::recv),
        receiving("recvmsg", receive::recvmsg),
        receiving("recvmmsg", receive::recvmmsg),
        receiving("peek_then_recv", receive::peek_then_recv),
        receiving("msg_waitall", receive::waitall),
        receiving("msg_trunc", receive::discard),
        Op { cannot: zerocopy::cannot_receive, since: (5, 12), ..receiving("zerocopy_receive", zerocopy::receive) },
        Op {
            cannot: uring::cannot_send_or_receive,
            ..op("io_uring", Script::Exchange { send: uring::send, receive: uring::receive })
        },
        Op {
            cannot: uring::cannot_use_workers,
            since: (5, 12),
            ..op(
                "io_uring_workers",
                Script::Exchange { send: uring::send_by_worker, receive: uring::receive_by_worker },
            )
        },
        Op { cannot: uring::cannot_send_zc, since: (6, 0), ..sending("io_uring_send_zc", uring::send_zc) },
        Op { cannot: uring::cannot_accept, accept: uring::accept, ..sending("io_uring_accept", send::write) },
        Op {
            connects_by_sending: true,
            ..conversation("msg_fastopen", endings::fastopen_client, endings::plain_server)
        },
        conversation("half_close", endings::half_close_client, endings::half_close_server),
        conversation("reset_by_server", endings::reader_after_reset, endings::resetting_server),
        conversation("reset_by_client", endings::resetting_client, endings::server_after_reset),
        conversation("close_with_unread", endings::client_of_unread, endings::server_leaving_unread),
    ];
    for (index, op) in ops.iter_mut().enumerate() {
        op.to_server = 40_009 + 26 * index;
        op.to_client = 23_011 + 14 * index;
        if op.name == "nonblocking_write" {
            // More than the buffers on the way hold, or nothing would be partial.
            op.to_server += 400_000;
            op.to_client += 300_000;
        }
    }
    ops
}

/// The operation of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<Op> {
    table().into_iter().find(|op| op.name == name)
}

impl Op {
    /// The client's side of the operation.
    pub fn run_client(&self, end: &mut End) -> io::Result<()> {
        match self.script {
            Script::Exchange { send, receive } => {
                send(end, self.to_server)?;
                receive(end, self.to_client)
            }
            Script::Own { client, .. } => client(end, self.to_server, self.to_client),
        }
    }

    /// The server's side of the operation.
    pub fn run_server(&self, end: &mut End) -> io::Result<()> {
        match self.script {
            Script::Exchange { send, receive } => {
                receive(end, self.to_server)?;
                send(end, self.to_client)
            }
            Script::Own { server, .. } => server(end, self.to_server, self.to_client),
        }
    }

    /// Whether the two ends say goodbye after the operation; a conversation of its own ends as it ends.
    #[must_use]
    pub fn ends_by_closing(&self) -> bool {
        matches!(self.script, Script::Exchange { .. })
    }
}
