//! The command line of a Python interpreter.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What an interpreter runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// `python FILE`.
    Script(OsString),
    /// `python -m NAME`.
    Module(OsString),
    /// `python -c CODE`, or nothing that it was given.
    None,
}

/// The options of an interpreter, without its own name, and what it runs.
pub(super) fn read(words: &[OsString]) -> (Vec<OsString>, Program) {
    let (mut options, mut rest) = (Vec::new(), words.iter().skip(1));
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        let Some(letters) = bytes.strip_prefix(b"-").filter(|letters| !letters.is_empty()) else {
            return (options, Program::Script(word.clone()));
        };
        if letters.starts_with(b"-") {
            options.push(word.clone());
            // The only long option that has a value.
            if word == "--check-hash-based-pycs" {
                options.extend(rest.next().cloned());
            }
            continue;
        }
        let Some(at) = letters.iter().position(|letter| b"cmWX".contains(letter)) else {
            options.push(word.clone());
            continue;
        };
        let value = match &letters[at + 1..] {
            [] => rest.next().cloned(),
            joined => Some(OsStr::from_bytes(joined).to_owned()),
        };
        let is_program = b"cm".contains(&letters[at]);
        let kept = if is_program { &bytes[..=at] } else { &bytes[..at + 2] };
        if kept != b"-" {
            options.push(OsString::from_vec(kept.to_vec()));
        }
        match (letters[at], value) {
            (b'm', Some(name)) => return (options, Program::Module(name)),
            (b'c' | b'm', _) => return (options, Program::None),
            (_, value) => options.extend(value),
        }
    }
    (options, Program::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_an_interpreter_are_told_from_what_it_runs() {
        let script = |path: &str| Program::Script(path.into());
        let module = |name: &str| Program::Module(name.into());
        for (line, expected, program) in [
            ("python bin/mcsup", "", script("bin/mcsup")),
            ("python -B bin/mcsup", "-B", script("bin/mcsup")),
            ("python -X importtime -m mcsup", "-X importtime", module("mcsup")),
            ("python -Xutf8 -OO -mmcsup", "-X utf8 -OO", module("mcsup")),
            ("python -IBm mcsup", "-IB", module("mcsup")),
            ("python -IWdefault -W error x", "-IW default -W error", script("x")),
            ("python --check-hash-based-pycs always x", "--check-hash-based-pycs always", script("x")),
            ("python -s -c code", "-s", Program::None),
            ("python", "", Program::None),
            ("python -", "", script("-")),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let (options, found) = read(&words);
            let options: Vec<_> = options.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!((options.join(" ").as_str(), found), (expected, program), "{line}");
        }
    }
}
