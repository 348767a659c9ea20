//! Configurations in Python: which one is read, and its variables as settings.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::args::{Invocation, parse};
use crate::logging::Destination;
use crate::settings::{Origin, Settings, named_conf};

fn given(words: &str) -> Given {
    let words = ["mcsup"].into_iter().chain(words.split_whitespace()).map(Into::into);
    match parse(words) {
        Ok(Invocation::Run(given)) => given,
        Ok(Invocation::Exec(exec)) => exec.given,
        other => panic!("not to be run: {other:?}"),
    }
}

fn source(words: &str, variable: Option<&str>, is_there: bool) -> Result<Option<String>, String> {
    let environment =
        |name: &str| variable.filter(|_| name == "GUNICORN_CMD_ARGS").map(std::ffi::OsString::from);
    let found = named_conf(&given(words), &environment, is_there);
    found.map(|found| found.map(|found| found.source.to_string())).map_err(|error| error.to_string())
}

#[test]
fn the_sources_above_the_file_name_it_and_gunicorns_own_is_the_default() {
    let some = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(source("-c a.py app", Some("-c b.py"), true), some("a.py"));
    assert_eq!(source("app", Some("-c python:a.b"), true), some("python:a.b"));
    assert_eq!(source("-c file:settings app", None, true), some("settings"));
    assert_eq!(source("-c gunicorn.conf app", None, true), some("gunicorn.conf"));
    assert_eq!(source("app", None, true), some("gunicorn.conf.py"));
    assert_eq!(source("app", None, false), Ok(None));
    assert_eq!(source("-c mcsup.toml app", None, true), Ok(None));
    assert_eq!(source("exec sleep 1", None, true), Ok(None));
    assert!(
        source("exec -c a.py sleep 1", None, true).unwrap_err().contains("a program has no configuration")
    );
    assert!(source("-c python: app", None, true).unwrap_err().contains("needs the name of a module"));
}

fn variable(name: &str, line: u32, value: Value) -> Variable {
    Variable { name: name.to_owned(), line: Some(line), value }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The settings of a command line and a file with these variables, each in the line of its number.
fn resolve(words: &str, variables: Vec<(&str, Value)>) -> Result<Settings, String> {
    let variables = (1..).zip(variables).map(|(line, (name, value))| variable(name, line, value)).collect();
    resolve_report(words, Report { variables, others: Vec::new(), text: None })
}

fn resolve_report(words: &str, report: Report) -> Result<Settings, String> {
    let conf = Conf { source: Source::File("gunicorn.conf.py".into()), report };
    let no_file = |_: &Path| unreachable!("no file is named");
    Settings::resolve_with(given(words), &|_| None, (&no_file, Some(&conf)))
        .map_err(|error| error.to_string())
}

#[test]
fn values_of_each_type_become_settings_and_the_command_line_is_above_them() {
    let settings = resolve(
        "-w 3 app",
        vec![
            ("wsgi_app", text("other:app")),
            ("workers", Value::Int(9)),
            ("threads", text(" 0x4 ")),
            ("timeout", Value::Float(2.5)),
            ("graceful_timeout", text("7")),
            ("bind", Value::List(vec![text("127.0.0.1:1"), text("127.0.0.1:2")])),
            ("raw_env", text("A=b")),
            ("umask", Value::Int(0o27)),
            ("preload_app", Value::Bool(true)),
            ("daemon", text("True")),
            ("reuse_port", Value::Bool(false)),
            ("pidfile", text("/run/a.pid")),
            ("errorlog", text("-")),
            ("user", Value::Int(1000)),
            ("accesslog", Value::None),
        ],
    )
    .unwrap();
    assert_eq!(settings.app.as_ref().unwrap().value, "app");
    assert_eq!((settings.workers.value, settings.threads.value), (3, 4));
    assert_eq!(settings.pool.timeout.value, Some(Duration::from_millis(2500)));
    assert_eq!(settings.pool.graceful.value, Duration::from_secs(7));
    assert_eq!(settings.binds.value.len(), 2);
    assert_eq!(settings.process.env.value, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(settings.process.umask.as_ref().unwrap().value, 0o27);
    assert!(settings.mold.preload.value && settings.process.daemon.value && !settings.reuse_port.value);
    assert_eq!(settings.process.user.as_ref().unwrap().value, "1000");
    assert_eq!((settings.logging.errors.value, settings.logging.access), (Destination::Standard, None));
    assert!(
        matches!(&settings.threads.origin, Origin::Conf(lines) if lines.place("threads") == "gunicorn.conf.py:3")
    );
    assert_eq!(settings.threads.origin.to_string(), "gunicorn.conf.py");
}

#[test]
fn a_wrong_value_is_refused_with_its_line() {
    for (name, value, expected) in [
        ("workers", text("many"), "workers = \"many\" (from gunicorn.conf.py:1): "),
        (
            "workers",
            Value::List(Vec::new()),
            "gunicorn.conf.py:1: workers is a list: expected a text or a number",
        ),
        ("workers", Value::Bool(true), "gunicorn.conf.py:1: workers is True: expected a text or a number"),
        ("daemon", Value::Int(1), "gunicorn.conf.py:1: daemon is the number 1: expected True or False"),
        (
            "bind",
            Value::Map(Vec::new()),
            "gunicorn.conf.py:1: bind is a dictionary: expected a text or a number",
        ),
        (
            "pidfile",
            Value::Other("PosixPath".to_owned()),
            "gunicorn.conf.py:1: pidfile is a PosixPath: expected a text or a number",
        ),
        ("when_ready", Value::Function(0), "gunicorn.conf.py:1: when_ready takes 0 arguments: expected 1"),
        (
            "post_request",
            Value::Function(5),
            "gunicorn.conf.py:1: post_request takes 5 arguments: expected 2 or 3 or 4",
        ),
        (
            "on_exit",
            Value::Int(3),
            "gunicorn.conf.py:1: on_exit is the number 3: expected a function, or its name as MODULE.NAME",
        ),
        ("user", text("a\0b"), "gunicorn.conf.py:1: user holds a null character"),
    ] {
        let error = resolve("app", vec![(name, value)]).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_dictionary_of_header_fields_is_a_list_of_pairs_and_may_be_empty() {
    let pairs = vec![("X-Scheme".to_owned(), text("https")), ("X-Tls".to_owned(), Value::Int(1))];
    for (pairs, expected) in [(pairs, &["X-Scheme=https", "X-Tls=1"][..]), (Vec::new(), &[""])] {
        let variables = vec![variable("secure_scheme_headers", 1, Value::Map(pairs))];
        let conf = Conf {
            source: Source::File("gunicorn.conf.py".into()),
            report: Report { variables, others: Vec::new(), text: None },
        };
        assert_eq!(read(&conf).unwrap().given.texts("secure_scheme_headers"), expected);
    }
}

#[test]
fn hooks_of_the_master_are_noted() {
    let hooks = vec![("when_ready", Value::Function(1)), ("on_exit", Value::Function(-1))];
    let settings = resolve("app", hooks).unwrap();
    assert_eq!(settings.conf.unwrap().hooks, ["when_ready", "on_exit"]);
    assert_eq!(resolve("app", Vec::new()).unwrap().conf.unwrap().hooks, [""; 0]);
}

#[test]
fn a_configuration_that_is_passed_along_gives_the_same_settings() {
    let variables =
        vec![("workers", Value::Int(3)), ("wsgi_app", text("a:b")), ("on_exit", Value::Function(1))];
    let settings = resolve("", variables).unwrap();
    let conf = Conf::of_note(settings.note_of_conf()).unwrap();
    let no_file = |_: &Path| unreachable!("no file is named");
    let again = Settings::resolve_with(given(""), &|_| None, (&no_file, conf.as_ref()));
    assert_eq!(again.unwrap(), settings);
    let without = Settings::resolve(given("app"), &|_| None, &no_file).unwrap();
    assert_eq!((Conf::of_note(without.note_of_conf()), Conf::of_note("")), (Some(None), None));
}

#[test]
fn workers_need_a_configuration_with_hooks_of_theirs_or_a_dictionary_for_logging() {
    let dictionary = Value::Map(vec![("version".to_owned(), Value::Int(1))]);
    for (variable, expected) in [
        (("post_fork", Value::Function(2)), true),
        (("logconfig_dict", dictionary), true),
        (("on_exit", Value::Function(1)), false),
        (("workers", Value::Int(2)), false),
    ] {
        let name = variable.0;
        let settings = resolve("app", vec![variable]).unwrap();
        assert_eq!(settings.conf.unwrap().is_needed_by_workers, expected, "{name}");
    }
}

#[test]
fn settings_of_another_source_are_known_beside_the_file() {
    let variables = vec![("statsd_host", text("a:1")), ("capture_output", Value::Bool(true))];
    let settings =
        resolve("--statsd-host b:2 --no-sendfile --forwarded-allow-ips 10.0.0.1 app", variables).unwrap();
    let beside = settings.conf.unwrap().beside;
    let value = |name: &str| beside.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    assert_eq!(value("statsd_host"), Some("b:2".into()));
    assert_eq!(value("sendfile"), Some(false.into()));
    assert!(value("forwarded_allow_ips").is_some());
    assert_eq!((value("capture_output"), value("workers")), (None, None));
}

#[test]
fn a_flag_that_is_on_by_default_has_a_warning_where_it_is_off() {
    let with = |line: &str, on| resolve(line, vec![("suppress_ragged_eofs", Value::Bool(on))]).unwrap();
    assert_eq!(with("app", true).warnings, Vec::<String>::new());
    let warnings = with("app", false).warnings;
    let expected = "suppress_ragged_eofs (from gunicorn.conf.py:1) has no effect: ";
    assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
    // The command line is above the file.
    assert_eq!(with("--suppress-ragged-eofs app", false).warnings, Vec::<String>::new());
}

#[test]
fn a_value_that_may_be_a_secret_is_in_no_message() {
    for name in ["raw_env", "raw_paste_global_conf"] {
        for value in ["5ecret", "=5ecret"] {
            let error = resolve("app", vec![(name, Value::List(vec![text(value)]))]).unwrap_err();
            assert!(error.ends_with("(from gunicorn.conf.py:1): expected NAME=VALUE"), "{error}");
            assert!(!error.contains("5ecret"), "{error}");
        }
    }
}

#[test]
fn a_hook_that_cannot_be_imported_is_refused() {
    let why = "'a.b' cannot be imported: ModuleNotFoundError: No module named 'a'";
    let refused = resolve("app", vec![("post_fork", Value::Broken(why.to_owned()))]).unwrap_err();
    assert_eq!(refused, format!("gunicorn.conf.py:1: post_fork = {why}"));
}

#[test]
fn a_variable_that_may_be_meant_as_a_setting_is_a_warning_with_its_name() {
    for (name, expected) in [
        ("preload", Some("preload_app")),
        ("worker_init", Some("post_worker_init")),
        ("access_logfile", Some("accesslog")),
        ("error_logfile", Some("errorlog")),
        ("log_file", Some("errorlog")),
        ("access_logformat", Some("access_log_format")),
        ("log_level", Some("loglevel")),
        ("pid", Some("pidfile")),
        ("name", Some("proc_name")),
        ("env", Some("raw_env")),
        ("keep_alive", Some("keepalive")),
        ("proxy_allow_from", Some("proxy_allow_ips")),
        ("time_out", Some("timeout")),
        ("relod", Some("reload")),
        ("port", None),
        ("debug", None),
        ("host", None),
        ("max_rss", None),
    ] {
        let others = vec![(name.to_owned(), 7)];
        let warnings =
            resolve_report("app", Report { variables: Vec::new(), others, text: None }).unwrap().warnings;
        let expected =
            expected.map(|known| format!("gunicorn.conf.py:7: {name} is no setting; is '{known}' meant?"));
        assert_eq!(warnings, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_name_with_a_typing_error_is_a_warning_unless_the_setting_is_there_too() {
    let others = vec![("worker".to_owned(), 7), ("log_level".to_owned(), 8), ("mark".to_owned(), 9)];
    let variables = vec![variable("loglevel", 1, text("info"))];
    let settings = resolve_report("app", Report { variables, others, text: None }).unwrap();
    assert_eq!(settings.warnings, ["gunicorn.conf.py:7: worker is no setting; is 'workers' meant?"]);
}
