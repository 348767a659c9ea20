//! User, files and name of the processes.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::value(
        "pid",
        "pid",
        "FILE",
        "File that holds the supervisor's process id; its lock prevents a second server",
    )
    .short('p')
    .gunicorn("pidfile"),
    Row::flag("daemon", "daemon", "Go to the background once the pool is ready").short('D').as_in_gunicorn(),
    Row::value("user", "user", "USER", "Run the workers as this user, a name or number")
        .short('u')
        .as_in_gunicorn(),
    Row::value("group", "group", "GROUP", "Run the workers as this group, a name or number")
        .short('g')
        .as_in_gunicorn(),
    Row::flag(
        "initgroups",
        "initgroups",
        "Set the supplementary groups of --user; mcsup always does, also without this option",
    )
    .as_in_gunicorn(),
    Row::flag(
        "enable_stdio_inheritance",
        "enable-stdio-inheritance",
        "With --daemon: keep standard output and error, unless they are a terminal",
    )
    .short('R')
    .as_in_gunicorn(),
    Row::value("umask", "umask", "OCTAL", "Permission bits that a Unix socket lacks, octal like 007")
        .short('m')
        .default_in_words("sockets get mode 0660")
        .as_in_gunicorn(),
    Row::flag(
        "end_children",
        "end-children",
        "End the processes that the application has started with their worker: by SIGTERM, \
         after 2 seconds by SIGKILL; without this option the log names them",
    )
    .of_applications(),
    Row::value(
        "name",
        "name",
        "NAME",
        "Name of the service in process listings; by default that of the application",
    )
    .short('n')
    .gunicorn("proc_name"),
    Row::value(
        "control_socket",
        "control-socket",
        "PATH",
        "Path of the control socket, which `mcsup status`, `mcsup reload` and the like use",
    )
    .default_in_words("beside the pid file")
    .as_in_gunicorn(),
    Row::flag("no_control_socket", "no-control-socket", "Open no control socket")
        .gunicorn("control_socket_disable"),
];
