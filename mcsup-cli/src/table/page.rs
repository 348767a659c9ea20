//! `docs/SETTINGS.md`: the settings as a page.

use std::fmt::Write;

use super::{Kind, Row, Scope, State, sections};

/// The page's head, above the first table.
const HEAD: &str = "\
# Settings

<!-- Written from the table of settings by `MCSUP_WRITE=1 cargo test -p mcsup-cli the_page_of_settings`. -->

Each setting can stand on the command line, in `MCSUP_CMD_ARGS` and `GUNICORN_CMD_ARGS`, and as a key in the
settings file of `--config`. Those of gunicorn can be variables of a [gunicorn.conf.py](CONF.md), by gunicorn's
names. The first of these sources that names a setting sets it: the command line,
`MCSUP_CMD_ARGS`, `GUNICORN_CMD_ARGS`, the settings file, the variable in the table, the default. A repeatable
setting is taken from one source alone. A long option may be shortened to a beginning that no other option
has. A key may be any of the names in the first column, with `-` or `_`. Everything here is there since
version 0.1.0, unless it says otherwise.

A setting of a time is in seconds, with or without a fraction; more than a year counts as a year. (`run`) marks settings that `mcsup exec` refuses, since
they have no meaning for a program.
";

/// The part about gunicorn's settings, above its table.
const GUNICORN: &str = "\
## Settings of gunicorn without a counterpart

An ignored setting has no effect, and a warning in the log says so. A refused one is an error, exit code 2. Values that
ask for what happens anyway are accepted.
";

/// Each setting of gunicorn, with its name and state here: a part of `docs/FROM_GUNICORN.md`.
pub(super) fn of_gunicorn() -> String {
    let mut rows: Vec<&Row> = super::rows().filter(|row| !row.gunicorn.is_empty()).collect();
    rows.sort_by_key(|row| row.gunicorn);
    let mut text = "| gunicorn | mcsup | state | |\n|---|---|---|---|\n".to_owned();
    for row in rows {
        let own = match (row.is_supported(), row.kind, row.flag) {
            (false, ..) => String::new(),
            (true, Kind::Hook, _) => "the same function".to_owned(),
            (true, _, "") => code(row.name),
            (true, _, flag) => code(&format!("--{flag}")),
        };
        let (state, note) = match row.state {
            State::Supported => (
                "supported",
                row.default.map_or_else(String::new, |default| format!("default {}", code(default))),
            ),
            State::Ignored(reason) => ("ignored, with a warning", cell(reason)),
            State::Refused(reason) if row.harmless.is_empty() => ("refused", cell(reason)),
            State::Refused(reason) => ("refused", format!("{}; accepted: {}", cell(reason), accepted(row))),
        };
        let _ = writeln!(text, "| `{}` | {own} | {state} | {note} |", row.gunicorn);
    }
    text
}

/// The whole page.
pub(super) fn settings() -> String {
    let mut page = HEAD.to_owned();
    for section in sections() {
        let rows: Vec<&Row> = section.rows.iter().filter(|row| row.is_supported()).collect();
        if rows.is_empty() {
            continue;
        }
        let heading = if section.heading.is_empty() { "General" } else { section.heading };
        let _ = write!(page, "\n## {heading}\n\n");
        if section.rows.iter().all(|row| row.scope == Scope::Program) {
            page += "Only on the command line of `mcsup exec`.\n\n";
        }
        page += "| setting | value | default | meaning |\n|---|---|---|---|\n";
        rows.iter().for_each(|row| page += &line(row));
    }
    let _ = write!(page, "\n{GUNICORN}\n| setting | option | state | reason |\n|---|---|---|---|\n");
    super::rows().for_each(|row| page += &without_counterpart(row));
    page
}

/// A row of a table.
fn line(row: &Row) -> String {
    let mut names = Vec::new();
    names.extend(row.short.map(|short| format!("`-{short}`")));
    names.extend(row.flags().map(|flag| format!("`--{flag}`")));
    let of_flags: Vec<String> = row.flags().map(super::as_key).collect();
    let mut keys: Vec<String> = row.keys().filter(|key| !of_flags.contains(key)).collect();
    keys.dedup();
    names.extend(keys.iter().map(|key| format!("`{key}`")));
    let value = match row.kind {
        Kind::Flag | Kind::Hook => String::new(),
        Kind::Value => code(row.value_name),
        Kind::List => format!("{}, repeatable", code(row.value_name)),
    };
    let default = row.default.map_or_else(|| row.default_in_words.to_owned(), code);
    let mut meaning = cell(row.help);
    if let Some(variable) = row.variable {
        let _ = write!(meaning, " (variable `{variable}`)");
    }
    if row.since != "0.1.0" {
        let _ = write!(meaning, " (since {})", row.since);
    }
    if row.scope == Scope::Application && row.name != "app" {
        meaning += " (`run`)";
    }
    format!("| {} | {value} | {} | {meaning} |\n", names.join(" "), cell(&default))
}

/// A row of the table of gunicorn's settings; empty for a supported one.
fn without_counterpart(row: &Row) -> String {
    let (state, reason) = match row.state {
        State::Supported => return String::new(),
        State::Ignored(reason) => ("ignored", reason),
        State::Refused(reason) => ("refused", reason),
    };
    let option = if row.flag.is_empty() { String::new() } else { format!("`--{}`", row.flag) };
    let accepted = accepted(row);
    let state = if accepted.is_empty() { state.to_owned() } else { format!("{state}, but {accepted}") };
    format!("| `{}` | {option} | {state} | {} |\n", row.gunicorn, cell(reason))
}

/// The values of a row that are accepted although it is ignored or refused.
fn accepted(row: &Row) -> String {
    let named = row.harmless.iter().filter(|value| !value.is_empty());
    named.copied().map(code).collect::<Vec<_>>().join(", ")
}

/// Text as code. A `|` would end the cell.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", cell(text)) }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
