//! TLS.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::list(
        "certfile",
        "certfile",
        "FILE",
        "Serve HTTPS with this certificate, a file in PEM with the chain behind it; repeatable: a \
         client gets the one for the name that it asks for, otherwise the first",
    )
    .as_in_gunicorn()
    .of_applications(),
    Row::list(
        "keyfile",
        "keyfile",
        "FILE",
        "Key of the certificate, in PEM, not encrypted; repeatable in the order of the certificates",
    )
    .default_in_words("in the file of the certificate")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "cert_reqs",
        "cert-reqs",
        "WORD",
        "Whether clients need a certificate: none, optional or required (also 0, 1, 2)",
    )
    .words(&["none", "optional", "required"])
    .default("none")
    .as_in_gunicorn()
    .of_applications(),
    Row::value("ca_certs", "ca-certs", "FILE", "Certification authorities of clients, a file in PEM")
        .as_in_gunicorn()
        .of_applications(),
    Row::value(
        "ciphers",
        "ciphers",
        "LIST",
        "Cipher suites by OpenSSL's names, between colons; a list without one of TLS 1.3 leaves those",
    )
    .default_in_words("all of docs/TLS.md")
    .as_in_gunicorn()
    .of_applications(),
    Row::value("tls_min_version", "tls-min-version", "VERSION", "Oldest version of TLS: 1.2 or 1.3")
        .words(&["1.2", "1.3"])
        .default("1.2")
        .of_applications(),
];
