//! The extensions of a chunk (RFC 9112 §7.1.1), checked byte by byte. This server uses none of them; a recipient that reads them
//! in another way could find the line's end elsewhere.

use super::response::is_token;

/// Where in the extensions of a chunk the next byte is.
///
/// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    /// In blanks that only a semicolon may follow: those behind the size or a value.
    Between,
    /// Behind a semicolon, before the first byte of a name.
    BeforeName,
    /// In a name.
    Name,
    /// In the blanks behind a name.
    BehindName,
    /// Behind an equals sign, before the first byte of a value.
    BeforeValue,
    /// In a value that is a token.
    Value,
    /// In a quoted value.
    Quoted,
    /// Behind a backslash in it.
    Escaped,
    /// Behind its last quotation mark.
    BehindQuoted,
}

impl Extension {
    /// The state behind the first byte after a size; `None`: it begins no extension.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        Self::BehindQuoted.step(byte)
    }

    /// The state behind `byte`; `None`: it must not come here.
    pub(super) fn step(self, byte: u8) -> Option<Self> {
        use Extension::{
            BeforeName, BeforeValue, BehindName, BehindQuoted, Between, Escaped, Name, Quoted, Value,
        };
        match (self, byte) {
            (Between | Value | BehindQuoted, b' ' | b'\t') => Some(Between),
            (Between | Name | BehindName | Value | BehindQuoted, b';') => Some(BeforeName),
            (BeforeName, b' ' | b'\t') => Some(BeforeName),
            (BeforeName | Name, _) if is_token(byte) => Some(Name),
            (Name | BehindName, b' ' | b'\t') => Some(BehindName),
            (Name | BehindName, b'=') => Some(BeforeValue),
            (BeforeValue, b' ' | b'\t') => Some(BeforeValue),
            (BeforeValue, b'"') | (Escaped, b'\t' | b' '..=b'~' | 128..) => Some(Quoted),
            (BeforeValue | Value, _) if is_token(byte) => Some(Value),
            (Quoted, b'"') => Some(BehindQuoted),
            (Quoted, b'\\') => Some(Escaped),
            (Quoted, b'\t' | b' '..=b'~' | 128..) => Some(Quoted),
            _ => None,
        }
    }

    /// Whether the line may end here.
    pub(super) fn may_end(self) -> bool {
        matches!(self, Extension::Name | Extension::Value | Extension::BehindQuoted)
    }
}
