//! Parser for units of systemd: systemd.syntax(7), systemd.service(5), systemd.time(7).

use std::time::Duration;

/// A unit with its drop-ins, as assignments in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    assignments: Vec<(String, String, String)>,
}

impl Unit {
    /// Parses the text of a unit, and of its drop-ins behind it. Lines that are none are skipped, as by systemd.
    pub(crate) fn parse(text: &str) -> Self {
        let (mut section, mut assignments) = (String::new(), Vec::new());
        for line in joined(text) {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once('=') {
                assignments.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        Self { assignments }
    }

    /// The last value of a key of `[Service]`; `None`: it has none, or an empty one.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let values =
            self.assignments.iter().rev().filter(|(section, name, _)| section == "Service" && name == key);
        values.map(|(_, _, value)| value.as_str()).next().filter(|value| !value.is_empty())
    }

    /// The target that an installation of the unit belongs to.
    pub(crate) fn installation(&self) -> Option<&str> {
        let values = self
            .assignments
            .iter()
            .rev()
            .filter(|(section, name, _)| section == "Install" && name == "WantedBy");
        values.map(|(_, _, value)| value.as_str()).next()
    }

    /// The words of `ExecStart=`; `None`: there is no command, or a quote in it has no end.
    pub(crate) fn command(&self) -> Option<Vec<String>> {
        // The first character may select a treatment.
        words(self.get("ExecStart")?.trim_start_matches(['@', '-', ':', '+', '!', '|']))
    }

    /// The last time that one of these keys of `[Service]` sets; `None`: none does. systemd skips values that are
    /// no time, also empty ones.
    pub(crate) fn timeout(&self, keys: [&str; 2]) -> Option<Time> {
        let lines = self.assignments.iter().rev();
        let mut values =
            lines.filter(|(section, name, _)| section == "Service" && keys.contains(&name.as_str()));
        values.find_map(|(_, _, value)| timeout(value))
    }

    /// Whether a key is set to true.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| {
            ["1", "yes", "y", "true", "t", "on"].contains(&value.to_lowercase().as_str())
        })
    }
}

/// Lines without comments; a backslash at the end of one joins it with the next.
fn joined(text: &str) -> Vec<String> {
    let (mut lines, mut open) = (Vec::new(), None::<String>);
    for line in text.lines() {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let line = open.take().unwrap_or_default() + line;
        match line.strip_suffix('\\') {
            Some(front) => open = Some(format!("{front} ")),
            None => lines.push(line),
        }
    }
    lines.extend(open);
    lines
}

/// A time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// This long.
    Limit(Duration),
    /// No limit.
    Infinite,
}

impl Time {
    /// Whether it ends before a time.
    pub(crate) fn is_below(self, other: Duration) -> bool {
        matches!(self, Time::Limit(limit) if limit < other)
    }
}

/// Parses a time limit of a service: zero is none (systemd.service(5), `TimeoutStartSec=`).
fn timeout(text: &str) -> Option<Time> {
    match time(text)? {
        Time::Limit(Duration::ZERO) => Some(Time::Infinite),
        time => Some(time),
    }
}

/// Parses a time span: numbers, each with a unit or in seconds.
fn time(text: &str) -> Option<Time> {
    if text == "infinity" {
        return Some(Time::Infinite);
    }
    let (mut sum, mut rest) = (Duration::ZERO, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let seconds = number.parse::<f64>().ok()? * seconds_of(unit)?;
        sum = sum.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = behind.trim_start();
    }
    Some(Time::Limit(sum))
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "us" | "usec" => 1e-6,
        "ms" | "msec" => 1e-3,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

/// Splits a command line: quotes, escapes of C, `%%` and `$$`. Specifiers and variables stay as they are.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().push(escaped(&mut chars)?),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let plain = |word: String| word.replace("%%", "%").replace("$$", "$");
    quote.is_none().then(|| words.into_iter().map(plain).collect())
}

/// The character of an escape behind its backslash.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        's' => ' ',
        'x' => {
            let digits: String = chars.by_ref().take(2).collect();
            char::from(u8::from_str_radix(&digits, 16).ok()?)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_assignment_counts_and_an_empty_one_takes_it_back() {
        let unit = Unit::parse(
            "[Unit]\nType=of another section\n[Service]\n# Type=comment\nType=simple\nRestart = always\n\
             ExecStart=/bin/a \\\n  # in between\n  -b\nUser=me\n[Service]\nType=notify\nUser=\n",
        );
        assert_eq!(
            (unit.get("Type"), unit.get("Restart"), unit.get("User")),
            (Some("notify"), Some("always"), None)
        );
        assert_eq!(unit.command(), Some(vec!["/bin/a".to_owned(), "-b".to_owned()]));
    }

    #[test]
    fn time_spans_are_read_as_systemd_reads_them() {
        let limit = |millis| Some(Time::Limit(Duration::from_millis(millis)));
        for (text, expected) in [
            ("90", limit(90_000)),
            ("1min 30s", limit(90_000)),
            ("1.5h", limit(5_400_000)),
            ("500ms", limit(500)),
            ("2 min", limit(120_000)),
            ("infinity", Some(Time::Infinite)),
            ("soon", None),
            ("5 parsecs", None),
            ("", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        assert!(!Time::Infinite.is_below(Duration::MAX));
    }

    #[test]
    fn the_last_time_limit_counts_and_zero_is_none() {
        let limit = |seconds| Some(Time::Limit(Duration::from_secs(seconds)));
        for (lines, expected) in [
            ("TimeoutStopSec=0", Some(Time::Infinite)),
            ("TimeoutStopSec=0min 0s", Some(Time::Infinite)),
            ("TimeoutStopSec=20\nTimeoutSec=30", limit(30)),
            ("TimeoutSec=30\nTimeoutStopSec=20", limit(20)),
            ("TimeoutStopSec=20\nTimeoutStopSec=", limit(20)),
            ("TimeoutStopSec=20\nTimeoutStopSec=soon", limit(20)),
            ("TimeoutStartSec=20", None),
        ] {
            let unit = Unit::parse(&format!("[Service]\n{lines}\n[Install]\nTimeoutSec=1\n"));
            assert_eq!(unit.timeout(["TimeoutStopSec", "TimeoutSec"]), expected, "{lines}");
        }
    }

    #[test]
    fn a_command_line_is_split_as_systemd_does() {
        for (line, expected) in [
            ("/bin/a -b c", &["/bin/a", "-b", "c"][..]),
            ("a \"b c\" 'd \"e\"' \"\"", &["a", "b c", "d \"e\"", ""]),
            ("a \\x41\\n \"\\\"\"", &["a", "A\n", "\""]),
            ("a 50%% $$HOME %t/x", &["a", "50%", "$HOME", "%t/x"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert_eq!((words("a \"b"), words("a \\")), (None, None));
    }
}
