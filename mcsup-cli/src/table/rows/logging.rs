//! Logs.

use mcsup_py::access::Format;

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::value(
        "access_logfile",
        "access-logfile",
        "FILE",
        "Write a line for each request to this file; `-`: standard output",
    )
    .gunicorn("accesslog")
    .of_applications(),
    Row::value(
        "access_logformat",
        "access-logformat",
        "FORMAT",
        "Format of the access log: gunicorn's atoms, or the word `json`",
    )
    .default(Format::DEFAULT)
    .gunicorn("access_log_format")
    .of_applications(),
    Row::value(
        "error_logfile",
        "error-logfile",
        "FILE",
        "Write the error log to this file; `-`: standard error; with --daemon and --pid \
         beside the pid file unless given",
    )
    .aliases(&["log-file"])
    .default("-")
    .gunicorn("errorlog"),
    Row::value(
        "log_level",
        "log-level",
        "LEVEL",
        "Lowest level to log: debug, info, warning, error or critical",
    )
    .default("info")
    .gunicorn("loglevel"),
];
