//! A command line of gunicorn in the words of this command: an equal one, a settings file, and what changes.
//!
//! - `words`: takes the command line apart.
//! - `changes`: the differences that concern it.
//!
//! [`crate::table`] defines what happens to each setting.

mod changes;
#[cfg(test)]
mod complete_tests;
mod words;

use std::fmt::Write;

use crate::args::{self, Invocation, UsageError};
use crate::settings::{self, Conf, Settings};
use crate::table::{self, Given, Kind, Row, Served};
use words::Words;

/// The name of the settings file in the text.
const FILE: &str = "mcsup.toml";

/// A command line of gunicorn, translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Migration {
    /// For people: the command, the file, what changes.
    pub text: String,
    /// Whether a setting is refused, so that the command does not serve as gunicorn does.
    pub is_partial: bool,
}

/// The settings of the command line by their treatment.
#[derive(Debug, Default)]
struct Sorted {
    kept: Given,
    without_effect: Vec<String>,
    refused: Vec<String>,
}

/// A command line of gunicorn with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    words: Words,
    /// Those of the options, above those of `GUNICORN_CMD_ARGS`.
    pub given: Given,
}

impl CommandLine {
    /// Reads a command line. `variable` is `GUNICORN_CMD_ARGS` of this process, which one in front of the command
    /// replaces.
    ///
    /// # Errors
    /// The words are not a command line of gunicorn that serves.
    pub(crate) fn read(given: &[String], variable: Option<String>) -> Result<Self, UsageError> {
        let words = Words::of(given)?;
        let line = ["mcsup", "run"].into_iter().map(str::to_owned).chain(words.options.iter().cloned());
        let mut given = match args::parse(line.map(Into::into))? {
            Invocation::Run(given) => given,
            _ => return Err(UsageError::new("this command line of gunicorn serves no application")),
        };
        if let Some(value) = words.arguments.clone().or(variable) {
            give_below(&mut given, &args::parse_variable("GUNICORN_CMD_ARGS", &value, Served::Application)?);
        }
        Ok(Self { words, given })
    }
}

/// Translates a command line. `conf`: the configuration in Python that it reads, executed.
///
/// # Errors
/// It names no application, or the configuration has a value that no setting has.
pub(crate) fn migration(line: &CommandLine, conf: Option<&Conf>) -> Result<Migration, UsageError> {
    let CommandLine { words, given } = line;
    let conf = conf.map(settings::read_conf).transpose()?;
    let nothing = Given::none(Served::Application);
    let below = conf.as_ref().map_or(&nothing, |conf| &conf.given);
    let mut all = given.clone();
    give_below(&mut all, below);
    // A file of TOML, which gunicorn does not read, may name it too.
    let is_named = ["app", "paste"].iter().any(|name| all.has(name)) || given.has("config") && conf.is_none();
    if !is_named {
        return Err(UsageError::new("the command line of gunicorn names no application"));
    }
    let sorted = sort(given, below, |_| String::new());
    let mut text = format!("The command:\n\n    {}\n", command_line(words, &sorted.kept)?);
    let mut is_partial = !sorted.refused.is_empty();
    if !given.has("config") && conf.is_none() {
        let _ = write!(
            text,
            "\nThe same as a file for `mcsup -c {FILE}`:\n\n{}",
            indented(&settings_file(&sorted.kept))
        );
    }
    paragraph(&mut text, "Refused, and left out above:", &sorted.refused);
    paragraph(&mut text, "Without effect, and left out above:", &sorted.without_effect);
    if let Some(conf) = &conf {
        let of_file =
            sort(&without(&conf.given, given), given, |name| format!(" (from {})", conf.lines.place(name)));
        let name = conf.lines.name();
        let _ = write!(text, "\nThe settings file {name} stays; mcsup reads it too.\n");
        paragraph(&mut text, &format!("Refused in {name}:"), &of_file.refused);
        let without_effect = [of_file.without_effect, conf.warnings.clone()].concat();
        paragraph(&mut text, &format!("Without effect in {name}:"), &without_effect);
        is_partial |= !of_file.refused.is_empty();
    }
    paragraph(&mut text, "What changes:", &changes::of(&all, conf.is_some()));
    text += "\ndocs/FROM_GUNICORN.md has all differences.\n";
    Ok(Migration { text, is_partial })
}

/// Gives what a lower source gives for settings that are not given.
fn give_below(to: &mut Given, below: &Given) {
    let missing: Vec<_> = table::rows().filter(|row| below.has(row.name) && !to.has(row.name)).collect();
    missing.into_iter().for_each(|row| give(to, row, below));
}

/// Those settings of `given` that `above` does not give.
fn without(given: &Given, above: &Given) -> Given {
    let mut left = Given::none(Served::Application);
    let rows = table::rows().filter(|row| given.has(row.name) && !above.has(row.name));
    rows.for_each(|row| give(&mut left, row, given));
    left
}

/// Gives what another source gives for a setting.
fn give(to: &mut Given, row: &'static Row, from: &Given) {
    match from.texts(row.name) {
        [] => to.turn_on(row),
        texts => to.give(row, texts.to_vec()),
    }
}

/// Tries the settings `given` together, with those `beside` that they do not replace. `place` has the source of a
/// setting, for a message.
fn sort(given: &Given, beside: &Given, place: impl Fn(&str) -> String) -> Sorted {
    let plain = |name: &str, message: &str| message.replace(" (from the command line)", &place(name));
    let mut sorted = Sorted::default();
    let mut tried = given.clone();
    give_below(&mut tried, beside);
    let warnings = loop {
        let error = match warnings(&tried) {
            Ok(warnings) => break warnings,
            Err(error) => error,
        };
        let Some(row) = culprit(&tried, &error) else {
            sorted.refused.push(plain("", &error));
            break Vec::new();
        };
        if given.has(row.name) {
            sorted.refused.push(plain(row.name, &error));
        }
        tried = without_row(&tried, row);
    };
    for row in table::rows().filter(|row| given.has(row.name) && tried.has(row.name)) {
        match warnings.iter().find(|warning| is_about(warning, row)) {
            Some(warning) => sorted.without_effect.push(plain(row.name, warning)),
            // One that asks for what happens anyway is not an option of the help.
            None if !row.is_supported() => {}
            None => give(&mut sorted.kept, row, given),
        }
    }
    sorted
}

/// The warnings of settings, or the first error. No file is read.
fn warnings(given: &Given) -> Result<Vec<String>, String> {
    let read = table::row("config").map_or_else(|| given.clone(), |config| without_row(given, config));
    let settings = Settings::resolve(read, &|_| None, &|_| Ok(String::new()));
    settings.map(|settings| settings.warnings).map_err(|error| error.to_string())
}

/// The setting without which there is not this error: the one that it names, if leaving out others helps too.
fn culprit(given: &Given, error: &str) -> Option<&'static Row> {
    let helps = |row: &&'static Row| warnings(&without_row(given, row)).err().as_deref() != Some(error);
    table::rows().filter(|row| given.has(row.name)).filter(helps).min_by_key(|row| !is_about(error, row))
}

/// Whether a message begins with the name of the setting.
fn is_about(message: &str, row: &Row) -> bool {
    message.strip_prefix(row.name).is_some_and(|rest| rest.starts_with([' ', ':']))
}

fn without_row(given: &Given, row: &'static Row) -> Given {
    let mut alone = Given::none(Served::Application);
    give(&mut alone, row, given);
    without(given, &alone)
}

fn command_line(words: &Words, given: &Given) -> Result<String, UsageError> {
    let mut line: Vec<String> = words.variables.clone();
    line.extend(words.wrapper.iter().cloned());
    line.push("mcsup".to_owned());
    for row in table::rows().filter(|row| given.has(row.name) && row.name != "app") {
        let flag = format!("--{}", row.flag);
        match row.kind {
            Kind::Flag | Kind::Hook => line.push(flag),
            Kind::Value => line.extend(given.text(row.name).into_iter().flat_map(|text| option(&flag, text))),
            Kind::List => line.extend(given.texts(row.name).iter().flat_map(|text| option(&flag, text))),
        }
    }
    line.extend(given.text("app").map(str::to_owned));
    let quoted = line.iter().map(|word| words::quoted(word)).collect::<Option<Vec<_>>>();
    Ok(quoted.ok_or_else(|| UsageError::new("a word holds a null character"))?.join(" "))
}

/// An option with its value.
fn option(flag: &str, text: &str) -> Vec<String> {
    if text.starts_with('-') {
        vec![format!("{flag}={text}")]
    } else {
        vec![flag.to_owned(), text.to_owned()]
    }
}

fn settings_file(given: &Given) -> String {
    let mut file = String::new();
    for row in table::rows().filter(|row| given.has(row.name) && row.is_in_files()) {
        let value = match row.kind {
            Kind::Flag | Kind::Hook => "true".to_owned(),
            Kind::Value => given.text(row.name).map(value).unwrap_or_default(),
            Kind::List => {
                let texts: Vec<String> = given.texts(row.name).iter().map(|text| string(text)).collect();
                format!("[{}]", texts.join(", "))
            }
        };
        let _ = writeln!(file, "{} = {value}", row.name);
    }
    file
}

/// A value: a number stays one.
fn value(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        _ => string(text),
    }
}

/// A basic string of TOML: each string of JSON is one.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

fn paragraph(text: &mut String, heading: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = write!(text, "\n{heading}\n\n");
        lines.iter().for_each(|line| {
            let _ = writeln!(text, "- {line}");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcsup_py::conf::{Report, Source, Value, Variable};

    fn migrated(line: &str) -> Result<Migration, UsageError> {
        migration(&CommandLine::read(&shlex::split(line).unwrap(), None)?, None)
    }

    /// The migration of a command line beside a file in Python with these variables.
    fn beside(line: &str, variables: &[(&str, Value)]) -> Migration {
        let variable = |(name, value): &(&str, Value)| Variable {
            name: (*name).to_owned(),
            line: Some(3),
            value: value.clone(),
        };
        let variables = variables.iter().map(variable).collect();
        let source = Source::File("gunicorn.conf.py".into());
        let conf = Conf { source, report: Report { variables, others: Vec::new(), text: None } };
        migration(&CommandLine::read(&shlex::split(line).unwrap(), None).unwrap(), Some(&conf)).unwrap()
    }

    /// The command of a migration.
    fn command(line: &str) -> String {
        let text = migrated(line).unwrap().text;
        text.lines().nth(2).unwrap().trim().to_owned()
    }

    #[test]
    fn the_command_has_the_same_settings() {
        for (line, expected) in [
            ("gunicorn -w 4 -b :80 shop.wsgi", "mcsup --bind :80 --workers 4 shop.wsgi"),
            ("/srv/venv/bin/gunicorn app:app", "mcsup app:app"),
            ("python3 -m gunicorn -D --pid a.pid app:app", "mcsup --pid a.pid --daemon app:app"),
            ("A=1 PORT=80 exec gunicorn -e 'B=a b' app:app", "A=1 PORT=80 mcsup --env B='a b' app:app"),
            ("GUNICORN_CMD_ARGS='-w 2 -t 9' gunicorn -w 3 app:app", "mcsup --workers 3 --timeout 9 app:app"),
            ("gunicorn -k sync --worker-tmp-dir /dev/shm app:app", "mcsup --worker-class sync app:app"),
            (
                "gunicorn --keyfile b.key --certfile a.pem --ca-certs c.pem --cert-reqs 2 app:app",
                "mcsup --certfile a.pem --keyfile b.key --cert-reqs 2 --ca-certs c.pem app:app",
            ),
            (
                "gunicorn --certfile a.pem --ciphers ECDHE-RSA-AES128-GCM-SHA256 app:app",
                "mcsup --certfile a.pem --ciphers ECDHE-RSA-AES128-GCM-SHA256 app:app",
            ),
            ("gunicorn --paste app.ini#web", "mcsup --paste 'app.ini#web'"),
            ("poetry run gunicorn -w 2 app:app", "poetry run mcsup --workers 2 app:app"),
            (
                "A=1 newrelic-admin run-program gunicorn app:app",
                "A=1 newrelic-admin run-program mcsup app:app",
            ),
            ("env -u B uv run python -u -m gunicorn app:app", "env -u B uv run mcsup app:app"),
            ("'gunicorn -w 4 app:app'", "mcsup --workers 4 app:app"),
        ] {
            assert_eq!(command(line), expected, "{line}");
        }
    }

    #[test]
    fn the_printed_command_and_file_are_read_with_the_same_values() {
        let line =
            "gunicorn -w 4 -b :80 -b unix:a.sock -t 9 --preload -n 'a \"b' -e A=1 --umask 007 shop.wsgi:app";
        let words = shlex::split(&command(line)).unwrap();
        let Ok(Invocation::Run(given)) = args::parse(words.into_iter().map(Into::into)) else { panic!() };
        let by_command = Settings::resolve(given, &|_| None, &|_| unreachable!()).unwrap();
        let text = migrated(line).unwrap().text;
        let file: String = text.lines().filter(|line| line.contains(" = ")).collect::<Vec<_>>().join("\n");
        let Ok(Invocation::Run(given)) = args::parse(["mcsup", "-c", "m.toml"].map(Into::into)) else {
            panic!()
        };
        let by_file = Settings::resolve(given, &|_| None, &|_| Ok(file.clone())).unwrap();
        assert_eq!(by_command.binds.value, by_file.binds.value);
        assert_eq!(by_command.process.env.value, by_file.process.env.value);
        let of = |settings: &Settings| {
            let process = &settings.process;
            let name = process.name.as_ref().map(|name| name.value.clone());
            let (umask, app) =
                (process.umask.as_ref().map(|umask| umask.value), settings.target().map(str::to_owned));
            (
                settings.workers.value,
                settings.pool.timeout.value,
                settings.mold.preload.value,
                name,
                umask,
                app,
            )
        };
        assert_eq!(of(&by_command), of(&by_file));
    }

    #[test]
    fn a_setting_without_an_effect_and_a_refused_one_are_named() {
        let found = migrated("gunicorn --worker-tmp-dir /dev/shm app:app").unwrap();
        assert!(found.text.contains("\n- worker_tmp_dir has no effect: "), "{}", found.text);
        assert!(!found.is_partial);
        let found = migrated("gunicorn -k gevent --strip-header-spaces -m 22 app:app").unwrap();
        assert!(found.is_partial);
        for part in
            ["\n- worker_class = \"gevent\": ", "\n- strip_header_spaces: ", "\n- umask = \"22\": octal or"]
        {
            assert!(found.text.contains(part), "{part} is not in {}", found.text);
        }
        assert!(!found.text.contains("--umask 22"), "{}", found.text);
    }

    #[test]
    fn the_answer_for_asgi_workers_has_the_other_words() {
        let found =
            migrated("gunicorn -w 4 -b 0.0.0.0:4000 -k uvicorn.workers.UvicornWorker main:app").unwrap();
        let expected = "mcsup exec -w 4 -b 0.0.0.0:4000 --ready tcp -- uvicorn --fd 3 main:app";
        assert!(found.text.contains(expected), "{}", found.text);
        let found = migrated("gunicorn -w many -k gthread app:app").unwrap().text;
        assert!(!found.contains("- worker_class"), "{found}");
    }

    #[test]
    fn words_that_are_no_server_of_gunicorn_are_an_error() {
        for (line, expected) in [
            ("uwsgi --http :80", "expected `gunicorn OPTIONS APP`"),
            ("gunicorn", "names no application"),
            ("gunicorn --version", "serves no application"),
            ("gunicorn --wrokers 2 app:app", "is '--workers' meant?"),
        ] {
            let error = migrated(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_of_gunicorn_stays_the_file() {
        let found = migrated("gunicorn -c conf.toml").unwrap().text;
        assert!(found.contains("mcsup --config conf.toml\n") && !found.contains(FILE), "{found}");
        let found = beside("gunicorn", &[("wsgi_app", Value::Text("app:app".to_owned()))]).text;
        assert!(found.contains("    mcsup\n") && !found.contains(FILE), "{found}");
        assert!(found.contains("The settings file gunicorn.conf.py stays"), "{found}");
    }

    #[test]
    fn settings_of_a_file_are_tried_and_change_what_is_said() {
        let text = |text: &str| Value::Text(text.to_owned());
        let found = beside("gunicorn app:app", &[("worker_class", text("gevent"))]);
        assert!(found.is_partial);
        let expected =
            "\nRefused in gunicorn.conf.py:\n\n- worker_class = \"gevent\" (from gunicorn.conf.py:3): ";
        assert!(found.text.contains(expected), "{}", found.text);
        // The command line is above the file.
        let found = beside("gunicorn -k sync app:app", &[("worker_class", text("gevent"))]);
        assert!(!found.is_partial, "{}", found.text);
        let threads =
            [("worker_class", text("gthread")), ("threads", Value::Int(8)), ("bind", text("unix:a.sock"))];
        let found = beside("gunicorn app:app", &threads);
        assert!(!found.text.contains("gunicorn's sync workers"), "{}", found.text);
        assert!(found.text.contains("The Unix socket has mode 0660") && !found.is_partial, "{}", found.text);
    }

    #[test]
    fn the_variable_of_this_process_counts_as_one_in_front_of_the_command() {
        let read = |line: &str| {
            let line = CommandLine::read(&shlex::split(line).unwrap(), Some("-k gevent".to_owned())).unwrap();
            migration(&line, None).unwrap().is_partial
        };
        assert!(read("gunicorn app:app"));
        assert!(!read("gunicorn -k sync app:app"));
        assert!(!read("GUNICORN_CMD_ARGS=-w2 gunicorn app:app"));
    }
}
