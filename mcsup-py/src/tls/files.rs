//! Files of certificates and keys in PEM (RFC 7468).

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::TlsError;
use crate::regular_file;

/// Some editors write it before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// All certificates of a file, one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, "certificate")?;
    let shown = path.display();
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all =
        all.map_err(|error| TlsError::File(format!("the certificates in {shown} are malformed: {error}")))?;
    if all.is_empty() {
        return Err(TlsError::File(format!(
            "{shown} has no certificate in PEM: it has no line -----BEGIN CERTIFICATE-----"
        )));
    }
    Ok(all)
}

/// The first key of a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, "key")?;
    let shown = path.display();
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let has = |text: &[u8]| memchr::memmem::find(&bytes, text).is_some();
        TlsError::File(if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
            format!(
                "the key in {shown} is encrypted: decrypt it first, as with 'openssl pkey -in OLD -out NEW'"
            )
        } else if has(b"PRIVATE KEY-----") {
            format!("the key in {shown} is malformed: {error}")
        } else {
            format!("{shown} has no key in PEM: it has no line -----BEGIN PRIVATE KEY-----")
        })
    })
}

fn read(path: &Path, kind: &str) -> Result<Vec<u8>, TlsError> {
    let mut bytes = regular_file::read(path)
        .map_err(|error| TlsError::File(format!("cannot read the {kind} {}: {error}", path.display())))?;
    // As OpenSSL has it.
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

/// Warns of a certificate that clients will refuse today. It is served all the same: the clock may be wrong.
pub(super) fn warn_of_dates(path: &Path, certificate: &CertificateDer<'_>) {
    let Ok(certificate) = Certificate::from_der(certificate) else { return };
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return };
    let validity = certificate.tbs_certificate().validity();
    if validity.not_after.to_unix_duration() < now {
        log::warn!("The certificate in {} has expired: {}", path.display(), validity.not_after);
    } else if validity.not_before.to_unix_duration() > now {
        log::warn!("The certificate in {} is not valid before {}", path.display(), validity.not_before);
    }
}

/// Whether this is a time between the dates of a certificate.
pub(super) fn is_valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let validity = certificate.tbs_certificate().validity();
    let [begin, end] =
        [validity.not_before, validity.not_after].map(|time| time.to_unix_duration().as_secs());
    (begin..=end).contains(&now.as_secs())
}
