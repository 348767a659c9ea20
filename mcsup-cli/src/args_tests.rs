use std::time::Duration;

use super::operator::ServerArgs;
use super::*;
use crate::table;

fn read(line: &[&str]) -> Result<Invocation, UsageError> {
    parse(std::iter::once(&"mcsup").chain(line).map(OsString::from))
}

fn run(line: &[&str]) -> Given {
    match read(line) {
        Ok(Invocation::Run(given)) => given,
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
        let given = run(line);
        assert_eq!((given.text("app"), given.text("workers")), (Some("server:app"), Some("2")), "{line:?}");
    }
}

#[test]
fn a_module_named_like_a_subcommand_is_reached_by_run() {
    for name in SUBCOMMANDS {
        assert_eq!(run(&["run", name]).text("app"), Some(name));
        assert!(refusal(&["-w", "2", name]).contains(&format!("mcsup run {name}")), "{name}");
    }
    assert_eq!(run(&["stop:app"]).text("app"), Some("stop:app"));
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
    assert_eq!(run(&["check", "-w", "2", "a:b"]), run(&["-w", "2", "a:b", "--check-config"]));
}

/// The values of settings by name, as they are written; `on` is a flag.
fn given(line: &[&str]) -> Vec<(&'static str, String)> {
    let joined = |texts: &[String]| if texts.is_empty() { "on".to_owned() } else { texts.join(" ") };
    run(line).all().map(|(name, texts)| (name, joined(texts))).collect()
}

#[test]
fn every_flag_of_gunicorn_that_we_have_is_spelled_as_there() {
    for (line, name, value) in [
        ("-b :1 --bind :2", "bind", ":1 :2"),
        ("--chdir d", "chdir", "d"),
        ("--pythonpath a,b", "pythonpath", "a,b"),
        ("-e A=1 --env B=2", "env", "A=1 B=2"),
        ("--threads 1", "threads", "1"),
        ("-t 3", "timeout", "3"),
        ("--graceful-timeout 4", "graceful_timeout", "4"),
        ("--keep-alive 5", "keep_alive", "5"),
        ("--backlog 6", "backlog", "6"),
        ("--limit-request-line 7", "limit_request_line", "7"),
        ("--limit-request-fields 8", "limit_request_fields", "8"),
        ("--limit-request-field_size 9", "limit_request_field_size", "9"),
        ("--limit-request-field-size 9", "limit_request_field_size", "9"),
        ("-p p", "pid", "p"),
        ("-D", "daemon", "on"),
        ("-u u", "user", "u"),
        ("-g g", "group", "g"),
        ("-m 007", "umask", "007"),
        ("--access-logfile -", "access_logfile", "-"),
        ("--access-logformat %(h)s", "access_logformat", "%(h)s"),
        ("--log-file -", "error_logfile", "-"),
        ("--error-logfile f", "error_logfile", "f"),
        ("--log-level debug", "log_level", "debug"),
        ("-n n", "name", "n"),
        ("--check-config", "check_config", "on"),
        ("-c c", "config", "c"),
        ("--max-requests 10", "max_requests", "10"),
        ("--max-requests-jitter 11", "max_requests_jitter", "11"),
        ("--preload", "preload", "on"),
        ("--reload", "reload", "on"),
        ("--reload-engine poll", "reload_engine", "poll"),
        ("--reload-extra-file x --reload-extra-file y", "reload_extra_file", "x y"),
        ("--reuse-port", "reuse_port", "on"),
        ("--control-socket s", "control_socket", "s"),
        ("--no-control-socket", "no_control_socket", "on"),
        ("app", "app", "app"),
    ] {
        assert_eq!(given(&line.split(' ').collect::<Vec<_>>()), [(name, value.to_owned())], "{line}");
    }
}

#[test]
fn of_a_flag_given_twice_the_last_counts() {
    assert_eq!(run(&["-w", "1", "-w", "2", "-D", "-D"]).text("workers"), Some("2"));
}

#[test]
fn a_negative_number_reaches_the_range_check() {
    assert_eq!(run(&["-t", "-1"]).text("timeout"), Some("-1"));
}

#[test]
fn a_mistake_is_one_line_that_names_it() {
    for (line, expected) in [
        (&["--wrokers", "2"][..], "unknown option '--wrokers'; is '--workers' meant?"),
        (&["-x", "gevent"], "unknown option '-x'"),
        (&["--work-class", "sync", "a:b"], "unknown option '--work-class'; is '--worker-class' meant?"),
        (&["--refork-after", "5", "a:b"], "unknown option '--refork-after'"),
        (&["a:b", "c:d"], "'c:d' is one word too many"),
        (&["-w"], "a value is required for '--workers <INT>' but none was supplied"),
        (&["--daemon=yes"], "unexpected value 'yes' for '--daemon' found; no more were expected"),
        (&["scale", "-p", "f"], "the following required arguments were not provided: <N>"),
        (&["scale", "0", "-p", "f"], "invalid value '0' for '<N>': not from 1 to 512"),
        (&["recycle", "x", "-p", "f"], "invalid value 'x' for '<SLOT>': not a whole number"),
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
    let foot = help.rsplit("MCSUP_CMD_ARGS").next().unwrap_or_default();
    for variable in crate::table::rows().filter_map(|row| row.variable) {
        assert!(foot.contains(variable), "no {variable} in:\n{foot}");
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
    let command = command(Extent::Parsed).mut_subcommand("run", |run| run.term_width(80));
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
    let found: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with(char::is_uppercase))
        .filter_map(|line| line.strip_suffix(':'))
        .collect();
    let is_shown =
        |row: &table::Row| row.is_supported() && row.is_on_command_lines() && Served::Application.has(row);
    let sections = table::sections().iter().filter(|section| section.rows.iter().any(is_shown));
    let headings = sections.map(|section| section.heading).filter(|heading| !heading.is_empty());
    assert_eq!(found, ["Arguments", "Options"].into_iter().chain(headings).collect::<Vec<_>>());
}

#[test]
fn the_help_of_each_option_states_its_default_once() {
    let command = super::run("run", Extent::Parsed);
    for row in table::rows().filter(|row| row.default.is_some()) {
        let argument = command.get_arguments().find(|argument| argument.get_id() == row.name);
        let help = argument.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
        assert_eq!(help.matches("[default:").count(), 1, "{}: {help}", row.name);
    }
}

#[test]
fn a_setting_of_gunicorn_without_a_counterpart_is_parsed_and_not_in_the_help() {
    assert_eq!(given(&["--dirty-app", "x"]), [("dirty_apps", "x".to_owned())]);
    assert_eq!(given(&["--proxy-protocol"]), [("proxy_protocol", "auto".to_owned())]);
    let help = shown(&["--help"]);
    for option in ["--spew", "--dirty-app", "Gunicorn:"] {
        assert!(!help.contains(option), "{option}");
    }
}

#[test]
fn an_empty_command_line_is_a_run_without_an_application() {
    assert_eq!(run(&[]), Given::default());
    assert_eq!(parse([]), Ok(Invocation::Run(Given::default())));
}

fn variable(value: &str) -> Result<Given, UsageError> {
    parse_variable("X", value, Served::Application)
}

#[test]
fn a_variable_is_split_as_a_shell_would() {
    let given = variable(r#"-w 3 -n 'two words' --log-file="a b" "#).expect("good");
    assert_eq!((given.text("workers"), given.text("name")), (Some("3"), Some("two words")));
    assert_eq!(given.text("error_logfile"), Some("a b"));
}

#[test]
fn a_variable_has_no_comments() {
    let given = variable("-n #1 -e A=#b -w 4").expect("good");
    assert_eq!((given.text("name"), given.text("workers")), (Some("#1"), Some("4")));
    assert_eq!(given.texts("env"), ["A=#b"]);
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    for (value, expected) in [
        ("--worker-klass gevent", "X: unknown option '--worker-klass'; is '--worker-class' meant?"),
        ("-n 'open", "X: a quote or a backslash has no end"),
        ("-w", "X: a value is required for '--workers <INT>' but none was supplied"),
        ("--help", "X: help and version are for the command line"),
    ] {
        assert_eq!(variable(value).expect_err(value).to_string(), expected);
    }
}

#[test]
fn an_option_of_python_applications_is_refused_for_a_program_wherever_it_stands() {
    let answer = parse_variable("X", "-w 2 --threads 3", Served::Program).expect_err("refused").to_string();
    assert_eq!(answer, "X: --threads has no meaning for a program");
    let answer = refusal(&["exec", "--reload", "x"]);
    assert!(answer.contains("`mcsup reload`") && answer.ends_with("(try 'mcsup exec --help')"), "{answer}");
    let answer = parse_variable("X", "a:b", Served::Program).expect_err("refused").to_string();
    assert_eq!(answer, "X: an application has no meaning for a program");
}

#[test]
fn an_option_of_service_or_doctor_behind_those_of_the_server_is_named() {
    for (subcommand, words, option) in [
        ("service", &["a:b", "--service-name", "x"][..], "--service-name"),
        ("service", &["exec", "--systemd=252", "x"], "--systemd=252"),
        ("doctor", &["-w", "2", "--unit", "x"], "--unit"),
    ] {
        let words: Vec<String> = words.iter().copied().map(str::to_owned).collect();
        let error =
            parse(std::iter::once(&"mcsup".to_owned()).chain(&words).map(OsString::from)).expect_err("late");
        let answer = late_option(subcommand, &words, error).to_string();
        let expected = format!(
            "{option} is an option of mcsup {subcommand}: it stands before the options of the server (try 'mcsup \
             {subcommand} --help')"
        );
        assert_eq!(answer, expected);
    }
    let words = ["--wrokers".to_owned()];
    let other = late_option("service", &words, UsageError::new("its own"));
    assert_eq!(other.to_string(), "its own");
}

#[test]
fn completions_and_man_pages_have_the_options_that_are_supported() {
    for shell in ["bash", "zsh", "fish"] {
        let script = shown(&["completions", shell]);
        for word in ["graceful-timeout", "reopen-logs", "stop-signal"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        for word in ["critical", "gthread", "inotify", "dangerous"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        assert!(!script.contains("casefold"), "{shell}");
    }
    let page = shown(&["man"]);
    assert!(page.contains(".TH mcsup 1") && page.contains("graceful\\-timeout"), "{page}");
    assert!(shown(&["man", "exec"]).contains("stop\\-signal"));
    assert!(refusal(&["man", "exce"]).starts_with("unknown command 'exce'; is 'exec' meant?"));
}

#[test]
fn a_long_option_may_be_shortened_to_a_beginning_that_no_other_has() {
    assert_eq!(given(&["--error-log", "f"]), [("error_logfile", "f".to_owned())]);
    assert_eq!(given(&["--graceful", "3", "a:b"])[1], ("graceful_timeout", "3".to_owned()));
    assert!(refusal(&["--worker", "2"]).starts_with("unknown option '--worker'; is '--workers' meant?"));
    assert_eq!(variable("--keep 3").expect("good").text("keep_alive"), Some("3"));
}

#[test]
fn an_unknown_command_is_answered_with_the_nearest_or_with_those_that_there_are() {
    for (line, expected) in [
        (&["help", "relaod"][..], "unknown command 'relaod'; is 'reload' meant? (try 'mcsup --help')"),
        (&["help", "nonsense"], "unknown command 'nonsense' (try 'mcsup --help')"),
        (
            &["service", "systmd"],
            "unknown command 'systmd'; is 'systemd' meant? (try 'mcsup service --help')",
        ),
        (
            &["service", "a:b"],
            "unknown command 'a:b'; there are systemd, launchd, docker, kubernetes, install, uninstall (try 'mcsup \
             service --help')",
        ),
    ] {
        assert_eq!(refusal(line), expected);
    }
}
