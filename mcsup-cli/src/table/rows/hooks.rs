//! The hooks of `gunicorn.conf.py`.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::hook("on_starting", "Called before the server listens"),
    Row::hook("on_reload", "Called at a reload"),
    Row::hook("when_ready", "Called once the server listens"),
    Row::hook("pre_fork", "Called before a worker is forked"),
    Row::hook("post_fork", "Called in a new worker"),
    Row::hook("post_worker_init", "Called in a worker with its application"),
    Row::hook("worker_int", "Called in a worker at INT or QUIT"),
    Row::hook("worker_abort", "Called in a worker that has timed out"),
    Row::hook("pre_exec", "Called before an upgrade"),
    Row::hook("pre_request", "Called before each request"),
    Row::hook("post_request", "Called after each request"),
    Row::hook("child_exit", "Called in the server after the end of a worker"),
    Row::hook("worker_exit", "Called in a worker at its end"),
    Row::hook("nworkers_changed", "Called when the number of workers changes"),
    Row::hook("on_exit", "Called at the end of the server"),
];
