//! TLS, with rustls also as the client. The certificates are for these tests alone, valid from 2020 to 2119: `first` is for
//! first.test, `second` for second.test and *.second.test, `client` for a client, all of them by `authority`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mcsup_core::Phase;
use mcsup_py::app::{Reply, Request, Verdict};
use mcsup_py::engine::{EngineConfig, ProxyProtocol};
use mcsup_py::tls::{CertificateFiles, ClientCertificates, TlsServer, TlsSettings, TlsVersion};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};

use crate::fixture::*;
use crate::hold::Hold;
use crate::pool::Pool;
use crate::switching::{ASKS, SWITCHED, lines};

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/certificates").join(name)
}

pub(crate) fn settings() -> TlsSettings {
    let pair = |name: &str| CertificateFiles {
        certificate: file(&format!("{name}.pem")),
        key: Some(file(&format!("{name}.key"))),
    };
    TlsSettings { certificates: vec![pair("first"), pair("second")], ..TlsSettings::default() }
}

pub(crate) fn setup(tls: TlsServer) -> Setup {
    let setup = Setup::default();
    Setup { config: EngineConfig { tls: Some(tls), ..setup.config }, ..setup }
}

pub(crate) fn start(settings: &TlsSettings) -> Server {
    setup(settings.load().unwrap()).start(answer)
}

/// Answers by its path: the variables of TLS, the length of the body, many bytes, or bytes that break off.
fn answer(request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
    match request.head.path() {
        b"/variables" => {
            let variables = request.secured.map(|secured| secured.variables.clone()).unwrap_or_default();
            let text: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let _ = reply.send_whole(&ok(&[]), text.join("\n").as_bytes());
        }
        b"/large" => {
            let _ = reply.send_block(&ok(&[]), Box::new(pattern(2 << 20)));
        }
        b"/file" => {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&pattern(600_000)).unwrap();
            let _ = reply.send_file(&ok(&[]), file, 100_000, 500_000);
        }
        b"/fails" => {
            let _ = reply.send(&ok(&[]), b"a fragment");
            return Verdict::Failed;
        }
        b"/short" => {
            let _ = reply.send(&ok(&[("Content-Length", "100")]), b"a fragment");
        }
        b"/length" => {
            let _ = reply.send_whole(&ok(&[]), whole(request.body).len().to_string().as_bytes());
        }
        _ => return echo(request, reply),
    }
    Verdict::Complete
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at % 251) as u8).collect()
}

pub(crate) fn authority() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("authority.pem")).unwrap()).unwrap();
    roots
}

/// A client's settings. `certified`: it has a certificate.
pub(crate) fn client_config(
    versions: &[&'static rustls::SupportedProtocolVersion],
    certified: bool,
) -> Arc<ClientConfig> {
    let roots = authority();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(if certified { with_certificate(builder, "client") } else { builder.with_no_client_auth() })
}

/// With this certificate, and the key of `client`.
fn with_certificate(builder: ConfigBuilder<ClientConfig, WantsClientCert>, name: &str) -> ClientConfig {
    let chain = vec![CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("client.key")).unwrap();
    builder.with_client_auth_cert(chain, key).unwrap()
}

fn plain_config() -> Arc<ClientConfig> {
    client_config(&[&TLS13], false)
}

pub(crate) fn connect_as(server: &Server, config: Arc<ClientConfig>, name: &str) -> Secure {
    let socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket)
}

pub(crate) fn connect(server: &Server) -> Secure {
    connect_as(server, plain_config(), "first.test")
}

/// Head and body of one answer that has a length.
pub(crate) fn response(client: &mut Secure) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.read_exact(&mut body)?;
    Ok((head, body))
}

pub(crate) fn get(client: &mut Secure, path: &str) -> std::io::Result<(String, Vec<u8>)> {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())?;
    response(client)
}

pub(crate) fn text(client: &mut Secure, path: &str) -> String {
    String::from_utf8(get(client, path).unwrap().1).unwrap()
}

#[test]
fn requests_of_one_connection_are_answered_in_both_versions() {
    let server = start(&settings());
    for (version, protocol, cipher) in [
        (&TLS12, "SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=ECDHE-ECDSA-AES256-GCM-SHA384"),
        (&TLS13, "SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=TLS_AES_256_GCM_SHA384"),
    ] {
        let mut client = connect_as(&server, client_config(&[version], false), "first.test");
        assert_eq!(text(&mut client, "/a"), "GET /a ");
        assert_eq!(text(&mut client, "/b"), "GET /b ");
        let variables = text(&mut client, "/variables");
        let expected =
            ["HTTPS=on", protocol, cipher, "SSL_TLS_SNI=first.test", "SSL_CLIENT_VERIFY=NONE"].join("\n");
        assert_eq!(variables, expected);
    }
}

#[test]
fn a_client_gets_the_certificate_with_the_name_that_it_asks_for() {
    let server = start(&settings());
    let end = |name: &str| CertificateDer::from_pem_file(file(name)).unwrap();
    for (name, expected) in [
        ("first.test", "first.pem"),
        ("second.test", "second.pem"),
        ("SECOND.test", "second.pem"),
        ("a.second.test", "second.pem"),
        ("127.0.0.1", "first.pem"),
    ] {
        let mut client = connect_as(&server, plain_config(), name);
        get(&mut client, "/").unwrap();
        assert_eq!(client.conn.peer_certificates().unwrap()[0], end(expected), "{name}");
    }
    // The first one where no certificate has the name: the client decides.
    for name in ["other.test", "a.b.second.test"] {
        let error = get(&mut connect_as(&server, plain_config(), name), "/").unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[test]
fn large_answers_and_files_and_uploads_arrive_whole() {
    let server = start(&settings());
    let mut client = connect(&server);
    assert!(get(&mut client, "/large").unwrap().1 == pattern(2 << 20));
    assert!(get(&mut client, "/file").unwrap().1 == pattern(600_000)[100_000..]);
    for length in [1, 70_000, 1 << 20, 2_200_000] {
        let head = format!("POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&pattern(length)).unwrap();
        assert_eq!(response(&mut client).unwrap().1, length.to_string().as_bytes());
    }
}

#[test]
fn pipelined_requests_in_one_record_are_all_answered() {
    let server = start(&settings());
    let mut client = connect(&server);
    let requests: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.write_all(requests.as_bytes()).unwrap();
    for n in 0..50 {
        assert_eq!(response(&mut client).unwrap().1, format!("GET /{n} ").as_bytes());
    }
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_a_large_answer() {
    let server = start(&settings());
    let mut client = connect(&server);
    client.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let mut piece = [0; 100_000];
    loop {
        match client.read(&mut piece).unwrap() {
            // Only after a close_notify: a missing one is an error of rustls.
            0 => break,
            count => all.extend_from_slice(&piece[..count]),
        }
        std::thread::yield_now();
    }
    assert!(all.ends_with(&pattern(2 << 20)));
}

#[test]
fn an_answer_that_breaks_off_does_not_end_like_a_whole_one() {
    let server = start(&settings());
    for path in ["/fails", "/short"] {
        let mut client = connect(&server);
        client.write_all(format!("GET {path} HTTP/1.0\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let mut all = Vec::new();
        assert!(client.read_to_end(&mut all).is_err(), "{}", String::from_utf8_lossy(&all));
    }
}

#[test]
fn a_required_certificate_is_asked_for_and_an_optional_one_is_described() {
    let mut settings = settings();
    settings.authorities = Some(file("authority.pem"));
    for (clients, without) in [(ClientCertificates::Optional, true), (ClientCertificates::Required, false)] {
        settings.clients = clients;
        let server = start(&settings);
        for version in [&TLS12, &TLS13] {
            let mut client = connect_as(&server, client_config(&[version], true), "first.test");
            let variables = text(&mut client, "/variables");
            for expected in [
                "SSL_CLIENT_VERIFY=SUCCESS",
                "SSL_CLIENT_S_DN=CN=A Client,O=Grüne\\, Wiese,C=AT",
                "SSL_CLIENT_I_DN=CN=Test Authority",
                "SSL_CLIENT_SERIAL=0A1B2C3D",
            ] {
                assert!(variables.lines().any(|line| line == expected), "{variables}");
            }
            let pem = std::fs::read_to_string(file("client.pem")).unwrap();
            assert!(variables.contains(&format!("SSL_CLIENT_CERT={pem}")), "{variables}");
            let mut client = connect_as(&server, client_config(&[version], false), "first.test");
            assert_eq!(get(&mut client, "/").is_ok(), without);
        }
    }
}

#[test]
fn a_certificate_that_is_in_the_file_of_authorities_itself_is_taken_until_it_expires() {
    for (name, is_taken) in [("pinned", true), ("expired", false)] {
        let authorities = Some(file(&format!("{name}.pem")));
        let server = start(&TlsSettings { clients: ClientCertificates::Required, authorities, ..settings() });
        for version in [&TLS12, &TLS13] {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider);
            let builder = builder.with_protocol_versions(&[version]).unwrap();
            let config = |name| with_certificate(builder.clone().with_root_certificates(authority()), name);
            let mut client = connect_as(&server, Arc::new(config(name)), "first.test");
            let answer = get(&mut client, "/variables");
            assert_eq!(answer.is_ok(), is_taken, "{name}");
            if let Ok((_, body)) = answer {
                let variables = String::from_utf8(body).unwrap();
                assert!(variables.contains("SSL_CLIENT_S_DN=CN=A Pinned Client\n"), "{variables}");
                assert!(variables.contains("SSL_CLIENT_SERIAL=80FF"), "{variables}");
            }
            // With the same key.
            assert!(get(&mut connect_as(&server, Arc::new(config("client")), "first.test"), "/").is_err());
        }
    }
}

#[test]
fn a_client_that_is_too_old_gets_the_alert_for_that() {
    let server = start(&settings());
    // TLS 1.1, with one suite and without extensions.
    let hello = [&[1, 0, 0, 41, 3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    let mut client = TcpStream::connect(server.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&[&[22, 3, 1, 0, 45][..], &hello].concat()).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    // protocol_version (RFC 5246 7.2.2).
    assert_eq!(answer, [21, 3, 1, 0, 2, 2, 70]);
}

#[test]
fn a_version_that_is_too_old_and_a_suite_that_is_not_selected_are_refused() {
    let mut settings = settings();
    settings.oldest = TlsVersion::Tls13;
    let server = start(&settings);
    let old = || client_config(&[&TLS12], false);
    assert!(get(&mut connect_as(&server, old(), "first.test"), "/").is_err());
    assert!(get(&mut connect(&server), "/").is_ok());
    drop(server);
    settings.oldest = TlsVersion::Tls12;
    // The first certificate has no key for it: the second does.
    settings.ciphers = Some("ECDHE-RSA-CHACHA20-POLY1305:TLS_AES_128_GCM_SHA256".to_owned());
    let server = start(&settings);
    let mut client = connect_as(&server, old(), "second.test");
    assert!(text(&mut client, "/variables").contains("SSL_CIPHER=ECDHE-RSA-CHACHA20-POLY1305\n"));
    assert!(text(&mut connect(&server), "/variables").contains("SSL_CIPHER=TLS_AES_128_GCM_SHA256\n"));
    assert!(get(&mut connect_as(&server, old(), "first.test"), "/").is_err());
}

#[test]
fn http_without_tls_is_answered_with_the_reason_and_noise_is_not() {
    let server = start(&settings());
    let mut client = server.connect();
    let refused = client.get("/");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("the URL must begin with https://"), "{}", refused.text());
    client.assert_ended();
    // At most an alert: a record of type 21 with two bytes (RFC 8446 5.1).
    for noise in [b"\x80\x2e\x01\x00\x02".as_slice(), b"\0\0\0\0\0\0\0\0"] {
        let mut client = TcpStream::connect(server.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(noise).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset ends it too, if bytes of the client were not read.
        let _ = client.read_to_end(&mut answer).inspect_err(|error| {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        });
        assert!(answer.is_empty() || matches!(answer[..], [21, 3, _, 0, 2, ..]), "{answer:?}");
    }
    assert!(get(&mut connect(&server), "/").is_ok());
}

const PROXY: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

fn with_proxy_protocol(proxy_allow: &str) -> Server {
    let mut setup = setup(settings().load().unwrap());
    setup.config.trust.proxy_protocol = ProxyProtocol::Auto;
    setup.config.trust.proxy_allow = proxy_allow.parse().unwrap();
    setup.start(|request, reply| {
        let client = request.client().unwrap().ip();
        let client = if client.is_loopback() { "loopback".to_owned() } else { client.to_string() };
        let _ = reply.send_whole(&ok(&[]), client.as_bytes());
        Verdict::Complete
    })
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let server = with_proxy_protocol("127.0.0.1");
    let binary = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07".as_slice(), &[1; 8]].concat();
    for header in [PROXY.as_bytes(), &binary] {
        let mut client = connect(&server);
        client.sock.set_nodelay(true).unwrap();
        for piece in [&header[..1], &header[1..14], &header[14..]] {
            client.sock.write_all(piece).unwrap();
        }
        assert_eq!(
            (text(&mut client, "/"), text(&mut client, "/")),
            ("192.0.2.7".into(), "192.0.2.7".into())
        );
    }
    assert_eq!(text(&mut connect(&server), "/"), "loopback");
    // Behind the handshake it is a malformed request.
    let mut client = connect(&server);
    client.write_all(format!("{PROXY}GET / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
    assert!(response(&mut client).unwrap().0.starts_with("http/1.1 400 "));
}

#[test]
fn a_proxy_header_before_the_handshake_is_refused_as_one_without_tls() {
    for (allowed, header, status) in [("", PROXY, 403), ("*", "PROXY TCP4 192.0.2.7\r\n", 400)] {
        let server = with_proxy_protocol(allowed);
        assert_eq!(server.connect().send(header).response().status, status);
    }
}

#[test]
fn a_handshake_that_does_not_go_on_ends_at_the_deadline_of_a_head() {
    let mut setup = setup(settings().load().unwrap());
    setup.config.timeouts.head = Duration::from_millis(300);
    let server = setup.start(answer);
    let (start, mut silent, mut slow) = (Instant::now(), server.connect(), server.connect());
    slow.send(b"\x16\x03\x01\x02\x00\x01\x00");
    while slow.more() {}
    while silent.more() {}
    assert!(start.elapsed() >= Duration::from_millis(250));
    assert!(get(&mut connect(&server), "/").is_ok());
}

#[test]
fn a_handshake_in_single_bytes_succeeds_while_others_are_served() {
    let server = start(&settings());
    let socket = TcpStream::connect(server.address).unwrap();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from("first.test").unwrap();
    let mut slow = ClientConnection::new(plain_config(), name).unwrap();
    let mut hello = Vec::new();
    slow.write_tls(&mut hello).unwrap();
    let mut other = connect(&server);
    for byte in hello {
        (&socket).write_all(&[byte]).unwrap();
        assert_eq!(text(&mut other, "/x"), "GET /x ");
    }
    let mut slow = StreamOwned::new(slow, socket);
    assert_eq!(text(&mut slow, "/slow"), "GET /slow ");
}

#[test]
fn a_session_is_resumed_at_a_sibling() {
    let tls = settings().load().unwrap();
    let (one, other) = (setup(tls.clone()).start(answer), setup(tls).start(answer));
    let config = client_config(&[&TLS13], false);
    let kind = |server: &Server| {
        let mut client = connect_as(server, Arc::clone(&config), "first.test");
        get(&mut client, "/").unwrap();
        client.conn.handshake_kind().unwrap()
    };
    assert_eq!(kind(&one), rustls::HandshakeKind::Full);
    assert_eq!(kind(&other), rustls::HandshakeKind::Resumed);
}

#[test]
fn a_connection_whose_client_has_said_nothing_is_handed_to_a_sibling_and_one_by_tls_is_drained() {
    let (pool, hold, tls) = (Pool::of(2), Hold::default(), settings().load().unwrap());
    let start = |index: usize| {
        let server = Setup { seat: pool.seat(index), ..setup(tls.clone()) }.start_threads(hold.apps(1));
        wait_for("the engine to accept", || pool.line(index).permits.load(Ordering::SeqCst) == 1);
        server
    };
    let old = start(0);
    let mut kept = connect(&old);
    get(&mut kept, "/").unwrap();
    let mut silent = connect(&old);
    wait_for("both", || old.host.connections.load(Ordering::SeqCst) == 2);
    let new = start(1);
    old.enter(Phase::Retiring);
    wait_for("the silent one", || new.host.connections.load(Ordering::SeqCst) == 1);
    assert_eq!(text(&mut silent, "/next"), "GET /next ");
    let (head, body) = get(&mut kept, "/last").unwrap();
    assert_eq!(body, b"GET /last ");
    assert!(head.contains("connection: close"), "{head}");
    // It ends with a close_notify.
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
    old.join();
    assert_eq!(pool.handed().len(), 1);
}

#[test]
fn a_handshake_goes_on_while_all_threads_are_in_the_application() {
    let hold = Hold::default();
    let server = setup(settings().load().unwrap()).start_threads(hold.apps(1));
    // Accepted before: a worker without a free thread leaves further ones to its siblings.
    let (mut waiting, mut other) = (connect(&server), connect(&server));
    get(&mut waiting, "/").unwrap();
    wait_for("both", || server.host.connections.load(Ordering::SeqCst) == 2);
    waiting.write_all(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    hold.wait_inside(1);
    while other.conn.is_handshaking() {
        other.conn.complete_io(&mut other.sock).unwrap();
    }
    hold.let_go();
    assert_eq!(response(&mut waiting).unwrap().1, b"GET /hold ");
    assert_eq!(text(&mut other, "/x"), "GET /x ");
}

#[test]
fn an_application_speaks_another_protocol_in_plain_text_where_its_client_has_tls() {
    let server = setup(settings().load().unwrap()).start_threads(vec![lines, lines]);
    let mut client = connect(&server);
    client.write_all(format!("{ASKS}early\n").as_bytes()).unwrap();
    let assert_next = |client: &mut Secure, expected: &[u8]| {
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).unwrap();
        assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(expected));
    };
    assert_next(&mut client, SWITCHED);
    assert_next(&mut client, b"EARLY\n");
    let long = "x".repeat(300_000);
    client.write_all(format!("{long}\n").as_bytes()).unwrap();
    assert_next(&mut client, format!("{}\n", long.to_uppercase()).as_bytes());
    client.write_all(b"last\n\n").unwrap();
    let mut rest = String::new();
    // An end that TLS does not announce would be an error.
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "LAST\n");
}

#[test]
fn a_conversation_by_tls_is_ended_before_its_process_would_be_killed() {
    let graceful_timeout = Some(Duration::from_millis(400));
    let setup = Setup { graceful_timeout, ..setup(settings().load().unwrap()) };
    let server = setup.start(lines);
    let mut client = connect(&server);
    client.write_all(ASKS.as_bytes()).unwrap();
    client.read_exact(&mut vec![0; SWITCHED.len()]).unwrap();
    server.enter(Phase::Draining);
    server.join();
}

#[test]
fn a_client_that_changes_keys_without_end_is_ended() {
    let server = start(&settings());
    let mut client = connect(&server);
    assert_eq!(text(&mut client, "/length"), "0");
    client.write_all(b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    let begun = Instant::now();
    loop {
        // More than 32 in a row are refused by rustls itself.
        for _ in 0..32 {
            client.conn.refresh_traffic_keys().unwrap();
        }
        // The body of a request, which is never whole.
        if client.write_all(b".").is_err() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the connection stays");
    }
    assert_eq!(text(&mut connect(&server), "/length"), "0");
}
