//! The words of the command line that name a subcommand, and words that are written in place of one.

use crate::typos;

/// Names of the subcommands.
pub(crate) const SUBCOMMANDS: [&str; 15] = [
    "run",
    "exec",
    "check",
    "status",
    "reload",
    "upgrade",
    "scale",
    "recycle",
    "stop",
    "reopen-logs",
    "service",
    "doctor",
    "migrate",
    "completions",
    "man",
];

/// Words of other tools, and the subcommand that does the same.
const OF_OTHERS: [(&str, &str); 9] = [
    ("restart", "reload"),
    ("start", "run"),
    ("serve", "run"),
    ("shutdown", "stop"),
    ("quit", "stop"),
    ("kill", "stop"),
    ("ps", "status"),
    ("install", "service install"),
    ("uninstall", "service uninstall"),
];

/// The subcommand that is meant by a word which is none.
pub(crate) fn meant(word: &str) -> Option<&'static str> {
    let of_others = OF_OTHERS.iter().find(|(other, _)| *other == word).map(|(_, subcommand)| *subcommand);
    of_others.or_else(|| typos::nearest(SUBCOMMANDS.into_iter(), word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_near_a_subcommand_or_of_another_tool_names_it() {
        for (word, expected) in [
            ("relaod", Some("reload")),
            ("restart", Some("reload")),
            ("statsu", Some("status")),
            ("reopen_logs", Some("reopen-logs")),
            ("server", None),
            ("app:app", None),
        ] {
            assert_eq!(meant(word), expected, "{word}");
        }
    }
}
