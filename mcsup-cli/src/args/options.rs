//! The options of `mcsup run` and `mcsup check`, grouped as the help shows them.

use clap::Args;

/// Where and with how many processes and threads it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServingArgs {
    /// Address to listen on: HOST, HOST:PORT or :PORT (IPv6 in brackets), tcp://HOST:PORT, unix:PATH, fd://N
    /// or fd://NAME (a socket of systemd); repeatable [env: PORT, for 0.0.0.0:PORT]
    #[arg(short, long, value_name = "ADDR")]
    pub bind: Vec<String>,
    /// Connections that may wait in the queue of a listening socket
    #[arg(long, value_name = "INT")]
    pub backlog: Option<String>,
    /// Worker processes, 1 to 512; `auto`: one for each processor of the affinity and of the cgroup's quota [env: WEB_CONCURRENCY]
    #[arg(short, long, value_name = "INT")]
    pub workers: Option<String>,
    /// Threads in each worker that call the application, 1 to 1024
    #[arg(long, value_name = "INT")]
    pub threads: Option<String>,
    /// Give each worker its own listening sockets; the kernel spreads connections among them (SO_REUSEPORT)
    #[arg(long)]
    pub reuse_port: bool,
    /// Path of the health check, which mcsup itself answers: 200, or 503 once it drains
    #[arg(long, value_name = "PATH")]
    pub health_path: Option<String>,
    /// Seconds that a stopping server still accepts connections while the health check answers 503
    #[arg(long, value_name = "SECS")]
    pub drain_delay: Option<String>,
}

/// How the application is found and loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Application")]
pub(crate) struct ApplicationArgs {
    /// Directory to change to before the application is loaded [default: the current directory]
    #[arg(long, value_name = "DIR")]
    pub chdir: Option<String>,
    /// Directories to search for modules first, separated by commas
    #[arg(long, value_name = "DIRS")]
    pub pythonpath: Option<String>,
    /// Environment variable for the application; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Load the application once, report whether it can be served, and exit
    #[arg(long)]
    pub check_config: bool,
    /// Leave imports of Python's standard library to each worker, instead of importing them before the fork
    #[arg(long)]
    pub no_share_stdlib: bool,
    /// Load the application once, in a mold process that forks the workers: they share its memory
    #[arg(long)]
    pub preload: bool,
    /// Reaction to threads that run in the mold when it forks: refuse or warn
    #[arg(long, value_name = "WORD")]
    pub preload_threads: Option<String>,
}

/// How a reload proceeds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Reloading")]
pub(crate) struct ReloadingArgs {
    /// Extra workers that a reload may boot at once, 1 to 512; all: a whole second pool
    #[arg(long, value_name = "INT|all")]
    pub surge: Option<String>,
    /// Seconds that the first new worker of a reload must live after it is ready; with --reload 0 unless given
    #[arg(long, value_name = "SECS")]
    pub soak: Option<String>,
    /// New workers that may fail before a reload is rolled back, 0 to 100
    #[arg(long, value_name = "INT")]
    pub reload_retries: Option<String>,
}

/// When a healthy worker is replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Recycling")]
pub(crate) struct RecyclingArgs {
    /// Requests after which a worker is replaced; 0: unlimited
    #[arg(long, value_name = "COUNT")]
    pub max_requests: Option<String>,
    /// Largest random addition to --max-requests, drawn once for each worker
    #[arg(long, value_name = "COUNT")]
    pub max_requests_jitter: Option<String>,
    /// Seconds after which a worker is replaced; 0: unlimited
    #[arg(long, value_name = "SECS")]
    pub max_lifetime: Option<String>,
    /// Largest random addition to --max-lifetime, drawn once for each worker
    #[arg(long, value_name = "SECS")]
    pub max_lifetime_jitter: Option<String>,
    /// Resident memory beyond which a worker is replaced, in bytes or like 512K, 256M or 1G; 0: unlimited
    #[arg(long, value_name = "BYTES")]
    pub max_rss: Option<String>,
    /// Largest random addition to --max-rss, drawn once for each worker
    #[arg(long, value_name = "BYTES")]
    pub max_rss_jitter: Option<String>,
}

/// Reloads on changed files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Development")]
pub(crate) struct DevelopmentArgs {
    /// Reload when a file that the application loaded has changed
    #[arg(long)]
    pub reload: bool,
    /// Method that detects changes: auto, poll or inotify
    #[arg(long, value_name = "WORD")]
    pub reload_engine: Option<String>,
    /// Additional file or pattern to watch; repeatable
    #[arg(long, value_name = "PATH")]
    pub reload_extra_file: Vec<String>,
}

/// How long anything may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Time limits")]
pub(crate) struct TimeLimitsArgs {
    /// Seconds, at least 1, without a sign of life after which a worker is killed and replaced; 0: never
    #[arg(short, long, value_name = "SECS")]
    pub timeout: Option<String>,
    /// Seconds that the application may take for a request before the client gets 504 and the worker is replaced; 0:
    /// unlimited [default: --timeout with one thread, otherwise 0]
    #[arg(long, value_name = "SECS")]
    pub request_timeout: Option<String>,
    /// Seconds that a stopping worker may take to finish its requests
    #[arg(long, value_name = "SECS")]
    pub graceful_timeout: Option<String>,
    /// Seconds within which a new worker must be ready
    #[arg(long, value_name = "SECS")]
    pub boot_timeout: Option<String>,
    /// Seconds that an idle connection is kept open for its next request
    #[arg(long, value_name = "SECS")]
    pub keep_alive: Option<String>,
    /// Seconds within which the whole head of a request must arrive
    #[arg(long, value_name = "SECS")]
    pub header_timeout: Option<String>,
    /// Seconds without progress after which the upload of a request body is aborted
    #[arg(long, value_name = "SECS")]
    pub body_timeout: Option<String>,
    /// Seconds without progress after which the sending of a response is aborted
    #[arg(long, value_name = "SECS")]
    pub write_timeout: Option<String>,
}

/// How much a client may send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Size limits")]
pub(crate) struct SizeLimitsArgs {
    /// Open connections of a worker: a further one replaces the one that is idle for the longest time, or waits; 0: as
    /// many as the limit of descriptors allows, less about 64 for the application
    #[arg(long, value_name = "COUNT")]
    pub worker_connections: Option<String>,
    /// Bytes of a request line, up to 1048576; 0: the same as 1048576
    #[arg(long, value_name = "BYTES")]
    pub limit_request_line: Option<String>,
    /// Header fields of a request, up to 32768; 0: the same as 32768
    #[arg(long, value_name = "INT")]
    pub limit_request_fields: Option<String>,
    /// Bytes of one header field, up to 1048576; 0: the same as 1048576
    #[arg(long, value_name = "BYTES", alias = "limit-request-field_size")]
    pub limit_request_field_size: Option<String>,
    /// Bytes of a request body; 0: unlimited
    #[arg(long, value_name = "BYTES")]
    pub limit_request_body: Option<String>,
}

/// User, files and name of the processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessArgs {
    /// File that holds the supervisor's process id; its lock prevents a second server
    #[arg(short, long, value_name = "FILE")]
    pub pid: Option<String>,
    /// Go to the background once the pool is ready
    #[arg(short = 'D', long)]
    pub daemon: bool,
    /// Run the workers as this user, a name or number
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Run the workers as this group, a name or number
    #[arg(short, long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Permission bits that a Unix socket lacks, octal like 007 [default: sockets get mode 0660]
    #[arg(short = 'm', long, value_name = "OCTAL")]
    pub umask: Option<String>,
    /// End the processes that the application has started with their worker: by SIGTERM, after 2 seconds by SIGKILL;
    /// without this option the log names them
    #[arg(long)]
    pub end_children: bool,
    /// Name to show in process listings
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Path of the control socket, which `mcsup status`, `mcsup reload` and the like use [default: beside the pid file]
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<String>,
    /// Open no control socket
    #[arg(long)]
    pub no_control_socket: bool,
}

/// Logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LoggingArgs {
    /// Write a line for each request to this file; `-`: standard output
    #[arg(long, value_name = "FILE")]
    pub access_logfile: Option<String>,
    /// Format of the access log: gunicorn's atoms, or the word `json`
    #[arg(long, value_name = "FORMAT")]
    pub access_logformat: Option<String>,
    /// Write the error log to this file; `-`: standard error; with --daemon and --pid beside the pid file unless given
    #[arg(long, visible_alias = "log-file", value_name = "FILE")]
    pub error_logfile: Option<String>,
    /// Lowest level to log: debug, info, warning, error or critical
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}
