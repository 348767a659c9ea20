//! Proxies: whose PROXY header and fields count, and what they change.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcsup_core::Phase;
use mcsup_py::app::{Reply, Request, Verdict};
use mcsup_py::engine::{AllowList, FieldRules, HeaderMap, Hops, HopsField, ProxyProtocol, Trust};

use crate::fixture::*;
use crate::pool::Pool;

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

/// Answers with what is known of the client.
fn tell(request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
    let address = |address: Option<std::net::SocketAddr>| match address {
        // The test cannot know a port of the loopback interface.
        Some(address) if address.ip().is_loopback() => "loopback".to_owned(),
        Some(address) => address.to_string(),
        None => "none".to_owned(),
    };
    let client = request.client();
    let Request { head, body, peer, .. } = request;
    drop(body);
    let proxied = peer.proxied.as_deref();
    let text = format!(
        "{} {} {} {}",
        address(client),
        proxied.map_or("direct".to_owned(), |proxied| format!(
            "{}>{}{}",
            address(proxied.proxy),
            proxied.server,
            if proxied.is_https { "(TLS)" } else { "" }
        )),
        head.scheme().unwrap_or("-"),
        head.script_name().map_or("-".into(), String::from_utf8_lossy),
    );
    let _ = reply.send_whole(&ok(&[]), text.as_bytes());
    Verdict::Complete
}

fn setup(trust: Trust) -> Setup {
    let mut setup = Setup::default();
    setup.config.trust = trust;
    setup
}

fn accepting(proxy_protocol: ProxyProtocol) -> Trust {
    Trust { proxy_protocol, ..Trust::default() }
}

fn v2(command: u8, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, kind, 0, u8::try_from(content.len()).unwrap()]);
    bytes.extend(content);
    bytes
}

#[test]
fn a_proxy_header_names_the_client_of_all_requests_of_its_connection() {
    let server = setup(accepting(ProxyProtocol::Auto)).start(tell);
    let mut client = server.connect();
    let expected = "192.0.2.7:4711 loopback>198.51.100.1:443 - -";
    assert_eq!(client.send(format!("{LINE}{GET}")).response().text(), expected);
    assert_eq!(client.send(GET).response().text(), expected);
    let ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    let mut client = server.connect();
    assert_eq!(client.send([&v2(0x21, 0x11, &ipv4), GET.as_bytes()].concat()).response().text(), expected);
    assert_eq!(client.send(GET).response().text(), expected);
}

#[test]
fn a_proxy_header_is_read_in_whatever_pieces_it_comes() {
    let server = setup(accepting(ProxyProtocol::Auto)).start(tell);
    for header in [LINE.as_bytes(), &v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb])] {
        let mut client = server.connect();
        for byte in [header, GET.as_bytes()].concat() {
            client.send([byte]);
        }
        assert!(client.response().text().starts_with("192.0.2.7:4711 "));
    }
}

#[test]
fn a_proxy_header_without_addresses_leaves_those_of_the_connection() {
    let server = setup(accepting(ProxyProtocol::Auto)).start(tell);
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, b""), v2(0x21, 0, b"xyz")] {
        let mut client = server.connect();
        assert_eq!(client.send([&header, GET.as_bytes()].concat()).response().text(), "loopback direct - -");
    }
}

#[test]
fn a_connection_without_a_proxy_header_is_served_as_ever() {
    let server = setup(accepting(ProxyProtocol::Auto)).start(tell);
    for start in ["", "\r\n", "\r\n\r\n"] {
        assert_eq!(server.connect().send(format!("{start}{GET}")).response().text(), "loopback direct - -");
    }
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(server.connect().send(post).response().status, 200);
}

#[test]
fn a_proxy_header_that_is_not_accepted_is_refused() {
    let unlisted = Trust { proxy_allow: AllowList::NONE, ..accepting(ProxyProtocol::Auto) };
    let binary = v2(0x20, 0, b"");
    for (trust, header, status) in [
        (accepting(ProxyProtocol::Off), LINE.as_bytes(), 400),
        (accepting(ProxyProtocol::Off), &binary, 400),
        (accepting(ProxyProtocol::V2), LINE.as_bytes(), 400),
        (accepting(ProxyProtocol::V1), &binary, 400),
        (unlisted.clone(), LINE.as_bytes(), 403),
        (unlisted, &binary, 403),
        (accepting(ProxyProtocol::V1), b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 99999\r\n", 400),
        (accepting(ProxyProtocol::V2), &v2(0x22, 0, b""), 400),
    ] {
        let server = setup(trust).start(tell);
        let mut client = server.connect();
        assert_eq!(client.send([header, GET.as_bytes()].concat()).response().status, status);
        client.assert_ended();
    }
}

#[test]
fn only_the_first_request_of_a_connection_may_have_a_proxy_header() {
    let server = setup(accepting(ProxyProtocol::Auto)).start(tell);
    for first in [GET.to_owned(), format!("{LINE}{GET}")] {
        let mut client = server.connect();
        assert_eq!(client.send(first).response().status, 200);
        assert_eq!(client.send(format!("{LINE}{GET}")).response().status, 400);
    }
    assert_eq!(server.connect().send(format!("{LINE}{LINE}{GET}")).response().status, 400);
}

#[test]
fn a_part_of_a_proxy_header_gets_408_at_the_deadline_of_a_head() {
    let mut setup = setup(accepting(ProxyProtocol::Auto));
    setup.config.timeouts.head = Duration::from_millis(200);
    let server = setup.start(tell);
    for part in [&LINE.as_bytes()[..9], &v2(0x21, 0x11, &[1; 12])[..20], b"\r\n\r\n"] {
        assert_eq!(server.connect().send(part).response().status, 408);
    }
}

#[test]
fn a_peer_on_a_unix_socket_may_send_a_proxy_header_and_fields() {
    let trust = Trust {
        proxy_allow: AllowList::NONE,
        forwarded_allow: AllowList::NONE,
        ..accepting(ProxyProtocol::V1)
    };
    let server = Setup { unix: true, ..setup(trust) }.start(tell);
    let mut client = UnixStream::connect(server.unix_path()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let get = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
    client.write_all(format!("{LINE}{get}").as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    // The fields are the client's, whose address is in no list.
    assert!(answer.ends_with("\r\n\r\n192.0.2.7:4711 none>198.51.100.1:443 - -"), "{answer}");
    let mut client = UnixStream::connect(server.unix_path()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(format!("PROXY UNKNOWN\r\n{get}").as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nnone direct https -"), "{answer}");
}

/// The answer to a request with these fields.
fn answer(trust: Trust, fields: &str) -> Response {
    let server = setup(trust).start(tell);
    server.connect().send(format!("GET /app/x HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).response()
}

#[test]
fn fields_count_if_the_peer_is_trusted_and_only_then() {
    let fields = "X-Forwarded-Proto: https\r\nSCRIPT_NAME: /app\r\n";
    assert_eq!(answer(Trust::default(), fields).text(), "loopback direct https /app");
    for list in ["", "10.0.0.0/8"] {
        let forwarded_allow = list.parse().unwrap();
        assert_eq!(
            answer(Trust { forwarded_allow, ..Trust::default() }, fields).text(),
            "loopback direct - -"
        );
    }
    let contradictory = "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n";
    assert_eq!(answer(Trust::default(), contradictory).status, 400);
    let untrusted = Trust { forwarded_allow: AllowList::NONE, ..Trust::default() };
    assert_eq!(answer(untrusted, contradictory).status, 200);
    assert_eq!(answer(Trust::default(), "SCRIPT_NAME: /a\r\nSCRIPT_NAME: /b\r\n").status, 400);
}

#[test]
fn trust_follows_the_peer_that_has_connected_and_the_client_of_the_proxy_header() {
    let get = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n";
    for (list, scheme) in
        [("127.0.0.1", "-"), ("192.0.2.0/24", "-"), ("127.0.0.1,192.0.2.0/24", "https"), ("*", "https")]
    {
        let trust = Trust { forwarded_allow: list.parse().unwrap(), ..accepting(ProxyProtocol::V1) };
        let server = setup(trust).start(tell);
        let mut client = server.connect();
        let expected = format!("192.0.2.7:4711 loopback>198.51.100.1:443 {scheme} -");
        assert_eq!(client.send(format!("{LINE}{get}")).response().text(), expected, "{list}");
        assert_eq!(client.send(get).response().text(), expected, "{list}");
    }
}

#[test]
fn a_malformed_line_of_a_client_does_not_make_it_the_proxy() {
    let hops = Hops { count: 1, field: HopsField::Forwarded };
    let fields = FieldRules::new([], [], HeaderMap::Drop, hops).unwrap();
    let trust = Trust { fields, ..Trust::default() };
    let answer = |fields: &str| self::answer(trust.clone(), fields);
    let appended = "Forwarded: for=192.0.2.1\r\n";
    assert_eq!(answer(&format!("Forwarded: x\r\n{appended}")).text(), "192.0.2.1:0 direct - -");
    assert_eq!(answer("Forwarded: x, for=192.0.2.1\r\n").status, 400);
}

#[test]
fn names_with_an_underscore_are_dropped_refused_or_passed_on() {
    for (map, status) in [(HeaderMap::Drop, 200), (HeaderMap::Refuse, 400), (HeaderMap::Dangerous, 200)] {
        let fields = FieldRules::new([], [], map, Hops::default()).unwrap();
        let trust = Trust { fields, ..Trust::default() };
        assert_eq!(answer(trust, "X_Forwarded_For: 1\r\n").status, status, "{map:?}");
    }
}

#[test]
fn trusted_hops_name_the_client_also_in_the_access_log() {
    let hops = Hops { count: 2, field: HopsField::XForwardedFor };
    let fields = FieldRules::new([], [], HeaderMap::Drop, hops).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access").to_string_lossy().into_owned();
    let access = Some(("%(h)s %({REMOTE_ADDR}e)s".to_owned(), path.clone()));
    let mut server = Setup { access, ..setup(Trust { fields, ..Trust::default() }) };
    server.config.trust.proxy_protocol = ProxyProtocol::V1;
    let server = server.start(tell);
    let get = |values: &str| format!("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {values}\r\n\r\n");
    let mut client = server.connect();
    let first = client.send(get("203.0.113.1, 203.0.113.5:80, 192.0.2.1"));
    assert_eq!(first.response().text(), "203.0.113.5:80 direct - -");
    // Too few entries: not all of it came through the proxies.
    assert_eq!(client.send(get("192.0.2.1")).response().text(), "loopback direct - -");
    let proxied = format!("{LINE}{GET}");
    assert!(server.connect().send(proxied).response().text().starts_with("192.0.2.7:4711 "));
    let expected = "203.0.113.5 203.0.113.5\n127.0.0.1 127.0.0.1\n192.0.2.7 192.0.2.7\n";
    wait_for("the access log", || std::fs::read_to_string(&path).unwrap() == expected);
}

#[test]
fn a_proxied_connection_keeps_its_client_when_it_goes_to_a_sibling() {
    let pool = Pool::of(2);
    let seated = |index| Setup { seat: pool.seat(index), ..setup(accepting(ProxyProtocol::Auto)) };
    let first = seated(0).start(tell);
    let mut used = first.connect();
    let expected = "192.0.2.7:4711 loopback>198.51.100.1:443 - -";
    assert_eq!(used.send(format!("{LINE}{GET}")).response().text(), expected);
    let ipv4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb];
    let by_tls = v2(0x21, 0x11, &[&ipv4[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat());
    let of_tls = "192.0.2.7:4711 loopback>198.51.100.1:443(TLS) - -";
    let mut encrypted = first.connect();
    assert_eq!(encrypted.send([&by_tls, GET.as_bytes()].concat()).response().text(), of_tls);
    // The header has come, and no request.
    let mut begun = first.connect();
    begun.send(LINE);
    // Nothing has come at all.
    let mut unread = first.connect();
    wait_for("both", || first.host.connections.load(Ordering::SeqCst) == 4);
    // What came before has been received when the next request is answered.
    assert_eq!(used.send(GET).response().text(), expected);
    let second = seated(1).start(tell);
    wait_for("the sibling", || pool.line(1).permits.load(Ordering::SeqCst) == 1);
    first.enter(Phase::Retiring);
    wait_for("the connections to move", || second.host.connections.load(Ordering::SeqCst) == 4);
    assert_eq!(encrypted.send(GET).response().text(), of_tls);
    assert_eq!(used.send(GET).response().text(), expected);
    assert_eq!(begun.send(GET).response().text(), expected);
    assert_eq!(unread.send(format!("{LINE}{GET}")).response().text(), expected);
    assert_eq!(used.send(format!("{LINE}{GET}")).response().status, 400);
    first.join();
}
