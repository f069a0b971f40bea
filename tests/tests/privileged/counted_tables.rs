//! Tables with a number of intervals, on a terminal: they follow each other, and none is cleared or cut.

use std::net::{TcpListener, TcpStream};

use anyhow::{Result, ensure};
use overwatch_tests::harness::host::Host;
use overwatch_tests::harness::servers::installed;
use overwatch_tests::harness::tmux::Tmux;

#[test]
fn tables_with_a_count_follow_each_other_on_a_terminal() -> Result<()> {
    if !installed(&["tmux"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    // The verb, and what the first line of each of its tables has.
    for (verb, heading) in [("top", "rows  sent "), ("open", "open connections"), ("listeners", " sick  ")] {
        let tmux = Tmux::start(100, 60)?;
        tmux.overwatch(&format!("{verb} 0.3 3; echo ended-$((1+1))"))?;
        let screen = tmux.wait_for(30, "its end", |screen| screen.contains("ended-2"))?;
        let tables = screen.lines().filter(|line| line.contains(heading)).count();
        ensure!(tables == 3, "{verb}: {tables} tables instead of 3:\n{screen}");
        ensure!(screen.contains(&format!("{verb} 0.3 3")), "{verb}: what was typed is cleared:\n{screen}");
    }
    Ok(())
}

#[test]
fn a_table_with_a_count_is_not_cut_to_the_terminal() -> Result<()> {
    if !installed(&["tmux"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    // More rows than the terminal has lines.
    let listeners = (0..30).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let tmux = Tmux::start(100, 12)?;
    tmux.overwatch("open 0.3 1; echo ended-$((1+1))")?;
    tmux.wait_for(30, "its end", |screen| screen.contains("ended-2"))?;
    let printed = tmux.history()?;
    for listener in &listeners {
        let address = listener.local_addr()?.to_string();
        ensure!(printed.lines().any(|line| line.ends_with(&address)), "{address} is not in\n{printed}");
    }
    Ok(())
}

#[test]
fn a_story_with_a_count_has_every_waiting_client() -> Result<()> {
    if !installed(&["tmux"])? {
        return Ok(());
    }
    let _host = Host::take()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let clients = (0..30).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>()?;
    let tmux = Tmux::start(100, 12)?;
    tmux.overwatch(&format!("listeners --explain {} 1 1; echo ended-$((1+1))", address.port()))?;
    tmux.wait_for(30, "its end", |screen| screen.contains("ended-2"))?;
    let printed = tmux.history()?;
    ensure!(printed.contains("Waiting clients:"), "no clients in\n{printed}");
    for client in &clients {
        let client = client.local_addr()?.to_string();
        ensure!(printed.contains(&client), "{client} is not in\n{printed}");
    }
    Ok(())
}
