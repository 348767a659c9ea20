//! Where a pool serves, and with how many processes and threads.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::list(
        "bind",
        "bind",
        "ADDR",
        "Address to listen on: HOST, HOST:PORT or :PORT (IPv6 in brackets), tcp://HOST:PORT, \
         unix:PATH, fd://N or fd://NAME (a socket of systemd); repeatable",
    )
    .short('b')
    .variable_behind("0.0.0.0:", "PORT")
    .default("127.0.0.1:8000")
    .as_in_gunicorn(),
    Row::value("backlog", "backlog", "INT", "Connections that may wait in the queue of a listening socket")
        .default("2048")
        .as_in_gunicorn(),
    Row::value(
        "workers",
        "workers",
        "INT",
        "Worker processes, 1 to 512; `auto`: one for each processor of the affinity and of \
         the cgroup's quota",
    )
    .short('w')
    .variable("WEB_CONCURRENCY")
    .default("1")
    .as_in_gunicorn(),
    Row::value(
        "threads",
        "threads",
        "INT",
        "Threads in each worker that call the application, 1 to 1024; 0: the same as 1",
    )
    .default("1")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "worker_class",
        "worker-class",
        "WORD",
        "Kind of the workers, for command lines of gunicorn: sync or gthread, which are the same \
         here, with --threads threads each; an error for another one names its equivalent",
    )
    .words(&["sync", "gthread"])
    .short('k')
    .default("sync")
    .as_in_gunicorn()
    .of_applications(),
    Row::list(
        "static",
        "static",
        "ROUTE=DIR",
        "Serve the files of a folder under a path, such as /static=static, without the \
         application; a path without a file goes to the application; repeatable",
    )
    .of_applications(),
    Row::flag(
        "reuse_port",
        "reuse-port",
        "Give each worker its own listening sockets; the kernel spreads connections among \
         them (SO_REUSEPORT)",
    )
    .as_in_gunicorn(),
    Row::value("socket_mode", "socket-mode", "OCTAL", "Mode of a Unix socket, octal like 0666")
        .default_in_words("0660, or by --umask"),
    Row::value(
        "socket_owner",
        "socket-owner",
        "USER[:GROUP]",
        "Owner of a Unix socket, or :GROUP for the group alone, as names or numbers",
    )
    .default_in_words("--user and --group"),
    Row::value(
        "server_header",
        "server-header",
        "TEXT",
        "Field Server of responses that have none of their own; an empty text: no field",
    )
    .default("mcsup")
    .gunicorn("gunicorn.SERVER")
    .of_applications(),
    Row::value(
        "health_path",
        "health-path",
        "PATH",
        "Path of the health check, which mcsup itself answers: 200, or 503 once it drains",
    )
    .of_applications(),
    Row::value(
        "drain_delay",
        "drain-delay",
        "SECS",
        "Seconds that a stopping server still accepts connections while the health check \
         answers 503",
    )
    .default("0"),
];
