//! The settings of gunicorn 27.0.1 that have no counterpart here, or not yet, and what happens to them.

use super::Row;

const ASGI: &str = "it is for ASGI applications, and mcsup serves WSGI ones";
const HTTP2: &str = "mcsup serves HTTP/1.1; a proxy before it speaks HTTP/2 with the clients";
const DIRTY: &str = "mcsup has no dirty workers; a task queue or `mcsup exec` runs work outside of \
         requests";
const STRICT: &str = "mcsup parses strictly, so that it and a proxy agree where a request ends; the \
         client or the proxy must be corrected";
const OPENSSL: &str = "it is about OpenSSL, and mcsup uses rustls; docs/TLS.md";

/// The rows.
pub(super) const ROWS: &[Row] = &[
    value("worker_tmp_dir", "worker-tmp-dir", "Directory of the files for signs of life")
        .ignored("workers show signs of life in shared memory, without files"),
    value("tmp_upload_dir", "", "Directory of uploads").ignored("gunicorn does not use it either"),
    value("control_socket_mode", "control-socket-mode", "Mode of the control socket")
        .harmless(&["0600", "0o600", "384"])
        .refused("the control socket has mode 0600: its user alone commands the server"),
    value("asgi_loop", "asgi-loop", "Event loop").harmless(&["auto"]).ignored(ASGI),
    value("asgi_lifespan", "asgi-lifespan", "Lifespan protocol").harmless(&["auto"]).ignored(ASGI),
    value(
        "asgi_disconnect_grace_period",
        "asgi-disconnect-grace-period",
        "Seconds before a task is cancelled",
    )
    .harmless(&["3"])
    .ignored(ASGI),
    value("websocket_max_message_size", "websocket-max-message-size", "Bytes of a message")
        .harmless(&["16777216"])
        .ignored(ASGI),
    value("root_path", "root-path", "Root path").harmless(&[""]).ignored(
        "it is for ASGI applications; SCRIPT_NAME in the environment is its counterpart for \
         WSGI",
    ),
    value("http_parser", "http-parser", "Parser of requests")
        .harmless(&["auto"])
        .ignored("mcsup has one parser, which is compiled"),
    value("http_protocols", "http-protocols", "Versions of HTTP").harmless(&["h1"]).refused(HTTP2),
    value("http2_cleartext", "http2-cleartext", "HTTP/2 without TLS").harmless(&["off"]).refused(HTTP2),
    value("http2_max_concurrent_streams", "http2-max-concurrent-streams", "Streams of a connection")
        .harmless(&["100"])
        .ignored(HTTP2),
    value("http2_initial_window_size", "http2-initial-window-size", "Flow control window")
        .harmless(&["65535"])
        .ignored(HTTP2),
    value("http2_max_frame_size", "http2-max-frame-size", "Bytes of a frame")
        .harmless(&["16384"])
        .ignored(HTTP2),
    value("http2_max_header_list_size", "http2-max-header-list-size", "Bytes of the header fields")
        .harmless(&["65536"])
        .ignored(HTTP2),
    list("dirty_apps", "dirty-app", "Application of dirty workers").refused(DIRTY),
    value("dirty_workers", "dirty-workers", "Number of dirty workers").harmless(&["0"]).refused(DIRTY),
    value("dirty_timeout", "dirty-timeout", "Seconds of a task").harmless(&["300"]).ignored(DIRTY),
    value("dirty_threads", "dirty-threads", "Threads of a dirty worker").harmless(&["1"]).ignored(DIRTY),
    value("dirty_graceful_timeout", "dirty-graceful-timeout", "Seconds for a stop")
        .harmless(&["30"])
        .ignored(DIRTY),
    Row::hook("on_dirty_starting", "Called before dirty workers start").ignored(DIRTY),
    Row::hook("dirty_post_fork", "Called in a new dirty worker").ignored(DIRTY),
    Row::hook("dirty_worker_init", "Called in a dirty worker with its applications").ignored(DIRTY),
    Row::hook("dirty_worker_exit", "Called at the end of a dirty worker").ignored(DIRTY),
    value("protocol", "protocol", "Protocol of the clients")
        .harmless(&["http"])
        .refused("mcsup speaks HTTP/1.1; let nginx use proxy_pass in place of uwsgi_pass"),
    value("uwsgi_allow_ips", "uwsgi-allow-from", "Peers that may speak uwsgi")
        .harmless(&["127.0.0.1,::1"])
        .ignored("mcsup does not speak the uwsgi protocol"),
    flag("permit_obsolete_folding", "permit-obsolete-folding", "Accept folded header fields").refused(STRICT),
    flag("strip_header_spaces", "strip-header-spaces", "Accept spaces before the colon").refused(STRICT),
    flag("permit_unconventional_http_method", "permit-unconventional-http-method", "Accept any method")
        .refused(STRICT),
    flag("permit_unconventional_http_version", "permit-unconventional-http-version", "Accept any version")
        .refused(STRICT),
    flag("casefold_http_method", "casefold-http-method", "Change methods to upper case").refused(STRICT),
    flag("spew", "spew", "Print each line that Python executes")
        .ignored("`python -m trace` or a profiler shows the lines of an application"),
    value("logger_class", "logger-class", "Python class that logs")
        .harmless(&["gunicorn.glogging.Logger", "gunicorn.instrument.statsd.Statsd", "simple"])
        .refused(
            "no Python code runs for each record; log_format and access_logformat have JSON, logconfig sets \
             handlers and filters, and statsd_host sends metrics",
        ),
    value("default_proc_name", "", "Name in process listings, where none is given")
        .harmless(&["gunicorn"])
        .ignored("name sets the name in process listings"),
    value("ssl_version", "ssl-version", "Version of TLS")
        .ignored("gunicorn does not use it either; tls_min_version sets the oldest version"),
    flag("suppress_ragged_eofs", "suppress-ragged-eofs", "Accept an end without close_notify")
        .harmless(&["true"])
        .ignored(OPENSSL),
    flag("do_handshake_on_connect", "do-handshake-on-connect", "Shake hands at once").ignored(OPENSSL),
    Row::hook("ssl_context", "Makes the TLS context").refused(
        "it returns a context of OpenSSL, and mcsup uses rustls: certfile, cert_reqs, ciphers \
         and tls_min_version replace it",
    ),
];

const fn value(name: &'static str, flag: &'static str, help: &'static str) -> Row {
    Row::value(name, flag, "VALUE", help).of_applications().as_in_gunicorn()
}

const fn list(name: &'static str, flag: &'static str, help: &'static str) -> Row {
    Row::list(name, flag, "VALUE", help).of_applications().as_in_gunicorn()
}

const fn flag(name: &'static str, flag: &'static str, help: &'static str) -> Row {
    Row::flag(name, flag, help).of_applications().as_in_gunicorn()
}
