use std::time::Duration;

use super::*;
use crate::args::{self, Invocation};
use crate::settings::{ControlSocket, Origin, Settings};

/// Resolves a command line and an environment, where `mcsup.toml` has this text and no other file is there.
fn resolve(text: &str, line: &[&str], environment: &[(&str, &str)]) -> Result<Settings, UsageError> {
    let argv = std::iter::once(&"mcsup").chain(line).map(Into::into);
    let Invocation::Run(args) = args::parse(argv)? else { panic!("{line:?} does not run") };
    let look_up =
        |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let read_file = |path: &Path| match path.to_str() {
        Some("mcsup.toml") => Ok(text.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "it is not there")),
    };
    Settings::resolve(args, &look_up, &read_file)
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.binds.value.iter().map(ToString::to_string).collect()
}

fn good(text: &str) -> Settings {
    resolve(text, &["-c", "mcsup.toml"], &[]).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn refusal(text: &str) -> String {
    resolve(text, &["-c", "mcsup.toml"], &[]).expect_err(text).to_string()
}

fn from_file() -> Origin {
    Origin::File(Path::new("mcsup.toml").into())
}

#[test]
fn a_file_sets_what_options_set() {
    let settings = good(
        r#"
        # A comment.
        app = "server:app"
        workers = 4
        bind = ["127.0.0.1:8000", "unix:a.sock"]
        graceful_timeout = 30.5
        keep-alive = 7
        preload = true
        umask = 0o27
        name = "-x y"
        max_rss = "256M"
        max_requests = 1_000
        surge = "all"
        reload_extra_file = "one.html"
        env = ["A=b", "C="]
        limit_request_field_size = 9
        errorlog = "e.log"
        pidfile = "a.pid"
        "#,
    );
    assert_eq!(settings.target(), Ok("server:app"));
    assert_eq!(addresses(&settings), ["127.0.0.1:8000", "unix:a.sock"]);
    assert_eq!((*settings.workers, settings.workers.origin), (4, from_file()));
    assert_eq!(*settings.pool.graceful, Duration::from_millis(30_500));
    assert_eq!(*settings.http.keep_alive, Duration::from_secs(7));
    assert_eq!((*settings.mold.preload, settings.mold.preload.origin), (true, from_file()));
    assert_eq!(settings.process.umask.map(|umask| umask.value), Some(0o27));
    assert_eq!(settings.process.name.map(|name| name.value).as_deref(), Some("-x y"));
    assert_eq!((*settings.recycling.rss, *settings.recycling.requests), (Some(256 << 20), Some(1000)));
    assert_eq!(settings.development.extra_files.value, [PathBuf::from("one.html")]);
    assert_eq!(settings.process.env.value, [("A".into(), "b".into()), ("C".into(), String::new())]);
    assert_eq!(settings.process.pid.map(|path| path.value), Some("a.pid".into()));
    assert_eq!(*settings.limits.field_size, 9);
    assert_eq!(*settings.logging.errors, crate::logging::Destination::File("e.log".into()));
}

#[test]
fn an_application_that_looks_like_an_option_is_an_application() {
    assert_eq!(good("app = '--workers'").target(), Ok("--workers"));
}

#[test]
fn variables_may_stand_in_a_table_and_keep_their_order() {
    for text in ["[env]\nB = 'x=y'\nA = 1\n", "env = { B = 'x=y', A = 1 }", "env.B = 'x=y'\nenv.A = 1"] {
        let env = good(text).process.env;
        assert_eq!(env.value, [("B".into(), "x=y".into()), ("A".into(), "1".to_owned())], "{text}");
    }
}

#[test]
fn the_file_is_below_the_command_lines_and_above_the_rest() {
    let config = ("GUNICORN_CMD_ARGS", "-c mcsup.toml");
    let both = ("GUNICORN_CMD_ARGS", "-c mcsup.toml -w 3");
    let (low, mcsup) = (("WEB_CONCURRENCY", "2"), ("MCSUP_CMD_ARGS", "-w 4"));
    for (text, line, environment, expected, origin) in [
        ("", &[][..], &[config, low][..], 2, Origin::Variable("WEB_CONCURRENCY")),
        ("workers = 9", &[], &[config, low], 9, from_file()),
        ("workers = 9", &[], &[both, low], 3, Origin::Variable("GUNICORN_CMD_ARGS")),
        ("workers = 9", &[], &[config, low, mcsup], 4, Origin::Variable("MCSUP_CMD_ARGS")),
        ("workers = 9", &["-w5"], &[both, low, mcsup], 5, Origin::CommandLine),
    ] {
        let settings = resolve(text, line, environment).expect(text);
        let found = (settings.workers.value, settings.workers.origin);
        assert_eq!(found, (expected, origin), "{text} {line:?} {environment:?}");
    }
    let listening = |text| addresses(&resolve(text, &[], &[config, ("PORT", "9000")]).expect(text));
    assert_eq!(listening("bind = ':1'"), ["0.0.0.0:1"]);
    // An empty list sets nothing.
    assert_eq!(listening("bind = []"), ["0.0.0.0:9000"]);
}

#[test]
fn the_highest_source_that_names_a_file_names_the_file() {
    for (line, environment) in [
        (&["-c", "mcsup.toml"][..], &[("MCSUP_CMD_ARGS", "-c other")][..]),
        (&[], &[("MCSUP_CMD_ARGS", "--config=mcsup.toml"), ("GUNICORN_CMD_ARGS", "-c other")]),
        (&[], &[("GUNICORN_CMD_ARGS", "-c mcsup.toml")]),
    ] {
        assert_eq!(*resolve("threads = 7", line, environment).expect("good").threads, 7);
    }
}

#[test]
fn a_switch_that_is_false_is_one_that_is_not_there() {
    let text = "preload = false\ndaemon = false\nno_control_socket = false\ncontrol_socket = 'a'";
    let settings = resolve(text, &["-c", "mcsup.toml", "-D"], &[]).expect("good");
    assert_eq!((*settings.mold.preload, settings.mold.preload.origin), (false, Origin::Default));
    assert_eq!((*settings.process.daemon, settings.process.daemon.origin), (true, Origin::CommandLine));
    assert_eq!(*settings.control.socket, ControlSocket::At("a".into()));
}

#[test]
fn a_switch_that_is_on_by_default_has_a_warning_where_it_is_off() {
    assert_eq!(good("suppress_ragged_eofs = true").warnings, Vec::<String>::new());
    let warnings = good("suppress_ragged_eofs = false").warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("suppress_ragged_eofs (from "), "{warnings:?}");
}

#[test]
fn what_belongs_together_may_come_from_two_sources() {
    let line = ["-c", "mcsup.toml", "--max-requests-jitter", "3"];
    let recycling = resolve("max_requests = 1", &line, &[]).expect("good").recycling;
    let origins = (recycling.requests.origin, recycling.requests_jitter.origin);
    assert_eq!(origins, (from_file(), Origin::CommandLine));
}

#[test]
fn every_setting_can_stand_in_the_file_by_each_of_its_names() {
    let is_value = |row: &&table::Row| row.is_in_files() && row.kind != Kind::Hook;
    for row in table::rows().filter(is_value) {
        for key in row.keys() {
            // gunicorn's `sendfile` is the opposite of its option.
            let value = match row.kind {
                Kind::Flag if key == "sendfile" => "false",
                Kind::Flag => "true",
                _ => "'x'",
            };
            let text = format!("{key} = {value}");
            let read = |text: String| read(Path::new("f"), &|_| Ok(text.clone()), Served::Application);
            let given = read(text.clone()).expect(&key);
            assert!(given.has(row.name), "{key}");
            assert_eq!(read(text.replace('_', "-")), Ok(given), "{key}");
        }
    }
}

#[test]
fn a_program_has_no_settings_of_python_applications_in_its_file() {
    let read = |text: &str| read(Path::new("f"), &|_| Ok(text.to_owned()), Served::Program);
    assert!(read("workers = 2").is_ok_and(|given| given.text("workers") == Some("2")));
    for (text, expected) in [
        ("workers = 2\nthreads = 2", "f:2: threads has no meaning for a program"),
        ("app = 'a:b'", "f:1: app has no meaning for a program"),
        ("ready = 'tcp'", "f:1: ready stands on the command line of mcsup exec, not in a settings file"),
    ] {
        assert_eq!(read(text).expect_err(text).to_string(), expected);
    }
}

#[test]
fn a_value_is_judged_as_on_a_command_line() {
    for (text, expected) in [
        ("workers = 'x'", r#"workers = "x" (from mcsup.toml): not a whole number"#),
        ("workers = 0", r#"workers = "0" (from mcsup.toml): not from 1 to 512"#),
        ("workers = 2.5", r#"workers = "2.5" (from mcsup.toml): not a whole number"#),
        ("workers = 0x10", r#"workers = "0x10" (from mcsup.toml): not a whole number"#),
        ("timeout = -1", r#"timeout = "-1" (from mcsup.toml): less than 0 seconds"#),
        ("timeout = nan", r#"timeout = "nan" (from mcsup.toml): not a number of seconds"#),
        ("soak = ''", r#"soak = "" (from mcsup.toml): not a number of seconds"#),
        ("env = ['A']", "env (from mcsup.toml): expected NAME=VALUE"),
        ("name = ''", r#"name = "" (from mcsup.toml): it is empty"#),
        ("app = ''", r#"app = "" (from mcsup.toml): it is empty"#),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    assert!(refusal("bind = ':x'").starts_with(r#"bind = ":x" (from mcsup.toml): "#));
}

#[test]
fn a_mistake_in_the_file_has_a_place() {
    for (text, expected) in [
        ("\nwrokers = 2", "2: unknown key 'wrokers'; is 'workers' meant?"),
        ("\n\nmax-request = 2", "3: unknown key 'max-request'; is 'max_requests' meant?"),
        ("Workers = 2", "1: unknown key 'Workers'; is 'workers' meant?"),
        ("gracefull_timeuot = 2", "1: unknown key 'gracefull_timeuot'; is 'graceful_timeout' meant?"),
        ("worker_clas = 'gevent'", "1: unknown key 'worker_clas'; is 'worker_class' meant?"),
        ("on_exit = 'f'", "1: on_exit is a function of gunicorn.conf.py"),
        ("pidfile = 'a'\npid = 'b'", "2: pid is set twice"),
        ("w = 2", "1: unknown key 'w'"),
        ("help = true", "1: unknown key 'help'"),
        ("version = true", "1: unknown key 'version'"),
        ("config = 'other.toml'", "1: config cannot stand in a settings file"),
        ("[rollout]\nsurge = 1", "1: unknown key 'rollout'"),
        ("workers = true", "1: workers is a text or a number, not true or false"),
        ("\nworkers = 1979-05-27", "2: workers is a text or a number, not a date or time"),
        ("[workers]\na = 1", "1: workers is a text or a number, not a table"),
        ("workers = [1]", "1: workers is a text or a number, not a list"),
        ("bind = true", "1: bind is a text or a number, not true or false"),
        ("bind = { a = 1 }", "1: bind is a text or a number, not a table"),
        ("bind = [':1',\n [':2']]", "2: bind is a text or a number, not a list"),
        ("app = []", "1: app is a text or a number, not a list"),
        ("preload = 1", "1: preload is true or false, not a number"),
        ("preload = 'yes'", "1: preload is true or false, not a text"),
        ("preload = []", "1: preload is true or false, not a list"),
        ("[env]\nA = 'b'\nC = false", "3: env.C is a text or a number, not true or false"),
        ("[env.A]\nC = 'd'", "1: env.A is a text or a number, not a table"),
        ("[env]\n'A=B' = 'c'", r#"2: "A=B" cannot be a variable's name"#),
        ("[env]\n'' = 'c'", r#"2: "" cannot be a variable's name"#),
        ("name = \"a\\u0000\"", "1: name holds a null character"),
        ("keep_alive = 1\nkeep-alive = 2", "2: keep-alive is set twice"),
        ("error_logfile = 'a'\n\nlog_file = 'b'", "3: log_file is set twice"),
        ("preload = false\npreload = true", "2: duplicate key"),
        ("workers = 1\nthreads = \nname = 'a'", "2: string values must be quoted, expected literal string"),
        ("workers", "1: key with no value, expected `=`"),
        ("name = 'a", "1: invalid literal string, expected `'`"),
        ("# a\n[env\nA = 1", "2: unclosed table, expected `]`"),
    ] {
        assert_eq!(refusal(text), format!("mcsup.toml:{expected}"), "{text}");
    }
}

#[test]
fn the_first_mistake_is_reported() {
    assert_eq!(refusal("zz = 1\naa = 2"), "mcsup.toml:1: unknown key 'zz'");
}

#[test]
fn a_file_that_is_not_read_is_reported_with_its_reason() {
    for (line, environment, expected) in [
        (
            &["-c", "gone.toml"][..],
            &[][..],
            "cannot read the settings file gone.toml: it is not there".to_owned(),
        ),
        (&["-c", ""], &[], r#"config = "" (from the command line): it is empty"#.to_owned()),
        (
            &["-c", "python:"],
            &[],
            r#"config = "python:" (from the command line): python: needs the name of a module"#.to_owned(),
        ),
    ] {
        let answer = resolve("", line, environment).map_err(|error| error.to_string());
        assert_eq!(answer.expect_err("not read"), expected);
    }
}

#[test]
fn a_file_is_read_again_and_relative_to_the_directory_of_the_start() {
    let start = tempfile::tempdir().expect("a directory");
    let file = start.path().join("mcsup.toml");
    let Ok(Invocation::Run(args)) = args::parse(["mcsup", "-c", "mcsup.toml"].map(Into::into)) else {
        panic!("it runs")
    };
    let read_file = reader(start.path().to_owned());
    let resolve = || Settings::resolve(args.clone(), &|_| None, &read_file);
    for workers in [2, 3] {
        std::fs::write(&file, format!("workers = {workers}")).expect("written");
        assert_eq!(resolve().map(|settings| settings.workers.value), Ok(workers));
    }
    std::fs::write(&file, b"\xff").expect("written");
    let answer = resolve().expect_err("not text").to_string();
    assert!(answer.starts_with("cannot read the settings file mcsup.toml: "), "{answer}");
    std::fs::remove_file(&file).expect("removed");
    let answer = resolve().expect_err("gone").to_string();
    assert!(answer.starts_with("cannot read the settings file mcsup.toml: No such file"), "{answer}");
}

#[test]
fn only_a_regular_file_of_bounded_size_is_read() {
    let start = tempfile::tempdir().expect("a directory");
    let at = |name: &str| start.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(at("fifo")).status().expect("started");
    assert!(made.success());
    std::fs::create_dir(at("folder")).expect("made");
    std::fs::write(at("large"), vec![b'#'; 2 << 20]).expect("written");
    let read_file = reader(start.path().to_owned());
    for (name, words) in [
        // Neither waits for a writer.
        ("fifo", "it is a FIFO, not a regular file"),
        ("/dev/zero", "it is a device, not a regular file"),
        ("folder", "it is a directory, not a regular file"),
        ("large", "it is larger than 1048576 bytes"),
    ] {
        assert_eq!(read_file(Path::new(name)).expect_err(name).to_string(), words);
    }
}
