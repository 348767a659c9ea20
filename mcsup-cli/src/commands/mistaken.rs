//! A first word that is a mistyped subcommand, and not the module of an application.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::args::words;
use crate::failure::Failure;
use crate::settings::Settings;

/// Refuses `mcsup relaod`, unless there is a module of that name.
pub(crate) fn refuse(argv: &[OsString], settings: &Settings) -> Result<(), Failure> {
    let first = argv.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let is_app = |word| settings.app.as_ref().is_some_and(|app| app.value == word);
    match words::meant(first) {
        Some(subcommand) if is_app(first) && !is_module(first, settings) => Err(Failure::usage(format!(
            "unknown command '{first}'; is '{subcommand}' meant? A module of that name is served by 'mcsup run \
                 {first}'"
        ))),
        _ => Ok(()),
    }
}

/// Whether one of the folders that Python searches first has the module.
fn is_module(name: &str, settings: &Settings) -> bool {
    let base = settings.process.chdir.as_ref().map_or_else(|| PathBuf::from("."), |path| path.value.clone());
    let further = settings.python_path.iter().flat_map(|path| &path.value).map(PathBuf::from);
    let variable = std::env::var_os("PYTHONPATH").unwrap_or_default();
    // The directory of the start is searched behind that of `chdir`.
    let folders =
        [base, PathBuf::from(".")].into_iter().chain(further).chain(std::env::split_paths(&variable));
    folders.into_iter().any(|folder| has_module(&folder, name))
}

fn has_module(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        found == name || found.strip_prefix(name).is_some_and(|end| end.starts_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Invocation, parse};

    #[test]
    fn a_mistyped_command_is_refused_where_no_module_has_its_name() {
        let place = tempfile::tempdir().unwrap();
        let refusal = |words: &[&str]| {
            let folder = place.path().to_str().unwrap();
            let argv: Vec<OsString> =
                ["mcsup"].iter().chain(words).chain(&["--chdir", folder]).map(OsString::from).collect();
            let Ok(Invocation::Run(given)) = parse(argv.iter().cloned()) else { panic!("{words:?}") };
            let settings = Settings::resolve(given, &|_| None, &|_| unreachable!("no file is named"));
            refuse(&argv, &settings.unwrap()).err().map(|failure| failure.to_string())
        };
        let expected = "unknown command 'relaod'; is 'reload' meant? A module of that name is served by 'mcsup run relaod'";
        assert_eq!(refusal(&["relaod"]).as_deref(), Some(expected));
        for words in [&["run", "relaod"][..], &["server"], &["relaod:app"]] {
            assert_eq!(refusal(words), None, "{words:?}");
        }
        std::fs::write(place.path().join("relaod.py"), "").unwrap();
        assert_eq!(refusal(&["relaod"]), None);
    }
}
