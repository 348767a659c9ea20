use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::*;
use crate::tls::{CertificateFiles, TlsSettings};

type Client = StreamOwned<ClientConnection, UnixStream>;

/// A session behind its handshake, its socket, and its client.
fn secured(version: &'static SupportedProtocolVersion) -> (Tls, OwnedFd, Client) {
    let file = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/certificates").join(name);
    let certificates =
        vec![CertificateFiles { certificate: file("first.pem"), key: Some(file("first.key")) }];
    let tls = Tls::new(TlsSettings { certificates, ..TlsSettings::default() }.load().unwrap());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("authority.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let connection = ClientConnection::new(config, ServerName::try_from("first.test").unwrap()).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut client = StreamOwned::new(connection, theirs);
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            client.conn.complete_io(&mut client.sock).unwrap();
            client
        });
        let start = Instant::now();
        loop {
            match tls.shake_hands(ours.as_fd(), &mut Incoming::default()) {
                Shaken::Done(_) => return client.join().unwrap(),
                Shaken::Blocked { .. } => assert!(start.elapsed() < Duration::from_secs(5)),
                other => panic!("{other:?}"),
            }
            std::thread::yield_now();
        }
    });
    (tls, ours.into(), client)
}

/// Goes on as if this number of records had been made.
fn has_made(tls: &Tls, records: u64) {
    let Session::Open(open) = &mut *tls.lock() else { panic!("it has not begun") };
    open.records = records;
}

fn send(tls: &Tls, socket: &OwnedFd, text: &[u8]) -> Option<Progress> {
    let mut outgoing = Outgoing::default();
    outgoing.append().extend_from_slice(text);
    tls.send(socket.as_fd(), &mut outgoing, usize::MAX)
}

#[test]
fn each_record_with_plaintext_counts() {
    let (tls, socket, mut client) = secured(&TLS12);
    assert_eq!(send(&tls, &socket, &[b'x'; 40_000]), Some(Progress::More(40_000)));
    client.read_exact(&mut vec![0; 40_000]).unwrap();
    assert_eq!(tls.send_now(socket.as_fd(), b"x"), Some(true));
    let Session::Open(open) = &*tls.lock() else { panic!("it has not begun") };
    assert_eq!(open.records, 4);
}

#[test]
fn a_connection_by_tls_1_2_ends_before_its_keys_are_used_up() {
    for (version, is_limited) in [(&TLS12, true), (&TLS13, false)] {
        let (tls, socket, mut client) = secured(version);
        assert!(tls.may_go_on());
        has_made(&tls, MOST_RECORDS / 2 + 1);
        assert_eq!(tls.may_go_on(), !is_limited);
        assert_eq!(send(&tls, &socket, b"last"), Some(Progress::More(4)));
        let mut text = [0; 4];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"last");
        // Nothing counts as sent that is not encrypted.
        has_made(&tls, MOST_RECORDS - 5);
        let expected = if is_limited { Progress::Ended } else { Progress::More(4) };
        assert_eq!(send(&tls, &socket, b"more"), Some(expected));
    }
}
