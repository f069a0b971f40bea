//! Servers that are known by the name of their process, and what they call their own knobs.

/// A server program. The texts complete sentences: "Raise ..." and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Names of its processes as the kernel keeps them (at most 15 characters); one that ends with `*` stands for all that begin so.
    pub(super) processes: &'static [&'static str],
    /// Its name.
    pub(super) name: &'static str,
    /// What limits how many connections are served at once.
    pub(super) workers: &'static str,
    /// What makes it accept faster.
    pub(super) accept: &'static str,
    /// What it asks for as the length of the accept queue.
    pub(super) backlog: &'static str,
    /// What limits its descriptors, apart from the unit's LimitNOFILE=.
    pub(super) descriptors: Option<&'static str>,
}

const GO_BACKLOG: &str = "net.core.somaxconn: Go programs ask for that, as it was when they started";

/// All of them.
pub(super) const SERVERS: &[Server] = &[
    Server {
        processes: &["apache2", "httpd"],
        name: "Apache httpd",
        workers: "MaxRequestWorkers (with ServerLimit; with the worker and event MPM it is at most ServerLimit times ThreadsPerChild)",
        accept: "the event MPM, whose listener thread accepts while workers are busy, and ListenCoresBucketsRatio on hosts with many cores",
        backlog: "ListenBacklog (511 unless set)",
        descriptors: Some("APACHE_ULIMIT_MAX_FILES in /etc/apache2/envvars, on Debian"),
    },
    Server {
        processes: &["nginx"],
        name: "nginx",
        workers: "worker_connections and worker_processes",
        accept: "worker_processes, multi_accept, and reuseport at the listen directive",
        backlog: "backlog= at the listen directive (511 unless set)",
        descriptors: Some("worker_rlimit_nofile"),
    },
    Server {
        processes: &["haproxy"],
        name: "HAProxy",
        workers: "maxconn: of the frontend or bind line, and in the global section, whichever is smaller",
        accept: "nbthread, and tune.maxaccept",
        backlog: "backlog of the frontend (its maxconn unless set)",
        descriptors: Some("ulimit-n in the global section"),
    },
    Server {
        processes: &["php-fpm*"],
        name: "PHP-FPM",
        workers: "pm.max_children of the pool",
        accept: "pm.max_children of the pool: every child accepts for itself",
        backlog: "listen.backlog of the pool",
        descriptors: Some("rlimit_files of the pool"),
    },
    Server {
        processes: &["gunicorn*"],
        name: "Gunicorn",
        workers: "--workers and --threads (with gevent or eventlet: --worker-connections)",
        accept: "--workers",
        backlog: "--backlog (2048 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["uvicorn*"],
        name: "Uvicorn",
        workers: "--workers, and --limit-concurrency where it is set",
        accept: "--workers",
        backlog: "--backlog (2048 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["uwsgi*"],
        name: "uWSGI",
        workers: "processes and threads",
        accept: "processes and threads",
        backlog: "listen (100 unless set; not above net.core.somaxconn, or it does not start)",
        descriptors: Some("max-fd"),
    },
    Server {
        processes: &["puma*"],
        name: "Puma",
        workers: "workers and threads",
        accept: "workers",
        backlog: "?backlog= in the bind address (1024 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["unicorn*"],
        name: "Unicorn",
        workers: "worker_processes",
        accept: "worker_processes",
        backlog: ":backlog of the listen line (1024 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["node", "nodejs", "node-MainThread"],
        name: "Node.js",
        workers: "the number of processes (cluster, or several instances), and server.maxConnections where it is set",
        accept: "the number of processes: the one thread that accepts also runs the program, so look for what blocks its event loop",
        backlog: "backlog of server.listen() (511 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["java"],
        name: "Java",
        workers: "in Tomcat maxConnections and maxThreads of the Connector, in others the size of the thread pool",
        accept: "the number of acceptor threads, and shorter pauses of the garbage collector",
        backlog: "in Tomcat acceptCount of the Connector (100 unless set), in others the backlog of ServerSocket (50 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["postgres", "postmaster"],
        name: "PostgreSQL",
        workers: "max_connections; beyond it clients are turned away with an error and do not wait",
        accept: "a connection pool such as PgBouncer in front: for each connection one process starts a new one",
        backlog: "max_connections: it asks for twice that",
        descriptors: None,
    },
    Server {
        processes: &["mysqld", "mariadbd"],
        name: "MySQL or MariaDB",
        workers: "max_connections; beyond it clients are turned away with an error and do not wait",
        accept: "thread_cache_size, so that fewer threads have to be started, and connection pools in the clients",
        backlog: "back_log",
        descriptors: Some("open_files_limit"),
    },
    Server {
        processes: &["redis-server", "valkey-server"],
        name: "Redis or Valkey",
        workers: "maxclients; beyond it clients are turned away with an error and do not wait",
        accept: "shorter commands: the one thread that accepts also runs them (see SLOWLOG)",
        backlog: "tcp-backlog (511 unless set)",
        descriptors: Some("maxclients, by which it sets its own limit as far as it may"),
    },
    Server {
        processes: &["memcached"],
        name: "memcached",
        workers: "-c (connections)",
        accept: "-t (threads)",
        backlog: "-b (1024 unless set)",
        descriptors: Some("-c, by which it sets its own limit as far as it may"),
    },
    Server {
        processes: &["varnishd", "cache-main"],
        name: "Varnish",
        workers: "thread_pool_max and thread_pools",
        accept: "thread_pool_min, so that threads are there when a burst comes",
        backlog: "listen_depth (1024 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["lighttpd"],
        name: "lighttpd",
        workers: "server.max-connections (and server.max-fds, which it follows)",
        accept: "server.max-worker",
        backlog: "server.listen-backlog (1024 unless set)",
        descriptors: Some("server.max-fds"),
    },
    Server {
        processes: &["caddy"],
        name: "Caddy",
        workers: "nothing of its own: it has no limit of connections, so look at descriptors, memory and what is behind it",
        accept: "processor time: GOMAXPROCS follows the CPUs that it may use",
        backlog: GO_BACKLOG,
        descriptors: None,
    },
    Server {
        processes: &["traefik"],
        name: "Traefik",
        workers: "nothing of its own in front: look at inFlightConn and inFlightReq where they are set, and at what is behind it",
        accept: "processor time: GOMAXPROCS follows the CPUs that it may use",
        backlog: GO_BACKLOG,
        descriptors: None,
    },
    Server {
        processes: &["envoy"],
        name: "Envoy",
        workers: "the overload manager's global_downstream_max_connections, and connection_limit of the listener",
        accept: "--concurrency (worker threads)",
        backlog: "tcp_backlog_size of the listener (net.core.somaxconn unless set)",
        descriptors: None,
    },
    Server {
        processes: &["sshd"],
        name: "OpenSSH",
        workers: "MaxStartups; beyond it connections that are not logged in yet are turned away and do not wait",
        accept: "UseDNS no, and less work before the login",
        backlog: "nothing: 128 is built in",
        descriptors: None,
    },
    Server {
        processes: &["dovecot", "imap-login", "pop3-login", "submission-logi", "managesieve-log"],
        name: "Dovecot",
        workers: "process_limit and client_limit of the service (imap-login, pop3-login)",
        accept: "service_count = 0 and process_min_avail of the login service, so that no process has to be started for each client",
        backlog: "process_limit times client_limit of the service, of which it asks for at most 511",
        descriptors: Some("client_limit, which must be below the limit of descriptors"),
    },
    Server {
        processes: &["master", "smtpd", "postscreen"],
        name: "Postfix",
        workers: "the maxproc column of the service in master.cf, or default_process_limit",
        accept: "postscreen in front of smtpd, so that clients that only probe do not take a process",
        backlog: "the maxproc column in master.cf, or default_process_limit: it asks for the larger of both",
        descriptors: None,
    },
];

/// The server that a process of this name belongs to.
pub(super) fn recognise(comm: &str) -> Option<&'static Server> {
    let is =
        |pattern: &&str| pattern.strip_suffix('*').map_or(comm == *pattern, |beginning| comm.starts_with(beginning));
    SERVERS.iter().find(|server| server.processes.iter().any(is))
}
