//! Code of the application that looks for gunicorn in `sys.argv`: its first word ends with `mcsup` here.

use std::fs;
use std::path::Path;

use pyo3::prelude::*;

use super::imported::Imported;

/// The largest file that is searched, in bytes.
const LARGEST: u64 = 1 << 20;

/// The largest number of places.
const MOST: usize = 5;

/// The places in the imported modules, as `FILE:LINE`.
///
/// # Errors
/// The modules cannot be listed.
pub(crate) fn places(py: Python<'_>) -> PyResult<Vec<String>> {
    let files = Imported::default().look(py)?;
    Ok(files.iter().flat_map(|file| places_in(file)).take(MOST).collect())
}

fn places_in(file: &Path) -> Vec<String> {
    let is_source = file.extension().is_some_and(|end| end == "py");
    if !is_source || fs::metadata(file).map_or(true, |found| found.len() > LARGEST) {
        return Vec::new();
    }
    let text = fs::read(file).unwrap_or_default();
    let lines = String::from_utf8_lossy(&text);
    let found = lines.lines().enumerate().filter(|(_, line)| looks_for_gunicorn(line));
    found.map(|(at, _)| format!("{}:{}", file.display(), at + 1)).collect()
}

fn looks_for_gunicorn(line: &str) -> bool {
    line.contains("gunicorn") && line.contains("sys.argv") && !line.trim_start().starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_compares_the_command_with_gunicorn_is_found() {
        for (line, expected) in [
            ("IS_SERVER = 'gunicorn' in sys.argv[0]", true),
            ("    if any(\"gunicorn\" in word for word in sys.argv):", true),
            ("# not 'gunicorn' in sys.argv", false),
            ("import gunicorn", false),
            ("print(sys.argv)", false),
        ] {
            assert_eq!(looks_for_gunicorn(line), expected, "{line}");
        }
    }
}
