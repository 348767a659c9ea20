//! A quick run of the laws, over any bytes and over messages that are nearly right; the long run is the fuzz targets'.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::chunked::Decoder;
use super::super::head::{Heads, Limits};
use super::*;

/// What makes a difference to a parser, and what smugglers are fond of.
const SPICES: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\r\r\n",
    b"\r\n ",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"\xff",
    b":",
    b";",
    b",",
    b"_",
    b"-",
    b"+",
    b"/",
    b"?",
    b"#",
    b"*",
    b"%",
    b"%4",
    b"0",
    b"ff",
    b"0\r\n\r\n",
    b"HTTP/1.0",
    b"CONNECT",
    b"Content-Length: 3\r\n",
    b"Content_Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\r\n",
    b"Host: b\r\n",
    b"[::1]",
    b"@",
    b"://",
    b"=",
    b"\"",
    b"\\",
    b"Expect: 100-continue\r\n",
];

/// What is done to a message that was right.
#[derive(Debug, Clone)]
enum Change {
    Insert(&'static [u8]),
    Replace(&'static [u8]),
    Remove(usize),
    Repeat(usize),
    CutOff,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => select(SPICES).prop_map(Change::Insert),
        4 => select(SPICES).prop_map(Change::Replace),
        2 => (1_usize..8).prop_map(Change::Remove),
        2 => (1_usize..24).prop_map(Change::Repeat),
        1 => Just(Change::CutOff),
    ]
}

/// `message`, with up to three changes.
fn nearly(message: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (message, vec((any::<Index>(), change()), 0..4)).prop_map(|(mut message, changes)| {
        for (at, change) in changes {
            let at = at.index(message.len() + 1);
            let until = |count: usize| (at + count).min(message.len());
            match change {
                Change::Insert(spice) => drop(message.splice(at..at, spice.iter().copied())),
                Change::Replace(spice) => {
                    drop(message.splice(at..until(spice.len()), spice.iter().copied()));
                }
                Change::Remove(count) => drop(message.drain(at..until(count))),
                Change::Repeat(count) => message.extend_from_within(at..until(count)),
                Change::CutOff => message.truncate(at),
            }
        }
        message
    })
}

/// A target that GET allows.
fn right_target() -> impl Strategy<Value = Vec<u8>> {
    "((http|HTTPS)://([a-z.]{1,9}|\\[::1\\])(:[0-9]{0,2})?)?/([a-z%20/\u{e9}]|%[0-9a-fA-F]{2}){0,12}(\\?[a-z=&?%/\u{e9}]{0,9})?"
        .prop_map(String::into_bytes)
}

/// A host, perhaps with a port.
fn right_authority() -> impl Strategy<Value = Vec<u8>> {
    let ipv6 = prop_oneof![
        "([0-9a-fA-F]{1,4}:){7}[0-9a-f]{1,4}",
        "([0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,2})?::([0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,2})?",
        "([0-9a-f]{1,4}:){6}1[0-9]\\.0\\.25[0-5]\\.[1-9]",
        "::ffff:2[0-4][0-9]\\.0\\.0\\.[0-9]",
        "[vV][0-9a-f]{1,3}\\.[a-z:!~]{1,5}",
        "fe80::[0-9a-f]{1,4}%[-a-z0-9._~]{1,5}",
    ];
    let host = prop_oneof![
        "([-a-z0-9._~!$&'()*+,;=]|%[0-9a-fA-F]{2}){0,12}",
        ipv6.prop_map(|text| format!("[{text}]"))
    ];
    (host, "(:[0-9]{0,6})?").prop_map(|(host, port)| [host, port].concat().into_bytes())
}

/// A head that is right, without a body.
fn right_head() -> impl Strategy<Value = Vec<u8>> {
    let field = "X[-_A-Za-z0-9!#$%&'*+.^`|~]{0,9}:[ \t]{0,2}([!-~\u{e0}]([ -~\t]{0,9}[!-~])?)?[ \t]{0,2}\r\n";
    let told = select(&[
        "",
        "Content-Length: 12\r\n",
        "content-length:0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-encoding: , Chunked ,\r\n",
        "Connection: close, x\r\n",
        "Connection: keep-alive\r\nExpect: 100-Continue\r\n",
    ]);
    ("(\r\n){0,2}[A-Z][A-Z-]{2,8}", right_target(), vec(field, 0..5), told, "(X: y\r\n){0,2}", 1..=9)
        .prop_map(|(method, target, fields, told, more, minor)| {
            let fields = fields.concat();
            let rest = format!(" HTTP/1.{minor}\r\nHost: h\r\n{fields}{told}{more}\r\n");
            [method.as_bytes(), b" ", &target, rest.as_bytes()].concat()
        })
}

/// A head whose fields tell where the body ends: never, once or more often, in ways that are right or not.
fn told_head() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        4 => "(Content-Length|content-length): ?[0-9]",
        4 => "(Transfer-Encoding|transfer-encoding): ?[Cc]hunked",
        1 => "(Content-Length|content-length|Content_Length):[ \t]?([0-9]{1,3}|0{1,3}|[0-9]{18,21}|[-+]1|1, ?1|1 1|0x1)?[ \t]?",
        1 => "(Transfer-Encoding|TRANSFER-ENCODING|Transfer_Encoding|Transfer-Encodin):[ \t]?[, ]{0,2}((Ch|ch)unked|gzip|)[, ]{0,2}(chunked)?",
        1 => "(Host|host|Connection|Content-Type):[ \t]?(h|close|Keep-Alive, x|)",
        1 => "Expect: (100-[Cc]ontinue|x)",
    ];
    ("[01]", vec(field, 0..5), any::<bool>()).prop_map(|(minor, fields, host)| {
        let host = if host { "Host: h\r\n" } else { "" };
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("POST / HTTP/1.{minor}\r\n{host}{fields}\r\n").into_bytes()
    })
}

/// A chunked body that is right.
fn right_body() -> impl Strategy<Value = Vec<u8>> {
    let value = "([a-z!~]{1,4}|\"([a-z;= \t]|\\\\[ -~]){0,4}\")";
    let extension = format!("([ \t]{{0,2}};[ \t]?[a-z]{{1,4}}([ \t]?=[ \t]?{value})?){{0,2}}");
    let extension = proptest::string::string_regex(&extension).unwrap().boxed();
    let chunk = (extension.clone(), vec(any::<u8>(), 1..20), any::<bool>());
    let trailer = "([A-Z][a-z]{6}: [ -~]{0,9}\r\n){0,2}";
    (vec(chunk, 0..4), "0{1,3}", extension, trailer).prop_map(|(chunks, zeros, extension, trailer)| {
        let mut body = Vec::new();
        for (extension, data, upper) in chunks {
            let size = if upper { format!("{:X}", data.len()) } else { format!("{:02x}", data.len()) };
            body.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("{zeros}{extension}\r\n{trailer}\r\n").as_bytes());
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_a_law(bytes in vec(any::<u8>(), 0..200), size in 0_usize..64) {
        head(&bytes, size);
        chunked(&bytes, size);
        target(&bytes);
        authority(&bytes);
    }

    #[test]
    fn no_text_breaks_a_law(text in "[ -~\r\n]{0,60}|[A-C0-2 ;\r\n]{0,30}|0{14,18}\r\n\r\n", size in 0_usize..16) {
        head(text.as_bytes(), size);
        head(format!("GET / HTTP/1.1\r\nHost: a\r\n{text}\r\n\r\n").as_bytes(), size);
        chunked(text.as_bytes(), size);
        chunked(format!("1\r\na\r\n0\r\n{text}\r\n\r\n").as_bytes(), size);
    }

    #[test]
    fn a_head_that_comes_in_pieces_is_read_as_if_it_came_whole(bytes in nearly(right_head()), size in 0_usize..64) {
        head(&bytes, size);
    }

    #[test]
    fn a_head_that_is_right_is_accepted(bytes in right_head(), size in 0_usize..64) {
        prop_assert_eq!(Heads::default().read(&bytes, &Limits::default()), Ok(Some(bytes.len())));
        head(&bytes, size);
    }

    #[test]
    fn a_head_tells_once_where_its_body_ends_or_is_refused(bytes in told_head(), size in 0_usize..64) {
        head(&bytes, size);
    }

    #[test]
    fn a_chunked_body_that_comes_in_pieces_is_decoded_as_if_it_came_whole(bytes in nearly(right_body()), size in 0_usize..64) {
        chunked(&bytes, size);
    }

    #[test]
    fn a_chunked_body_that_is_right_is_accepted(bytes in right_body(), size in 0_usize..64) {
        let mut decoder = Decoder::default();
        prop_assert_eq!(decoder.decode(&bytes, |_| ()), Ok(bytes.len()));
        prop_assert!(decoder.is_done());
        chunked(&bytes, size);
    }

    #[test]
    fn what_is_encoded_in_chunks_is_decoded_again(data in vec(any::<u8>(), 0..200), size in 0_usize..64) {
        chunks_of(&data, size);
    }

    #[test]
    fn a_target_that_is_nearly_right_keeps_the_laws(bytes in nearly(right_target())) {
        target(&bytes);
    }

    #[test]
    fn a_target_that_is_right_is_accepted(bytes in right_target()) {
        prop_assert!(super::super::target::split(&bytes, "GET").is_ok());
        target(&bytes);
    }

    #[test]
    fn an_authority_that_is_nearly_right_is_read_by_the_grammar(bytes in nearly(right_authority())) {
        authority(&bytes);
    }

    #[test]
    fn an_authority_that_is_right_is_accepted(bytes in right_authority()) {
        prop_assert!(super::super::authority::split(&bytes).is_some());
        authority(&bytes);
    }
}
