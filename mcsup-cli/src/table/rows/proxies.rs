//! Proxies: which peers are trusted, and with what.

use super::Row;

/// The rows.
pub(super) const ROWS: &[Row] = &[
    Row::value(
        "forwarded_allow_ips",
        "forwarded-allow-ips",
        "LIST",
        "Addresses and networks of proxies, with commas between them, whose header fields name the scheme \
         (--secure-scheme-header), the mount point (--forwarder-headers) and the client \
         (--trusted-hops); *: all peers. Peers on Unix sockets are always trusted. A client that a \
         PROXY header names must be in the list too",
    )
    .variable("FORWARDED_ALLOW_IPS")
    .default("127.0.0.1,::1")
    .as_in_gunicorn()
    .of_applications(),
    Row::list(
        "secure_scheme_headers",
        "secure-scheme-header",
        "NAME=VALUE",
        "Header field of a trusted proxy, and the value that means https; any other value means http. \
         A request whose fields contradict each other is refused. Repeatable; a file may have a table. \
         An empty text: no field",
    )
    .default_in_words("X-Forwarded-Proto=https, X-Forwarded-Protocol=ssl and X-Forwarded-Ssl=on")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "forwarder_headers",
        "forwarder-headers",
        "LIST",
        "Header fields with an underscore that a trusted proxy may send, with commas between them; \
         SCRIPT_NAME is the mount point of the application; *: all",
    )
    .default("SCRIPT_NAME,PATH_INFO")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "header_map",
        "header-map",
        "ACTION",
        "What happens to other header fields with an underscore, which the environ cannot tell from \
         those with a hyphen: drop the field, refuse the request, or pass it on (dangerous)",
    )
    .words(&["drop", "refuse", "dangerous"])
    .default("drop")
    .as_in_gunicorn()
    .of_applications(),
    Row {
        bare: Some("auto"),
        ..Row::value(
            "proxy_protocol",
            "proxy-protocol",
            "VERSION",
            "Version of the PROXY header that a connection may begin with: off, v1, v2 or auto (both); \
             without a value auto",
        )
        .words(&["off", "v1", "v2", "auto"])
        .default("off")
        .as_in_gunicorn()
        .of_applications()
    },
    Row::value(
        "proxy_allow_from",
        "proxy-allow-from",
        "LIST",
        "Addresses and networks of the peers that may send a PROXY header, with commas between them; \
         *: all. Others get 403. Peers on Unix sockets always may",
    )
    .default("127.0.0.1,::1")
    .gunicorn("proxy_allow_ips")
    .of_applications(),
    Row::value(
        "trusted_hops",
        "trusted-hops",
        "COUNT",
        "Proxies before the server, up to 100, that append the address of their peer to \
         --trusted-hops-field: the entry COUNT from its end is REMOTE_ADDR, if the peer is in \
         --forwarded-allow-ips; 0: the field has no effect",
    )
    .default("0")
    .of_applications(),
    Row::value(
        "trusted_hops_field",
        "trusted-hops-field",
        "NAME",
        "The header field that these proxies append to: x-forwarded-for, or forwarded (RFC 7239)",
    )
    .words(&["x-forwarded-for", "forwarded"])
    .default("x-forwarded-for")
    .of_applications(),
];
