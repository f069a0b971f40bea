//! Servers that are known by the name of their process, and what they call their own knobs. Beside each is where its numbers are from.

/// What limits how many connections a server serves at once. The texts complete sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Clients beyond it wait in the accept queue.
    Waits(&'static str),
    /// It accepts clients beyond `limit` and turns them away. When they wait all the same, one has to look at something else.
    TurnsAway { limit: &'static str, instead: &'static str },
    /// It has none. When clients wait, one has to look at this.
    None(&'static str),
}

impl Limit {
    /// What to do about it.
    pub(super) fn advice(self, name: &str) -> String {
        match self {
            Self::Waits(limit) => {
                format!("Raise what limits {name}: {limit}, if memory and what is behind it allow for more.")
            }
            Self::TurnsAway { limit, instead } => {
                format!("{name} turns away clients beyond {limit}, so these wait for something else: see {instead}.")
            }
            Self::None(instead) => format!("{name} has no limit at which clients wait: see {instead}."),
        }
    }
}

/// A server program. The texts complete sentences: "Raise ..." and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Names of its processes as the kernel keeps them (at most 15 characters); one that ends with `*` stands for all that begin so.
    pub(super) processes: &'static [&'static str],
    /// Its name.
    pub(super) name: &'static str,
    /// What limits how many connections are served at once.
    pub(super) limit: Limit,
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
    // include/ap_listen.h: DEFAULT_LISTENBACKLOG.
    Server {
        processes: &["apache2", "httpd"],
        name: "Apache httpd",
        limit: Limit::Waits(
            "MaxRequestWorkers (with ServerLimit; with the worker and event MPM it is at most ServerLimit times ThreadsPerChild)",
        ),
        accept: "the event MPM, whose listener thread accepts while workers are busy, and ListenCoresBucketsRatio on hosts with many cores",
        backlog: "ListenBacklog (511 unless set)",
        descriptors: Some("APACHE_ULIMIT_MAX_FILES in /etc/apache2/envvars, on Debian"),
    },
    // src/os/unix/ngx_linux_config.h: NGX_LISTEN_BACKLOG; src/event/ngx_event_accept.c closes what finds no free connection.
    Server {
        processes: &["nginx"],
        name: "nginx",
        limit: Limit::TurnsAway {
            limit: "worker_connections (with accept_mutex on they wait)",
            instead: "what blocks its workers, such as a slow disk (aio threads), and worker_processes",
        },
        accept: "worker_processes, multi_accept, and reuseport at the listen directive",
        backlog: "backlog= at the listen directive (511 unless set)",
        descriptors: Some("worker_rlimit_nofile"),
    },
    // src/listener.c: listener_backlog().
    Server {
        processes: &["haproxy"],
        name: "HAProxy",
        limit: Limit::Waits("maxconn: of the frontend or bind line, and in the global section, whichever is smaller"),
        accept: "nbthread, and tune.maxaccept",
        backlog: "backlog of the bind line or frontend (unless set, their maxconn)",
        descriptors: Some("ulimit-n in the global section"),
    },
    // sapi/fpm/fpm/fpm_sockets.h: FPM_BACKLOG_DEFAULT.
    Server {
        processes: &["php-fpm*"],
        name: "PHP-FPM",
        limit: Limit::Waits("pm.max_children of the pool"),
        accept: "pm.max_children of the pool: every child accepts for itself",
        backlog: "listen.backlog of the pool (511 unless set; in newer versions as much as net.core.somaxconn)",
        descriptors: Some("rlimit_files of the pool"),
    },
    Server {
        processes: &["gunicorn*"],
        name: "Gunicorn",
        limit: Limit::Waits("--workers and --threads (with gevent or eventlet: --worker-connections)"),
        accept: "--workers",
        backlog: "--backlog (2048 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["uvicorn*"],
        name: "Uvicorn",
        limit: Limit::None("what blocks its event loop, and --workers (beyond --limit-concurrency clients get a 503)"),
        accept: "--workers",
        backlog: "--backlog (2048 unless set)",
        descriptors: None,
    },
    // core/init.c: listen_queue; core/socket.c compares it with somaxconn.
    Server {
        processes: &["uwsgi*"],
        name: "uWSGI",
        limit: Limit::Waits("processes and threads"),
        accept: "processes and threads",
        backlog: "listen (100 unless set; not above net.core.somaxconn, or it does not start)",
        descriptors: Some("max-fd"),
    },
    Server {
        processes: &["puma*"],
        name: "Puma",
        limit: Limit::Waits("workers and threads"),
        accept: "workers",
        backlog: "?backlog= in the bind address (1024 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["unicorn*"],
        name: "Unicorn",
        limit: Limit::Waits("worker_processes"),
        accept: "worker_processes",
        backlog: ":backlog of the listen line (1024 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["node", "nodejs", "node-MainThread"],
        name: "Node.js",
        limit: Limit::None(
            "what blocks its event loop, and the number of processes (beyond server.maxConnections clients are turned away)",
        ),
        accept: "the number of processes: the one thread that accepts also runs the program, so look for what blocks its event loop",
        backlog: "backlog of server.listen() (511 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["java"],
        name: "Java",
        limit: Limit::Waits(
            "in Tomcat maxConnections of the Connector (maxThreads limits requests, not connections), in others the size of the thread pool",
        ),
        accept: "shorter pauses of the garbage collector, and whatever else holds up the thread that accepts",
        backlog: "in Tomcat acceptCount of the Connector (100 unless set), in others the backlog of ServerSocket (50 unless set)",
        descriptors: None,
    },
    // src/backend/libpq/pqcomm.c: MaxConnections * 2; MaxBackends * 2, at most 10000, in older versions.
    Server {
        processes: &["postgres", "postmaster"],
        name: "PostgreSQL",
        limit: Limit::TurnsAway {
            limit: "max_connections",
            instead: "what holds up the postmaster, which starts a process for each connection",
        },
        accept: "a connection pool such as PgBouncer in front: for each connection one process starts a new one",
        backlog: "max_connections: it asks for about twice that",
        descriptors: None,
    },
    // The manual: back_log is max_connections in MySQL 8.0, 50 + max_connections / 5 and at most 900 before.
    Server {
        processes: &["mysqld", "mariadbd"],
        name: "MySQL or MariaDB",
        limit: Limit::TurnsAway {
            limit: "max_connections",
            instead: "what holds up the thread that accepts, which hands each connection to a thread",
        },
        accept: "thread_cache_size, so that fewer threads have to be started, and connection pools in the clients",
        backlog: "back_log (unless set it follows max_connections)",
        descriptors: Some("open_files_limit"),
    },
    Server {
        processes: &["redis-server", "valkey-server"],
        name: "Redis or Valkey",
        limit: Limit::TurnsAway {
            limit: "maxclients",
            instead: "the commands that take long (SLOWLOG): one thread runs them and accepts",
        },
        accept: "shorter commands: the one thread that accepts also runs them (see SLOWLOG)",
        backlog: "tcp-backlog (511 unless set)",
        descriptors: Some("maxclients, by which it sets its own limit as far as it may"),
    },
    // memcached.c: settings.backlog, settings.maxconns_fast.
    Server {
        processes: &["memcached"],
        name: "memcached",
        limit: Limit::TurnsAway {
            limit: "-c (older versions, or with -o no_maxconns_fast, let them wait)",
            instead: "-t (threads), and the memory of the host",
        },
        accept: "-t (threads)",
        backlog: "-b (1024 unless set)",
        descriptors: Some("-c, by which it sets its own limit as far as it may"),
    },
    // include/tbl/params.h: listen_depth; when no thread is left the one that accepts serves (cache_acceptor.c).
    Server {
        processes: &["varnishd", "cache-main"],
        name: "Varnish",
        limit: Limit::Waits("thread_pool_max and thread_pools"),
        accept: "thread_pool_min, so that threads are there when a burst comes",
        backlog: "listen_depth (1024 unless set)",
        descriptors: None,
    },
    Server {
        processes: &["lighttpd"],
        name: "lighttpd",
        limit: Limit::Waits("server.max-connections (and server.max-fds, which it follows)"),
        accept: "server.max-worker",
        backlog: "server.listen-backlog (1024 unless set)",
        descriptors: Some("server.max-fds"),
    },
    Server {
        processes: &["caddy"],
        name: "Caddy",
        limit: Limit::None("descriptors, memory, and what is behind it"),
        accept: "processor time: GOMAXPROCS follows the CPUs that it may use",
        backlog: GO_BACKLOG,
        descriptors: None,
    },
    Server {
        processes: &["traefik"],
        name: "Traefik",
        limit: Limit::None(
            "descriptors, memory, and what is behind it (beyond inFlightConn and inFlightReq clients are turned away)",
        ),
        accept: "processor time: GOMAXPROCS follows the CPUs that it may use",
        backlog: GO_BACKLOG,
        descriptors: None,
    },
    // The manual: tcp_backlog_size; overload actions.
    Server {
        processes: &["envoy"],
        name: "Envoy",
        limit: Limit::Waits(
            "the trigger of the overload manager's action stop_accepting_connections (beyond global_downstream_max_connections and connection_limit clients are turned away)",
        ),
        accept: "--concurrency (worker threads)",
        backlog: "tcp_backlog_size of the listener (net.core.somaxconn unless set)",
        descriptors: None,
    },
    // ssh.h: SSH_LISTEN_BACKLOG.
    Server {
        processes: &["sshd"],
        name: "OpenSSH",
        limit: Limit::TurnsAway {
            limit: "MaxStartups (connections that are not logged in yet)",
            instead: "what holds up the sshd that listens, which starts a process for each connection",
        },
        accept: "UseDNS no, and less work before the login",
        backlog: "nothing: 128 is built in",
        descriptors: None,
    },
    // src/master/service-listen.c: service_get_backlog().
    Server {
        processes: &["dovecot", "imap-login", "pop3-login", "submission-logi", "managesieve-log"],
        name: "Dovecot",
        limit: Limit::Waits("process_limit and client_limit of the service (imap-login, pop3-login)"),
        accept: "service_count = 0 and process_min_avail of the login service, so that no process has to be started for each client",
        backlog: "process_limit times client_limit of the service (up to version 2.2 at most 511)",
        descriptors: Some("client_limit, which must be below the limit of descriptors"),
    },
    // src/master/master_listen.c. Its listening process has too common a name to be recognised: master.
    Server {
        processes: &["smtpd", "postscreen"],
        name: "Postfix",
        limit: Limit::Waits("the maxproc column of the service in master.cf, or default_process_limit"),
        accept: "postscreen in front of smtpd, so that clients that only probe do not take a process",
        backlog: "the maxproc column in master.cf, or default_process_limit: it asks for the larger of both",
        descriptors: None,
    },
    // src/globals.c: smtp_connect_backlog, smtp_accept_max.
    Server {
        processes: &["exim", "exim4"],
        name: "Exim",
        limit: Limit::TurnsAway {
            limit: "smtp_accept_max (20 unless set)",
            instead: "what holds up the daemon, which starts a process for each connection",
        },
        accept: "memory and processor time: the daemon starts a process for each connection",
        backlog: "smtp_connect_backlog (20 unless set)",
        descriptors: None,
    },
];

/// The server that a process of this name belongs to.
pub(super) fn recognise(comm: &str) -> Option<&'static Server> {
    let is =
        |pattern: &&str| pattern.strip_suffix('*').map_or(comm == *pattern, |beginning| comm.starts_with(beginning));
    SERVERS.iter().find(|server| server.processes.iter().any(is))
}
