//! How the program of `mcsup exec` is started, watched and stopped.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::value(
        "ready",
        "ready",
        "WAY",
        "How it is known to be ready, beside its own report: report (by that alone), tcp (it \
         accepts a connection), http:PATH (it answers GET PATH with 2xx), or timer:SECS (by \
         no proof)",
    )
    .default_in_words("report")
    .of_programs(),
    Row::value("stop_signal", "stop-signal", "SIGNAL", "Signal that makes it finish and end")
        .default_in_words("TERM")
        .of_programs(),
    Row::value("reopen_signal", "reopen-signal", "SIGNAL", "Signal that makes it reopen its log files")
        .default_in_words("none")
        .of_programs(),
    Row::flag(
        "watchdog",
        "watchdog",
        "Expect WATCHDOG=1 at NOTIFY_SOCKET within --timeout, and replace a worker without it",
    )
    .of_programs(),
    Row::value("stdin", "stdin", "WORD", "Its standard input: null or listener (the first one)")
        .words(&["null", "listener"])
        .default_in_words("null")
        .of_programs(),
    Row::value("output", "output", "WORD", "Its standard output and error: log (line by line) or inherit")
        .words(&["log", "inherit"])
        .default_in_words("log")
        .of_programs(),
    Row::flag("no_listener", "no-listener", "Pass no listener: the program fetches its work itself")
        .of_programs(),
    Row::flag("blocking", "blocking", "Pass listeners on which accept(2) waits").of_programs(),
    Row::list(
        "limit",
        "limit",
        "NAME=SOFT[:HARD]",
        "Limit of a resource: as, core, cpu, data, fsize, memlock, nofile, nproc or stack; a \
         number or `unlimited`; repeatable",
    )
    .of_programs(),
    Row::value("nice", "nice", "INT", "Addition to its nice value").of_programs(),
    Row::value(
        "cpus",
        "cpus",
        "LIST",
        "Processors of each slot in turn: numbers or ranges like 0-3, separated by commas",
    )
    .of_programs(),
    Row::flag("no_new_privs", "no-new-privs", "Forbid it to gain privileges by executing a file")
        .of_programs(),
];
