//! The differences to gunicorn that concern the settings of a command line.

use crate::table::Given;

/// One line for each difference. `has_conf`: there is a settings file of gunicorn.
pub(super) fn of(given: &Given, has_conf: bool) -> Vec<String> {
    let has = |name: &str| given.has(name);
    let has_unix_socket = given.texts("bind").iter().any(|address| address.starts_with("unix:"));
    let is_threaded = given.text("threads").is_some_and(|count| count != "1")
        || given.text("worker_class") == Some("gthread");
    let lines = [
        (
            has_unix_socket && !has("umask"),
            "The Unix socket has mode 0660, and 0777 with gunicorn. A proxy of another user needs --socket-owner :GROUP \
             with a group of its own, or --socket-mode 0666.",
        ),
        (
            !is_threaded && given.text("keep_alive") != Some("0"),
            "Connections are kept for 2 s after a response; gunicorn's sync workers close them. --keep-alive 0 does so \
             too.",
        ),
        (
            !is_threaded,
            "A request over --timeout gets 504 and a log record with the stacks, and its worker finishes; gunicorn kills \
             the worker.",
        ),
        (
            is_threaded,
            "--timeout concerns a worker that hangs as a whole, as with gunicorn's gthread; --request-timeout limits one \
             request.",
        ),
        (true, "A request body may have 1 GiB; gunicorn has no limit. --limit-request-body 0 is the same."),
        (
            true,
            "HUP replaces one worker after the other, each successor ready first. If the new version cannot boot, the \
             old workers serve on; gunicorn would end.",
        ),
        (
            has("preload"),
            "The application is loaded in a process of its own, from which workers are forked: a reload loads it again.",
        ),
        (
            has("user") && !has("initgroups"),
            "The workers have the supplementary groups of --user; with gunicorn they keep those of root.",
        ),
        (
            has("daemon") && has("pid") && !has("error_logfile"),
            "The log of the daemon is beside the pid file; gunicorn's goes to /dev/null.",
        ),
        (
            has("daemon"),
            "-D returns once a worker is ready, and fails with the reason where none is; gunicorn returns at once.",
        ),
        (
            has_conf,
            "The settings file of gunicorn is executed in a process of its own, and again in each worker.",
        ),
        (
            true,
            "sys.argv[0] ends with mcsup. An application that looks for gunicorn finds it in \
             os.environ[\"SERVER_SOFTWARE\"].",
        ),
    ];
    lines.into_iter().filter(|(concerns, _)| *concerns).map(|(_, line)| line.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    fn changes(words: &str) -> String {
        let words = ["mcsup"].into_iter().chain(words.split_whitespace());
        let Ok(Invocation::Run(given)) = parse(words.map(Into::into)) else { panic!("not to be run") };
        of(&given, false).join("\n")
    }

    #[test]
    fn a_difference_is_named_where_it_concerns_the_settings() {
        for (words, part, is_there) in [
            ("-b unix:a.sock app", "mode 0660", true),
            ("-b unix:a.sock -m 0 app", "mode 0660", false),
            ("-b :80 app", "mode 0660", false),
            ("app", "gunicorn's sync workers", true),
            ("--keep-alive 0 app", "gunicorn's sync", false),
            ("app", "SERVER_SOFTWARE", true),
            ("--threads 2 app", "gunicorn's sync workers", false),
            ("-k gthread app", "--request-timeout limits one", true),
            ("app", "1 GiB", true),
            ("-u app app", "supplementary groups", true),
            ("-u app --initgroups app", "supplementary groups", false),
            ("-D -p a.pid app", "beside the pid file", true),
            ("--preload app", "in a process of its own", true),
        ] {
            assert_eq!(changes(words).contains(part), is_there, "{words}: {part}");
        }
    }
}
