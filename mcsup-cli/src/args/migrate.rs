//! The arguments of `mcsup migrate`.

use clap::Args;

/// Print the command line and the settings file that are equal to a command line of gunicorn, and what changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct MigrateArgs {
    /// The command line: `gunicorn OPTIONS APP` or `python -m gunicorn OPTIONS APP`, with variables as NAME=VALUE in
    /// front of it
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
