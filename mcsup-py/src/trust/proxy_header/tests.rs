use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Reads whichever version `bytes` begin with.
fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    match beginning(bytes, ProxyProtocol::Auto) {
        Beginning::V1 => read_v1(bytes),
        Beginning::V2 => read_v2(bytes),
        Beginning::Undecided => Ok(None),
        Beginning::Request => Err(Malformed),
    }
}

fn ends(client: &str, server: &str) -> Option<Addresses> {
    let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
    Some(Addresses { client, server, is_https: false })
}

fn v2(command: u8, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, kind]);
    bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    bytes.extend(content);
    bytes
}

#[test]
fn a_line_of_version_1_has_both_addresses_or_none() {
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443", ends("192.0.2.7:4711", "198.51.100.1:443")),
        ("PROXY TCP6 2001:db8::7 ::1 65535 0", ends("[2001:db8::7]:65535", "[::1]:0")),
        ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2", ends("[::ffff:192.0.2.7]:1", "[::1]:2")),
        ("PROXY UNKNOWN", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 1 2", None),
    ] {
        let bytes = format!("{line}\r\nGET / HTTP/1.1\r\n");
        assert_eq!(read(bytes.as_bytes()), Ok(Some((line.len() + 2, expected))), "{line}");
        for arrived in 0..line.len() + 2 {
            assert_eq!(read(&bytes.as_bytes()[..arrived]), Ok(None), "{line} cut at {arrived}");
        }
    }
}

#[test]
fn a_line_that_breaks_a_rule_of_version_1_is_malformed() {
    for line in [
        "PROXY ",
        "PROXY TCP4",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 ",
        "PROXY TCP4  192.0.2.7 198.51.100.1 4711 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +4711 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 04711 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443",
        "PROXY TCP4 192.0.2.007 198.51.100.1 1 443",
        "PROXY TCP4 2001:db8::7 ::1 1 443",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 443",
        "PROXY TCP6 fe80::1%eth0 ::1 1 443",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 443",
        "PROXY tcp4 192.0.2.7 198.51.100.1 1 443",
        "PROXY UNKNOWNS",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 443\n",
    ] {
        assert_eq!(read(format!("{line}\r\nGET /").as_bytes()), Err(Malformed), "{line:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(read(endless.as_bytes()), Err(Malformed));
    assert_eq!(read(&endless.as_bytes()[..106]), Ok(None));
}

#[test]
fn a_header_of_version_2_has_both_addresses_or_none() {
    let ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    let ipv6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
    let extended = [&ipv4[..], &[4, 0, 2, 0, 0]].concat();
    for (bytes, expected) in [
        (v2(0x21, 0x11, &ipv4), ends("192.0.2.7:4711", "198.51.100.1:443")),
        (v2(0x21, 0x11, &extended), ends("192.0.2.7:4711", "198.51.100.1:443")),
        (v2(0x21, 0x21, &ipv6), ends("[2001:db8::7]:1", "[::1]:2")),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &ipv4), None),
        (v2(0x21, 0x00, &[1, 2, 3]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ] {
        let length = bytes.len();
        let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&followed), Ok(Some((length, expected))), "{bytes:?}");
        for arrived in 0..length {
            assert_eq!(read(&bytes[..arrived]), Ok(None), "{bytes:?} cut at {arrived}");
        }
    }
}

#[test]
fn a_header_without_addresses_may_have_anything_in_their_place() {
    for bytes in [
        b"PROXY UNKNOWN \xff\xfe\r\n".to_vec(),
        v2(0x20, 0xf0, b""),
        v2(0x20, 0x45, b"xx"),
        v2(0x20, 0x11, b"abc"),
    ] {
        let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&followed), Ok(Some((bytes.len(), None))), "{bytes:?}");
    }
}

#[test]
fn an_extension_of_version_2_says_whether_the_client_has_used_tls() {
    let ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    let version = [0x21, 0, 7, b'T', b'L', b'S', b'v', b'1', b'.', b'3'];
    let tls = |client: u8| [&[0x20, 0, 15, client, 0, 0, 0, 0][..], &version].concat();
    for (extensions, expected) in [
        (tls(1), true),
        (tls(7), true),
        ([&[2, 0, 1, b'h'][..], &tls(1)].concat(), true),
        (tls(0), false),
        (tls(2), false),
        (vec![], false),
        (vec![4, 0, 2, 0x20, 1], false),
        (vec![0x20, 0, 0], false),
        // Cut off.
        (tls(1)[..12].to_vec(), false),
        (vec![1, 0xff, 0xff, 0x20, 0, 1, 1], false),
        (vec![0x20, 0], false),
    ] {
        for content in [[&ipv4[..], &extensions].concat(), [&[0; 36][..], &extensions].concat()] {
            let kind = if content.starts_with(&ipv4) { 0x11 } else { 0x21 };
            let (_, addresses) = read(&v2(0x21, kind, &content)).unwrap().unwrap();
            assert_eq!(addresses.unwrap().is_https, expected, "{extensions:?}");
        }
    }
}

#[test]
fn a_header_that_breaks_a_rule_of_version_2_is_malformed() {
    for bytes in [
        v2(0x11, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x41, &[0; 12]),
        v2(0x21, 0x13, &[0; 12]),
        v2(0x21, 0x12, &[0; 12]),
        v2(0x21, 0x10, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
    ] {
        assert_eq!(read(&bytes), Err(Malformed), "{bytes:?}");
    }
    // Known before it is whole.
    assert_eq!(read(&v2(0x31, 0x11, &[0; 12])[..13]), Err(Malformed));
}

#[test]
fn only_an_accepted_version_begins_a_header() {
    let (line, binary) = (b"PROXY UNKNOWN\r\n", v2(0x20, 0, &[]));
    for (accepted, of_line, of_binary) in [
        (ProxyProtocol::Off, Beginning::Request, Beginning::Request),
        (ProxyProtocol::V1, Beginning::V1, Beginning::Request),
        (ProxyProtocol::V2, Beginning::Request, Beginning::V2),
        (ProxyProtocol::Auto, Beginning::V1, Beginning::V2),
    ] {
        assert_eq!((beginning(line, accepted), beginning(&binary, accepted)), (of_line, of_binary));
    }
    for (bytes, expected) in [
        (&b"P"[..], Beginning::Undecided),
        (b"POST / HTTP/1.1", Beginning::Request),
        (b"\r\n", Beginning::Undecided),
        (b"\r\nGET /", Beginning::Request),
        (b"GET /", Beginning::Request),
        (b"PROXYING / HTTP/1.1", Beginning::Request),
    ] {
        assert_eq!(beginning(bytes, ProxyProtocol::Auto), expected, "{bytes:?}");
    }
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let line = (any::<bool>(), any::<[u8; 16]>(), any::<(u16, u16)>()).prop_map(|(is_v4, ip, (from, to))| {
        let text = match is_v4 {
            true => format!("TCP4 {} {}", Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]), Ipv4Addr::LOCALHOST),
            false => format!("TCP6 {} {}", Ipv6Addr::from(ip), Ipv6Addr::LOCALHOST),
        };
        format!("PROXY {text} {from} {to}\r\n").into_bytes()
    });
    let binary = (0x20_u8..0x22, any::<u8>(), vec(any::<u8>(), 0..60))
        .prop_map(|(command, kind, content)| v2(command, kind, &content));
    prop_oneof![line, binary]
}

proptest! {
    /// The length of a header depends on its own bytes alone, no part of it is a header, and a decision is final.
    #[test]
    fn a_header_is_read_the_same_in_pieces_and_with_what_follows(
        bytes in header(), follows in vec(any::<u8>(), 0..40), change in proptest::option::of((any::<usize>(), any::<u8>()))
    ) {
        let mut bytes = bytes;
        if let Some((at, byte)) = change {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let all = [&bytes[..], &follows].concat();
        let whole = read(&all);
        if let Ok(Some((length, _))) = whole {
            prop_assert!(length <= all.len());
            prop_assert_eq!(read(&all[..length]), whole);
        }
        for arrived in 0..all.len() {
            match read(&all[..arrived]) {
                Ok(None) => {}
                decided => prop_assert_eq!(decided, whole),
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = (read(&bytes), read(&[LINE_START, &bytes].concat()), read(&[SIGNATURE, &bytes].concat()));
    }
}
