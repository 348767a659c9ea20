use std::path::Path;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/certificates").join(name)
}

fn pair(certificate: &str, key: &str) -> CertificateFiles {
    CertificateFiles { certificate: file(certificate), key: Some(file(key)) }
}

fn refusal(settings: &TlsSettings) -> String {
    let error = settings.load().unwrap_err().to_string();
    error.replace(&format!("{}/", file("").display()).replace("//", "/"), "")
}

#[test]
fn a_certificate_with_its_key_in_one_file_or_in_two_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.pem");
    let text = [file("first.key"), file("first.pem")].map(|path| std::fs::read(path).unwrap()).concat();
    std::fs::write(&both, text).unwrap();
    for files in [pair("first.pem", "first.key"), CertificateFiles { certificate: both, key: None }] {
        let settings = TlsSettings { certificates: vec![files], ..TlsSettings::default() };
        let server = settings.load().unwrap();
        assert_eq!(server.0.alpn_protocols, [b"http/1.1", b"http/1.0"]);
        assert_eq!(server.0.max_early_data_size, 0);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused_by_its_name_and_with_the_reason() {
    for (certificate, key, expected) in [
        ("missing.pem", "first.key", "cannot read the certificate missing.pem: No such file"),
        ("first.pem", "missing.key", "cannot read the key missing.key: No such file"),
        ("first.key", "first.key", "first.key has no certificate in PEM: "),
        ("first.pem", "first.pem", "first.pem has no key in PEM: "),
        ("first.pem", "encrypted.key", "the key in encrypted.key is encrypted: decrypt it first, "),
        (
            "first.pem",
            "second.key",
            "the key in second.key does not belong to the first certificate in first.pem",
        ),
        (
            "first.pem",
            "p521.key",
            "the key in p521.key cannot be used: it is not RSA of 2048 to 4096 bits, ECDSA with P-256 or P-384, or Ed25519",
        ),
    ] {
        let certificates = vec![pair("first.pem", "first.key"), pair(certificate, key)];
        let refused = refusal(&TlsSettings { certificates, ..TlsSettings::default() });
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn a_file_that_could_stop_the_supervisor_or_fill_its_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.pem");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let large = folder.path().join("large.pem");
    std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    for (path, why) in [
        (fifo.as_path(), "it is a FIFO, not a regular file"),
        (Path::new("/dev/zero"), "it is a device, not a regular file"),
        (folder.path(), "it is a directory, not a regular file"),
        (large.as_path(), "it is larger than 1048576 bytes"),
    ] {
        let certificate = CertificateFiles { certificate: path.to_owned(), key: Some(file("first.key")) };
        let key = CertificateFiles { certificate: file("first.pem"), key: Some(path.to_owned()) };
        for (files, kind) in [(certificate, "certificate"), (key, "key")] {
            let refused = refusal(&TlsSettings { certificates: vec![files], ..TlsSettings::default() });
            assert_eq!(refused, format!("cannot read the {kind} {}: {why}", path.display()));
        }
        let asks = TlsSettings { authorities: Some(path.to_owned()), ..TlsSettings::default() };
        assert_eq!(refusal(&asks), format!("cannot read the certificate {}: {why}", path.display()));
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let certificates = vec![pair("first.pem", "first.key")];
    let good = TlsSettings { certificates, ..TlsSettings::default() };
    let asks = TlsSettings { clients: ClientCertificates::Required, ..good.clone() };
    assert!(refusal(&asks).ends_with("no file has their authorities"));
    let old = TlsSettings {
        ciphers: Some("ECDHE-RSA-AES128-GCM-SHA256".to_owned()),
        oldest: TlsVersion::Tls13,
        ..good.clone()
    };
    assert!(old.load().is_ok(), "a list of suites of 1.2 leaves those of 1.3");
    let none = TlsSettings { certificates: Vec::new(), ..good };
    assert_eq!(refusal(&none), "TLS needs a certificate");
}

#[test]
fn a_certificate_of_version_1_is_served_and_a_mark_of_the_byte_order_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let marked = folder.path().join("marked.pem");
    std::fs::write(&marked, [b"\xef\xbb\xbf", &*std::fs::read(file("first.pem")).unwrap()].concat()).unwrap();
    for certificate in [file("version1.pem"), marked] {
        let files = CertificateFiles { certificate, key: Some(file("first.key")) };
        let settings = TlsSettings { certificates: vec![files], ..TlsSettings::default() };
        assert_eq!(settings.load().map(drop), Ok(()));
    }
    let settings =
        TlsSettings { certificates: vec![pair("version1.pem", "client.key")], ..TlsSettings::default() };
    assert_eq!(
        refusal(&settings),
        "the key in client.key does not belong to the first certificate in version1.pem"
    );
}
