//! Reloads, and the replacement of healthy workers.

use super::Row;

/// How a reload proceeds.
pub(super) const RELOADING: &[Row] = &[
    Row::value(
        "surge",
        "surge",
        "INT|all",
        "Extra workers that a reload may boot at once, 1 to 512; all: a whole second pool",
    )
    .default("1"),
    Row::value(
        "soak",
        "soak",
        "SECS",
        "Seconds that the first new worker of a reload must live after it is ready; with \
         --reload 0 unless given",
    )
    .default("2"),
    Row::value(
        "reload_retries",
        "reload-retries",
        "INT",
        "New workers that may fail before a reload is rolled back, 0 to 100",
    )
    .default("0"),
];

/// When a healthy worker is replaced.
pub(super) const RECYCLING: &[Row] = &[
    Row::value(
        "max_requests",
        "max-requests",
        "COUNT",
        "Requests after which a worker is replaced; 0: unlimited",
    )
    .default("0")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "max_requests_jitter",
        "max-requests-jitter",
        "COUNT",
        "Largest random addition to --max-requests, drawn once for each worker",
    )
    .default("0")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "max_lifetime",
        "max-lifetime",
        "SECS",
        "Seconds after which a worker is replaced; 0: unlimited",
    )
    .default("0"),
    Row::value(
        "max_lifetime_jitter",
        "max-lifetime-jitter",
        "SECS",
        "Largest random addition to --max-lifetime, drawn once for each worker",
    )
    .default("0"),
    Row::value(
        "max_rss",
        "max-rss",
        "BYTES",
        "Resident memory beyond which a worker is replaced, in bytes or like 512K, 256M or \
         1G; 0: unlimited",
    )
    .default("0"),
    Row::value(
        "max_rss_jitter",
        "max-rss-jitter",
        "BYTES",
        "Largest random addition to --max-rss, drawn once for each worker",
    )
    .default("0"),
];

/// Reloads on changed files.
pub(super) const DEVELOPMENT: &[Row] = &[
    Row::flag("reload", "reload", "Reload when a file that the application loaded has changed")
        .as_in_gunicorn()
        .of_applications(),
    Row::value(
        "reload_engine",
        "reload-engine",
        "WORD",
        "Method that detects changes: auto, poll or inotify",
    )
    .words(&["auto", "poll", "inotify"])
    .default("auto")
    .as_in_gunicorn()
    .of_applications(),
    Row::list(
        "reload_extra_file",
        "reload-extra-file",
        "PATH",
        "Additional file or pattern to watch; repeatable",
    )
    .gunicorn("reload_extra_files")
    .of_applications(),
];
