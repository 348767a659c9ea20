//! The default of each option that has one, and its place in the help.

use clap::Command;
use mcsup_py::access::Format;

/// Option and value, in the order of the help.
pub(crate) const DEFAULTS: [(&str, &str); 31] = [
    ("--bind", "127.0.0.1:8000"),
    ("--backlog", "2048"),
    ("--workers", "1"),
    ("--threads", "1"),
    ("--drain-delay", "0"),
    ("--preload-threads", "warn"),
    ("--surge", "1"),
    ("--soak", "2"),
    ("--reload-retries", "0"),
    ("--max-requests", "0"),
    ("--max-requests-jitter", "0"),
    ("--max-lifetime", "0"),
    ("--max-lifetime-jitter", "0"),
    ("--max-rss", "0"),
    ("--max-rss-jitter", "0"),
    ("--reload-engine", "auto"),
    ("--timeout", "30"),
    ("--graceful-timeout", "30"),
    ("--boot-timeout", "60"),
    ("--keep-alive", "2"),
    ("--header-timeout", "15"),
    ("--body-timeout", "30"),
    ("--write-timeout", "60"),
    ("--worker-connections", "0"),
    ("--limit-request-line", "8190"),
    ("--limit-request-fields", "100"),
    ("--limit-request-field-size", "8190"),
    ("--limit-request-body", "1073741824"),
    ("--access-logformat", Format::DEFAULT),
    ("--error-logfile", "-"),
    ("--log-level", "info"),
];

/// States each default at the end of its option's help.
pub(super) fn stated(command: Command) -> Command {
    let default = |name: &str| {
        let is_its = |option: &str| option.trim_start_matches('-').replace('-', "_") == name;
        DEFAULTS.iter().find(|(option, _)| is_its(option)).map(|(_, value)| value)
    };
    let names: Vec<_> = command.get_arguments().map(|argument| argument.get_id().clone()).collect();
    // A changed argument moves to the end of the list, and its section in the help with it: all of them move.
    names.into_iter().fold(command, |command, name| {
        command.mut_arg(&name, |argument| match (default(name.as_str()), argument.get_help()) {
            (Some(value), Some(help)) => {
                let help = format!("{help} [default: {value}]");
                argument.help(help)
            }
            _ => argument,
        })
    })
}
