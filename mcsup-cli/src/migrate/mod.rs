//! A command line of gunicorn in the words of this command: an equal one, a settings file, and what changes.
//!
//! - `words`: takes the command line apart.
//! - `changes`: the differences that concern it.
//!
//! [`crate::table`] defines what happens to each setting.

mod changes;
mod words;

use std::fmt::Write;

use crate::args::{self, Invocation, UsageError};
use crate::settings::Settings;
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

/// Translates a command line. `has_conf`: its directory has a `gunicorn.conf.py`.
///
/// # Errors
/// The words are not a command line of gunicorn that serves an application.
pub(crate) fn migration(given: &[String], has_conf: bool) -> Result<Migration, UsageError> {
    let words = Words::of(given)?;
    let given = merged(&words)?;
    let conf = given.text("config").map(str::to_owned);
    let has_file = conf.is_none() && !has_conf;
    let sorted = sort(&given);
    let mut text = format!("The command:\n\n    {}\n", command_line(&words, &sorted.kept)?);
    if has_file {
        let _ = write!(
            text,
            "\nThe same as a file for `mcsup -c {FILE}`:\n\n{}",
            indented(&settings_file(&sorted.kept))
        );
    }
    paragraph(&mut text, "Refused, and left out above:", &sorted.refused);
    paragraph(&mut text, "Without effect, and left out above:", &sorted.without_effect);
    paragraph(&mut text, "What changes:", &changes::of(&given, conf.is_some() || has_conf));
    text += "\ndocs/FROM_GUNICORN.md has all differences.\n";
    Ok(Migration { text, is_partial: !sorted.refused.is_empty() })
}

/// The settings of the command line, above those of `GUNICORN_CMD_ARGS` in front of it.
fn merged(words: &Words) -> Result<Given, UsageError> {
    let line = ["mcsup", "run"].into_iter().map(str::to_owned).chain(words.options.iter().cloned());
    let mut given = match args::parse(line.map(Into::into))? {
        Invocation::Run(given) => given,
        _ => return Err(UsageError::new("this command line of gunicorn serves no application")),
    };
    if let Some(value) = &words.arguments {
        let below = args::parse_variable("GUNICORN_CMD_ARGS", value, Served::Application)?;
        for row in table::rows().filter(|row| below.has(row.name)) {
            if !given.has(row.name) {
                give(&mut given, row, &below);
            }
        }
    }
    let is_named = ["app", "paste", "config"].iter().any(|name| given.has(name));
    if is_named {
        Ok(given)
    } else {
        Err(UsageError::new("the command line of gunicorn names no application"))
    }
}

/// Gives what another source gives for a setting.
fn give(to: &mut Given, row: &'static Row, from: &Given) {
    match row.kind {
        Kind::Flag | Kind::Hook => to.turn_on(row),
        Kind::Value | Kind::List => to.give(row, from.texts(row.name).to_vec()),
    }
}

/// The settings of TLS, which are refused without each other.
const OF_TLS: [&str; 4] = ["certfile", "keyfile", "cert_reqs", "ca_certs"];

/// Tries each setting alone, or with those that it needs.
fn sort(given: &Given) -> Sorted {
    let mut sorted = Sorted::default();
    for row in table::rows().filter(|row| given.has(row.name)) {
        let mut alone = Given::none(Served::Application);
        give(&mut alone, row, given);
        if OF_TLS.contains(&row.name) {
            for row in table::rows().filter(|row| OF_TLS.contains(&row.name)) {
                give(&mut alone, row, given);
            }
        }
        // The file itself is not read here.
        let tried = match row.name {
            "config" => Ok(Vec::new()),
            _ => Settings::resolve(alone, &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into()))
                .map(|settings| settings.warnings),
        };
        match tried {
            Err(error) => sorted.refused.push(plain(&error.to_string())),
            Ok(warnings) if !warnings.is_empty() => {
                sorted.without_effect.extend(warnings.iter().map(|warning| plain(warning)));
            }
            // One that asks for what happens anyway is not an option of the help.
            Ok(_) if !row.is_supported() => {}
            Ok(_) => give(&mut sorted.kept, row, given),
        }
    }
    sorted
}

/// A message about a setting, which has one source here.
fn plain(message: &str) -> String {
    message.replace(" (from the command line)", "")
}

fn command_line(words: &Words, given: &Given) -> Result<String, UsageError> {
    let mut line: Vec<String> = words.variables.clone();
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

    fn migrated(line: &str) -> Result<Migration, UsageError> {
        migration(&shlex::split(line).unwrap(), false)
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
            ("gunicorn --paste app.ini#web", "mcsup --paste 'app.ini#web'"),
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
        let found = migrated("gunicorn -c conf.py app:app").unwrap().text;
        assert!(found.contains("mcsup --config conf.py app:app\n") && !found.contains(FILE), "{found}");
        let found = migration(&["gunicorn".to_owned(), "app:app".to_owned()], true).unwrap().text;
        assert!(!found.contains(FILE), "{found}");
    }
}
