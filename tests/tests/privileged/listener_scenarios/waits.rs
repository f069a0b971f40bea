//! How long accepted connections had waited, against an acceptor whose delays are known.

use anyhow::{Result, ensure};
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::visits::wait_bounds;
use overwatch_tests::traffic::queue::step;

use super::scene::{Scene, is_true, natively_or_guest};

const DELAYS_MILLISECONDS: [u64; 4] = [0, 10, 100, 1_000];

/// How far off what is shown may be, beyond what both ends know: 5 % or 2 ms. Under emulation a connection may be preempted for longer
/// than that between the kernel's queue and the client's next look at the clock, which the client's own times do not show.
fn tolerance() -> (f64, f64) {
    natively_or_guest((0.05, 0.002), (0.05, 0.020))
}

/// Five clients at a time, again and again, at each of four acceptors.
pub(crate) fn known(scene: &Scene) -> Result<()> {
    let netns = NetNs::new("waits")?;
    let mut all = Vec::new();
    for delay in DELAYS_MILLISECONDS {
        let server = Party::serve(&netns, 1, &["--accept", &format!("after:{delay}"), "--then", "close"])?;
        let view = scene.view_of(&netns, &server)?;
        let visit = ["--count", "5", "--again-ms", "400"];
        let clients = Party::call(&netns, server.port()?, &visit)?;
        all.push((delay, view, server, clients));
    }
    for (delay, view, server, clients) in &all {
        server.wait_for(step::ACCEPTED, 25, 20)?;
        view.wait_for(2)?;
        let visits = is_true(view, server, &[clients], false)?;
        let (share, least) = tolerance();
        let mut judged = 0;
        for sight in view.sights() {
            let Some(waits) = sight.row.accept_wait_seconds else { continue };
            let Some(bounds) = wait_bounds(&sight, &visits) else {
                anyhow::bail!("{delay} ms: nothing was accepted: {sight:#?}")
            };
            let least_of = |bound: f64| bound - (bound * share).max(least);
            let most_of = |bound: f64| bound + (bound * share).max(least);
            let p50 = waits.p50 >= least_of(bounds.shortest) && waits.p50 <= most_of(bounds.longest);
            let max = waits.max >= least_of(bounds.sure_longest) && waits.max <= most_of(bounds.longest);
            ensure!(p50 && max, "{delay} ms: {waits:?} where both ends saw {bounds:?}");
            judged += 1;
        }
        ensure!(judged >= 3, "{delay} ms: waits in {judged} intervals only");
        let known = visits.iter().filter_map(|visit| Some(visit.accepted?.until - visit.connected.until));
        let shortest = known.clone().fold(f64::INFINITY, f64::min);
        println!("{}: {delay} ms: {judged} intervals, the shortest wait was {shortest:.4} s", scene.tier);
        view.adds_up()?;
    }
    Ok(())
}
