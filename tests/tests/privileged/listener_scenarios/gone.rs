//! Clients that do not wait any longer take their place in the queue all the same.

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::patience;
use overwatch_tests::harness::listeners::ListenerRow;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::traffic::queue::step;

use super::scene::{Scene, holds, is_true, now, only, queue_agrees};

/// Three stay, three close, two reset. Over IPv6.
pub(crate) fn gave_up(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("gone")?;
    let server = Party::serve(&netns, 1, &["--address", "::1", "--accept", "never", "--backlog", "16"])?;
    let (view, port) = (scene.view_of(&netns, &server)?, server.port()?);
    let begin = now();
    let call = |more: &[&str]| Party::call(&netns, port, &[&["--address", "::1"], more].concat());
    let staying = call(&["--count", "3", "--request-bytes", "81"])?;
    let closing = call(&["--count", "3", "--request-bytes", "1000", "--give-up-ms", "1500"])?;
    let resetting = call(&["--count", "2", "--give-up-ms", "1500", "--by", "reset"])?;
    for (clients, count) in [(&closing, 3), (&resetting, 2)] {
        clients.wait_for(step::GAVE_UP, count, 10)?;
    }
    let all = |row: &ListenerRow| {
        let gone = row.waiting.iter().filter(|client| client.gone).count();
        (row.accept_queue, row.waiting_total, gone) == (8, 8, 5)
    };
    let what = "eight that wait, of which five are gone";
    let sight = view.find(begin, patience(5), what, |sight| {
        all(&sight.row) && sight.row.judged() == ("saturated", "not_accepting")
    })?;
    for sight in holds(&view, 3, &[("saturated", "not_accepting")])? {
        ensure!(all(&sight.row), "{what}: {sight:#?}");
    }
    ensure!(sight.row.overflows_total == 0, "nobody was refused: {sight:#?}");
    queue_agrees(&view, &netns, port)?;
    is_true(&view, &server, &[&staying, &closing, &resetting], false)?;
    only(&view, "not_accepting")
}
