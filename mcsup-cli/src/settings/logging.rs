//! Settings of the logs and their targets.

use std::path::{Path, PathBuf};

use mcsup_py::access::Format;
use mcsup_py::python::logging::LogConfig;
use mcsup_py::targets::{Address, Facility};

use super::sources::{Sourced, Sources, refused};
use super::{Origin, Process};
use crate::args::UsageError;
use crate::logging::{Destination, Form, Level};
use crate::values;

/// Settings of the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logging {
    /// Lowest level of the error log.
    pub level: Sourced<Level>,
    /// Error log; the standard stream is standard error.
    pub errors: Sourced<Destination>,
    /// Form of the lines of the error log.
    pub form: Sourced<Form>,
    /// Whether standard output and error of all processes go to the file of the error log.
    pub capture_output: Sourced<bool>,
    /// Access log; the standard stream is standard output.
    pub access: Option<Sourced<Destination>>,
    /// Format of the access log; `json`: one object a line.
    pub access_format: Sourced<String>,
    /// syslog as a further target.
    pub syslog: SyslogSettings,
    /// statsd, which gets metrics.
    pub statsd: StatsdSettings,
    /// Configuration of Python's `logging` in the workers.
    pub python: LogConfig,
}

/// Settings of syslog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyslogSettings {
    /// Whether it gets the logs.
    pub is_on: bool,
    /// Where it is.
    pub address: Address,
    /// The part of the system.
    pub facility: Facility,
    /// The name of the program; `None`: that of the application.
    pub prefix: Option<String>,
    /// Whether it gets the access log.
    pub has_access: bool,
}

/// Settings of statsd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatsdSettings {
    /// Where it is; `None`: it gets nothing.
    pub address: Option<Address>,
    /// Before each name.
    pub prefix: String,
    /// Behind each value.
    pub tags: String,
    /// Whether it gets the length of the listen queue.
    pub has_backlog: bool,
}

impl Logging {
    pub(super) fn resolve(
        sources: &Sources,
        process: &Process,
        warnings: &mut Vec<String>,
    ) -> Result<Self, UsageError> {
        let mut errors = sources.one("error_logfile", values::destination)?;
        // A daemon has no standard error.
        let is_needed = process.daemon.value && errors.origin == Origin::Default;
        if let Some(pid) = process.pid.as_ref().filter(|_| is_needed) {
            errors.value = Destination::File(beside(&pid.value));
        }
        let file = |name| sources.optional(name, values::path).map(|file| file.map(|file| file.value));
        check_dictionary(sources)?;
        let access_format = sources.one("access_logformat", values::text)?;
        warn_of_unknown_atoms(&access_format, warnings);
        Ok(Self {
            level: sources.one("log_level", values::level)?,
            errors,
            form: sources.one("log_format", form)?,
            capture_output: sources.flag("capture_output")?,
            access: sources.optional("access_logfile", values::destination)?,
            access_format,
            syslog: SyslogSettings::resolve(sources)?,
            statsd: StatsdSettings::resolve(sources)?,
            python: LogConfig { ini: file("logconfig")?, json: file("logconfig_json")? },
        })
    }
}

/// A format with another fault is refused later.
fn warn_of_unknown_atoms(format: &Sourced<String>, warnings: &mut Vec<String>) {
    let Sourced { value, origin } = format;
    for name in Format::parse(value).iter().flat_map(Format::unknown) {
        warnings
            .push(format!("access_logformat (from {origin}): %({name})s is no atom: each line has - for it"));
    }
}

/// Workers find the dictionary in the configuration in Python.
fn check_dictionary(sources: &Sources) -> Result<(), UsageError> {
    match sources.optional("logconfig_dict", values::text)? {
        Some(Sourced { value, origin }) if !matches!(origin, Origin::Conf(_)) => {
            let why = "only gunicorn.conf.py can have a dictionary; logconfig_json names a file";
            Err(refused("logconfig_dict", &value, &origin, why))
        }
        _ => Ok(()),
    }
}

impl SyslogSettings {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        Ok(Self {
            is_on: sources.flag("syslog")?.value,
            address: sources.one("syslog_addr", Address::syslog)?.value,
            facility: sources.one("syslog_facility", Facility::parse)?.value,
            prefix: sources.optional("syslog_prefix", values::text)?.map(|prefix| prefix.value),
            has_access: !sources.flag("disable_redirect_access_to_syslog")?.value,
        })
    }
}

impl StatsdSettings {
    fn resolve(sources: &Sources) -> Result<Self, UsageError> {
        let anything = |text: &str| Ok(text.to_owned());
        let text = |name| {
            let text = sources.optional(name, anything)?;
            Ok::<_, UsageError>(text.map(|text| text.value).unwrap_or_default())
        };
        Ok(Self {
            address: sources.optional("statsd_host", Address::statsd)?.map(|address| address.value),
            prefix: text("statsd_prefix")?,
            tags: text("dogstatsd_tags")?,
            has_backlog: sources.flag("enable_backlog_metric")?.value,
        })
    }
}

/// Parses the form of the error log.
fn form(text: &str) -> Result<Form, String> {
    match text {
        "text" => Ok(Form::Text),
        "json" => Ok(Form::Json),
        _ => Err("expected text or json".to_owned()),
    }
}

/// The default log file of a daemon: `app.log` for the pid file `app.pid`.
fn beside(pid_file: &Path) -> PathBuf {
    let log = pid_file.with_extension("log");
    if log == pid_file { pid_file.with_extension("log.log") } else { log }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::Settings;
    use super::*;
    use crate::args::{Invocation, parse};

    fn logging(words: &[&str]) -> Result<Logging, UsageError> {
        let words = ["mcsup", "app"].iter().chain(words).map(OsString::from);
        let Ok(Invocation::Run(given)) = parse(words) else { panic!("not to be run") };
        Settings::resolve(given, &|_| None, &|_| unreachable!("no file is named"))
            .map(|settings| settings.logging)
    }

    #[test]
    fn syslog_and_statsd_are_targets_only_on_request() {
        let plain = logging(&["--log-syslog-prefix", "x", "--statsd-prefix", "y"]).unwrap();
        assert_eq!((plain.syslog.is_on, plain.statsd.address), (false, None));
        let all = logging(&[
            "--log-syslog",
            "--log-syslog-to=tcp://logs:601",
            "--log-syslog-facility=local1",
            "--disable-redirect-access-to-syslog",
            "--statsd-host=stats",
            "--dogstatsd-tags=a:b",
            "--enable-backlog-metric",
        ])
        .unwrap();
        let syslog = all.syslog;
        assert!(syslog.is_on);
        assert_eq!(syslog.address.to_string(), "tcp://logs:601");
        assert_eq!((syslog.facility, syslog.has_access), (Facility::parse("local1").unwrap(), false));
        let statsd = all.statsd;
        assert_eq!(statsd.address.unwrap().to_string(), "udp://stats:8125");
        assert!(statsd.has_backlog);
        assert_eq!((statsd.prefix.as_str(), statsd.tags.as_str()), ("", "a:b"));
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_words_that_are_right() {
        for (words, expected) in [
            (
                &["--log-format", "jsn"][..],
                "log_format = \"jsn\" (from the command line): expected text or json",
            ),
            (
                &["--log-syslog-to", "localhost:514"],
                "expected udp://HOST:PORT, tcp://HOST:PORT or unix://PATH",
            ),
            (&["--log-syslog-facility", "locla0"], "expected one of kern, user,"),
            (&["--statsd-host", "tcp://h:1"], "expected HOST:PORT or unix://PATH"),
        ] {
            let error = logging(words).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
