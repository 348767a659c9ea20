//! The place of a configuration in Python, and its text.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A configuration in Python: `PATH`, `file:PATH` or `python:MODULE`, as gunicorn's `--config` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A file. A relative path begins in the directory of [`remember_directory`](super::remember_directory).
    File(PathBuf),
    /// A module, by its dotted name.
    Module(String),
}

impl Source {
    /// Whether the word names a configuration in Python: as with gunicorn each does, except a file of TOML.
    pub fn is_named_by(word: &str) -> bool {
        match word.parse() {
            Ok(Source::File(path)) => {
                word.starts_with("file:") || path.extension().is_none_or(|end| end != "toml")
            }
            Ok(Source::Module(_)) => true,
            Err(never) => match never {},
        }
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("python:") {
            Some(module) => Source::Module(module.to_owned()),
            None => Source::File(text.strip_prefix("file:").unwrap_or(text).into()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Module(name) => write!(f, "python:{name}"),
        }
    }
}

/// A configuration in Python with its text as it was read for the settings.
///
/// The processes of a generation execute this text: the file on the disk may be another one by then, or be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Its place.
    pub source: Source,
    /// `None`: it is read where it is executed.
    pub text: Option<Text>,
}

/// The text of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The file of a module.
    pub(super) module: Option<String>,
    /// The bytes of the file, each as the character of its number: the file itself names its encoding.
    bytes: String,
}

impl Text {
    pub(super) fn new(bytes: &[u8], module: Option<String>) -> Self {
        Self { module, bytes: bytes.iter().map(|byte| char::from(*byte)).collect() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.chars().filter_map(|char| u8::try_from(char).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_a_file_or_a_module_as_with_gunicorn() {
        for (word, expected, name) in [
            ("a/gunicorn.conf.py", Source::File("a/gunicorn.conf.py".into()), "a/gunicorn.conf.py"),
            ("file:a.py", Source::File("a.py".into()), "a.py"),
            ("python:a.b", Source::Module("a.b".to_owned()), "python:a.b"),
        ] {
            let Ok(source) = word.parse::<Source>();
            assert_eq!((&source, source.to_string().as_str()), (&expected, name));
        }
        for (word, expected) in [
            ("a.py", true),
            ("file:a", true),
            ("a.pyc", true),
            ("python:a", true),
            ("gunicorn.conf", true),
            ("conf", true),
            ("/dev/null", true),
            ("mcsup.toml", false),
            ("file:mcsup.toml", true),
        ] {
            assert_eq!(Source::is_named_by(word), expected, "{word}");
        }
    }
}
