//! What the scenarios have in common.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::host::{Tier, in_guest, patience};
use overwatch_tests::harness::listeners::ListenerRow;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::party::Party;
use overwatch_tests::harness::sockets::{backlog, counted, within};
use overwatch_tests::harness::visits::{Visit, problems, visits};
use overwatch_tests::harness::watch::{Sight, View, Views};
use overwatch_tests::traffic::report::Step;

pub(crate) type Judged = (&'static str, &'static str);

pub(crate) const OK: Judged = ("ok", "none");
pub(crate) const BUSY: Judged = ("busy", "none");
/// What may be said of a server that does well.
pub(crate) const WELL: &[Judged] = &[OK, BUSY];

/// How long a verdict may take that needs clients to have waited for the threshold of a second: three seconds.
pub(crate) fn soon() -> Duration {
    patience(3)
}

/// One of two numbers: natively, or where everything takes twenty times as long.
pub(crate) fn natively_or_guest<T>(natively: T, guest: T) -> T {
    if in_guest() { guest } else { natively }
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

pub(crate) struct Scene {
    views: Views,
    pub(crate) tier: Tier,
}

impl Scene {
    pub(crate) fn new(views: &Views, tier: Tier) -> Self {
        Self { views: views.clone(), tier }
    }

    /// What is shown of a server.
    pub(crate) fn view(&self, netns: &NetNs, port: u16) -> View {
        self.views.of(netns, port)
    }

    /// What is shown of a server of the traffic program, which must be there first.
    pub(crate) fn view_of(&self, netns: &NetNs, server: &Party) -> Result<View> {
        let view = self.view(netns, server.port()?);
        let listening = &server.of(overwatch_tests::traffic::queue::step::LISTENING)[0];
        let sight = view.find(listening.until, patience(5), "a row of the new listener", |_| true)?;
        ensure!(sight.row.inode == listening.inode, "inode {:?}, not {:?}", sight.row.inode, listening.inode);
        ensure!(
            sight.row.processes.iter().any(|process| process.pid == server.id()),
            "{} is not there: {sight:#?}",
            server.id()
        );
        Ok(view)
    }
}

/// The first sight from `since` on with one of these verdicts and causes.
pub(crate) fn find(view: &View, since: f64, within: Duration, judged: &[Judged]) -> Result<Sight> {
    view.find(since, within, &format!("{judged:?}"), |sight| judged.contains(&sight.row.judged()))
}

/// Looks at so many more intervals, all of which must have one of these verdicts and causes.
pub(crate) fn holds(view: &View, count: usize, judged: &[Judged]) -> Result<Vec<Sight>> {
    let sights = view.wait_for(count)?;
    for sight in &sights {
        ensure!(judged.contains(&sight.row.judged()), "{judged:?} must go on, not {sight:#?}");
    }
    Ok(sights)
}

/// A server at its limit of workers stays there while some are served and others come, and the advice names the setting.
pub(crate) fn is_at_limit(view: &View, since: f64, ceiling: u64, setting: &str) -> Result<()> {
    let judged = [("saturated", "worker_limit")];
    find(view, since, soon(), &judged)?;
    for sight in holds(view, 8, &judged)? {
        let row = &sight.row;
        ensure!(row.serving_ceiling == Some(ceiling), "the ceiling: {row:#?}");
        ensure!(says(&row.advice, setting), "the advice: {row:#?}");
    }
    Ok(())
}

/// What is said while it gets worse, and until it is well again: nothing, that there is a queue, and that cause.
pub(crate) fn only(view: &View, cause: &'static str) -> Result<()> {
    let mut allowed = WELL.to_vec();
    allowed.extend(["busy", "saturated", "overflowing"].map(|verdict| (verdict, cause)));
    view.judged_only(0.0, f64::INFINITY, &allowed)?;
    view.adds_up()
}

/// All steps of several parties, in one list.
pub(crate) fn steps(parties: &[&Party]) -> Vec<Step> {
    parties.iter().flat_map(|party| party.steps()).collect()
}

/// Every row so far is held against what the server and the clients did. `refused`: see [`problems`].
pub(crate) fn is_true(view: &View, server: &Party, clients: &[&Party], refused: bool) -> Result<Vec<Visit>> {
    let sights = view.sights();
    // The lines of steps that were taken before the last sight are on their way.
    sleep(patience(1) / 4);
    let visits = visits(&server.steps(), &steps(clients));
    for sight in &sights {
        let found = problems(sight, &visits, refused);
        ensure!(found.is_empty(), "{}\n{sight:#?}", found.join("\n"));
    }
    Ok(visits)
}

/// The queue and its limit, as shown, are what `ss` says.
pub(crate) fn queue_agrees(view: &View, netns: &NetNs, port: u16) -> Result<()> {
    view.agrees("accept_queue", || Ok(backlog(netns, port)?.queue), |row| Some(row.accept_queue))?;
    view.agrees("backlog_limit", || Ok(backlog(netns, port)?.limit), |row| Some(row.backlog_limit)).map(drop)
}

/// A counter of the kernel's for a namespace is what is shown.
pub(crate) fn counter_agrees(
    view: &View,
    netns: &NetNs,
    counter: &str,
    shown: impl Fn(&ListenerRow) -> Option<u64>,
) -> Result<u64> {
    view.agrees(counter, || counted(netns, counter), shown)
}

/// The sum of a number over all intervals.
pub(crate) fn sum(view: &View, of: impl Fn(&ListenerRow) -> u64) -> u64 {
    view.sights().iter().map(|sight| of(&sight.row)).sum()
}

/// Sets a sysctl of a namespace, such as `net/ipv4/tcp_syncookies`.
pub(crate) fn set_sysctl(netns: &NetNs, name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    within(netns, || fs::write(&path, value).with_context(|| format!("writing {path}")))
}

/// A sysctl of a namespace, which is a number.
pub(crate) fn sysctl(netns: &NetNs, name: &str) -> Result<u64> {
    let path = format!("/proc/sys/{name}");
    within(netns, || Ok(fs::read_to_string(&path)?.trim().parse()?))
}

/// A sentence says this, whatever the case of its letters.
pub(crate) fn says(sentences: &[String], what: &str) -> bool {
    sentences.iter().any(|sentence| sentence.to_lowercase().contains(&what.to_lowercase()))
}

/// The numbers in sentences: `1.9 per second (of 12,000)` has 1.9 and 12000.
pub(crate) fn numbers(sentences: &[String]) -> Vec<f64> {
    let mut found = Vec::new();
    for sentence in sentences {
        let plain: String = sentence.replace(',', "");
        let words = plain.split(|c: char| !c.is_ascii_digit() && c != '.');
        found.extend(words.filter_map(|word| word.trim_end_matches('.').parse::<f64>().ok()));
    }
    found
}

/// A sentence has a number that is as near to this as that share of it.
pub(crate) fn has_number(sentences: &[String], wanted: f64, share: f64) -> bool {
    numbers(sentences).iter().any(|number| (number - wanted).abs() <= wanted * share)
}

#[test]
fn numbers_are_found_in_sentences() {
    let sentences = ["It takes 4.9 per second, 20 arrive.".to_owned(), "32 of 32; 12,000.".to_owned()];
    assert_eq!(numbers(&sentences), [4.9, 20.0, 32.0, 32.0, 12_000.0]);
    assert!(has_number(&sentences, 5.0, 0.1) && !has_number(&sentences, 6.0, 0.1));
    assert!(says(&sentences, "IT TAKES") && !says(&sentences, "gives"));
}
