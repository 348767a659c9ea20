//! Distinguished names and serial numbers as text, as Apache's mod_ssl has them: OpenSSL's names of attributes, and the
//! strings of RFC 2253 (RFC 4514) with other letters than ASCII as they are, in UTF-8.

use std::fmt::Write;

use super::der::{Element, OBJECT, Reader, SEQUENCE, SET};

/// OpenSSL's short names of attributes (`openssl x509 -nameopt RFC2253`). The value of any other attribute is shown in
/// hexadecimal digits, since its kind is not known.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.3", "mail"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.2.840.113549.1.9.8", "unstructuredAddress"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.16", "postalAddress"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.18", "postOfficeBox"),
    ("2.5.4.20", "telephoneNumber"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.72", "role"),
    ("2.5.4.97", "organizationIdentifier"),
];

/// A name. `None`: it is malformed.
pub(super) fn shown(name: &[u8]) -> Option<String> {
    let (mut reader, mut sets) = (Reader(name), Vec::new());
    while !reader.is_empty() {
        sets.push(attributes(reader.next_of(SET)?.content)?.join("+"));
    }
    sets.reverse();
    Some(sets.join(","))
}

/// The attributes of one set, the last one first.
fn attributes(set: &[u8]) -> Option<Vec<String>> {
    let (mut reader, mut all) = (Reader(set), Vec::new());
    while !reader.is_empty() {
        let mut pair = Reader(reader.next_of(SEQUENCE)?.content);
        let kind = dotted(pair.next_of(OBJECT)?.content)?;
        let value = pair.next()?;
        let known = ATTRIBUTES.iter().find(|(identifier, _)| *identifier == kind);
        let text = known.and_then(|(_, name)| Some(format!("{name}={}", escaped(&letters(value)?))));
        all.push(text.unwrap_or_else(|| format!("{kind}=#{}", hexadecimal(value.whole))));
    }
    all.reverse();
    Some(all)
}

/// An object identifier as numbers with dots (ITU-T X.690 §8.19).
fn dotted(bytes: &[u8]) -> Option<String> {
    let (mut text, mut number) = (String::new(), 0_u128);
    for byte in bytes {
        number = number.checked_mul(128)? + u128::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            let first = (number / 40).min(2);
            let _ = write!(text, "{first}.{}", number - 40 * first);
        } else {
            let _ = write!(text, ".{number}");
        }
        number = 0;
    }
    Some(text)
}

/// The letters of a string of any kind (ITU-T X.680 §41); `None`: it is not one.
fn letters(value: Element<'_>) -> Option<String> {
    let bytes = value.content;
    match value.tag {
        // UTF8String.
        12 => String::from_utf8(bytes.to_vec()).ok(),
        // Numeric, printable, teletex, IA5 and visible strings, and times: OpenSSL takes them for ISO 8859-1.
        18..=20 | 22..=24 | 26 => Some(bytes.iter().copied().map(char::from).collect()),
        // UniversalString.
        28 if bytes.len() % 4 == 0 => bytes
            .chunks_exact(4)
            .map(|four| four.iter().fold(0, |letter, byte| letter << 8 | u32::from(*byte)))
            .map(char::from_u32)
            .collect(),
        // BMPString.
        30 if bytes.len() % 2 == 0 => {
            let units = bytes.chunks_exact(2).map(|two| u16::from(two[0]) << 8 | u16::from(two[1]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    let (mut out, last) = (String::new(), text.chars().count().saturating_sub(1));
    for (place, letter) in text.chars().enumerate() {
        let is_special = match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            '#' => place == 0,
            ' ' => place == 0 || place == last,
            _ => false,
        };
        if letter.is_ascii_control() {
            let _ = write!(out, "\\{:02X}", u32::from(letter));
            continue;
        }
        out.extend(is_special.then_some('\\'));
        out.push(letter);
    }
    out
}

/// A serial number (ITU-T X.690 §8.3) in hexadecimal digits, without leading zeros.
pub(super) fn serial(bytes: &[u8]) -> String {
    let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut size = bytes.to_vec();
    if is_negative {
        let mut carry = true;
        for byte in size.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let zeros = size.iter().take_while(|byte| **byte == 0).count().min(size.len().saturating_sub(1));
    format!("{}{}", if is_negative { "-" } else { "" }, hexadecimal(&size[zeros..]))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls::der::Fields;

    #[test]
    fn names_and_serial_numbers_are_those_of_openssl() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/certificates/names.pem");
        let certificate = CertificateDer::from_pem_file(path).unwrap();
        let fields = Fields::of(&certificate).unwrap();
        // openssl x509 -in names.pem -noout -subject -nameopt RFC2253,-esc_msb -serial
        assert_eq!(
            shown(fields.subject).unwrap(),
            concat!(
                r##"OU=ou,O=o,UID=u1+CN=m,CN=12,CN=ia5,CN=a\0D\0A\00\1B\7F,CN=a\+b=\"c\"\;\<d\>\\e#,CN=\ ,"##,
                r##"CN=\#x,CN=\ #lead trail\ ,CN=Zoë 日,CN=Uni日,CN=T61,CN=Bmpö,unstructuredAddress=ua,mail=ma,"##,
                "role=ro,postOfficeBox=pob,name=na,telephoneNumber=te,description=de,unstructuredName=un,",
                "jurisdictionST=js,jurisdictionL=jl,jurisdictionC=DE,businessCategory=bc,dnQualifier=dq,",
                "pseudonym=ps,2.999.1234567890.3=#0C03626967,1.2.3.4.5=#0C036F776E,organizationIdentifier=oi,",
                "postalAddress=pa,postalCode=pc,L=lo,ST=ST,street=st,generationQualifier=gq,initials=i,title=t,",
                "SN=s,GN=g,DC=dc,serialNumber=77,emailAddress=a@b.c,C=DE",
            )
        );
        assert_eq!(serial(fields.serial), "80FF445566778899AABBCCDDEEFF001122334455AA66");
    }

    #[test]
    fn a_serial_number_has_no_leading_zeros_and_may_be_negative() {
        for (bytes, expected) in [
            (&[0, 0x80, 0xff][..], "80FF"),
            (&[0x0a, 0x1b], "0A1B"),
            (&[0], "00"),
            (&[], ""),
            (&[0xfb], "-05"),
            (&[0x80], "-80"),
            (&[0xff, 0x7f, 0xff], "-8001"),
        ] {
            assert_eq!(serial(bytes), expected);
        }
    }

    /// A name of one attribute, CN.
    fn common_name(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let pair = [&[OBJECT, 3, 0x55, 4, 3, tag, length(bytes)], bytes].concat();
        let sequence = [&[SEQUENCE, length(&pair)], &pair[..]].concat();
        [&[SET, length(&sequence)], &sequence[..]].concat()
    }

    #[test]
    fn a_string_that_is_not_of_its_kind_is_shown_in_digits() {
        for (tag, bytes, expected) in [
            (20, &b"Zo\xeb"[..], "CN=Zoë"),
            (12, b"Zo\xeb", "2.5.4.3=#0C035A6FEB"),
            (30, b"odd", "2.5.4.3=#1E036F6464"),
            (30, b"\xd8\x00", "2.5.4.3=#1E02D800"),
            (28, b"\0\x11\0\0", "2.5.4.3=#1C0400110000"),
            (4, b"no", "2.5.4.3=#04026E6F"),
            (12, b"", "CN="),
        ] {
            assert_eq!(shown(&common_name(tag, bytes)).unwrap(), expected);
        }
        assert_eq!(shown(b"").unwrap(), "");
        assert_eq!(shown(b"\x31\x05no"), None);
    }
}
