//! A kernel may refuse any program. Each refusal is forced once, in each tier: the second way of its signal takes over, or exactly what the
//! catalogue says is lost, or the tier does not work and says which hook it lacks. Nothing else changes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use overwatch_tests::harness::host::{Host, Tier, in_guest, patience};
use overwatch_tests::harness::judge::{Expect, by_end, judge, rows_of};
use overwatch_tests::harness::overwatch::{self, Top};
use overwatch_tests::harness::proc::{Output, run};
use overwatch_tests::harness::rows::Bytes;
use overwatch_tests::harness::traffic::Hold;
use serde_json::Value;

/// What happens without a program, and without the same program as raw_tp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// Its hook is listed as degraded, with these words of the loss.
    Loses(&'static str),
    /// The tier does not work.
    Refused,
}

use Without::{Loses, Refused};

/// Every program of the catalogue.
const PROGRAMS: &[(&str, Without)] = &[
    ("destroyed", Loses("bytes of a connection that began before overwatch")),
    ("state_changed", Loses("on a preemptible kernel")),
    ("destroyed_again", Loses("on a preemptible kernel")),
    ("state_changed_again", Loses("on a preemptible kernel")),
    ("reset_sent", Loses("taken for the peer's")),
    ("reset_received", Loses("taken for the peer's")),
    ("sendmsg_exit", Refused),
    ("sendpage_exit", Refused),
    ("recvmsg_exit", Refused),
    ("splice_read_exit", Loses("splice(2)")),
    ("accept_exit", Loses("from the first read or write")),
    ("connect_v4_exit", Loses("connects that fail before")),
    ("connect_v6_exit", Loses("connects that fail before")),
    ("syn_received", Loses("at their first packet")),
    ("last_ack_v4", Loses("at the last packet")),
    ("last_ack_v6", Loses("at the last packet")),
    ("thread_ended", Refused),
    ("sendmsg_enter", Refused),
    ("send_return", Refused),
    ("sendpage_enter", Refused),
    ("recvmsg_enter", Refused),
    ("recvmsg_return", Refused),
    ("splice_read_enter", Loses("splice(2)")),
    ("splice_read_return", Loses("splice(2)")),
    ("accept_enter", Loses("which of several listening sockets")),
    ("accept_return", Loses("from the first read or write")),
    ("connect_v4_enter", Loses("connects that fail before")),
    ("connect_v6_enter", Loses("connects that fail before")),
    ("connect_return", Loses("connects that fail before")),
    ("send_length", Refused),
    ("recv_length", Refused),
    ("accept_syscall", Loses("from the first read or write")),
    ("connect_syscall", Loses("connects that fail before")),
    ("packet_dropped", Loses("at the last packet")),
];

/// Programs outside of the catalogue: refused together, what is degraded, and the loss.
const OTHERS: &[(&str, &[&str], &str)] = &[
    ("seed", &["iter:tcp"], "wait in an accept queue"),
    ("seed,seed_files", &["iter:tcp", "iter:task_file"], "listening sockets are read by sock_diag"),
    ("scan_listener", &["scan_listener"], "as ss reads them"),
    ("scan_listener,sock_diag", &["scan_listener", "sock_diag"], "no queues, no waiting clients, no verdicts"),
];

/// What is degraded where these are refused together.
fn others(refused: &str) -> impl Iterator<Item = (String, &'static str)> {
    let entry = OTHERS.iter().filter(move |(names, ..)| *names == refused);
    entry.flat_map(|(_, targets, words)| targets.iter().map(|target| ((*target).to_owned(), *words)))
}

const FORCED: &str = "refused by OVERWATCH_REFUSE";

fn command(refused: &str, tier: Tier, arguments: &[&str]) -> Command {
    let mut command = overwatch::command(arguments);
    command.args(["--attach", tier.name()]).env("OVERWATCH_REFUSE", refused);
    command
}

fn check(refused: &str, tier: Tier) -> Result<(Output, Value)> {
    let output = run(command(refused, tier, &["check", "-o", "json"]), patience(60))?;
    let answer = serde_json::from_str(output.stdout.trim()).with_context(|| output.stderr.clone())?;
    Ok((output, answer))
}

/// What is degraded, with why and the loss.
fn degraded(answer: &Value) -> BTreeSet<(String, String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = answer["degraded"].as_array().into_iter().flatten();
    entries.map(|entry| (text(entry, "what"), text(entry, "why"), text(entry, "loss"))).collect()
}

/// A hook that works where nothing is refused.
#[derive(Clone, Debug)]
struct Hook {
    target: String,
    program: String,
    raw_program: Option<String>,
}

fn hooks(answer: &Value) -> Vec<Hook> {
    let works = answer["attempts"].as_array().into_iter().flatten().find(|attempt| attempt["works"] == true);
    let hooks = works.map(|attempt| &attempt["hooks"]).and_then(Value::as_array).into_iter().flatten();
    let text = |hook: &Value, key: &str| hook[key].as_str().map(str::to_owned);
    hooks
        .filter(|hook| hook["attached"] == true)
        .map(|hook| Hook {
            target: text(hook, "hook").unwrap_or_default(),
            program: text(hook, "program").unwrap_or_default(),
            raw_program: text(hook, "raw_program"),
        })
        .collect()
}

fn without(program: &str) -> Result<Without> {
    let entry = PROGRAMS.iter().find(|(name, _)| *name == program);
    entry.map(|(_, without)| *without).with_context(|| format!("{program} is not in the table of this test"))
}

/// Nothing but these hooks may be degraded beside what is degraded anyway, each for the forced reason and with its loss.
fn loses_exactly(refused: &str, tier: Tier, plain: &Value, expected: &BTreeMap<String, &str>) -> Result<()> {
    let (output, answer) = check(refused, tier)?;
    ensure!(output.code == Some(0), "{tier} without {refused}: exit {:?}: {}", output.code, output.stderr);
    let before = degraded(plain);
    let all = degraded(&answer);
    ensure!(before.is_subset(&all), "{tier} without {refused}: no longer degraded: {:?}", before.difference(&all));
    let new: Vec<_> = all.difference(&before).collect();
    let named: BTreeSet<&str> = new.iter().map(|(what, ..)| what.as_str()).collect();
    let wanted: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    ensure!(named == wanted, "{tier} without {refused}: degraded are {named:?}, not {wanted:?}");
    for (what, why, loss) in new {
        ensure!(why.contains(FORCED), "{tier} without {refused}: {what}: {why}");
        ensure!(loss.contains(expected[what]), "{tier} without {refused}: {what}: {loss}");
    }
    let rest = |answer: &Value| {
        let kept = hooks(answer).into_iter().map(|hook| hook.target).filter(|target| !wanted.contains(target.as_str()));
        kept.collect::<Vec<_>>()
    };
    ensure!(rest(&answer) == rest(plain), "{tier} without {refused}: {:?}, not {:?}", rest(&answer), rest(plain));
    Ok(())
}

fn is_refused(refused: &str, tier: Tier, target: &str) -> Result<()> {
    let (output, answer) = check(refused, tier)?;
    ensure!(output.code == Some(3) && answer["can_run"] == false, "{tier} without {refused}: {:?}", output.code);
    let reason = answer["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains(target) && reason.contains(FORCED), "{tier} without {refused}: {reason}");
    ensure!(output.stderr.lines().count() == 1, "{tier} without {refused}: {}", output.stderr);
    Ok(())
}

/// All names at once.
fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

fn firsts(hooks: &[Hook]) -> String {
    joined(hooks.iter().filter(|hook| hook.raw_program.is_some()).map(|hook| hook.program.as_str()))
}

/// Refuses what a hook may lose: its program, and the same as raw_tp.
fn both(hook: &Hook) -> impl Iterator<Item = &str> {
    [Some(hook.program.as_str()), hook.raw_program.as_deref()].into_iter().flatten()
}

fn each_refusal(tier: Tier) -> Result<()> {
    let (output, plain) = check("", tier)?;
    ensure!(output.code == Some(0), "{tier}: {}", output.stderr);
    let hooks = hooks(&plain);
    let mut losses: Vec<(&Hook, &str)> = Vec::new();
    let mut tried = BTreeSet::new();
    for hook in &hooks {
        match without(&hook.program)? {
            Loses(words) => losses.push((hook, words)),
            Refused if tried.insert(&hook.program) => is_refused(&joined(both(hook)), tier, &hook.target)?,
            Refused => {}
        }
    }
    // Two programs see states, and ends: the tier needs one of each.
    is_refused("destroyed,destroyed_raw,destroyed_again", tier, "tp_btf:tcp_destroy_sock")?;
    is_refused("state_changed,state_changed_raw,state_changed_again", tier, "tp_btf:inet_sock_set_state")?;
    // Each of them at once with others that it has nothing to do with, so that a guest starts overwatch three times; natively also each by
    // itself. As raw_tp the first programs lose nothing.
    let is_again = |hook: &Hook| hook.program.ends_with("_again");
    let of = |wanted: bool| losses.iter().filter(move |(hook, _)| is_again(hook) == wanted);
    let without = |wanted: bool| joined(of(wanted).flat_map(|(hook, _)| both(hook)));
    let lost = |wanted: bool| of(wanted).map(|(hook, words)| (hook.target.clone(), *words));
    let groups = [
        (format!("{},seed", firsts(&hooks)), others("seed").collect::<BTreeMap<_, _>>()),
        (
            format!("{},seed,seed_files,scan_listener", without(false)),
            lost(false).chain(others("seed,seed_files")).chain(others("scan_listener")).collect(),
        ),
        (
            format!("{},scan_listener,sock_diag", without(true)),
            lost(true).chain(others("scan_listener,sock_diag")).collect(),
        ),
    ];
    for (refused, expected) in &groups {
        loses_exactly(refused, tier, &plain, expected)?;
    }
    if in_guest() {
        return Ok(());
    }
    loses_exactly(&firsts(&hooks), tier, &plain, &BTreeMap::new())?;
    for (hook, _) in &losses {
        let same = losses.iter().filter(|(of, _)| of.program == hook.program);
        let expected = same.map(|(of, words)| (of.target.clone(), *words)).collect();
        loses_exactly(&joined(both(hook)), tier, &plain, &expected)?;
    }
    for (refused, ..) in OTHERS {
        loses_exactly(refused, tier, &plain, &others(refused).collect())?;
    }
    Ok(())
}

#[test]
fn each_refused_program_costs_what_the_catalogue_says_and_nothing_else() -> Result<()> {
    let host = Host::take()?;
    host.tiers()?.into_iter().try_for_each(each_refusal)
}

/// Bytes of connections that began before overwatch and after it, with these programs refused.
fn bytes_are_exact(tier: Tier, refused: &str) -> Result<()> {
    let mut old = [Hold::open(&[])?, Hold::open(&["--family", "v6"])?];
    let mut before = Vec::new();
    for hold in &mut old {
        before.extend(hold.send(10_007, 333)?);
    }
    let top = Top::start_command(command(refused, tier, &["top", "-o", "json", "-v", "1"]))?;
    let mut after = Vec::new();
    for hold in &mut old {
        after.extend(hold.send(20_011, 557)?);
    }
    let mut new = Hold::open(&[])?;
    let reports = new.send(5_003, 7_001)?;
    new.close()?;
    for hold in old {
        hold.close()?;
    }
    let run = top.stop()?;
    for end in by_end(&reports) {
        let finding = judge(&run.intervals, &end, Expect::Exact);
        ensure!(finding.problems.is_empty(), "{tier} without {refused}: {:?}", finding.problems);
    }
    for end in &after {
        let Some(earlier) = before.iter().find(|earlier| earlier.pid == end.pid) else { bail!("{end:?} is new") };
        let moved = Bytes { sent: end.sent - earlier.sent, received: end.received - earlier.received };
        let shown: Bytes = rows_of(&run.intervals, end).iter().map(|row| row.bytes()).sum();
        ensure!(shown == moved, "{tier} without {refused}: {shown:?} shown, {moved:?} moved");
    }
    Ok(())
}

#[test]
fn bytes_stay_exact_by_the_second_ways() -> Result<()> {
    let host = Host::take()?;
    for tier in host.tiers()? {
        let firsts = firsts(&hooks(&check("", tier)?.1));
        bytes_are_exact(tier, &format!("{firsts},seed"))?;
        bytes_are_exact(tier, "seed,seed_files,destroyed,destroyed_raw,state_changed,state_changed_raw")?;
    }
    Ok(())
}
