//! Where a request's body ends (RFC 9112 §6), and whether its connection goes on (§9.3).
//!
//! Two answers to this question on one path are how requests are smuggled, so whatever allows two is refused.

use super::reject::{self, Reject};
use super::version::Version;

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Framing {
    /// There is none.
    #[default]
    Empty,
    /// This many bytes.
    Length(u64),
    /// Chunks, and a last one.
    Chunked,
}

/// The fields that bear on framing, collected while the head is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Collected {
    length: Option<u64>,
    chunked: bool,
    coded: bool,
    closes: bool,
    keeps: bool,
    continues: bool,
    upgrades: bool,
}

/// The framing of the message and the end of its connection, from the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Delimited {
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client is ready for another exchange on this connection.
    pub keep_alive: bool,
    /// Whether it waits for `100 Continue` before it sends the body, or speaks the other protocol.
    pub expects_continue: bool,
    /// Whether its client would go on with another protocol on this connection (RFC 9110 §7.8).
    pub asks_upgrade: bool,
}

impl Collected {
    pub(crate) fn content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        if self.length.is_some() {
            return Err(reject::LENGTH_REPEATED);
        }
        self.length = Some(digits(value).ok_or(reject::LENGTH)?);
        Ok(())
    }

    pub(crate) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reject> {
        for coding in tokens(value) {
            if self.chunked {
                return Err(reject::CODING);
            }
            match coding {
                coding if coding.eq_ignore_ascii_case(b"chunked") => self.chunked = true,
                // Known, but none of a server without the application's help: gunicorn passes them on undecoded,
                // which no WSGI application expects.
                _ => return Err(reject::CODING_UNKNOWN),
            }
        }
        self.coded = true;
        Ok(())
    }

    pub(crate) fn connection(&mut self, value: &[u8]) {
        for option in tokens(value) {
            self.closes |= option.eq_ignore_ascii_case(b"close");
            self.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrades |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    pub(crate) fn expect(&mut self, value: &[u8]) -> Result<(), Reject> {
        for expectation in tokens(value) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(reject::EXPECTATION);
            }
            self.continues = true;
        }
        Ok(())
    }

    pub(crate) fn decide(self, version: Version) -> Result<Delimited, Reject> {
        let framing = match (self.length, self.coded) {
            (Some(_), true) => return Err(reject::LENGTH_AND_CODING),
            (None, true) if version == Version::Http10 => return Err(reject::CODING_ON_1_0),
            (None, true) if !self.chunked => return Err(reject::CODING),
            (None, true) => Framing::Chunked,
            (Some(0) | None, false) => Framing::Empty,
            (Some(length), false) => Framing::Length(length),
        };
        let keep_alive = !self.closes && (version == Version::Http11 || self.keeps);
        // RFC 9110 §7.8: a server ignores it in a request of 1.0.
        let asks_upgrade = self.upgrades && version == Version::Http11;
        let has_reason = framing != Framing::Empty || asks_upgrade;
        let expects_continue = self.continues && version == Version::Http11 && has_reason;
        Ok(Delimited { framing, keep_alive, expects_continue, asks_upgrade })
    }
}

/// A number of digits alone: no sign, no blank, no list, no overflow.
pub(crate) fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The members of a comma-separated list (RFC 9110 §5.6.1).
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}
