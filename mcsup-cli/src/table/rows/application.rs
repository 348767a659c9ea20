//! How an application is found and loaded.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::value("chdir", "chdir", "DIR", "Directory to change to before the application is loaded")
        .default_in_words("the current directory")
        .as_in_gunicorn(),
    Row::value(
        "pythonpath",
        "pythonpath",
        "DIRS",
        "Directories to search for modules first, separated by commas",
    )
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "paste",
        "paste",
        "INI[#SECTION]",
        "Serve the application of a PasteDeploy file, in place of APP; its section [loggers] configures logging",
    )
    .aliases(&["paster"])
    .as_in_gunicorn()
    .of_applications(),
    Row::list(
        "raw_paste_global_conf",
        "paste-global",
        "NAME=VALUE",
        "Variable for the PasteDeploy file, over its [DEFAULT]; repeatable",
    )
    .as_in_gunicorn()
    .of_applications(),
    Row::list(
        "env_file",
        "env-file",
        "FILE",
        "File with a variable NAME=VALUE in each line for the application, below those of --env; each reload reads it \
         again; repeatable",
    ),
    Row::list("env", "env", "NAME=VALUE", "Environment variable for the application; repeatable")
        .short('e')
        .gunicorn("raw_env"),
    Row::flag(
        "check_config",
        "check-config",
        "Load the application once, report whether it can be served, and exit",
    )
    .as_in_gunicorn()
    .of_applications(),
    Row::flag(
        "print_config",
        "print-config",
        "Print each setting with its value and source, and exit; an application is loaded as \
         with --check-config",
    )
    .as_in_gunicorn(),
    Row::flag(
        "no_share_stdlib",
        "no-share-stdlib",
        "Leave imports of Python's standard library to each worker, instead of importing \
         them before the fork",
    )
    .of_applications(),
    Row::flag(
        "no_sendfile",
        "no-sendfile",
        "Read the files of wsgi.file_wrapper in the application's thread, in place of sendfile(2)",
    )
    .gunicorn("sendfile")
    .of_applications(),
    Row::flag(
        "preload",
        "preload",
        "Load the application once, in a mold process that forks the workers: they share its \
         memory",
    )
    .gunicorn("preload_app")
    .of_applications(),
    Row::value(
        "preload_threads",
        "preload-threads",
        "WORD",
        "Reaction to threads that run in the mold when it forks: refuse or warn",
    )
    .words(&["refuse", "warn"])
    .default("warn")
    .of_applications(),
];
