//! Ways to end a connection that has come about. Each is two functions, one for each side.

use std::net::Shutdown;

use anyhow::Result;

use crate::traffic::queues::{self, FIN_WAIT2};

use super::lane::Lane;
use super::living::{Living, Past, now};

/// Data for an end that is not there any more.
const LATE: usize = 777;

/// Connects, sends, receives.
pub(super) fn call(lane: &Lane<'_>) -> Result<Living> {
    let mut living = Living::connect(lane.target)?;
    living.end.send_plainly(lane.to_server)?;
    living.end.receive_plainly(lane.to_client)?;
    Ok(living)
}

/// Accepts, receives, sends.
pub(super) fn answer(lane: &Lane<'_>) -> Result<Living> {
    let mut living = Living::accept(lane.listener()?)?;
    living.end.receive_plainly(lane.to_server)?;
    living.end.send_plainly(lane.to_client)?;
    Ok(living)
}

pub(super) fn client_first(lane: &mut Lane<'_>) -> Result<()> {
    call(lane)?.close(lane)
}

pub(super) fn server_second(lane: &mut Lane<'_>) -> Result<()> {
    answer(lane)?.close_second(lane)
}

pub(super) fn server_first(lane: &mut Lane<'_>) -> Result<()> {
    answer(lane)?.close(lane)
}

pub(super) fn client_second(lane: &mut Lane<'_>) -> Result<()> {
    call(lane)?.close_second(lane)
}

/// Says that it will send no more before it reads the answer.
pub(super) fn half_closing_client(lane: &mut Lane<'_>) -> Result<()> {
    let mut living = Living::connect(lane.target)?;
    living.end.send_plainly(lane.to_server)?;
    living.end.stream.shutdown(Shutdown::Write)?;
    living.end.receive_plainly(lane.to_client)?;
    living.close_second(lane)
}

/// Answers when it has heard everything.
pub(super) fn half_closed_server(lane: &mut Lane<'_>) -> Result<()> {
    let mut living = Living::accept(lane.listener()?)?;
    living.end.receive_plainly(lane.to_server)?;
    living.end.receive_to_end()?;
    living.end.send_plainly(lane.to_client)?;
    living.close(lane)
}

/// Resets the connection when nothing is under way any more.
fn reset(living: Living, lane: &mut Lane<'_>) -> Result<()> {
    living.settle()?;
    lane.wait()?;
    living.reset(lane)
}

/// Is reset when nothing is under way any more.
pub(super) fn be_reset(living: Living, lane: &Lane<'_>) -> Result<()> {
    living.settle()?;
    lane.say("settled")?;
    living.fail(lane)
}

pub(super) fn resetting_client(lane: &mut Lane<'_>) -> Result<()> {
    reset(call(lane)?, lane)
}

pub(super) fn reset_server(lane: &mut Lane<'_>) -> Result<()> {
    be_reset(answer(lane)?, lane)
}

pub(super) fn resetting_server(lane: &mut Lane<'_>) -> Result<()> {
    reset(answer(lane)?, lane)
}

pub(super) fn reset_client(lane: &mut Lane<'_>) -> Result<()> {
    be_reset(call(lane)?, lane)
}

/// As many bytes as leave some unread and fit into a receive buffer.
fn more_than_is_read(size: usize) -> usize {
    size.clamp(2, 20_000)
}

/// Reads half of what comes, and closes.
fn leave_unread(mut living: Living, size: usize, lane: &mut Lane<'_>) -> Result<()> {
    queues::until(|| Ok(queues::unread(&living.end)? == size))?;
    living.end.receive_plainly(size / 2)?;
    living.settle()?;
    lane.wait()?;
    living.close(lane)
}

pub(super) fn client_leaving_unread(lane: &mut Lane<'_>) -> Result<()> {
    let mut living = Living::connect(lane.target)?;
    living.end.send_plainly(lane.to_server)?;
    leave_unread(living, more_than_is_read(lane.to_client), lane)
}

pub(super) fn server_not_heard(lane: &mut Lane<'_>) -> Result<()> {
    let mut living = Living::accept(lane.listener()?)?;
    living.end.receive_plainly(lane.to_server)?;
    living.end.send_plainly(more_than_is_read(lane.to_client))?;
    be_reset(living, lane)
}

pub(super) fn server_leaving_unread(lane: &mut Lane<'_>) -> Result<()> {
    let mut living = Living::accept(lane.listener()?)?;
    living.end.send_plainly(lane.to_client)?;
    leave_unread(living, more_than_is_read(lane.to_server), lane)
}

pub(super) fn client_not_heard(lane: &mut Lane<'_>) -> Result<()> {
    let mut living = Living::connect(lane.target)?;
    living.end.receive_plainly(lane.to_client)?;
    living.end.send_plainly(more_than_is_read(lane.to_server))?;
    be_reset(living, lane)
}

/// Closes, and has the kernel keep the socket: a shorter time to wait for the other end's FIN would turn it into a timer
/// that is no socket any more.
fn close_for_data(living: Living, lane: &mut Lane<'_>) -> Result<()> {
    living.settle()?;
    living.end.stream.shutdown(Shutdown::Write)?;
    queues::until_state(&living.end, FIN_WAIT2)?;
    queues::set_option(&living.end, libc::IPPROTO_TCP, libc::TCP_LINGER2, 120)?;
    let past = living.past(now());
    drop(living);
    lane.say("closed")?;
    lane.tell(&past)
}

/// Sends to an end that has closed.
fn send_late(mut living: Living, lane: &mut Lane<'_>) -> Result<()> {
    living.settle()?;
    living.end.receive_to_end()?;
    queues::acknowledge(&living.end)?;
    lane.wait()?;
    living.end.send_plainly(LATE)?;
    living.fail(lane)
}

pub(super) fn client_closed_to_data(lane: &mut Lane<'_>) -> Result<()> {
    close_for_data(call(lane)?, lane)
}

pub(super) fn server_sending_late(lane: &mut Lane<'_>) -> Result<()> {
    send_late(answer(lane)?, lane)
}

pub(super) fn server_closed_to_data(lane: &mut Lane<'_>) -> Result<()> {
    close_for_data(answer(lane)?, lane)
}

pub(super) fn client_sending_late(lane: &mut Lane<'_>) -> Result<()> {
    send_late(call(lane)?, lane)
}

/// What a client does before a server that will not accept: it sends, and tells who it is.
fn call_in_vain(lane: &mut Lane<'_>) -> Result<Living> {
    let target = lane.hear()?;
    let mut living = Living::connect(target)?;
    living.end.send_plainly(more_than_is_read(lane.to_server))?;
    living.settle()?;
    lane.say(living.end.tuple().0)?;
    Ok(living)
}

pub(super) fn client_not_accepted(lane: &mut Lane<'_>) -> Result<()> {
    let living = call_in_vain(lane)?;
    lane.say("waiting")?;
    living.fail(lane)
}

/// Does not wait for the server.
pub(super) fn client_gone_before_accept(lane: &mut Lane<'_>) -> Result<()> {
    let living = call_in_vain(lane)?;
    living.end.stream.shutdown(Shutdown::Write)?;
    queues::until_state(&living.end, FIN_WAIT2)?;
    living.close(lane)?;
    lane.say("gone")
}

/// Listens, and ends that without having accepted.
pub(super) fn server_not_accepting(lane: &mut Lane<'_>) -> Result<()> {
    let address = lane.place.address;
    let listener = super::living::family(address).listen(Some(address), 0)?;
    let local = listener.local_addr()?;
    lane.say(local)?;
    let client = lane.hear()?;
    lane.wait()?;
    let unread = more_than_is_read(lane.to_server) as u64;
    let past = Past { unread, ..Past::of_nothing("server", local, client)? };
    drop(listener);
    lane.tell(&past)
}
