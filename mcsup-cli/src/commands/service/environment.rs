//! The variables of a service: a service manager passes none of those that are set here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::program::is_executable;
use crate::settings::Settings;
use crate::settings::program::ProgramSettings;

/// Variables that settings are read from. A service does not inherit them.
const OF_SETTINGS: [&str; 4] = ["MCSUP_CMD_ARGS", "GUNICORN_CMD_ARGS", "PORT", "WEB_CONCURRENCY"];

/// The directories that systemd and launchd both search for a program.
const USUAL: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Those of [`OF_SETTINGS`] that are set here.
pub(super) fn ignored() -> Vec<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    OF_SETTINGS.into_iter().filter(is_set).collect()
}

/// The binary finds its packages by `VIRTUAL_ENV`; a command in the environment needs no variable.
pub(super) fn of_packages(program: &[String]) -> Option<(String, String)> {
    let environment = std::env::var("VIRTUAL_ENV").ok().filter(|path| !path.is_empty())?;
    let is_inside = program.iter().any(|word| Path::new(word).starts_with(&environment));
    (!is_inside).then(|| ("VIRTUAL_ENV".to_owned(), environment))
}

/// `PATH`, if a program that is named without a path is found by that of this process alone.
pub(super) fn search_path(program: Option<&ProgramSettings>, settings: &Settings) -> Vec<(String, String)> {
    let is_set = settings.process.env.value.iter().any(|(name, _)| name == "PATH");
    let own = std::env::var_os("PATH").unwrap_or_default();
    let needed = program.filter(|_| !is_set).and_then(|program| needed_path(&program.program, &own));
    needed.map(|path| ("PATH".to_owned(), path)).into_iter().collect()
}

/// The absolute directories of `path`, if the first one that has the program is not [`USUAL`].
fn needed_path(program: &OsStr, path: &OsStr) -> Option<String> {
    if program.as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let directories: Vec<PathBuf> = std::env::split_paths(path).filter(|path| path.is_absolute()).collect();
    let found = directories.iter().find(|directory| is_executable(&directory.join(program)))?;
    if USUAL.iter().any(|usual| found == Path::new(usual)) {
        return None;
    }
    std::env::join_paths(&directories).ok()?.into_string().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_that_no_service_manager_finds_has_the_path_of_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sh");
        std::fs::write(&file, "").unwrap();
        let place = folder.path().display();
        let needed = |program: &str, path: &str| needed_path(program.as_ref(), path.as_ref());
        let path = format!("bin:{place}:/usr/bin:/bin");
        // It cannot be executed.
        assert_eq!(needed("sh", &path), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(needed("sh", &path), Some(format!("{place}:/usr/bin:/bin")));
        assert_eq!(needed("sh", &format!("/usr/bin:/bin:{place}")), None);
        assert_eq!((needed("./sh", &path), needed("no-such-program", &path)), (None, None));
    }
}
