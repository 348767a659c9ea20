//! The chunked coding (RFC 9112 §7.1), decoded as the bytes come, in whatever pieces; and written, a chunk at a time.

use std::io::Write;

use super::extension::Extension;
use super::reject::{self, Reject};

/// Where in the coding the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// In the digits of a size.
    Size {
        size: u64,
        digits: u16,
    },
    /// Behind it, before the size's CR.
    Extension {
        size: u64,
        at: Extension,
    },
    /// Behind that CR.
    SizeEnd {
        size: u64,
    },
    /// In a chunk's data.
    Data {
        left: u64,
    },
    /// Behind it.
    DataCr,
    DataLf,
    /// Behind the last chunk.
    Trailer,
    Done,
}

/// Decodes one chunked body.
#[derive(Debug)]
pub(crate) struct Decoder {
    at: Position,
    /// Bytes of extensions so far, with a limit: no use of them is known.
    extensions: usize,
    trailer: Vec<u8>,
}

/// More than any proxy adds.
const MAX_EXTENSIONS: usize = 4096;
const MAX_TRAILER: usize = 8190;
/// As many as a head may have.
const MAX_TRAILER_FIELDS: usize = 100;
/// Of a size, with the zeros in front.
const MAX_DIGITS: u16 = 256;

/// Fields that must not come behind the body, since they say how the message is to be read (RFC 9110 §6.5.1).
const FORBIDDEN_TRAILERS: [&str; 7] =
    ["authorization", "content-encoding", "content-length", "host", "te", "trailer", "transfer-encoding"];

const START: Position = Position::Size { size: 0, digits: 0 };

impl Default for Decoder {
    fn default() -> Self {
        Self { at: START, extensions: 0, trailer: Vec::new() }
    }
}

impl Decoder {
    /// Takes what it can from `input`, hands the data to `data`, and returns how many bytes it took: fewer than all
    /// only where the body has ended.
    ///
    /// # Errors
    /// The refusal, where the coding is broken; what was handed out until then is worthless.
    pub(crate) fn decode(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Reject> {
        let mut at = 0;
        while at < input.len() && self.at != Position::Done {
            if let Position::Data { left } = self.at {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                data(&input[at..at + take]);
                at += take;
                let left = left - take as u64;
                self.at = if left == 0 { Position::DataCr } else { Position::Data { left } };
            } else {
                self.at = self.step(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.at == Position::Done
    }

    fn step(&mut self, byte: u8) -> Result<Position, Reject> {
        match (self.at, byte) {
            (Position::Size { size, digits: 1.. }, b'\r') => Ok(Position::SizeEnd { size }),
            (Position::Size { size, digits: 1.. }, b' ' | b'\t' | b';') => {
                self.extended(size, Extension::begin(byte))
            }
            (Position::Size { size, digits }, _) => size_digit(size, digits, byte),
            (Position::Extension { size, at }, b'\r') if at.may_end() => Ok(Position::SizeEnd { size }),
            (Position::Extension { size, at }, _) => self.extended(size, at.step(byte)),
            (Position::SizeEnd { size: 0 }, b'\n') => Ok(Position::Trailer),
            (Position::SizeEnd { size }, b'\n') => Ok(Position::Data { left: size }),
            (Position::SizeEnd { .. }, _) => Err(reject::CHUNK_SIZE),
            (Position::DataCr, b'\r') => Ok(Position::DataLf),
            (Position::DataLf, b'\n') => Ok(START),
            (Position::DataCr | Position::DataLf, _) => Err(reject::CHUNK_END),
            (Position::Trailer, _) => self.trailer_byte(byte),
            (at @ (Position::Data { .. } | Position::Done), _) => Ok(at),
        }
    }

    /// Counts a byte that is of no use. `at`: where the next one is, if it may come here.
    fn extended(&mut self, size: u64, at: Option<Extension>) -> Result<Position, Reject> {
        self.extensions += 1;
        match at {
            Some(at) if self.extensions <= MAX_EXTENSIONS => Ok(Position::Extension { size, at }),
            _ => Err(reject::CHUNK_EXTENSION),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<Position, Reject> {
        if byte == b'\n' && self.trailer.last() != Some(&b'\r') {
            // A parser that accepts it as a line end finds another end of the body, and another next request.
            return Err(reject::BARE_LF);
        }
        self.trailer.push(byte);
        if self.trailer.len() > MAX_TRAILER {
            return Err(reject::TRAILER);
        }
        if self.trailer != b"\r\n" && !self.trailer.ends_with(b"\r\n\r\n") {
            return Ok(Position::Trailer);
        }
        check_trailer(&self.trailer)?;
        Ok(Position::Done)
    }
}

fn size_digit(size: u64, digits: u16, byte: u8) -> Result<Position, Reject> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => return Err(reject::CHUNK_SIZE),
    };
    // A sixteenth of the range is left for one more digit.
    if size >> 60 != 0 || digits == MAX_DIGITS {
        return Err(reject::CHUNK_SIZE);
    }
    Ok(Position::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
}

fn check_trailer(bytes: &[u8]) -> Result<(), Reject> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let fields = match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Err(httparse::Error::TooManyHeaders) => return Err(reject::FIELD_COUNT),
        Ok(httparse::Status::Partial) | Err(_) => return Err(reject::TRAILER),
    };
    let forbidden = |name: &str| FORBIDDEN_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other));
    if fields.iter().any(|field| forbidden(field.name)) { Err(reject::TRAILER) } else { Ok(()) }
}

/// Appends `chunk` to `out`, framed. An empty one would be the last: see [`LAST_CHUNK`].
pub(crate) fn write_chunk(out: &mut Vec<u8>, chunk: &[u8]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{:x}\r\n", chunk.len());
    out.extend_from_slice(chunk);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body, without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Reject> {
        let mut decoder = Decoder::default();
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            taken += decoder.decode(piece, |data| out.extend_from_slice(data))?;
        }
        Ok((out, decoder.is_done(), taken))
    }

    #[test]
    fn a_body_is_decoded_and_what_follows_it_is_left() {
        let body = b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
        let (out, done, taken) = decode(&[body]).unwrap();
        assert_eq!((out.as_slice(), done, taken), (&b"hello world"[..], true, body.len() - 5));
    }

    #[test]
    fn every_extension_of_the_grammar_is_passed_over() {
        for extension in [
            ";a",
            ";a;b",
            " ;\ta\t;b",
            ";a=b",
            "\t; a \t= b ;c",
            ";a=\"\"",
            ";a=\"b;= c\"",
            ";a=\"\\\"\\\\\"",
            ";a=\"b\" ; c=d",
            ";!#$%&'*+-.^_`|~9=!#$%&'*+-.^_`|~9",
            ";a=\"\u{e9}\t\"",
        ] {
            let body = format!("2{extension}\r\nab\r\n0{extension}\r\n\r\n");
            assert_eq!(decode(&[body.as_bytes()]), Ok((b"ab".to_vec(), true, body.len())), "{body:?}");
        }
    }

    #[test]
    fn zeros_in_front_of_a_size_are_counted_and_no_more() {
        let sized = |digits: &str| decode(&[format!("{digits}\r\nhello\r\n0\r\n\r\n").as_bytes()]);
        assert_eq!(sized("00000000000000005").unwrap().0, b"hello");
        assert_eq!(sized(&format!("{:0>256}", 5)).unwrap().0, b"hello");
        assert_eq!(sized(&format!("{:0>257}", 5)), Err(reject::CHUNK_SIZE));
        assert_eq!(sized("010000000000000000"), Err(reject::CHUNK_SIZE));
        assert_eq!(decode(&[b"0ffffffffffffffff\r\nab"]).unwrap().0, b"ab");
    }

    #[test]
    fn a_trailer_has_as_many_fields_as_a_head() {
        let with = |count: usize| decode(&[format!("0\r\n{}\r\n", "X: y\r\n".repeat(count)).as_bytes()]);
        assert!(with(100).unwrap().1);
        assert_eq!(with(101), Err(reject::FIELD_COUNT));
    }

    #[test]
    fn what_is_broken_is_refused() {
        for (body, why) in [
            (&b"x\r\n"[..], reject::CHUNK_SIZE),
            (b"\r\n", reject::CHUNK_SIZE),
            (b"-1\r\n", reject::CHUNK_SIZE),
            (b"+1\r\n", reject::CHUNK_SIZE),
            (b"0x1\r\n", reject::CHUNK_SIZE),
            (b"1_0\r\n", reject::CHUNK_SIZE),
            (b"11111111111111111\r\n", reject::CHUNK_SIZE),
            (b"1\n", reject::CHUNK_SIZE),
            (b"1\rx", reject::CHUNK_SIZE),
            (b"1;a\nb\r\n", reject::CHUNK_EXTENSION),
            (b"1 1\r\n", reject::CHUNK_EXTENSION),
            (b"5 \r\n", reject::CHUNK_EXTENSION),
            (b"5\t\r\n", reject::CHUNK_EXTENSION),
            (b"5;\r\n", reject::CHUNK_EXTENSION),
            (b"5; \r\n", reject::CHUNK_EXTENSION),
            (b"5;a;;b\r\n", reject::CHUNK_EXTENSION),
            (b"5;a;\r\n", reject::CHUNK_EXTENSION),
            (b"5;a \r\n", reject::CHUNK_EXTENSION),
            (b"5;a=b \r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\"b\" \r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\r\n", reject::CHUNK_EXTENSION),
            (b"5;=b\r\n", reject::CHUNK_EXTENSION),
            (b"5;a b\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=b c\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=b=c\r\n", reject::CHUNK_EXTENSION),
            (b"5;bad[=x\r\n", reject::CHUNK_EXTENSION),
            (b"5;\xe9\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\xe9\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\"b\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\"b\\\"\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\"b\"c\r\n", reject::CHUNK_EXTENSION),
            (b"5;a=\"\x7f\"\r\n", reject::CHUNK_EXTENSION),
            (b"1 a;b\r\n", reject::CHUNK_EXTENSION),
            (b"1\r\nab", reject::CHUNK_END),
            (b"1\r\na\n", reject::CHUNK_END),
            (b"0\r\nHost: a\r\n\r\n", reject::TRAILER),
            (b"0\r\nContent-Length: 1\r\n\r\n", reject::TRAILER),
            (b"0\r\nno colon\r\n\r\n", reject::TRAILER),
            (b"0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", reject::BARE_LF),
            (b"0\r\nX: y\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", reject::BARE_LF),
        ] {
            assert_eq!(decode(&[body]), Err(why), "{:?}", String::from_utf8_lossy(body));
        }
    }
}
