use super::operator::ServerArgs;
use super::*;
use std::time::Duration;

fn read(line: &[&str]) -> Result<Invocation, UsageError> {
    parse(std::iter::once(&"mcsup").chain(line).map(OsString::from))
}

fn run(line: &[&str]) -> RunArgs {
    match read(line) {
        Ok(Invocation::Run(args)) => *args,
        other => panic!("{line:?} became {other:?}"),
    }
}

fn refusal(line: &[&str]) -> String {
    read(line).expect_err(&format!("{line:?} is refused")).to_string()
}

#[test]
fn the_application_may_stand_before_or_behind_the_options() {
    for line in [
        &["server:app", "-w", "2"][..],
        &["-w", "2", "server:app"],
        &["run", "-w", "2", "server:app"],
        &["run", "server:app", "-w2"],
        &["--workers=2", "--", "server:app"],
    ] {
        let args = run(line);
        assert_eq!(
            (args.app.as_deref(), args.serving.workers.as_deref()),
            (Some("server:app"), Some("2")),
            "{line:?}"
        );
    }
}

#[test]
fn a_module_named_like_a_subcommand_is_reached_by_run() {
    for name in SUBCOMMANDS {
        assert_eq!(run(&["run", name]).app.as_deref(), Some(name));
        assert!(refusal(&["-w", "2", name]).contains(&format!("mcsup run {name}")), "{name}");
    }
    assert_eq!(run(&["stop:app"]).app.as_deref(), Some("stop:app"));
}

fn beside(pid: &str) -> ServerArgs {
    ServerArgs { pid: Some(pid.to_owned()), ..ServerArgs::default() }
}

#[test]
fn a_server_is_named_by_its_pid_file_or_its_socket() {
    let status = |server| Ok(Invocation::Status(StatusArgs { server }));
    assert_eq!(read(&["status", "-p", "a.pid"]), status(beside("a.pid")));
    for line in [&["status", "-s", "a.ctl", "--json"][..], &["status", "--json", "--control-socket=a.ctl"]] {
        let server =
            ServerArgs { control_socket: Some("a.ctl".to_owned()), json: true, ..ServerArgs::default() };
        assert_eq!(read(line), status(server), "{line:?}");
    }
}

#[test]
fn stop_may_be_quick_or_not_waited_for() {
    let timeout = Some(Duration::from_millis(1500));
    let expected =
        StopArgs { server: ServerArgs { timeout, ..beside("a.pid") }, quick: true, no_wait: false };
    let line = ["stop", "--timeout", "1.5", "--pid", "a.pid", "--quick"];
    assert_eq!(read(&line), Ok(Invocation::Stop(expected)));
    let expected = StopArgs { server: beside("a.pid"), quick: false, no_wait: true };
    assert_eq!(read(&["stop", "-p", "a.pid", "--no-wait"]), Ok(Invocation::Stop(expected)));
}

#[test]
fn commands_for_a_server_are_those_of_the_control_socket() {
    for (line, command) in [
        (&["reload"][..], control::Command::Reload),
        (&["upgrade"], control::Command::Upgrade),
        (&["scale", "4"], control::Command::Scale { workers: 4 }),
        (&["recycle", "0"], control::Command::Recycle { slot: 0 }),
        (&["reopen-logs"], control::Command::ReopenLogs),
    ] {
        let line: Vec<&str> = line.iter().copied().chain(["-p", "a.pid", "--no-wait"]).collect();
        let args = ControlArgs { server: beside("a.pid"), no_wait: true };
        assert_eq!(read(&line), Ok(Invocation::Control(command, args)), "{line:?}");
    }
}

#[test]
fn check_is_a_run_that_only_checks() {
    let Ok(Invocation::Run(args)) = read(&["check", "-w", "2", "a:b"]) else { panic!("no run") };
    let expected = RunArgs {
        app: Some("a:b".to_owned()),
        serving: ServingArgs { workers: Some("2".to_owned()), ..ServingArgs::default() },
        application: ApplicationArgs { check_config: true, ..ApplicationArgs::default() },
        ..RunArgs::default()
    };
    assert_eq!(*args, expected);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_flag_of_gunicorn_that_we_have_is_spelled_as_there() {
    let args = run(&[
        "-b",
        ":1",
        "--bind",
        ":2",
        "--chdir",
        "d",
        "--pythonpath",
        "a,b",
        "-e",
        "A=1",
        "--env",
        "B=2",
        "--threads",
        "1",
        "-t",
        "3",
        "--graceful-timeout",
        "4",
        "--keep-alive",
        "5",
        "--backlog",
        "6",
        "--limit-request-line",
        "7",
        "--limit-request-fields",
        "8",
        "--limit-request-field_size",
        "9",
        "-p",
        "p",
        "-D",
        "-u",
        "u",
        "-g",
        "g",
        "-m",
        "007",
        "--access-logfile",
        "-",
        "--access-logformat",
        "%(h)s",
        "--log-file",
        "-",
        "--log-level",
        "debug",
        "-n",
        "n",
        "--check-config",
        "-c",
        "c",
        "--max-requests",
        "10",
        "--max-requests-jitter",
        "11",
        "--no-share-stdlib",
        "--end-children",
        "--preload",
        "--reload",
        "--reload-engine",
        "poll",
        "--reload-extra-file",
        "x",
        "--reuse-port",
        "--control-socket",
        "s",
        "--no-control-socket",
        "app",
    ]);
    let expected = RunArgs {
        app: Some("app".into()),
        config: Some("c".into()),
        serving: ServingArgs {
            bind: vec![":1".into(), ":2".into()],
            backlog: Some("6".into()),
            threads: Some("1".into()),
            reuse_port: true,
            ..ServingArgs::default()
        },
        application: ApplicationArgs {
            chdir: Some("d".into()),
            pythonpath: Some("a,b".into()),
            env: vec!["A=1".into(), "B=2".into()],
            check_config: true,
            no_share_stdlib: true,
            preload: true,
            ..ApplicationArgs::default()
        },
        recycling: RecyclingArgs {
            max_requests: Some("10".into()),
            max_requests_jitter: Some("11".into()),
            ..RecyclingArgs::default()
        },
        development: DevelopmentArgs {
            reload: true,
            reload_engine: Some("poll".into()),
            reload_extra_file: vec!["x".into()],
        },
        time_limits: TimeLimitsArgs {
            timeout: Some("3".into()),
            graceful_timeout: Some("4".into()),
            keep_alive: Some("5".into()),
            ..TimeLimitsArgs::default()
        },
        size_limits: SizeLimitsArgs {
            limit_request_line: Some("7".into()),
            limit_request_fields: Some("8".into()),
            limit_request_field_size: Some("9".into()),
            ..SizeLimitsArgs::default()
        },
        process: ProcessArgs {
            pid: Some("p".into()),
            daemon: true,
            user: Some("u".into()),
            group: Some("g".into()),
            umask: Some("007".into()),
            name: Some("n".into()),
            end_children: true,
            control_socket: Some("s".into()),
            no_control_socket: true,
        },
        logging: LoggingArgs {
            access_logfile: Some("-".into()),
            access_logformat: Some("%(h)s".into()),
            error_logfile: Some("-".into()),
            log_level: Some("debug".into()),
        },
        ..RunArgs::default()
    };
    assert_eq!(args, expected);
    assert_eq!(
        run(&["--limit-request-field-size", "9"]).size_limits.limit_request_field_size.as_deref(),
        Some("9")
    );
    assert_eq!(run(&["--error-logfile", "f"]).logging.error_logfile.as_deref(), Some("f"));
}

#[test]
fn of_a_flag_given_twice_the_last_counts() {
    assert_eq!(run(&["-w", "1", "-w", "2", "-D", "-D"]).serving.workers.as_deref(), Some("2"));
}

#[test]
fn a_negative_number_reaches_the_range_check() {
    assert_eq!(run(&["-t", "-1"]).time_limits.timeout.as_deref(), Some("-1"));
}

#[test]
fn a_mistake_is_one_line_that_names_it() {
    for (line, expected) in [
        (&["--wrokers", "2"][..], "unknown option '--wrokers'; is '--workers' meant?"),
        (&["-k", "gevent"], "unknown option '-k'"),
        (&["--worker-class", "sync", "a:b"], "unknown option '--worker-class'"),
        // clap suggests an option that shares some letters.
        (&["--log-config", "f", "a:b"], "unknown option '--log-config'"),
        (&["--refork-after", "5", "a:b"], "unknown option '--refork-after'"),
        (&["a:b", "c:d"], "'c:d' is one word too many"),
        (&["-w"], "a value is required for '--workers <INT>' but none was supplied"),
        (&["--daemon=yes"], "unexpected value 'yes' for '--daemon' found; no more were expected"),
        (&["scale", "-p", "f"], "the following required arguments were not provided: <N>"),
        (&["scale", "0", "-p", "f"], "invalid value '0' for '<N>': not from 1 to 512"),
        (&["recycle", "x", "-p", "f"], "invalid value 'x' for '<SLOT>': invalid digit found in string"),
        (&["status", "-p"], "a value is required for '--pid <PIDFILE>' but none was supplied"),
        (&["status", "app"], "'app' is one word too many"),
        (
            &["stop", "-p", "f", "--timeout", "-1"],
            "invalid value '-1' for '--timeout <SECS>': less than 0 seconds",
        ),
        (&["--a\nb\x1b"], "unknown option '--a b\\u{1b}'"),
    ] {
        let answer = refusal(line);
        assert_eq!(answer.strip_suffix(" (try 'mcsup --help')"), Some(expected), "{line:?}");
    }
}

#[test]
fn a_mistake_names_the_help_that_has_the_option() {
    for (line, help) in [
        (&["exec", "--redy", "tcp", "x"][..], "mcsup exec --help"),
        (&["exec", "--threads", "2", "x"], "mcsup exec --help"),
        (&["exec"], "mcsup exec --help"),
        (&["service", "systemd", "--systemd", "x", "a:b"], "mcsup service --help"),
        (&["service"], "mcsup service --help"),
        (&["doctor", "--unit"], "mcsup doctor --help"),
        (&["run", "-w"], "mcsup --help"),
    ] {
        let answer = refusal(line);
        assert!(answer.ends_with(&format!(" (try '{help}')")), "{answer}");
    }
}

#[test]
fn words_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let argv = ["mcsup".into(), OsString::from_vec(vec![b'-', b'w', 0xff])];
    let answer = parse(argv).expect_err("not UTF-8").to_string();
    assert!(answer.contains("UTF-8"), "{answer}");
}

fn shown(line: &[&str]) -> String {
    match read(line) {
        Ok(Invocation::Show(text)) => text,
        other => panic!("{line:?} became {other:?}"),
    }
}

#[test]
fn help_and_version_are_text_to_show() {
    let help = shown(&["--help"]);
    for part in [
        "mcsup [run] [OPTIONS] APP",
        "mcsup stop -p PIDFILE",
        "[default: 127.0.0.1:8000]",
        "--write-timeout <SECS>",
        "GUNICORN_CMD_ARGS",
        "USR2",
    ] {
        assert!(help.contains(part), "no {part} in:\n{help}");
    }
    for line in [&["-h"][..], &["help"], &["run", "--help"], &["-w", "2", "--help"]] {
        assert_eq!(shown(line).lines().next(), help.lines().next(), "{line:?}");
    }
    assert!(shown(&["stop", "--help"]).contains("--timeout <SECS>"));
    assert_eq!(shown(&["help", "stop"]), shown(&["stop", "--help"]));
    for line in [&["--version"][..], &["-v"], &["-V"], &["run", "--version"]] {
        assert_eq!(shown(line), format!("mcsup {}\n", env!("CARGO_PKG_VERSION")), "{line:?}");
    }
}

/// The help of `mcsup run` in a terminal of 80 columns.
fn narrow_help() -> String {
    let command = command().mut_subcommand("run", |run| run.term_width(80));
    command.try_get_matches_from(["mcsup", "run", "--help"]).expect_err("help").render().to_string()
}

#[test]
fn the_help_fits_80_columns_and_its_foot_is_not_ragged() {
    let help = narrow_help();
    for line in help.lines() {
        assert!(line.chars().count() <= 80 || line.contains("[default: %(h)s"), "{line}");
    }
    let foot = &help[help.find("APP is").expect("a foot")..];
    for lines in foot.lines().collect::<Vec<_>>().windows(2) {
        let next = lines[1].split(' ').next().unwrap_or_default();
        let had_room = lines[0].len() + 1 + next.len() <= 80;
        assert!(lines[0].is_empty() || next.is_empty() || !had_room, "{lines:?}");
    }
}

#[test]
fn the_sections_of_the_help_are_in_the_order_of_the_groups() {
    let help = narrow_help();
    let sections: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with(char::is_uppercase))
        .filter_map(|line| line.strip_suffix(':'))
        .collect();
    let groups =
        ["Serving", "Application", "Reloading", "Recycling", "Development", "Time limits", "Size limits"];
    assert_eq!(sections, [&["Arguments", "Options"][..], &groups, &["Process", "Logging"]].concat());
}

#[test]
fn the_help_of_each_option_states_its_default_once() {
    let command = defaults::stated(RunArgs::command());
    for (option, value) in defaults::DEFAULTS {
        let argument =
            command.get_arguments().find(|argument| argument.get_long() == option.strip_prefix("--"));
        let help = argument.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
        assert!(help.ends_with(&format!(" [default: {value}]")), "{option} {value}: {help}");
        assert_eq!(help.matches("[default:").count(), 1, "{option}: {help}");
    }
}

#[test]
fn an_empty_command_line_is_a_run_without_an_application() {
    assert_eq!(run(&[]), RunArgs::default());
    assert_eq!(parse([]), Ok(Invocation::Run(Box::default())));
}

#[test]
fn a_variable_is_split_as_a_shell_would() {
    let args = parse_variable("X", r#"-w 3 -n 'two words' --log-file="a b" "#).expect("good");
    assert_eq!(
        (args.serving.workers.as_deref(), args.process.name.as_deref()),
        (Some("3"), Some("two words"))
    );
    assert_eq!(args.logging.error_logfile.as_deref(), Some("a b"));
}

#[test]
fn a_variable_has_no_comments() {
    let args = parse_variable("X", "-n #1 -e A=#b -w 4").expect("good");
    assert_eq!((args.process.name.as_deref(), args.serving.workers.as_deref()), (Some("#1"), Some("4")));
    assert_eq!(args.application.env, ["A=#b"]);
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    for (value, expected) in [
        ("--worker-class gevent", "X: unknown option '--worker-class'"),
        ("-n 'open", "X: a quote or a backslash has no end"),
        ("-w", "X: a value is required for '--workers <INT>' but none was supplied"),
        ("--help", "X: help and version are for the command line"),
    ] {
        assert_eq!(parse_variable("X", value).expect_err(value).to_string(), expected);
    }
}
