"""Where we differ from gunicorn on purpose, by name, with the paragraph that we follow."""

# Settings of gunicorn that weaken its checks, or that come with later features. A case that sets one is not about us.
SETTINGS_WITHOUT_COUNTERPART = {
    "casefold_http_method": "methods are case-sensitive (RFC 9110 9.1)",
    "permit_obsolete_folding": "folded fields are always refused (RFC 9112 5.2)",
    "permit_unconventional_http_method": "methods are checked always",
    "strip_header_spaces": "a space before the colon is always refused (RFC 9112 5.1)",
}

# Statuses for gunicorn's exceptions. A set: ours may be more precise.
STATUSES = {
    "ChunkMissingTerminator": {400},
    "InvalidChunkExtension": {400},
    "InvalidChunkSize": {400},
    "InvalidHTTPVersion": {400, 505},
    "InvalidHeader": {400},
    "InvalidHeaderName": {400},
    "InvalidProxyLine": {400},
    "InvalidRequestLine": {400},
    "InvalidRequestMethod": {400},
    "InvalidSchemeHeaders": {400},
    "LimitRequestHeaders": {431},
    "LimitRequestLine": {414},
    "ObsoleteFolding": {400},
    "UnsupportedTransferCoding": {501},
    # The client has ended in the middle: no client is left for an answer.
    "NoMoreData": {None, 408},
}

# Cases that gunicorn takes and we refuse: status and paragraph.
STRICTER = {
    "005": (400, "RFC 9112 3.2: no form of target has a fragment"),
    "025": (501, "RFC 9112 6.1: gzip is a coding that mcsup does not decode"),
    "025_line": (501, "RFC 9112 6.1: gzip is a coding that mcsup does not decode"),
    "029": (501, "RFC 9112 7: identity is no transfer coding any more"),
    "030": (501, "RFC 9112 7: identity is no transfer coding any more"),
    "099": (400, "RFC 9112 8: the body is shorter than announced"),
    "rfc9112_smuggle_gzip_chunked_01": (501, "RFC 9112 6.1: gzip is a coding that mcsup does not decode"),
    "rfc9112_smuggle_te_identity_chunked_01": (501, "RFC 9112 7: identity is no transfer coding any more"),
    "rfc9112_target_absolute_userinfo_01": (400, "RFC 9110 4.2.4: userinfo in a URI that comes from elsewhere is an error"),
    "rfc9112_target_authority_connect_01": (501, "RFC 9110 9.3.6: CONNECT is for proxies"),
    "rfc9112_target_authority_ipv6_01": (501, "RFC 9110 9.3.6: CONNECT is for proxies"),
}

# Cases that gunicorn refuses and we answer otherwise: status and paragraph.
OTHERWISE = {
    "006": (200, "RFC 9112 3: request lines of at least 8000 bytes are to be supported, and this one has 4112"),
    "chunked_03": (501, "RFC 9112 6.1: the first of its codings is unknown, whatever follows"),
    "chunked_04": (501, "RFC 9112 6.1: the first of its codings is unknown, whatever follows"),
    "limit_header_default_01": (200, "a limit of 0 is no limit, as both manuals say"),
    "rfc9112_leading_crlf_02": (200, "RFC 9112 2.2: at least one empty line is ignored; we ignore a few"),
    "rfc9112_target_non_ascii_01": (200, "RFC 9112 3 names spaces alone as what splits a request line; many clients send such bytes, and PEP 3333 has room for them"),
    "rfc9112_target_non_ascii_02": (200, "RFC 9112 3 names spaces alone as what splits a request line; many clients send such bytes, and PEP 3333 has room for them"),
    "rfc9112_te_identity_with_cl_01": (400, "RFC 9112 3.2: its target has a fragment"),
    "rfc9112_te_not_chunked_final_01": (501, "RFC 9112 6.1: gzip is a coding that mcsup does not decode"),
}
