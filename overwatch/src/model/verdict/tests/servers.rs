//! The table of servers, and what is advised with it.

use super::{
    super::{
        Cause,
        servers::{Limit, SERVERS, recognise},
    },
    count,
    host::{Watch, holder, idle},
    overflowing, waiting, waits,
};
use crate::model::queue::Queue;

#[test]
fn servers_are_recognised_by_the_names_of_their_processes() {
    for (comm, name) in [
        ("apache2", Some("Apache httpd")),
        ("httpd", Some("Apache httpd")),
        ("nginx", Some("nginx")),
        ("haproxy", Some("HAProxy")),
        ("php-fpm8.2", Some("PHP-FPM")),
        ("php-fpm", Some("PHP-FPM")),
        ("gunicorn: maste", Some("Gunicorn")),
        ("node", Some("Node.js")),
        ("node-MainThread", Some("Node.js")),
        ("node_exporter", None),
        ("redis-server", Some("Redis or Valkey")),
        ("mariadbd", Some("MySQL or MariaDB")),
        ("cache-main", Some("Varnish")),
        ("exim4", Some("Exim")),
        ("smtpd", Some("Postfix")),
        ("master", None),
        ("apache2-helper", None),
        ("", None),
    ] {
        assert_eq!(recognise(comm).map(|server| server.name), name, "{comm}");
    }
    // The kernel keeps 15 characters.
    assert!(SERVERS.iter().flat_map(|server| server.processes).all(|process| process.len() <= 15));
}

#[test]
fn every_cause_has_advice_and_evidence_for_every_server() {
    for server in SERVERS {
        let comm = server.processes[0].trim_end_matches('*');
        let mut queue = Queue { holders: vec![holder(7, comm)], ..waiting(5000) };
        let mut watch = Watch::new();
        let verdict = watch.one(1000, &queue);
        assert_eq!(verdict.advice[0], server.limit.advice(server.name));
        assert!(verdict.advice[0].starts_with(match server.limit {
            Limit::Waits(_) => "Raise what limits ",
            Limit::TurnsAway { .. } | Limit::None(_) => server.name,
        }));
        (queue.holders[0].open_files, queue.holders[0].open_files_limit) = (Some(1024), Some(1024));
        let verdict = Watch::new().one(1000, &queue);
        assert_eq!(verdict.cause, Cause::FdLimit);
        assert!(verdict.advice[1].contains("LimitNOFILE="), "{verdict:?}");
        assert!(server.descriptors.is_none_or(|knob| verdict.advice[1].contains(knob)), "{verdict:?}");
        for somaxconn in [None, Some(5), Some(4096)] {
            let burst = Queue {
                holders: vec![holder(7, comm)],
                somaxconn,
                backlog_limit: 5,
                overflows_syn: count(9),
                accepts: count(9),
                accept_waits: waits(1),
                ..idle(1)
            };
            let verdict = Watch::new().one(1000, &burst);
            assert_eq!((verdict.level, verdict.cause), overflowing(Cause::BacklogTooSmall));
            assert!(verdict.advice.iter().any(|text| text.contains(server.backlog)), "{verdict:?}");
            assert_eq!(verdict.advice[0].starts_with("net.core.somaxconn is 5 and cuts off"), somaxconn == Some(5));
        }
    }
}
