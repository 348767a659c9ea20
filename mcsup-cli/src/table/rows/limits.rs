//! How long anything may take, and how much a client may send.

use super::Row;

/// Times.
pub(super) const TIMES: &[Row] = &[
    Row::value(
        "timeout",
        "timeout",
        "SECS",
        "Seconds, at least 1, without a sign of life after which a worker is killed and \
         replaced; 0: never",
    )
    .short('t')
    .default("30")
    .as_in_gunicorn(),
    Row::value(
        "request_timeout",
        "request-timeout",
        "SECS",
        "Seconds that the application may take for a request before the client gets 504 and \
         the worker is replaced; 0: unlimited",
    )
    .default_in_words("--timeout with one thread, otherwise 0")
    .of_applications(),
    Row::value(
        "graceful_timeout",
        "graceful-timeout",
        "SECS",
        "Seconds that a stopping worker may take to finish its requests",
    )
    .default("30")
    .as_in_gunicorn(),
    Row::value("boot_timeout", "boot-timeout", "SECS", "Seconds within which a new worker must be ready")
        .default("60"),
    Row::value(
        "keep_alive",
        "keep-alive",
        "SECS",
        "Seconds that an idle connection is kept open for its next request",
    )
    .default("2")
    .gunicorn("keepalive")
    .of_applications(),
    Row::value(
        "header_timeout",
        "header-timeout",
        "SECS",
        "Seconds within which the whole head of a request must arrive",
    )
    .default("15")
    .of_applications(),
    Row::value(
        "body_timeout",
        "body-timeout",
        "SECS",
        "Seconds without progress after which the upload of a request body is aborted",
    )
    .default("30")
    .of_applications(),
    Row::value(
        "write_timeout",
        "write-timeout",
        "SECS",
        "Seconds without progress after which the sending of a response is aborted",
    )
    .default("60")
    .of_applications(),
];

/// Sizes.
pub(super) const SIZES: &[Row] = &[
    Row::value(
        "worker_connections",
        "worker-connections",
        "COUNT",
        "Open connections of a worker: a further one replaces the one that is idle for the \
         longest time, or waits; 0: as many as the limit of descriptors allows, less about \
         64 for the application",
    )
    .default("0")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "limit_request_line",
        "limit-request-line",
        "BYTES",
        "Bytes of a request line, up to 1048576; 0 and more: the same as 1048576",
    )
    .default("8190")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "limit_request_fields",
        "limit-request-fields",
        "INT",
        "Header fields of a request, up to 32768; 0 and more: the same as 32768",
    )
    .default("100")
    .as_in_gunicorn()
    .of_applications(),
    Row::value(
        "limit_request_field_size",
        "limit-request-field-size",
        "BYTES",
        "Bytes of one header field, up to 1048576; 0 and more: the same as 1048576",
    )
    .aliases(&["limit-request-field_size"])
    .default("8190")
    .as_in_gunicorn()
    .of_applications(),
    Row::value("limit_request_body", "limit-request-body", "BYTES", "Bytes of a request body; 0: unlimited")
        .default("1073741824")
        .of_applications(),
];
