//! The conversions of a text format: those of Python's `%` operator, with which gunicorn makes its lines.
//!
//! `%(NAME)` is followed by flags (`-`, `0`, `+`, a blank, `#`), a width, a precision and a letter. `s`, `r` and `a` take
//! each value, `d`, `i` and `u` take numbers.

/// How a value stands in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conversion {
    letter: char,
    is_left: bool,
    is_zero: bool,
    sign: Option<char>,
    width: usize,
    precision: Option<usize>,
}

/// Wider values are refused: a line would be mostly blanks.
const WIDEST: usize = 1000;

impl Conversion {
    /// Parses the conversion at the beginning of `text`; returns also the rest. `None`: there is none that is known.
    pub(super) fn parse(text: &str) -> Option<(Self, &str)> {
        let rest = text.trim_start_matches(['-', '0', '+', ' ', '#']);
        let flags = &text[..text.len() - rest.len()];
        let (width, rest) = number(rest)?;
        let (precision, rest) = match rest.strip_prefix('.') {
            None => (None, rest),
            Some(rest) => number(rest).map(|(number, rest)| (Some(number), rest))?,
        };
        // Python reads a length as in C, and ignores it.
        let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
        let letter = rest.chars().next().filter(|letter| "sradiu".contains(*letter))?;
        let sign = ['+', ' '].into_iter().find(|sign| flags.contains(*sign));
        let (is_left, is_zero) = (flags.contains('-'), flags.contains('0'));
        Some((Self { letter, is_left, is_zero, sign, width, precision }, &rest[1..]))
    }

    /// Whether the value stands there as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.letter == 's' && self.width == 0 && self.precision.is_none()
    }

    /// Whether it takes numbers only.
    pub(super) fn is_of_numbers(&self) -> bool {
        "diu".contains(self.letter)
    }

    /// Appends the value, which is ASCII.
    pub(super) fn write(&self, out: &mut Vec<u8>, value: &[u8]) {
        let mut text = match self.letter {
            'r' | 'a' => quoted(value),
            _ => value.to_vec(),
        };
        let (mut sign, mut fill) = (None, b' ');
        if self.is_of_numbers() {
            let missing = self.precision.unwrap_or(0).saturating_sub(text.len());
            text.splice(..0, std::iter::repeat_n(b'0', missing));
            sign = self.sign;
            if self.is_zero && !self.is_left {
                fill = b'0';
            }
        } else if let Some(precision) = self.precision {
            text.truncate(precision);
        }
        let missing = self.width.saturating_sub(text.len() + usize::from(sign.is_some()));
        let padding = std::iter::repeat_n(fill, missing);
        match (self.is_left, fill) {
            (true, _) => {
                out.extend(sign.map(|sign| sign as u8));
                out.extend(text);
                out.extend(padding);
            }
            (false, b'0') => {
                out.extend(sign.map(|sign| sign as u8));
                out.extend(padding);
                out.extend(text);
            }
            (false, _) => {
                out.extend(padding);
                out.extend(sign.map(|sign| sign as u8));
                out.extend(text);
            }
        }
    }
}

/// A number at the beginning, 0 without one, and the rest.
fn number(text: &str) -> Option<(usize, &str)> {
    let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    let number =
        if digits.is_empty() { 0 } else { digits.parse().ok().filter(|number| *number <= WIDEST)? };
    Some((number, rest))
}

/// A value in quotes, as Python writes it.
fn quoted(value: &[u8]) -> Vec<u8> {
    let quote = if value.contains(&b'\'') && !value.contains(&b'"') { b'"' } else { b'\'' };
    let mut text = vec![quote];
    for &byte in value {
        if byte == quote {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(conversion: &str, value: &str) -> Option<String> {
        let (parsed, rest) = Conversion::parse(conversion)?;
        let mut out = rest.as_bytes().to_vec();
        parsed.write(&mut out, value.as_bytes());
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_are_converted_as_by_python() {
        for (conversion, value, expected) in [
            ("s", "abc", "abc"),
            ("5s", "abc", "  abc"),
            ("-5s", "abc", "abc  "),
            ("05s", "abc", "  abc"),
            (".2s", "abc", "ab"),
            ("5.2s", "abc", "   ab"),
            (".s", "abc", ""),
            ("r", "abc", "'abc'"),
            ("r", "it's", "\"it's\""),
            (".2r", "abc", "'a"),
            ("a", "abc", "'abc'"),
            ("d", "7", "7"),
            ("06d", "7", "000007"),
            ("6ld", "7", "     7"),
            ("-6d", "7", "7     "),
            ("-06d", "7", "7     "),
            ("+d", "7", "+7"),
            ("+04d", "7", "+007"),
            (" 4i", "7", "   7"),
            (".3u", "7", "007"),
            ("08.3d", "7", "00000007"),
        ] {
            assert_eq!(converted(conversion, value).as_deref(), Some(expected), "{conversion}");
        }
        for text in ["", "x", "f", "5", "*s", "%", "99999s", "99999999999999999999999s"] {
            assert_eq!(converted(text, "abc"), None, "{text}");
        }
    }
}
