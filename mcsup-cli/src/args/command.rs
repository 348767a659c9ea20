//! The options of `mcsup run`, `check` and `exec` for clap, made from the table of settings.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use crate::table::{self, Given, Kind, Row, Served};

/// The columns of a wide terminal: a longer line is hard to read.
const WIDEST: usize = 110;

/// The options that a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those that are parsed. An option without an effect or a meaning is one of them: its error says so.
    Parsed,
    /// Those that the help shows.
    Shown,
}

/// Adds the settings of a pool to a command.
pub(super) fn with_settings(command: Command, served: Served, extent: Extent) -> Command {
    let command = command.args_override_self(true).allow_negative_numbers(true).max_term_width(WIDEST);
    // As with gunicorn, a long option may be shortened to a beginning that no other has.
    let command = command.infer_long_args(served == Served::Application);
    let rows =
        table::sections().iter().flat_map(|section| section.rows.iter().map(|row| (section.heading, row)));
    let rows = rows.filter(|(_, row)| match extent {
        Extent::Parsed => is_parsed(row, served),
        Extent::Shown => is_parsed(row, served) && is_shown(row, served),
    });
    rows.fold(command, |command, (heading, row)| command.arg(argument(row, heading, (served, extent))))
}

/// Whether the command line of `mcsup run` (or `exec`) parses an option.
fn is_parsed(row: &Row, served: Served) -> bool {
    let is_of_run = row.is_on_command_lines() && Served::Application.has(row);
    match served {
        Served::Application => is_of_run,
        Served::Program => served.has(row) && row.is_on_command_lines() || is_of_run && row.name != "app",
    }
}

fn is_shown(row: &Row, served: Served) -> bool {
    row.is_supported() && served.has(row)
}

fn argument(row: &'static Row, heading: &'static str, (served, extent): (Served, Extent)) -> Arg {
    let mut argument = Arg::new(row.name).help(row.full_help());
    if !row.flag.is_empty() {
        argument = argument.long(row.flag).visible_aliases(row.aliases.iter().copied());
    }
    if let Some(short) = row.short {
        argument = argument.short(short);
    }
    if !heading.is_empty() {
        argument = argument.help_heading(heading);
    }
    argument = argument.hide(!is_shown(row, served)).value_hint(hint(row));
    let (action, has_value) = match row.kind {
        Kind::Flag | Kind::Hook => (ArgAction::SetTrue, false),
        Kind::Value => (ArgAction::Set, true),
        Kind::List => (ArgAction::Append, true),
    };
    argument = argument.action(action);
    if has_value {
        argument = argument.value_name(row.value_name).value_parser(value_parser!(String));
    }
    // A wrong word is refused by the settings, which name its source.
    if extent == Extent::Shown && !row.words.is_empty() {
        argument = argument.value_parser(PossibleValuesParser::new(row.words)).hide_possible_values(true);
    }
    match row.bare {
        Some(bare) => argument.num_args(0..=1).default_missing_value(bare),
        None => argument,
    }
}

/// What a shell completes a value with.
fn hint(row: &Row) -> ValueHint {
    match row.value_name {
        "FILE" | "PATH" => ValueHint::FilePath,
        "DIR" | "DIRS" => ValueHint::DirPath,
        "USER" => ValueHint::Username,
        _ => ValueHint::Unknown,
    }
}

/// The program of `mcsup exec` and its arguments.
pub(super) fn program() -> Arg {
    Arg::new("command")
        .value_name("PROGRAM")
        .help("The program and its arguments")
        .value_hint(ValueHint::CommandWithArguments)
        .action(ArgAction::Append)
        .value_parser(value_parser!(OsString))
        .required(true)
        .trailing_var_arg(true)
        .num_args(1..)
}

/// The settings that a command line gives.
pub(super) fn given(matches: &ArgMatches, served: Served) -> Given {
    let mut given = Given::none(served);
    let is_written =
        |row: &&Row| matches.value_source(row.name) == Some(clap::parser::ValueSource::CommandLine);
    for row in table::rows().filter(|row| is_parsed(row, served)).filter(is_written) {
        match row.kind {
            Kind::Flag | Kind::Hook => given.turn_on(row),
            Kind::Value | Kind::List => {
                let texts = matches.get_many::<String>(row.name).into_iter().flatten();
                given.give(row, texts.cloned().collect());
            }
        }
    }
    given
}

/// The first setting in `given` that has no meaning for what is served.
pub(crate) fn foreign(given: &Given) -> Option<&'static Row> {
    table::rows().find(|row| given.has(row.name) && !given.served.has(row))
}
