//! Variables of the environ about a connection by TLS. The names are those of Apache's mod_ssl.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::{ProtocolVersion, ServerConnection};

use super::der::Fields;
use super::{ciphers, names};

/// The length of a line in PEM (RFC 7468 §2).
const LINE: usize = 64;

/// What a handshake has determined, as variables for the application: made once for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// Names and values. Values are bytes of UTF-8, since a name in a certificate may have any letters.
    pub variables: Vec<(&'static str, String)>,
}

impl Secured {
    /// After the handshake. `None`: the client has a certificate that cannot be described.
    pub(crate) fn of(connection: &ServerConnection) -> Option<Self> {
        let protocol = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        let cipher = connection.negotiated_cipher_suite().map_or("", |suite| ciphers::name_of(suite.suite()));
        let mut variables = vec![
            ("HTTPS", "on".to_owned()),
            ("SSL_PROTOCOL", protocol.to_owned()),
            ("SSL_CIPHER", cipher.to_owned()),
        ];
        if let Some(name) = connection.server_name() {
            variables.push(("SSL_TLS_SNI", name.to_owned()));
        }
        match connection.peer_certificates().and_then(<[_]>::first) {
            None => variables.push(("SSL_CLIENT_VERIFY", "NONE".to_owned())),
            Some(certificate) => {
                variables.push(("SSL_CLIENT_VERIFY", "SUCCESS".to_owned()));
                variables.extend(client(certificate)?);
            }
        }
        Some(Self { variables })
    }
}

/// The variables of a client's certificate, which rustls has verified.
fn client(der: &[u8]) -> Option<[(&'static str, String); 4]> {
    let fields = Fields::of(der)?;
    Some([
        ("SSL_CLIENT_CERT", pem(der)),
        ("SSL_CLIENT_S_DN", names::shown(fields.subject)?),
        ("SSL_CLIENT_I_DN", names::shown(fields.issuer)?),
        ("SSL_CLIENT_SERIAL", names::serial(fields.serial)),
    ])
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
