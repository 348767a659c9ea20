//! Records as no ordinary client makes them: with padding, without content, or with parts of messages that never end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls13CipherSuite,
};

use crate::fixture::*;
use crate::logged::logged;
use crate::tls::*;

/// The longest content of a record, with its kind and its padding (RFC 8446 §5.4).
const LONGEST: usize = 16 * 1024;

/// The records of application data instead.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    /// With padding, as long as a record may be.
    Padded,
    /// The same without the content.
    Empty,
    /// A part of a handshake message.
    Part,
}

/// The form of the next records.
static FORM: [AtomicU8; 3] = [const { AtomicU8::new(0) }; 3];

struct Formed {
    inner: &'static dyn Tls13AeadAlgorithm,
    /// The client's place in [`FORM`].
    place: usize,
}

struct FormedEncrypter {
    inner: Box<dyn MessageEncrypter>,
    place: usize,
}

impl MessageEncrypter for FormedEncrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let form = FORM[self.place].load(Ordering::SeqCst);
        if message.typ != ContentType::ApplicationData || form == Form::Plain as u8 {
            return self.inner.encrypt(message, sequence);
        }
        let mut bytes = if form == Form::Padded as u8 { message.payload.to_vec() } else { Vec::new() };
        if form == Form::Part as u8 {
            // KeyUpdate, of more bytes than will come.
            bytes.extend([24, 0, 0xf0, 0]);
            bytes.resize(LONGEST - 1, 0);
        }
        bytes.push(if form == Form::Part as u8 { ContentType::Handshake } else { message.typ }.into());
        bytes.resize(LONGEST, 0);
        // The last byte of the padding.
        let typ = ContentType::Unknown(0);
        let payload = OutboundChunks::from(&bytes[..]);
        self.inner.encrypt(OutboundPlainMessage { typ, version: message.version, payload }, sequence)
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        self.inner.encrypted_payload_len(length)
    }
}

impl Tls13AeadAlgorithm for Formed {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(FormedEncrypter { inner: self.inner.encrypter(key, iv), place: self.place })
    }
    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.inner.decrypter(key, iv)
    }
    fn key_len(&self) -> usize {
        self.inner.key_len()
    }
    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.inner.extract_keys(key, iv)
    }
}

/// A client whose records have the form of this place.
fn connect_at(server: &Server, place: usize) -> Secure {
    let SupportedCipherSuite::Tls13(suite) = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
    else {
        panic!("a suite of TLS 1.3")
    };
    let common = rustls::crypto::CipherSuiteCommon { ..suite.common };
    let aead_alg = Box::leak(Box::new(Formed { inner: suite.aead_alg, place }));
    let formed = Tls13CipherSuite { common, hkdf_provider: suite.hkdf_provider, aead_alg, quic: None };
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![SupportedCipherSuite::Tls13(Box::leak(Box::new(formed)))];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap();
    let config = builder.with_root_certificates(authority()).with_no_client_auth();
    let mut client = connect_as(server, Arc::new(config), "first.test");
    assert_eq!(text(&mut client, "/length"), "0");
    client
}

fn become_(place: usize, form: Form) {
    FORM[place].store(form as u8, Ordering::SeqCst);
}

/// Sends records until the server has ended the connection.
fn send_until_ended(client: &mut Secure) {
    let begun = Instant::now();
    while client.write_all(b"x").is_ok() {
        assert!(begun.elapsed() < 4 * PATIENCE, "the connection stays");
    }
}

#[test]
fn a_client_may_pad_all_its_records() {
    let server = start(&settings());
    let mut client = connect_at(&server, 0);
    become_(0, Form::Padded);
    for number in 0..100 {
        assert_eq!(text(&mut client, &format!("/{number}")), format!("GET /{number} "));
    }
    // A byte in each record, and more of them than are decrypted at once.
    client.write_all(b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n").unwrap();
    for _ in 0..500 {
        client.write_all(b"x").unwrap();
    }
    assert_eq!(response(&mut client).unwrap().1, b"500");
    for _ in 0..50 {
        become_(0, Form::Empty);
        for _ in 0..16 {
            client.write_all(b"nothing").unwrap();
        }
        become_(0, Form::Padded);
        assert_eq!(text(&mut client, "/length"), "0");
    }
}

/// Waits for the line about a connection that has ended for one of these reasons.
fn wait_for_line(reasons: &[&str]) {
    let ended = |line: &String| {
        line.starts_with("Ended a TLS connection from 127.0.0.1:")
            && reasons.iter().any(|reason| line.ends_with(reason))
    };
    wait_for("the line", || logged().iter().any(ended));
}

#[test]
fn a_flood_of_records_without_content_ends_its_connection_with_a_line_in_the_log() {
    logged();
    let server = start(&settings());
    let mut client = connect_at(&server, 1);
    become_(1, Form::Empty);
    send_until_ended(&mut client);
    // The first is the library's own limit.
    wait_for_line(&["TooManyEmptyFragments", "too many records without content"]);
    let mut client = connect(&server);
    client.write_all(b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    let begun = Instant::now();
    loop {
        for _ in 0..32 {
            client.conn.refresh_traffic_keys().unwrap();
        }
        if client.write_all(b".").is_err() {
            break;
        }
        assert!(begun.elapsed() < 4 * PATIENCE, "the connection stays");
    }
    wait_for_line(&[": too many records without content"]);
    assert_eq!(text(&mut connect(&server), "/length"), "0");
}

/// How many clients hold messages: more than there is memory for.
const HOLDERS: usize = 200;

/// Waits until the server has ended some, and the others may hold theirs. A new client is served.
fn assert_bounded(server: &Server, mut holders: Vec<TcpStream>) {
    for holder in &holders {
        holder.set_nonblocking(true).unwrap();
    }
    // Of 8 MiB, by 40 KB or more each.
    let begun = Instant::now();
    while holders.len() >= HOLDERS - 20 {
        holders.retain_mut(|holder| match holder.read(&mut [0; 4096]) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        assert!(begun.elapsed() < 2 * PATIENCE, "{} are left", holders.len());
        std::thread::yield_now();
    }
    assert!(holders.len() > 100, "{} are left", holders.len());
    assert_eq!(text(&mut connect(server), "/length"), "0");
}

#[test]
fn handshakes_that_do_not_go_on_take_a_bounded_part_of_the_memory() {
    let server = start(&settings());
    let mut hello = vec![1, 0, 0xff, 0xdc, 3, 3];
    hello.resize(60_000, 0);
    let mut records = Vec::new();
    for part in hello.chunks(LONGEST) {
        records.extend([22, 3, 1]);
        records.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        records.extend(part);
    }
    let holders = (0..HOLDERS)
        .map(|_| {
            let mut socket = TcpStream::connect(server.address).unwrap();
            socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            // It may have been ended already.
            let _ = socket.write_all(&records);
            socket
        })
        .collect();
    assert_bounded(&server, holders);
}

#[test]
fn messages_behind_the_handshake_that_do_not_end_take_no_more_memory() {
    let server = start(&settings());
    let holders = (0..HOLDERS)
        .map(|_| {
            become_(2, Form::Plain);
            let mut client = connect_at(&server, 2);
            become_(2, Form::Part);
            for _ in 0..3 {
                let _ = client.write_all(b"x");
            }
            client.sock
        })
        .collect();
    assert_bounded(&server, holders);
}
