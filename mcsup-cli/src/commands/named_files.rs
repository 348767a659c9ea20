//! Files that settings name and only workers read: a missing one is found before the server listens.

use std::path::Path;

use crate::failure::Failure;
use crate::settings::{Settings, Sourced};

/// Refuses a missing configuration of logging or PasteDeploy. Relative paths begin in the current directory.
pub(super) fn check(settings: &Settings) -> Result<(), Failure> {
    let logging = &settings.logging.python;
    let paste = settings.paste.as_ref().and_then(|paste| paste.value.split('#').next()).map(Path::new);
    let named = [
        ("logconfig", logging.ini.as_deref()),
        ("logconfig_json", logging.json.as_deref()),
        ("paste", paste),
    ];
    for (name, path) in named {
        let Some(path) = path.filter(|path| !path.exists()) else { continue };
        return Err(Failure::usage(format!("{name}: there is no file {}", path.display())));
    }
    warn_of_missing(&settings.development.extra_files, *settings.development.reload);
    Ok(())
}

/// An additional file to watch may come later.
fn warn_of_missing(files: &Sourced<Vec<std::path::PathBuf>>, is_watched: bool) {
    let is_pattern = |path: &Path| path.to_string_lossy().contains(['*', '?', '[']);
    for path in files.value.iter().filter(|path| is_watched && !path.exists() && !is_pattern(path)) {
        log::warn!(
            "reload_extra_file = {path:?} (from {}): there is no such file; it counts once it is there",
            files.origin
        );
    }
}
