//! What is made from the table for other programs: shell completions and man pages.

use clap::{Args, Command, ValueEnum};

use super::command::{self, Extent};
use super::{UsageError, words};
use crate::table::Served;

/// Print the script that completes the words of a command line in a shell.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// A shell whose completions can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// For ~/.local/share/bash-completion/completions/mcsup
    Bash,
    /// For a file _mcsup in a folder of $fpath
    Zsh,
    /// For ~/.config/fish/completions/mcsup.fish
    Fish,
}

/// Print a man page, in the format of man(7).
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ManArgs {
    /// The subcommand whose page it is [default: the page of mcsup]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

/// The script of a shell.
pub(super) fn completions(whole: Command, args: &CompletionsArgs) -> String {
    // `mcsup OPTIONS APP` has the options of `run`.
    let mut whole = command::with_settings(whole, Served::Application, Extent::Shown);
    let mut script = Vec::new();
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut whole, "mcsup", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// A man page.
pub(super) fn man(mut whole: Command, args: &ManArgs) -> Result<String, UsageError> {
    let name = args.command.as_deref().unwrap_or("run");
    whole.build();
    let Some(page) = whole.find_subcommand(name).cloned() else {
        let near = words::meant(name).map(|near| format!("; is '{near}' meant?")).unwrap_or_default();
        return Err(UsageError::with_hint(format!("unknown command '{name}'{near}")));
    };
    let title = if args.command.is_none() { "mcsup".to_owned() } else { format!("mcsup-{name}") };
    let mut text = Vec::new();
    let page = page.display_name(title);
    clap_mangen::Man::new(page)
        .source(concat!("mcsup ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)
        .map_err(|error| UsageError::new(format!("the page cannot be made: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
