//! io_uring: the calls are made by the ring, in the process's own context or in worker threads.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, Probe, cqueue, opcode, types};

use crate::traffic::end::End;

fn lacking(code: u8, name: &str) -> Option<String> {
    let check = || {
        let ring = IoUring::new(2)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        Ok::<_, io::Error>(probe.is_supported(code))
    };
    match check() {
        Ok(true) => None,
        Ok(false) => Some(format!("io_uring of this kernel has no {name}")),
        Err(error) => Some(format!("io_uring: {error}")),
    }
}

pub(super) fn cannot_send_or_receive() -> Option<String> {
    lacking(opcode::Send::CODE, "IORING_OP_SEND").or_else(|| lacking(opcode::Recv::CODE, "IORING_OP_RECV"))
}

pub(super) fn cannot_send_zc() -> Option<String> {
    lacking(opcode::SendZc::CODE, "IORING_OP_SEND_ZC")
}

pub(super) fn cannot_accept() -> Option<String> {
    lacking(opcode::Accept::CODE, "IORING_OP_ACCEPT")
}

/// Before Linux 5.12 the workers were threads of the kernel, not of the process: nobody could say whose bytes
/// they move.
pub(super) fn cannot_use_workers() -> Option<String> {
    cannot_send_or_receive().or_else(|| match IoUring::new(2) {
        Ok(ring) if ring.params().is_feature_native_workers() => None,
        Ok(_) => Some("io_uring workers of this kernel are not threads of the process".to_owned()),
        Err(error) => Some(format!("io_uring: {error}")),
    })
}

/// Hands one request to the ring and waits for its result.
fn run(ring: &mut IoUring, request: &Entry) -> io::Result<(i32, u32)> {
    // SAFETY: the callers wait here until the kernel has answered, and what the request points at outlives that.
    unsafe { ring.submission().push(request) }.map_err(io::Error::other)?;
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if let Some(done) = ring.completion().next() {
            let result = done.result();
            return if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok((result, done.flags())) };
        }
    }
}

fn size(result: (i32, u32)) -> io::Result<usize> {
    usize::try_from(result.0).map_err(io::Error::other)
}

fn send_with(end: &mut End, total: usize, flags: Flags) -> io::Result<()> {
    let mut ring = IoUring::new(4)?;
    end.send_by(total, |fd, bytes| {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let request = opcode::Send::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), length);
        size(run(&mut ring, &request.build().flags(flags))?)
    })
}

fn receive_with(end: &mut End, total: usize, flags: Flags) -> io::Result<()> {
    let mut ring = IoUring::new(4)?;
    end.receive_by(total, |fd, buffer| {
        let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
        let request = opcode::Recv::new(types::Fd(fd.as_raw_fd()), buffer.as_mut_ptr(), length);
        size(run(&mut ring, &request.build().flags(flags))?)
    })
}

/// `IORING_OP_SEND`.
pub(super) fn send(end: &mut End, total: usize) -> io::Result<()> {
    send_with(end, total, Flags::empty())
}

/// `IORING_OP_RECV`.
pub(super) fn receive(end: &mut End, total: usize) -> io::Result<()> {
    receive_with(end, total, Flags::empty())
}

/// `IORING_OP_SEND` made by a worker: a thread of the process that has another name.
pub(super) fn send_by_worker(end: &mut End, total: usize) -> io::Result<()> {
    send_with(end, total, Flags::ASYNC)
}

/// `IORING_OP_RECV` made by a worker.
pub(super) fn receive_by_worker(end: &mut End, total: usize) -> io::Result<()> {
    receive_with(end, total, Flags::ASYNC)
}

/// `IORING_OP_SEND_ZC`: a second completion says that the buffer is free again.
pub(super) fn send_zc(end: &mut End, total: usize) -> io::Result<()> {
    let mut ring = IoUring::new(4)?;
    end.send_by(total, |fd, bytes| {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let request = opcode::SendZc::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), length);
        let (sent, flags) = run(&mut ring, &request.build())?;
        if cqueue::more(flags) {
            while ring.completion().next().is_none() {
                ring.submit_and_wait(1)?;
            }
        }
        size((sent, 0))
    })
}

/// `IORING_OP_ACCEPT`.
pub(super) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let mut ring = IoUring::new(2)?;
    let fd = types::Fd(listener.as_raw_fd());
    let request = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build();
    let (accepted, _) = run(&mut ring, &request)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
    Ok(unsafe { TcpStream::from_raw_fd(accepted) })
}
