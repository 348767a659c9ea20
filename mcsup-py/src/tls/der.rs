//! Elements of DER (ITU-T X.690 §8.1), and the fields of a certificate (RFC 5280 §4.1) that other libraries refuse to read: of
//! version 1, with a long serial number, or with a name in an old kind of string.

/// An element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// The same with its tag and length.
    pub(super) whole: &'a [u8],
}

pub(super) const INTEGER: u8 = 2;
pub(super) const OBJECT: u8 = 6;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// The version of a certificate, which one of version 1 lacks.
const VERSION: u8 = 0xa0;

/// The parts of a certificate that are for the application, and its key.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Two's complement.
    pub(super) serial: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// The whole SubjectPublicKeyInfo.
    pub(super) key: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `None`: it is malformed.
    pub(super) fn of(certificate: &'a [u8]) -> Option<Self> {
        let outer = Reader(certificate).next_of(SEQUENCE)?;
        let signed = Reader(outer.content).next_of(SEQUENCE)?;
        let mut reader = Reader(signed.content);
        let mut after_version = reader;
        if after_version.next_of(VERSION).is_some() {
            reader = after_version;
        }
        let serial = reader.next_of(INTEGER)?.content;
        let _signature = reader.next_of(SEQUENCE)?;
        let issuer = reader.next_of(SEQUENCE)?.content;
        let _validity = reader.next_of(SEQUENCE)?;
        let subject = reader.next_of(SEQUENCE)?.content;
        let key = reader.next_of(SEQUENCE)?.whole;
        Some(Self { serial, issuer, subject, key })
    }
}

/// What is left of a sequence of elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next element. `None`: there is none, or it is malformed.
    pub(super) fn next(&mut self) -> Option<Element<'a>> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let bytes =
                rest.get(..usize::from(first & 0x7f)).filter(|bytes| (1..=3).contains(&bytes.len()))?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = &rest[bytes.len()..];
        }
        // A tag of several bytes is in no certificate.
        let content = rest.get(..length).filter(|_| tag & 0x1f != 0x1f)?;
        let whole = &self.0[..self.0.len() - rest.len() + length];
        self.0 = &rest[length..];
        Some(Element { tag, content, whole })
    }

    /// The next element, which has this tag.
    pub(super) fn next_of(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_is_cut_or_has_no_length_is_none() {
        let whole = [SEQUENCE, 0x82, 1, 0].into_iter().chain([7; 256]).collect::<Vec<u8>>();
        let mut reader = Reader(&whole);
        assert_eq!(reader.next(), Some(Element { tag: SEQUENCE, content: &[7; 256], whole: &whole }));
        assert!(reader.is_empty());
        for length in 0..whole.len() {
            assert_eq!(Reader(&whole[..length]).next(), None);
        }
        for malformed in [&[SEQUENCE, 0x80, 0, 0][..], &[0x1f, 1, 1], &[2, 0x84, 0, 0, 0, 1, 1], &[2, 0xff]] {
            assert_eq!(Reader(malformed).next(), None, "{malformed:?}");
        }
    }
}
