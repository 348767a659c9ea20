//! The check of clients' certificates: by their authorities, or because the certificate itself is in the file of these.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::files;

/// As OpenSSL has it: a certificate in the file of authorities is trusted, also if it is not from another one in it
/// (`openssl req -x509`). rustls refuses the certificate of an authority as that of a client.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) by_authorities: Arc<dyn ClientCertVerifier>,
    pub(super) listed: Vec<CertificateDer<'static>>,
}

impl ClientCertVerifier for Clients {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.by_authorities.verify_client_cert(end_entity, intermediates, now);
        if verified.is_err() && self.listed.contains(end_entity) && files::is_valid_at(end_entity, now) {
            return Ok(ClientCertVerified::assertion());
        }
        verified
    }

    fn offer_client_auth(&self) -> bool {
        self.by_authorities.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.by_authorities.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authorities.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authorities.supported_verify_schemes()
    }
}
