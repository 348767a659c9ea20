//! Kernel files with names of arbitrary bytes: a process name is cut at 15 bytes, even inside a character,
//! and mount points need not be UTF-8.

use std::fs;
use std::io;
use std::path::Path;

/// Reads a whole file. Invalid UTF-8 becomes U+FFFD.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The part of a name that the kernel keeps for a thread: at most 15 bytes, without a partial character.
#[cfg(any(target_os = "linux", test))]
pub(crate) fn thread_name(name: &str) -> &str {
    let end = (0..=15).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    name.get(..end).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_between_two_characters() {
        assert_eq!(thread_name("aaaaaaaaaaaaaaü"), "aaaaaaaaaaaaaa");
        assert_eq!(thread_name("aaaaaaaaaaaaaü and more"), "aaaaaaaaaaaaaü");
        assert_eq!((thread_name("web"), thread_name("")), ("web", ""));
    }

    #[test]
    fn a_text_is_read_whatever_bytes_its_names_have() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, b"7 (a\xc3) S 1\n").unwrap();
        assert_eq!(read(&file).unwrap(), "7 (a\u{fffd}) S 1\n");
    }
}
