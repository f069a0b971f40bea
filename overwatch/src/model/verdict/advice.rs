//! What to do: by cause, with the names of the server's own knobs where it is recognised.

use super::{
    Cause,
    facts::{Facts, is_stopped},
    servers::{self, Server},
};
use crate::model::queue::{Holder, Queue};

/// What to do, the most useful first; nothing where nothing is known to help.
pub(super) fn advice(cause: Cause, facts: &Facts<'_>) -> Vec<String> {
    let queue = facts.queue;
    let server = queue.holders.iter().find_map(|holder| servers::recognise(&holder.comm));
    match cause {
        Cause::None if !queue.accepts_seen && facts.oldest_wait() > Some(facts.thresholds.wait) => {
            vec![
                "Run overwatch as root to see the cause; overwatch check shows what this host does not allow."
                    .to_owned(),
            ]
        }
        Cause::None => Vec::new(),
        Cause::WorkerLimit => worker_limit(server, facts),
        Cause::NotAccepting => not_accepting(facts),
        Cause::SlowAccept => slow_accept(server),
        Cause::BacklogTooSmall => backlog_too_small(server, queue),
        Cause::OneWorkerStuck => one_worker_stuck(queue),
        Cause::SynFlood => syn_flood(queue),
        Cause::FdLimit => fd_limit(server, facts),
        Cause::CpuThrottled => cpu_throttled(queue),
    }
}

fn pids<'a>(holders: impl Iterator<Item = &'a Holder>) -> String {
    holders.map(|holder| holder.pid.to_string()).collect::<Vec<_>>().join(" ")
}

fn first_pid(queue: &Queue) -> String {
    queue.holders.first().map_or_else(|| "PID".to_owned(), |holder| holder.pid.to_string())
}

fn worker_limit(server: Option<&Server>, facts: &Facts<'_>) -> Vec<String> {
    let raise = match server {
        Some(server) => server.limit.advice(server.name),
        None => "Raise the server's limit of workers, threads or connections, if memory and what is behind it allow for more.".to_owned(),
    };
    let doubt = facts.is_idle().then(|| {
        let pid = first_pid(facts.queue);
        format!("Nothing of it runs: see whether it waits for what is behind it or for its clients, or hangs or is frozen, before you raise anything: cat /proc/{pid}/task/*/wchan.")
    });
    let mut advice = vec![raise];
    advice.extend(doubt);
    advice.extend([
        "See what the served connections are busy with: a slow backend, slow clients, idle keep-alive. Shorter timeouts free workers without more of them.".to_owned(),
        "Do not make the queue longer (the listen backlog, net.core.somaxconn): in front of a full server clients only wait longer.".to_owned(),
    ]);
    advice
}

fn not_accepting(facts: &Facts<'_>) -> Vec<String> {
    let queue = facts.queue;
    let stopped = pids(queue.holders.iter().filter(|holder| is_stopped(holder)));
    if !stopped.is_empty() {
        return vec![
            format!(
                "Continue what is stopped: kill -CONT {stopped}. First see whether somebody stopped it on purpose (a debugger, job control)."
            ),
            "Do not only restart it: the clients that wait now are lost with the socket.".to_owned(),
        ];
    }
    let pid = first_pid(queue);
    let mut advice = vec![
        format!("See where it hangs before anything else: cat /proc/{pid}/task/*/stack, /proc/{pid}/task/*/wchan, or gdb -p {pid} -batch -ex 'thread apply all bt'."),
        "Usual reasons: a lock that is never released, a backend or name server that does not answer, a disk or NFS that hangs (state D), or a server that has not finished starting.".to_owned(),
        "Restart it when the stacks are saved. A longer queue or a higher net.core.somaxconn does not help.".to_owned(),
    ];
    if queue.serving.is_none() {
        advice.push("How many it serves is not known, so it may as well be at its limit of workers: compare its open connections (ss -tnp) with that limit.".to_owned());
    }
    advice
}

fn slow_accept(server: Option<&Server>) -> Vec<String> {
    let faster = match server {
        Some(server) => format!("Let {} accept faster: {}.", server.name, server.accept),
        None => "Let more threads or processes accept, each on its own socket with SO_REUSEPORT if need be.".to_owned(),
    };
    vec![
        faster,
        "What accepts should do nothing else: name lookups, TLS handshakes, logging and requests belong after the hand-over.".to_owned(),
        "Do not make the queue longer: it fills as well while more connections come than are accepted, and clients wait longer.".to_owned(),
    ]
}

fn backlog_too_small(server: Option<&Server>, queue: &Queue) -> Vec<String> {
    let (limit, pid) = (queue.backlog_limit, first_pid(queue));
    let raise = match server {
        Some(server) => format!("Raise what sets the length of the queue in {}: {}.", server.name, server.backlog),
        None => "Raise the backlog that the server passes to listen().".to_owned(),
    };
    let somaxconn = match queue.somaxconn {
        Some(somaxconn) if limit < somaxconn => format!(
            "net.core.somaxconn is {somaxconn} and not what limits it: the server itself asked for {limit}. Raising the sysctl alone changes nothing."
        ),
        Some(somaxconn) => format!(
            "net.core.somaxconn is {somaxconn} and cuts off what the server asks for: raise it too (sysctl -w net.core.somaxconn=4096, in a container behind nsenter -t {pid} -n)."
        ),
        None => "net.core.somaxconn cuts off what the server asks for: compare it with the limit, and raise it if they are equal.".to_owned(),
    };
    let restart = "Then let the server call listen() again (restart; a reload is often not enough): the limit is taken at that moment.".to_owned();
    match queue.somaxconn {
        Some(cut) if limit >= cut => vec![somaxconn, raise, restart],
        _ => vec![raise, somaxconn, restart],
    }
}

fn one_worker_stuck(queue: &Queue) -> Vec<String> {
    let stopped = pids(queue.holders.iter().filter(|holder| is_stopped(holder)));
    let act = if stopped.is_empty() {
        let pid = first_pid(queue);
        format!("See where the process of this socket hangs (cat /proc/{pid}/task/*/stack), then restart that one.")
    } else {
        format!("Continue the process of this socket: kill -CONT {stopped}.")
    };
    vec![
        act,
        "Every client whose address hashes to this socket waits, the others notice nothing: do not judge by the port's total.".to_owned(),
        "When such a socket is closed, its queue goes to the others only with net.ipv4.tcp_migrate_req=1 (Linux 5.14 and later); otherwise these clients are reset.".to_owned(),
    ]
}

fn syn_flood(queue: &Queue) -> Vec<String> {
    let cookies = match queue.syncookies {
        Some(0) => {
            "Turn SYN cookies on: sysctl -w net.ipv4.tcp_syncookies=1, in the socket's network namespace. Until then clients are refused."
        }
        Some(_) => "SYN cookies are on, so clients still get through: leave net.ipv4.tcp_syncookies as it is.",
        None => "See that SYN cookies are on: net.ipv4.tcp_syncookies=1, in the socket's network namespace.",
    };
    vec![
        cookies.to_owned(),
        "Filter in front: nftables synproxy, a rate limit per source, or the provider's protection. The sources are usually forged, so do not block single addresses.".to_owned(),
        "The server is not the problem, and neither are its workers. A longer backlog and net.ipv4.tcp_max_syn_backlog only take a little longer to fill.".to_owned(),
    ]
}

fn fd_limit(server: Option<&Server>, facts: &Facts<'_>) -> Vec<String> {
    let own = server.and_then(|server| server.descriptors.map(|knob| format!("; of {} itself: {knob}", server.name)));
    let own = own.unwrap_or_default();
    let mut advice = vec![format!(
        "Raise the limit: LimitNOFILE= in the systemd unit, or ulimit -n where it is started{own}. Then restart it."
    )];
    if let Some((holder, _, limit)) = facts.nearly_out_of_descriptors() {
        let (pid, more) = (holder.pid, limit.saturating_mul(4).max(4096));
        advice.insert(
            0,
            format!(
                "At once, without a restart: prlimit --pid {pid} --nofile={more}: (the soft limit; where the hard one is lower, --nofile={more}:{more})."
            ),
        );
        advice.push(format!(
            "See what is open: ls -l /proc/{pid}/fd. If it is files or sockets that should be closed, it is a leak, and a higher limit only puts it off."
        ));
    }
    advice
}

fn cpu_throttled(queue: &Queue) -> Vec<String> {
    let pid = first_pid(queue);
    vec![
        "Give the control group more processor time: CPUQuota= in the systemd unit, limits.cpu in Kubernetes, --cpus in Docker, or cpu.max itself.".to_owned(),
        format!("Which group it is: cat /proc/{pid}/cgroup; the quota is cpu.max, and cpu.stat counts, there or in one of the groups above."),
        "Do not add workers or threads: they use up the same quota sooner, and then all of them stand still.".to_owned(),
    ]
}
