//! `mcsup migrate`: prints what is equal to a command line of gunicorn.

use std::ffi::OsString;

use super::reading::Reading;
use crate::args::migrate::MigrateArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::migrate::{self, CommandLine};

/// Translates the command line; returns a text for standard output. A configuration in Python is executed as at a start.
pub(crate) fn run(args: &MigrateArgs, argv: &[OsString]) -> Result<(Exit, String), Failure> {
    let variable = std::env::var("GUNICORN_CMD_ARGS").ok().filter(|value| !value.is_empty());
    let line = CommandLine::read(&args.words, variable)?;
    let conf = Reading::new(line.given.clone(), argv).without_variables().conf()?;
    let migration = migrate::migration(&line, conf.as_ref())?;
    let exit = if migration.is_partial { Exit::Usage } else { Exit::Done };
    Ok((exit, migration.text))
}
