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
    .words(&["debug", "info", "warning", "error", "critical"])
    .default("info")
    .gunicorn("loglevel"),
    Row::value(
        "log_format",
        "log-format",
        "FORM",
        "Form of the error log: `text`, gunicorn's lines; or `json`, an object on a line for each record",
    )
    .words(&["text", "json"])
    .default("text"),
    Row::flag(
        "capture_output",
        "capture-output",
        "Write standard output and error of all processes to the file of the error log",
    )
    .as_in_gunicorn(),
    Row::flag("syslog", "log-syslog", "Send both logs to syslog too").as_in_gunicorn(),
    Row::value(
        "syslog_addr",
        "log-syslog-to",
        "ADDRESS",
        "Address of syslog: udp://HOST:PORT, tcp://HOST:PORT, or unix://PATH with #dgram or #stream",
    )
    .default("udp://localhost:514")
    .as_in_gunicorn(),
    Row::value(
        "syslog_prefix",
        "log-syslog-prefix",
        "NAME",
        "Name of the program in syslog: gunicorn.NAME.access and gunicorn.NAME.error",
    )
    .default_in_words("--name, or the application")
    .as_in_gunicorn(),
    Row::value(
        "syslog_facility",
        "log-syslog-facility",
        "FACILITY",
        "Facility of syslog, such as user or local0",
    )
    .default("user")
    .as_in_gunicorn(),
    Row::flag(
        "disable_redirect_access_to_syslog",
        "disable-redirect-access-to-syslog",
        "Keep the access log out of syslog",
    )
    .of_applications()
    .as_in_gunicorn(),
    Row::value(
        "statsd_host",
        "statsd-host",
        "ADDRESS",
        "Send metrics with gunicorn's names to statsd: HOST:PORT or unix://PATH",
    )
    .as_in_gunicorn(),
    Row::value(
        "statsd_prefix",
        "statsd-prefix",
        "PREFIX",
        "Beginning of the names of metrics, without its dot",
    )
    .as_in_gunicorn(),
    Row::value("dogstatsd_tags", "dogstatsd-tags", "TAGS", "Tags of dogstatsd for each metric: a:b,c:d")
        .as_in_gunicorn(),
    Row::flag(
        "enable_backlog_metric",
        "enable-backlog-metric",
        "Send the length of the listen queues to statsd once a second (Linux, TCP)",
    )
    .of_applications()
    .as_in_gunicorn(),
    Row::value(
        "logconfig",
        "log-config",
        "FILE",
        "Configure Python's logging in each worker by this ini file; its loggers gunicorn.error and \
         gunicorn.access get the worker's records",
    )
    .of_applications()
    .as_in_gunicorn(),
    Row::value(
        "logconfig_json",
        "log-config-json",
        "FILE",
        "The same by a JSON file, for logging.config.dictConfig",
    )
    .of_applications()
    .as_in_gunicorn(),
    Row::value(
        "logconfig_dict",
        "",
        "DICT",
        "The same by a dictionary, which gunicorn.conf.py alone can have",
    )
    .of_applications()
    .as_in_gunicorn(),
];
