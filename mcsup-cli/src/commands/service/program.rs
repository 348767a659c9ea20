//! The command line that starts this very `mcsup` from any directory.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mcsup_core::upgrade::Image;

use super::planning::utf8;
use crate::failure::Failure;

/// The script or executable by its absolute path; or the interpreter with its arguments, as for `python -m mcsup`.
///
/// # Errors
/// The start of this process is not known.
pub(super) fn of(argv: &[OsString], image: Option<&Image>) -> Result<Vec<String>, Failure> {
    let image = image.ok_or_else(|| Failure::refused("the program of this command is not known"))?;
    let words = words_of(image, argv.len().saturating_sub(1));
    words.iter().map(|word| utf8(word, "the path of this command")).collect()
}

/// The words of an image before the `own` arguments of the command.
fn words_of(image: &Image, own: usize) -> Vec<OsString> {
    let program = plain(&image.directory.join(&image.program)).into_os_string();
    let end = image.arguments.len().saturating_sub(own);
    let rest = image.arguments.get(1..end).unwrap_or_default();
    // A script is named by a path; an option or a module is no file.
    let absolute = |word: &OsString| {
        let path = plain(&image.directory.join(word));
        if path.is_file() { path.into_os_string() } else { word.clone() }
    };
    match rest {
        // A script with an interpreter of its own.
        [script] if is_executable(&image.directory.join(script)) => vec![absolute(script)],
        _ => [program].into_iter().chain(rest.iter().map(absolute)).collect(),
    }
}

/// Whether a path is a file that can be executed.
pub(super) fn is_executable(script: &Path) -> bool {
    let is_file = |status: std::fs::Metadata| status.is_file() && status.permissions().mode() & 0o111 != 0;
    std::fs::metadata(script).is_ok_and(is_file)
}

/// A path without `.` and empty parts. `..` and links stay: they may change their meaning.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_its_absolute_path_and_a_module_by_its_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        for (name, mode) in [("mcsup", 0o755), ("plain", 0o644)] {
            std::fs::write(place.join(name), "").unwrap();
            std::fs::set_permissions(place.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let words = |arguments: &str| {
            let arguments: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
            let image =
                Image { program: "/usr/bin/py".into(), arguments, directory: place.into(), reexec: None };
            words_of(&image, 2)
        };
        let own = |name: &str| place.join(name).into_os_string();
        assert_eq!(words("py ./mcsup service systemd"), [own("mcsup")]);
        assert_eq!(words("py plain service systemd"), ["/usr/bin/py".into(), own("plain")]);
        assert_eq!(words("py -I mcsup service systemd"), ["/usr/bin/py".into(), "-I".into(), own("mcsup")]);
        assert_eq!(words("py -m module service systemd"), ["/usr/bin/py", "-m", "module"]);
        assert_eq!(words("mcsup service systemd"), ["/usr/bin/py"]);
    }
}
