//! TLS settings: certificate files, client certificates and cipher suites in, a [`TlsServer`] for rustls out.
//!
//! The supervisor reads the files, with its privileges, at the start and at each reload. Its workers get the keys by the
//! fork, also as another user. One key for session tickets goes along, so that a client may resume its session at any
//! worker of the generation (RFC 8446 §2.2, RFC 5077). After six hours each worker makes a ticket key of its own, and a
//! client that meets another worker makes a full handshake.
//!
//! rustls has no TLS before 1.2, no renegotiation, no compression and no suite without forward secrecy. 0-RTT data are
//! refused: an attacker can repeat them (RFC 8446 §8).

mod ciphers;
mod clients;
mod der;
mod files;
mod names;
mod secured;
mod server_names;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

use der::Fields;
pub use secured::Secured;

/// The keys that rustls takes with the cryptography of ring.
const KEYS: &str = "RSA of 2048 to 4096 bits, ECDSA with P-256 or P-384, or Ed25519";

/// The protocols that a client may select (RFC 7301 §6).
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// The settings of TLS for all listeners of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// The certificates, one at least. A client gets the one with the name that it asks for (SNI, RFC 6066 §3), otherwise
    /// the first.
    pub certificates: Vec<CertificateFiles>,
    /// Whether clients need certificates.
    pub clients: ClientCertificates,
    /// The certification authorities of clients: a file of certificates in PEM.
    pub authorities: Option<PathBuf>,
    /// Names of cipher suites as OpenSSL writes them, between colons, commas or spaces; `None`: all of rustls.
    pub ciphers: Option<String>,
    /// The oldest protocol that is spoken.
    pub oldest: TlsVersion,
}

/// A certificate with its chain, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate of the server, and behind it those of the authorities between it and the root.
    pub certificate: PathBuf,
    /// PEM, not encrypted; `None`: it is in the file of the certificate.
    pub key: Option<PathBuf>,
}

/// Whether clients need certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// One is asked for. A client without one is served; one that is not valid ends the handshake.
    Optional,
    /// A client without a valid one gets no connection.
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Why TLS cannot be served with these settings: one line with the setting or the file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// A setting has no meaning, or lacks another one.
    Setting(String),
    /// A file cannot be read, or has the wrong contents.
    File(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Setting(text) | TlsError::File(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for TlsError {}

/// Everything that handshakes need, keys included. A clone is the same.
#[derive(Clone)]
pub struct TlsServer(pub(crate) Arc<ServerConfig>);

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer")
    }
}

impl PartialEq for TlsServer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsServer {}

impl TlsSettings {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or has the wrong contents, a key belongs to another certificate, a suite is unknown, or a
    /// setting lacks another one.
    pub fn load(&self) -> Result<TlsServer, TlsError> {
        let mut provider = ring::default_provider();
        if let Some(names) = &self.ciphers {
            provider.cipher_suites = ciphers::selected(names)?;
        }
        let provider = Arc::new(provider);
        let versions = self.versions(&provider)?;
        let refused = |error: rustls::Error| TlsError::Setting(format!("TLS cannot be served: {error}"));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(refused)?;
        let builder = match self.authorities(&provider)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.certified(&provider)?));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ticketer = ring::Ticketer::new().map_err(refused)?;
        Ok(TlsServer(Arc::new(config)))
    }

    /// The versions for which a suite is left.
    fn versions(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        let may = |version: &SupportedProtocolVersion| {
            provider.cipher_suites.iter().any(|suite| suite.version() == version)
        };
        let wanted = match self.oldest {
            TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
            TlsVersion::Tls13 => &[&TLS13][..],
        };
        let versions: Vec<_> = wanted.iter().copied().filter(|version| may(version)).collect();
        if versions.is_empty() {
            return Err(TlsError::Setting(
                "no cipher suite is left for TLS 1.3, the oldest version allowed".to_owned(),
            ));
        }
        Ok(versions)
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<server_names::ByServerName, TlsError> {
        let mut keys = Vec::new();
        for pair in &self.certificates {
            keys.push(Arc::new(pair.load(provider)?));
        }
        if keys.is_empty() {
            return Err(TlsError::Setting("TLS needs a certificate".to_owned()));
        }
        Ok(server_names::ByServerName::new(keys))
    }

    /// The check of clients' certificates; `None`: none is asked for.
    fn authorities(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>, TlsError> {
        let Some(path) = &self.authorities else {
            return match self.clients {
                ClientCertificates::None => Ok(None),
                _ => Err(TlsError::Setting(
                    "certificates of clients are asked for, and no file has their authorities".to_owned(),
                )),
            };
        };
        let mut roots = RootCertStore::empty();
        let listed = files::certificates(path)?;
        for certificate in &listed {
            let unusable =
                |error| TlsError::File(format!("{}: a certificate cannot be used: {error}", path.display()));
            roots.add(certificate.clone()).map_err(unusable)?;
        }
        if self.clients == ClientCertificates::None {
            return Ok(None);
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = match self.clients {
            ClientCertificates::Optional => verifier.allow_unauthenticated(),
            _ => verifier,
        };
        let by_authorities =
            verifier.build().map_err(|error| TlsError::File(format!("{}: {error}", path.display())))?;
        Ok(Some(Arc::new(clients::Clients { by_authorities, listed })))
    }
}

/// Whether the names of a list of cipher suites are known.
///
/// # Errors
/// One is not; the error has all that are.
pub fn check_ciphers(names: &str) -> Result<(), TlsError> {
    ciphers::selected(names).map(drop)
}

impl CertificateFiles {
    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = files::certificates(&self.certificate)?;
        let at = self.key.as_deref().unwrap_or(&self.certificate);
        let key = files::key(at)?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            TlsError::File(format!("the key in {} cannot be used: it is not {KEYS}: {error}", at.display()))
        })?;
        if let Some(end) = chain.first() {
            files::warn_of_dates(&self.certificate, end);
        }
        // Not by rustls's own check, which refuses certificates of version 1.
        let fields = chain.first().and_then(|end| Fields::of(end)).ok_or_else(|| {
            TlsError::File(format!("the first certificate in {} is malformed", self.certificate.display()))
        })?;
        if key.public_key().is_some_and(|own| *own != *fields.key) {
            return Err(TlsError::File(format!(
                "the key in {} does not belong to the first certificate in {}",
                at.display(),
                self.certificate.display()
            )));
        }
        Ok(CertifiedKey::new(chain, key))
    }
}

#[cfg(test)]
mod tests;
