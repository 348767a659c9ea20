//! `Range` (RFC 9110 §14.2): which part of a file a client wants.

use crate::http::framing::digits;

/// What is sent of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// `length` bytes from `first` on.
    Part { first: u64, length: u64 },
    /// 416: no byte of the range is in the file.
    Unsatisfiable,
}

/// Reads the field's value for a file of `size` bytes. A range that is malformed, of another unit, or one of several is
/// ignored, as a server may (RFC 9110 §14.2); and so is each range of an empty file, of which `Content-Range` can name no
/// part.
pub(super) fn of(value: &[u8], size: u64) -> Extent {
    read(value, size).filter(|_| size > 0).unwrap_or(Extent::Whole)
}

fn read(value: &[u8], size: u64) -> Option<Extent> {
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let set = set.trim_ascii();
    let hyphen = set.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (&set[..hyphen], &set[hyphen + 1..]);
    if first.is_empty() {
        // The last bytes.
        let length = number(last)?.min(size);
        return Some(match length {
            0 => Extent::Unsatisfiable,
            length => Extent::Part { first: size - length, length },
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= size {
        return Some(Extent::Unsatisfiable);
    }
    Some(Extent::Part { first, length: last.min(size - 1) - first + 1 })
}

/// A number of digits; one that is too large is larger than each file (RFC 9110 §14.1.2).
fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits(text).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_names_the_first_and_the_last_byte() {
        for (value, expected) in [
            ("bytes=0-0", Extent::Part { first: 0, length: 1 }),
            ("BYTES=2-4", Extent::Part { first: 2, length: 3 }),
            ("bytes=2-", Extent::Part { first: 2, length: 8 }),
            ("bytes=2-99", Extent::Part { first: 2, length: 8 }),
            ("bytes=-3", Extent::Part { first: 7, length: 3 }),
            ("bytes=-99", Extent::Part { first: 0, length: 10 }),
            ("bytes=10-", Extent::Unsatisfiable),
            ("bytes=-0", Extent::Unsatisfiable),
            ("bytes=4-2", Extent::Whole),
            ("bytes=0-1,3-4", Extent::Whole),
            ("bytes=", Extent::Whole),
            ("bytes=-", Extent::Whole),
            ("bytes=a-b", Extent::Whole),
            ("bytes=+1-2", Extent::Whole),
            ("lines=1-2", Extent::Whole),
            ("", Extent::Whole),
            ("bytes=0-99999999999999999999", Extent::Part { first: 0, length: 10 }),
            ("bytes=-99999999999999999999", Extent::Part { first: 0, length: 10 }),
            ("bytes=99999999999999999999-", Extent::Unsatisfiable),
        ] {
            assert_eq!(of(value.as_bytes(), 10), expected, "{value}");
        }
    }

    #[test]
    fn a_range_of_an_empty_file_is_ignored() {
        for value in ["bytes=0-", "bytes=-5", "bytes=-0", "bytes=7-9"] {
            assert_eq!(of(value.as_bytes(), 0), Extent::Whole, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_lies_in_the_file(value in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Extent::Part { first, length } = of(value.as_bytes(), size) {
                prop_assert!(length > 0 && first.checked_add(length).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn any_bytes_have_a_meaning(value: Vec<u8>, size: u64) {
            let _ = of(&value, size);
        }
    }
}
