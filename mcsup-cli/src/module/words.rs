//! The command line of a Python interpreter.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The options of an interpreter, without its name and its script.
pub(super) fn options(words: &[OsString]) -> Vec<OsString> {
    let (mut options, mut rest) = (Vec::new(), words.iter().skip(1));
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        let Some(letters) = bytes.strip_prefix(b"-").filter(|letters| !letters.is_empty()) else {
            return options;
        };
        if letters.starts_with(b"-") {
            options.push(word.clone());
            // The only long option with a value.
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
        if is_program {
            return options;
        }
        options.extend(value);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_an_interpreter_end_before_its_script() {
        for (line, expected) in [
            ("python bin/mcsup", ""),
            ("python -B bin/mcsup", "-B"),
            ("python -X importtime -m mcsup", "-X importtime"),
            ("python -Xutf8 -OO -mmcsup", "-X utf8 -OO"),
            ("python -IBm mcsup", "-IB"),
            ("python -IWdefault -W error x", "-IW default -W error"),
            ("python --check-hash-based-pycs always x", "--check-hash-based-pycs always"),
            ("python -s -c code", "-s"),
            ("python", ""),
            ("python -", ""),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let options = options(&words);
            let options: Vec<_> = options.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(options.join(" "), expected, "{line}");
        }
    }
}
