use std::path::Path;

use mcsup_core::MoldThreads;
use mcsup_core::policy::Surge;
use mcsup_py::ReloadEngine;

use super::*;
use crate::args::{self, Invocation};
use crate::logging::{Destination, Level};
use crate::table;

fn no_file(path: &Path) -> std::io::Result<String> {
    panic!("{} is read", path.display())
}

/// Resolves a command line and an environment.
fn resolve(line: &[&str], environment: &[(&str, &str)]) -> Result<Settings, UsageError> {
    let argv = std::iter::once(&"mcsup").chain(line).map(Into::into);
    let Invocation::Run(args) = args::parse(argv)? else { panic!("{line:?} does not run") };
    let look_up =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    Settings::resolve(args, &look_up, &no_file)
}

fn good(line: &[&str], environment: &[(&str, &str)]) -> Settings {
    resolve(line, environment).unwrap_or_else(|error| panic!("{line:?} {environment:?}: {error}"))
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.binds.value.iter().map(ToString::to_string).collect()
}

fn refusal(line: &[&str], environment: &[(&str, &str)]) -> String {
    resolve(line, environment).expect_err(&format!("{line:?} {environment:?} is refused")).to_string()
}

#[test]
fn the_defaults_are_gunicorns() {
    let settings = good(&[], &[]);
    assert_eq!(addresses(&settings), ["127.0.0.1:8000"]);
    assert_eq!((*settings.workers, *settings.threads, *settings.backlog), (1, 1, 2048));
    assert_eq!(*settings.pool.timeout, Some(Duration::from_secs(30)));
    assert_eq!(*settings.pool.graceful, Duration::from_secs(30));
    assert_eq!(*settings.http.keep_alive, Duration::from_secs(2));
    let limits = &settings.limits;
    assert_eq!((*limits.line, *limits.fields, *limits.field_size, *limits.body), (8190, 100, 8190, 1 << 30));
    assert_eq!(*settings.logging.errors, Destination::Standard);
    assert_eq!(*settings.logging.level, Level::Info);
    assert_eq!((settings.logging.access, settings.app, settings.process.pid), (None, None, None));
    assert!(!*settings.process.daemon);
    assert_eq!(settings.workers.origin, Origin::Default);
}

#[test]
fn the_highest_source_that_names_a_setting_wins() {
    let concurrency = ("WEB_CONCURRENCY", "2");
    let gunicorn = ("GUNICORN_CMD_ARGS", "-w 3");
    let mcsup = ("MCSUP_CMD_ARGS", "-w 4");
    for (line, environment, expected, origin) in [
        (&[][..], &[][..], 1, Origin::Default),
        (&[], &[concurrency], 2, Origin::Variable("WEB_CONCURRENCY")),
        (&[], &[concurrency, gunicorn], 3, Origin::Variable("GUNICORN_CMD_ARGS")),
        (&[], &[concurrency, gunicorn, mcsup], 4, Origin::Variable("MCSUP_CMD_ARGS")),
        (&["-w", "5"], &[concurrency, gunicorn, mcsup], 5, Origin::CommandLine),
        (&["-w", "5"], &[], 5, Origin::CommandLine),
    ] {
        let workers = good(line, environment).workers;
        assert_eq!((workers.value, workers.origin), (expected, origin), "{line:?} {environment:?}");
    }
}

#[test]
fn the_number_of_workers_can_be_that_of_the_processors() {
    let processors = mcsup_core::host::processors::available().get().min(512);
    for (line, environment) in [
        (&["-w", "auto"][..], &[][..]),
        (&[], &[("WEB_CONCURRENCY", "auto")]),
        (&[], &[("MCSUP_CMD_ARGS", "-w auto")]),
    ] {
        assert_eq!(*good(line, environment).workers, processors, "{line:?} {environment:?}");
    }
}

#[test]
fn each_setting_is_looked_for_by_itself() {
    let environment = [("GUNICORN_CMD_ARGS", "-t 9 -n one"), ("MCSUP_CMD_ARGS", "-n two server:app -D")];
    let settings = good(&["--keep-alive", "7"], &environment);
    assert_eq!(*settings.pool.timeout, Some(Duration::from_secs(9)));
    assert_eq!(settings.process.name.as_ref().map(|name| name.value.as_str()), Some("two"));
    assert_eq!(settings.target(), Ok("server:app"));
    assert_eq!(settings.process.daemon.origin, Origin::Variable("MCSUP_CMD_ARGS"));
    assert_eq!(*settings.http.keep_alive, Duration::from_secs(7));
}

#[test]
fn a_list_replaces_a_list() {
    let port = ("PORT", "9000");
    let gunicorn = ("GUNICORN_CMD_ARGS", "-b :1 -b :2 -e A=1");
    for (line, environment, expected) in [
        (&[][..], &[port][..], &["0.0.0.0:9000"][..]),
        (&[], &[port, gunicorn], &["0.0.0.0:1", "0.0.0.0:2"]),
        (&["-b", ":3"], &[port, gunicorn], &["0.0.0.0:3"]),
        (&["-b", ":3", "-b", "unix:a.sock"], &[port], &["0.0.0.0:3", "unix:a.sock"]),
    ] {
        assert_eq!(addresses(&good(line, environment)), expected, "{line:?} {environment:?}");
    }
    let env = good(&["-e", "B=2", "-e", "C="], &[gunicorn]).process.env;
    assert_eq!(env.value, [("B".to_owned(), "2".to_owned()), ("C".to_owned(), String::new())]);
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let settings = good(&[], &[("PORT", ""), ("WEB_CONCURRENCY", ""), ("GUNICORN_CMD_ARGS", "")]);
    assert_eq!(settings, good(&[], &[]));
}

#[test]
fn a_refusal_names_setting_value_source_and_reason() {
    for (line, environment, expected) in [
        (
            &[][..],
            &[("WEB_CONCURRENCY", "x")][..],
            r#"workers = "x" (from WEB_CONCURRENCY): not a whole number"#,
        ),
        (&["-w", "0"], &[], r#"workers = "0" (from the command line): not from 1 to 512"#),
        (&["-w", "513"], &[], r#"workers = "513" (from the command line): not from 1 to 512"#),
        (&[], &[("MCSUP_CMD_ARGS", "-t -1")], r#"timeout = "-1" (from MCSUP_CMD_ARGS): less than 0 seconds"#),
        (&["-t", "nan"], &[], r#"timeout = "nan" (from the command line): not a number of seconds"#),
        (&["-m", "8"], &[], r#"umask = "8" (from the command line): not an octal number such as 007"#),
        (&["-e", "A"], &[], "env (from the command line): expected NAME=VALUE"),
        (&["-p", ""], &[], r#"pid = "" (from the command line): it is empty"#),
        (
            &[],
            &[("GUNICORN_CMD_ARGS", "--spwe")],
            "GUNICORN_CMD_ARGS: unknown option '--spwe'; is '--spew' meant?",
        ),
    ] {
        assert_eq!(refusal(line, environment), expected);
    }
    let threads = refusal(&[], &[("GUNICORN_CMD_ARGS", "--threads 1025")]);
    assert!(threads.ends_with("(from GUNICORN_CMD_ARGS): not from 0 to 1024"), "{threads}");
    let port = refusal(&[], &[("PORT", "http")]);
    assert!(port.starts_with(r#"bind = "0.0.0.0:http" (from PORT): "#), "{port}");
}

#[test]
fn a_mistake_below_the_source_that_wins_does_no_harm() {
    assert_eq!(*good(&["-w", "2"], &[("WEB_CONCURRENCY", "x")]).workers, 2);
}

#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let look_up = |name: &str| (name == "PORT").then(|| std::ffi::OsString::from_vec(vec![0xff]));
    let answer = Settings::resolve(Given::default(), &look_up, &no_file).map_err(|error| error.to_string());
    assert_eq!(answer, Err("PORT: not UTF-8".to_owned()));
}

#[test]
fn what_is_written_is_what_is_set() {
    let settings = good(
        &[
            "-D",
            "-m",
            "027",
            "-u",
            "www",
            "-g",
            "33",
            "--chdir",
            "/srv",
            "--pythonpath",
            "a,b",
            "--access-logfile",
            "-",
            "--access-logformat",
            "json",
            "--log-file",
            "e.log",
            "--log-level",
            "ERROR",
            "--check-config",
            "-t",
            "0",
            "--limit-request-body",
            "0",
            "-p",
            "a.pid",
            "m:app",
        ],
        &[],
    );
    let process = settings.process;
    assert_eq!(process.umask.map(|umask| umask.value), Some(0o27));
    assert_eq!(process.user.map(|user| user.value).as_deref(), Some("www"));
    assert_eq!(process.group.map(|group| group.value).as_deref(), Some("33"));
    assert_eq!(process.chdir.map(|path| path.value), Some("/srv".into()));
    assert_eq!(process.pid.map(|path| path.value), Some("a.pid".into()));
    assert!(process.daemon.value && settings.check_config.value);
    assert_eq!(settings.python_path.map(|path| path.value), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(settings.logging.access.map(|log| log.value), Some(Destination::Standard));
    assert_eq!(*settings.logging.access_format, "json");
    assert_eq!(*settings.logging.errors, Destination::File("e.log".into()));
    assert_eq!(*settings.logging.level, Level::Error);
    assert_eq!((*settings.pool.timeout, *settings.limits.body), (None, u64::MAX));
    assert_eq!(settings.app.map(|app| app.value).as_deref(), Some("m:app"));
}

#[test]
fn a_missing_application_is_an_error_of_one_line() {
    let settings = good(&[], &[]);
    let answer = settings.target().map_err(|error| error.to_string());
    assert_eq!(answer, Err("no application: name one as MODULE:ATTRIBUTE (try 'mcsup --help')".to_owned()));
}

#[test]
fn by_default_healthy_workers_are_never_replaced() {
    let settings = good(&[], &[]);
    assert_eq!((*settings.rollout.surge, *settings.rollout.retries), (Surge::Extra(1), 0));
    assert_eq!(*settings.rollout.soak, Duration::from_secs(2));
    let recycling = settings.recycling;
    assert_eq!((*recycling.requests, *recycling.lifetime, *recycling.rss), (None, None, None));
    assert_eq!((*recycling.requests_jitter, *recycling.rss_jitter), (0, 0));
    assert_eq!((*recycling.lifetime_jitter, *settings.draining.delay), (Duration::ZERO, Duration::ZERO));
    assert_eq!(settings.draining.health_path, None);
    let mold = settings.mold;
    assert_eq!((*mold.preload, *mold.threads), (false, MoldThreads::Warn));
    let development = settings.development;
    assert_eq!((*development.reload, *development.engine), (false, ReloadEngine::Auto));
    assert!(development.extra_files.is_empty() && !*settings.reuse_port);
    let default = Sourced { value: ControlSocket::Beside, origin: Origin::Default };
    assert_eq!(settings.control.socket, default);
}

/// The words of a line without quotes.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn what_is_written_of_a_workers_life_is_what_is_set() {
    let line = "-w 4 --surge all --soak 0 --reload-retries 100 --max-requests 1000 --max-requests-jitter 50 \
                --max-lifetime 3600 --max-lifetime-jitter 0.5 --max-rss 256M --max-rss-jitter 16K \
                --drain-delay 3 --health-path /-/health --preload --preload-threads refuse \
                --reload --reload-engine poll --reload-extra-file a --reload-extra-file b.toml --reuse-port --end-children \
                --control-socket run/a.sock";
    let settings = good(&words(line), &[]);
    assert_eq!((*settings.rollout.surge, *settings.rollout.retries), (Surge::All, 100));
    assert_eq!(*settings.rollout.soak, Duration::ZERO);
    let recycling = settings.recycling;
    assert_eq!((*recycling.requests, *recycling.requests_jitter), (Some(1000), 50));
    assert_eq!(*recycling.lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(*recycling.lifetime_jitter, Duration::from_millis(500));
    assert_eq!((*recycling.rss, *recycling.rss_jitter), (Some(256 << 20), 16 << 10));
    assert_eq!(*settings.draining.delay, Duration::from_secs(3));
    assert_eq!(settings.draining.health_path.map(|path| path.value).as_deref(), Some("/-/health"));
    let mold = settings.mold;
    assert_eq!((*mold.preload, *mold.threads), (true, MoldThreads::Refuse));
    let development = settings.development;
    assert_eq!((*development.reload, *development.engine), (true, ReloadEngine::Poll));
    assert_eq!(development.extra_files.value, [PathBuf::from("a"), PathBuf::from("b.toml")]);
    assert!(*settings.reuse_port && *settings.process.end_children);
    assert_eq!(*settings.control.socket, ControlSocket::At("run/a.sock".into()));
    assert_eq!(*good(&["--no-control-socket"], &[]).control.socket, ControlSocket::Off);
}

#[test]
fn a_jitter_without_its_limit_means_nothing() {
    let jitters = "--max-requests-jitter 5 --max-lifetime-jitter 5 --max-rss-jitter 5";
    assert_eq!(*good(&words(jitters), &[]).recycling.requests, None);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let variable = ("MCSUP_CMD_ARGS", "--no-control-socket");
    assert_eq!(
        refusal(&["--control-socket", "a.sock"], &[variable]),
        r#"control_socket = "a.sock" (from the command line): no_control_socket is given too (from MCSUP_CMD_ARGS)"#,
    );
}

#[test]
fn a_refusal_of_a_newer_setting_names_it_too() {
    let count = "not from 0 to 18446744073709551615";
    let bytes = "not a whole number of bytes, such as 1048576, 512K, 256M or 1G";
    for (flag, value, reason) in [
        ("--surge", "0", "not from 1 to 512"),
        ("--surge", "some", "expected a whole number or the word all"),
        ("--soak", "-1", "less than 0 seconds"),
        ("--reload-retries", "101", "not from 0 to 100"),
        ("--max-requests", "-1", count),
        ("--max-requests-jitter", "x", "not a whole number"),
        ("--max-lifetime", "1d", "not a number of seconds"),
        ("--max-lifetime-jitter", "-1", "less than 0 seconds"),
        ("--max-rss", "1T", bytes),
        ("--max-rss-jitter", "-1", bytes),
        ("--drain-delay", "", "not a number of seconds"),
        ("--health-path", "health", "it must begin with /"),
        ("--preload-threads", "kill", "expected refuse or warn"),
        ("--reload-engine", "magic", "expected auto, poll or inotify"),
        ("--reload-extra-file", "", "it is empty"),
        ("--control-socket", "", "it is empty"),
    ] {
        let name = flag.trim_start_matches('-').replace('-', "_");
        let expected = format!("{name} = {value:?} (from the command line): {reason}");
        assert_eq!(refusal(&[flag, value], &[]), expected);
    }
}

#[test]
fn a_daemon_that_names_no_log_has_one_beside_its_pid_file() {
    let at = |path: &str| Destination::File(path.into());
    for (line, expected) in [
        (&["-D", "-p", "run/app.pid"][..], at("run/app.log")),
        (&["-D", "-p", "app"], at("app.log")),
        (&["-D", "-p", "app.log"], at("app.log.log")),
        (&["-D", "-p", "a.pid", "--error-logfile", "b"], at("b")),
        (&["-D", "-p", "a.pid", "--error-logfile", "-"], Destination::Standard),
        (&["-p", "a.pid"], Destination::Standard),
        (&["-D"], Destination::Standard),
    ] {
        assert_eq!(*good(line, &[]).logging.errors, expected, "{line:?}");
    }
}

#[test]
fn a_setting_of_gunicorn_without_an_effect_is_a_warning_or_a_refusal() {
    let warnings = |line: &str| good(&words(line), &[]).warnings;
    assert_eq!(warnings("-k gthread --protocol http --http-protocols h1 --dirty-workers 0"), [""; 0]);
    assert_eq!(
        warnings("--worker-tmp-dir /dev/shm"),
        [
            "worker_tmp_dir (from the command line) has no effect: workers show signs of life in shared memory, \
          without files"
        ]
    );
    assert_eq!(
        warnings("--access-logformat %(asctime)s|%(h)s|%({x}z)s"),
        ["asctime", "{x}z"].map(|name| format!(
            "access_logformat (from the command line): %({name})s is no atom: each line has - for it"
        ))
    );
    for (line, expected) in [
        ("--protocol uwsgi", r#"protocol = "uwsgi" (from the command line): mcsup speaks HTTP/1.1"#),
        ("--casefold-http-method", "casefold_http_method (from the command line): mcsup parses strictly"),
    ] {
        let answer = refusal(&words(line), &[]);
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[test]
fn every_supported_setting_has_an_effect() {
    let nothing = good(&[], &[]);
    for row in table::rows().filter(|row| row.is_supported() && row.kind != table::Kind::Hook) {
        // Another process reads a configuration in Python.
        let text = if row.name == "config" { "7x.toml" } else { "7x:\u{1}" };
        let given = Given::one(row, text.to_owned());
        let refused = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        // The groups of a user are set without initgroups too.
        if row.scope != table::Scope::Program && row.name != "initgroups" {
            assert_ne!(Settings::resolve(given, &|_| None, &refused).as_ref(), Ok(&nothing), "{}", row.name);
        }
    }
}

#[test]
fn the_listing_has_each_setting_with_its_source() {
    let environment = [("WEB_CONCURRENCY", "3"), ("MCSUP_CMD_ARGS", "-e A=1 -e B=2")];
    let settings = good(&["--print-config", "-t", "9", "-t", "10", "--preload", "m:app"], &environment);
    assert!(*settings.check_config);
    let listing = settings.listing.expect("it is asked for");
    let line = |name: &str| {
        let of = |line: &&str| line.split(' ').next() == Some(name);
        let line = listing.lines().find(of).unwrap_or_else(|| panic!("{name} is not in\n{listing}"));
        let (names, value) = line.split_once(" = ").unwrap();
        format!("{} = {value}", names[name.len()..].trim()).trim_start().to_owned()
    };
    for (name, expected) in [
        ("app", r#"(wsgi_app) = "m:app"  (from the command line)"#),
        ("workers", r#"= "3"  (from WEB_CONCURRENCY)"#),
        ("env", r#"(raw_env) = ["A=1", "B=2"]  (from MCSUP_CMD_ARGS)"#),
        ("config", "= none  (from the defaults)"),
        ("timeout", r#"= "10"  (from the command line)"#),
        ("bind", r#"= ["127.0.0.1:8000"]  (from the defaults)"#),
        ("preload", "(preload_app) = true  (from the command line)"),
        ("no_sendfile", "= false  (from the defaults)"),
        ("daemon", "= false  (from the defaults)"),
        ("user", "= none  (from the defaults)"),
    ] {
        assert_eq!(line(name), expected);
    }
    assert_eq!(good(&[], &[]).listing, None);
}
