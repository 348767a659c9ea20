//! `mcsup migrate`: prints what is equal to a command line of gunicorn.

use std::path::Path;

use crate::args::migrate::MigrateArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::migrate;

/// The settings file that gunicorn reads without an option.
const CONF: &str = "gunicorn.conf.py";

/// Translates the command line; returns a text for standard output.
pub(crate) fn run(args: &MigrateArgs) -> Result<(Exit, String), Failure> {
    let migration = migrate::migration(&args.words, Path::new(CONF).is_file())?;
    let exit = if migration.is_partial { Exit::Usage } else { Exit::Done };
    Ok((exit, migration.text))
}
