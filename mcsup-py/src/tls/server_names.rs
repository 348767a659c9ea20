//! The certificate for a client, by the server name that it asks for (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The certificates, and the names in them. A certificate may have several names, and a name several certificates: one
/// for each kind of key.
#[derive(Debug)]
pub(super) struct ByServerName {
    certified: Vec<Arc<CertifiedKey>>,
    /// Lower-case names, a wildcard with its asterisk, and places in `certified`.
    names: HashMap<String, Vec<usize>>,
}

impl ByServerName {
    pub(super) fn new(certified: Vec<Arc<CertifiedKey>>) -> Self {
        let mut names = HashMap::<_, Vec<_>>::new();
        for (place, key) in certified.iter().enumerate() {
            for name in key.cert.first().map(|end| names_in(end)).unwrap_or_default() {
                names.entry(name.to_ascii_lowercase()).or_default().push(place);
            }
        }
        Self { certified, names }
    }

    /// The places of the certificates for a name: with the name itself, otherwise with a wildcard for its first label
    /// (RFC 6125 §6.4.3).
    fn places(&self, name: &str) -> Option<&Vec<usize>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.names.get(&format!("*{}", &name[name.find('.')?..]));
        self.names.get(&name).or_else(wildcard)
    }

    /// A client without a known name gets the first one. Among several the first counts whose key the client supports.
    fn select(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let all: Vec<_> = (0..self.certified.len()).collect();
        let places = name.and_then(|name| self.places(name)).unwrap_or(&all);
        let fits = |place: &&usize| self.certified[**place].key.choose_scheme(schemes).is_some();
        let place = places.iter().find(fits).or(places.first())?;
        self.certified.get(*place).cloned()
    }
}

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.select(hello.server_name(), hello.signature_schemes())
    }
}

/// The DNS names of a certificate (RFC 5280 §4.2.1.6).
fn names_in(certificate: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = names else { return Vec::new() };
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    });
    dns.collect()
}
