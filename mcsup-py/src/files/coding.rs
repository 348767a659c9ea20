//! Which of the compressed forms of a file a client takes (RFC 9110 §12.5.3).

use crate::http::framing::tokens;

/// A way in which a file beside the one that is asked for may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coding {
    /// The name in the field.
    pub(super) name: &'static str,
    /// Behind the file's name.
    pub(super) suffix: &'static str,
}

/// The smaller results first.
pub(super) const CODINGS: [Coding; 2] =
    [Coding { name: "br", suffix: ".br" }, Coding { name: "gzip", suffix: ".gz" }];

/// The codings that the client takes, the best first: by its weights, and where these are equal by size. One with less
/// weight than `identity` is none of them. `values` are the lines of its `Accept-Encoding`.
pub(super) fn accepted(values: &[&[u8]]) -> impl Iterator<Item = Coding> + use<> {
    let (identity, _) = weights_of("identity", values);
    let least = identity.unwrap_or(0).max(1);
    let mut weighed: Vec<_> = CODINGS
        .into_iter()
        .map(|coding| {
            let (named, any) = weights_of(coding.name, values);
            (named.or(any).unwrap_or(0), coding)
        })
        .filter(|(weight, _)| *weight >= least)
        .collect();
    // Stable.
    weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    weighed.into_iter().map(|(_, coding)| coding)
}

/// The weights of a coding and of `*`, in thousandths; 0: not acceptable.
fn weights_of(name: &str, values: &[&[u8]]) -> (Option<u16>, Option<u16>) {
    let (mut named, mut any) = (None, None);
    for member in values.iter().copied().flat_map(tokens) {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.next().map_or(Some(1000), weight);
        // `x-gzip` is another name of gzip (RFC 9110 §8.4.1.3).
        let coding = if coding.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { coding };
        if coding.eq_ignore_ascii_case(name.as_bytes()) {
            named = weight;
        } else if coding == b"*" {
            any = weight;
        }
    }
    (named, any)
}

/// `q=0.8`, with three digits at most (RFC 9110 §12.4.2).
fn weight(text: &[u8]) -> Option<u16> {
    let text = text.strip_prefix(b"q=").or_else(|| text.strip_prefix(b"Q="))?;
    let (whole, fraction) = match text {
        [whole] => (whole, &b""[..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u16::from(fraction.get(at).unwrap_or(&b'0') - b'0');
    let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_coding_that_it_prefers_and_none_that_it_refuses() {
        for (value, expected) in [
            ("gzip, deflate, br", &["br", "gzip"][..]),
            ("gzip", &["gzip"]),
            ("x-gzip", &["gzip"]),
            ("br;q=0.5, gzip", &["gzip", "br"]),
            ("br;q=0.123 , gzip ; q=0.12", &["br", "gzip"]),
            ("br;q=0, *", &["gzip"]),
            ("*;q=0", &[]),
            ("gzip;q=0.000", &[]),
            ("identity", &[]),
            ("identity;q=1, gzip;q=0.5", &[]),
            ("identity;q=0.5, gzip;q=0.4, br;q=0.6", &["br"]),
            ("identity, gzip", &["gzip"]),
            ("identity;q=0, gzip;q=0.5", &["gzip"]),
            ("identity;q=0.5, *;q=0.4", &[]),
            ("gzip;q=2, br;q=x", &[]),
            ("gzip;q=0.1234", &[]),
            ("", &[]),
        ] {
            let names: Vec<_> = accepted(&[value.as_bytes()]).map(|coding| coding.name).collect();
            assert_eq!(names, expected, "{value}");
        }
    }
}
