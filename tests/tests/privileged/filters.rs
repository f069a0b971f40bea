//! The filters of `overwatch top`: each shows what it should and hides the rest.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use overwatch_tests::harness::cgroup::CGroup;
use overwatch_tests::harness::host::Host;
use overwatch_tests::harness::judge::rows_of;
use overwatch_tests::harness::netns::NetNs;
use overwatch_tests::harness::overwatch::Top;
use overwatch_tests::harness::rows::rows;
use overwatch_tests::harness::traffic::Hold;
use overwatch_tests::traffic::report::Report;

/// A few connections that differ in everything that can be filtered by.
struct Scene {
    holds: Vec<Hold>,
    netns: NetNs,
    cgroup: CGroup,
}

impl Scene {
    fn new() -> Result<Self> {
        let netns = NetNs::new("filter")?;
        let cgroup = CGroup::new("filter")?;
        let space = netns.path_text();
        let v4 = ["--address", "127.0.0.2", "--server-comm", "ow-a-srv", "--client-comm", "ow-a-cli"];
        let v6 = ["--family", "v6", "--server-comm", "ow-b-srv", "--client-comm", "ow-b-cli"];
        let apart = ["--server-netns", space, "--client-netns", space, "--cgroup", cgroup.path_text()];
        let names = ["--server-comm", "ow-c-srv", "--client-comm", "ow-c-cli"];
        let holds = vec![Hold::open(&v4)?, Hold::open(&v6)?, Hold::open(&[&apart[..], &names].concat())?];
        Ok(Self { holds, netns, cgroup })
    }

    /// Moves some bytes on every connection.
    fn move_bytes(&mut self) -> Result<Vec<Report>> {
        let mut ends = Vec::new();
        for hold in &mut self.holds {
            ends.extend(hold.send(1_001, 1_003)?);
        }
        Ok(ends)
    }
}

/// A filter and which ends must pass it.
type Case<'a> = (Vec<String>, Box<dyn Fn(&Report) -> bool + 'a>);

fn case<'a>(arguments: &[&str], passes: impl Fn(&Report) -> bool + 'a) -> Case<'a> {
    (arguments.iter().map(|&word| word.to_owned()).collect(), Box::new(passes))
}

/// Runs overwatch with all the filters, each in a process of its own, some at a time.
fn judge(scene: &mut Scene, cases: &[Case<'_>]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for some in cases.chunks(4) {
        let start = |(arguments, _): &Case<'_>| {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Top::start(None, &[&["--max-connections", "1024"], words.as_slice()].concat())
        };
        let running = some.iter().map(start).collect::<Result<Vec<_>>>()?;
        let ends = scene.move_bytes()?;
        for (top, (arguments, passes)) in running.into_iter().zip(some) {
            let run = top.stop().with_context(|| format!("{arguments:?}"))?;
            for end in &ends {
                let shown = !rows_of(&run.intervals, end).is_empty();
                if shown != passes(end) {
                    let what = if shown { "shown" } else { "hidden" };
                    problems
                        .push(format!("{arguments:?}: {} {}:{} is {what}", end.comm, end.local_addr, end.local_port));
                }
            }
        }
    }
    Ok(problems)
}

#[test]
fn each_shows_what_it_should_and_hides_the_rest() -> Result<()> {
    let _host = Host::take()?;
    let mut scene = Scene::new()?;
    let ends = scene.move_bytes()?;
    let a = ends.iter().find(|end| end.comm == "ow-a-cli").context("the first client")?.clone();
    let b = ends.iter().find(|end| end.comm == "ow-b-srv").context("the second server")?.clone();
    let (c_netns, name) = (scene.netns.inode(), scene.netns.name().to_owned());
    let (pid, port) = (a.pid.to_string(), a.remote_port.to_string());
    let (lport, rport) = (b.local_port.to_string(), a.remote_port.to_string());
    let inode = c_netns.to_string();
    let in_a = |end: &Report| end.comm.starts_with("ow-a");
    let cases = [
        case(&[], |_| true),
        case(&["--pid", &pid], |end| end.pid == a.pid),
        case(&["--comm", "ow-b-cli"], |end| end.comm == "ow-b-cli"),
        case(&["--comm", "ow-nobody"], |_| false),
        case(&["--port", &port], |end| [end.local_port, end.remote_port].contains(&a.remote_port)),
        case(&["--lport", &lport], |end| end.local_port == b.local_port),
        case(&["--rport", &rport], |end| end.remote_port == a.remote_port),
        case(&["--addr", "127.0.0.2/32"], in_a),
        case(&["--addr", "127.0.0.2"], in_a),
        case(&["--addr", "127.0.0.0/8"], |end| end.local_addr.contains('.')),
        case(&["--addr", "::/0"], |end| end.local_addr.contains(':')),
        case(&["--netns", &inode], |end| end.netns == c_netns),
        case(&["--netns", &name], |end| end.netns == c_netns),
        case(&["-4"], |end| end.local_addr.contains('.')),
        case(&["-6"], |end| end.local_addr.contains(':')),
        case(&["-4", "--comm", "ow-b-cli"], |_| false),
        case(&["--port", &port, "--pid", &pid], |end| end.pid == a.pid),
    ];
    let problems = judge(&mut scene, &cases)?;
    ensure!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

#[test]
fn control_groups_are_named_and_filtered_by() -> Result<()> {
    let _host = Host::take()?;
    let mut scene = Scene::new()?;
    let top = Top::start(None, &[])?;
    let ends = scene.move_bytes()?;
    let run = top.stop()?;
    let inside = |end: &Report| end.comm.starts_with("ow-c");
    let mut names = BTreeSet::new();
    for end in &ends {
        for row in rows_of(&run.intervals, end) {
            let named = row.cgroup.as_deref().is_some_and(|cgroup| cgroup.ends_with(scene.cgroup.name()));
            ensure!(named == inside(end), "{} is in {:?}", end.comm, row.cgroup);
            if inside(end) {
                names.extend(row.cgroup.clone());
            }
        }
    }
    ensure!(names.len() == 1, "one control group, one name: {names:?}");
    let name = names.first().context("a name")?.clone();
    let problems = judge(&mut scene, &[case(&["--cgroup", &name], inside)])?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    ensure!(rows(&run.intervals).count() >= 6, "six ends without a filter");
    Ok(())
}
