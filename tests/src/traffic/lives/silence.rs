//! Connections that end because nothing is heard any more.

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};

use crate::traffic::queues::set_option;

use super::endings::{answer, call};
use super::lane::Lane;
use super::living::Living;
use super::place::Silence;

/// How long a user's patience is, in the scenario of that.
const USER_TIMEOUT_MILLISECONDS: libc::c_int = 1_000;

/// Makes what the client sends get lost, waits for its failure, and lets the server know.
fn fail_unheard(mut living: Living, late: usize, lane: &mut Lane<'_>) -> Result<()> {
    living.settle()?;
    lane.wait()?;
    let silence = Silence::of(lane.target.ip(), lane.device()?)?;
    living.end.send_plainly(late)?;
    living.fail(lane)?;
    drop(silence);
    lane.say("gone")
}

/// Asks whether the other end is still there.
pub(super) fn client_keeping_alive(lane: &mut Lane<'_>) -> Result<()> {
    let living = call(lane)?;
    for (name, value) in [(libc::TCP_KEEPIDLE, 1), (libc::TCP_KEEPINTVL, 1), (libc::TCP_KEEPCNT, 1)] {
        set_option(&living.end, libc::IPPROTO_TCP, name, value)?;
    }
    setsockopt(&living.end, sockopt::KeepAlive, &true)?;
    fail_unheard(living, 0, lane)
}

/// Sends, and does not wait long for that to be acknowledged.
pub(super) fn client_with_user_timeout(lane: &mut Lane<'_>) -> Result<()> {
    let living = call(lane)?;
    set_option(&living.end, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)?;
    fail_unheard(living, 777, lane)
}

/// Learns that the client is gone when it closes: the client's kernel knows no such connection.
pub(super) fn server_left_behind(lane: &mut Lane<'_>) -> Result<()> {
    let living = answer(lane)?;
    living.settle()?;
    lane.say("settled")?;
    lane.wait()?;
    living.close(lane)
}
