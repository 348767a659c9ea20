//! The settings of the program of `mcsup exec`. They come from the command line alone.

use std::ffi::OsString;
use std::time::Duration;

use mcsup_core::program::{Limit, LimitedResource, Output, Ready, Stdin};

use crate::args::UsageError;
use crate::args::exec::ExecArgs;
use crate::table::Given;
use crate::values::{self, Refused};

/// The settings of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramSettings {
    /// Its path or name.
    pub program: OsString,
    /// Its arguments, with placeholders.
    pub arguments: Vec<OsString>,
    /// The way to detect that it is ready.
    pub ready: Ready,
    /// The number of the signal that makes it end.
    pub stop_signal: i32,
    /// The number of the signal that makes it reopen its log files.
    pub reopen_signal: Option<i32>,
    /// Whether it sends signs of life.
    pub watchdog: bool,
    /// Its standard input.
    pub stdin: Stdin,
    /// Its standard output and error.
    pub output: Output,
    /// Whether it has no listener.
    pub no_listener: bool,
    /// Whether accept(2) waits on its listeners.
    pub blocking: bool,
    /// Limits of its resources.
    pub limits: Vec<Limit>,
    /// An addition to its nice value.
    pub nice: Option<i32>,
    /// Sets of processors, one for each slot in turn.
    pub cpus: Vec<Vec<usize>>,
    /// Whether it cannot gain privileges.
    pub no_new_privs: bool,
}

impl ProgramSettings {
    /// Parses the arguments.
    pub(crate) fn resolve(args: &ExecArgs) -> Result<Self, UsageError> {
        let given = &args.given;
        let mut words = args.command.iter().cloned();
        let program = words.next().ok_or_else(|| UsageError::new("no program is named"))?;
        let limits = given.texts("limit").iter().map(|text| one("limit", text, limit_of));
        Ok(Self {
            program,
            arguments: words.collect(),
            ready: optional(given, "ready", way)?.unwrap_or_default(),
            stop_signal: optional(given, "stop_signal", signal)?.unwrap_or(SIGTERM),
            reopen_signal: optional(given, "reopen_signal", signal)?,
            watchdog: given.has("watchdog"),
            stdin: optional(given, "stdin", input)?.unwrap_or_default(),
            output: optional(given, "output", output_of)?.unwrap_or_default(),
            no_listener: given.has("no_listener"),
            blocking: given.has("blocking"),
            limits: limits.collect::<Result<_, _>>()?,
            nice: optional(given, "nice", |text| values::whole(text, -40..=40))?,
            cpus: optional(given, "cpus", processors)?.unwrap_or_default(),
            no_new_privs: given.has("no_new_privs"),
        })
    }
}

impl ProgramSettings {
    /// Refuses the settings that need a listener.
    pub(crate) fn check_without_listener(&self) -> Result<(), UsageError> {
        let option = match (&self.ready, self.stdin) {
            (Ready::Accepts, _) => "--ready tcp",
            (Ready::Answers { .. }, _) => "--ready http",
            (_, Stdin::Listener) => "--stdin listener",
            _ => return Ok(()),
        };
        Err(UsageError::new(format!("{option} needs a listener, and --no-listener passes none")))
    }

    /// The interval of its signs of life: the timeout of the pool, which the setting needs.
    pub(crate) fn watchdog(&self, timeout: Option<Duration>) -> Result<Option<Duration>, UsageError> {
        match (self.watchdog, timeout) {
            (false, _) => Ok(None),
            (true, Some(timeout)) => Ok(Some(timeout)),
            (true, None) => Err(UsageError::new("--watchdog needs a --timeout")),
        }
    }
}

fn optional<T>(
    given: &Given,
    name: &str,
    parse: impl Fn(&str) -> Result<T, Refused>,
) -> Result<Option<T>, UsageError> {
    given.text(name).map(|text| one(&name.replace('_', "-"), text, parse)).transpose()
}

fn one<T>(name: &str, text: &str, parse: impl Fn(&str) -> Result<T, Refused>) -> Result<T, UsageError> {
    parse(text).map_err(|reason| UsageError::new(format!("--{name} {text}: {reason}")))
}

const SIGTERM: i32 = 15;

/// Parses a way to detect readiness.
fn way(text: &str) -> Result<Ready, Refused> {
    match text.split_once(':').map_or((text, None), |(way, rest)| (way, Some(rest))) {
        ("report", None) => Ok(Ready::Reported),
        ("tcp", None) => Ok(Ready::Accepts),
        ("http", Some(path)) => Ok(asking(&values::request_path(path)?)),
        ("timer", Some(seconds)) => Ok(Ready::After(values::positive_seconds(seconds)?)),
        _ => Err("expected report, tcp, http:PATH or timer:SECS".to_owned()),
    }
}

/// The probe for `path`: any 2xx is an answer (RFC 9110, section 15.3).
fn asking(path: &str) -> Ready {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: mcsup\r\nConnection: close\r\n\r\n");
    Ready::Answers {
        request: request.into_bytes(),
        answers: vec![b"HTTP/1.1 2".into(), b"HTTP/1.0 2".into()],
    }
}

/// The signals that a program may be sent, by name (signal(7)).
fn signal(text: &str) -> Result<i32, Refused> {
    use rustix::process::Signal;
    const NAMED: [(&str, Signal); 9] = [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("HUP", Signal::HUP),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = |(other, signal): &(&str, Signal)| (*other == name).then(|| signal.as_raw());
    let names = || NAMED.map(|(name, _)| name).join(", ");
    NAMED.iter().find_map(known).ok_or_else(|| format!("expected one of {}", names()))
}

fn input(text: &str) -> Result<Stdin, Refused> {
    match text {
        "null" => Ok(Stdin::Null),
        "listener" => Ok(Stdin::Listener),
        _ => Err("expected null or listener".to_owned()),
    }
}

fn output_of(text: &str) -> Result<Output, Refused> {
    match text {
        "log" => Ok(Output::Log),
        "inherit" => Ok(Output::Inherit),
        _ => Err("expected log or inherit".to_owned()),
    }
}

/// Parses `NAME=SOFT[:HARD]`. Without a hard limit both are the same, so that the program cannot raise it.
fn limit_of(text: &str) -> Result<Limit, Refused> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=SOFT or NAME=SOFT:HARD")?;
    let resource = match name {
        "as" => LimitedResource::AddressSpace,
        "core" => LimitedResource::Core,
        "cpu" => LimitedResource::Cpu,
        "data" => LimitedResource::Data,
        "fsize" => LimitedResource::FileSize,
        "memlock" => LimitedResource::LockedMemory,
        "nofile" => LimitedResource::Descriptors,
        "nproc" => LimitedResource::Processes,
        "stack" => LimitedResource::Stack,
        _ => return Err("no resource of that name".to_owned()),
    };
    let number = |text: &str| match text {
        "unlimited" => Ok(None),
        _ => values::bytes(text).map(Some),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err("the soft limit is above the hard one".to_owned());
    }
    Ok(Limit { resource, soft, hard })
}

/// Parses sets of processors: `0,1` are two, and so are `0-1,2-3`.
fn processors(text: &str) -> Result<Vec<Vec<usize>>, Refused> {
    const MOST: usize = 1023;
    let set = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (values::whole(first, 0..=MOST)?, values::whole(last, 0..=MOST)?);
        if first > last {
            Err("a range ends before it begins".to_owned())
        } else {
            Ok((first..=last).collect())
        }
    };
    text.split(',').map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    fn resolved(words: &[&str]) -> Result<ProgramSettings, UsageError> {
        let argv = ["mcsup", "exec"].iter().chain(words).map(OsString::from);
        match parse(argv)? {
            Invocation::Exec(args) => ProgramSettings::resolve(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_program_has_its_own_options_behind_its_name() {
        let found = resolved(&["-w", "2", "--nice", "-3", "node", "-w", "--limit", "x"]).unwrap();
        assert_eq!((found.program.to_str(), found.nice), (Some("node"), Some(-3)));
        assert_eq!(found.arguments, ["-w", "--limit", "x"]);
        let found = resolved(&["--", "./server", "--", "{fd}"]).unwrap();
        assert_eq!(
            (found.program.to_str(), found.arguments),
            (Some("./server"), vec!["--".into(), "{fd}".into()])
        );
    }

    #[test]
    fn every_setting_of_a_program_has_a_value_or_a_reason() {
        let words = "--ready timer:0.5 --stop-signal sigint --reopen-signal USR1 --stdin listener --output inherit \
                     --limit nofile=100:200 --limit core=0 --limit as=unlimited --cpus 0-1,3 --blocking x";
        let found = resolved(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!(found.ready, Ready::After(Duration::from_millis(500)));
        assert_eq!(
            (found.stop_signal, found.reopen_signal),
            (2, Some(rustix::process::Signal::USR1.as_raw()))
        );
        assert_eq!((found.stdin, found.output, found.blocking), (Stdin::Listener, Output::Inherit, true));
        let limits: Vec<_> = found.limits.iter().map(|limit| (limit.soft, limit.hard)).collect();
        assert_eq!(limits, [(Some(100), Some(200)), (Some(0), Some(0)), (None, None)]);
        assert_eq!(found.cpus, [vec![0, 1], vec![3]]);
        for words in [
            &["--ready", "soon", "x"][..],
            &["--ready", "http:health", "x"],
            &["--ready", "timer:0", "x"],
            &["--stop-signal", "99", "x"],
            &["--limit", "nofile", "x"],
            &["--limit", "nofile=2:1", "x"],
            &["--limit", "nofile=unlimited:1", "x"],
            &["--limit", "files=1", "x"],
            &["--cpus", "3-1", "x"],
            &["--stdin", "tty", "x"],
            &["--threads", "2", "x"],
            &["--preload", "x"],
            &["-w", "2"],
        ] {
            assert!(resolved(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_setting_that_needs_a_listener_is_refused_without_one() {
        for (words, is_right) in [
            (&["--no-listener", "x"][..], true),
            (&["--no-listener", "--ready", "timer:1", "x"], true),
            (&["--no-listener", "--ready", "tcp", "x"], false),
            (&["--no-listener", "--ready", "http:/health", "x"], false),
            (&["--no-listener", "--stdin", "listener", "x"], false),
        ] {
            assert_eq!(resolved(words).unwrap().check_without_listener().is_ok(), is_right, "{words:?}");
        }
    }
}
