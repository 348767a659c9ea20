//! The settings by gunicorn's names, for the hooks of `gunicorn.conf.py`: `server.cfg` and `worker.cfg`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::logging::Destination;
use crate::settings::{Settings, Sourced};

/// A JSON object. Durations are seconds; a setting that is off is 0 or null, as with gunicorn. Those that the commands do
/// not use in this form are there if a source beside the configuration gives them, as they are written.
pub(super) fn values(settings: &Settings) -> String {
    let Settings { pool, http, limits, process, logging, recycling, .. } = settings;
    let text = |setting: &Option<Sourced<String>>| setting.as_ref().map(|found| found.value.clone());
    let path = |setting: &Option<Sourced<PathBuf>>| setting.as_ref().map(|found| found.value.clone());
    let environment: Vec<String> =
        process.env.value.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut values = json!({
        "accesslog": logging.access.as_ref().map(|log| place(&log.value)),
        "access_log_format": logging.access_format.value,
        "backlog": settings.backlog.value,
        "bind": settings.binds.value.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ca_certs": settings.tls.as_ref().and_then(|tls| tls.authorities.clone()),
        "cert_reqs": settings.tls.as_ref().map_or(0, |tls| tls.clients as u8),
        "certfile": settings.tls.as_ref().and_then(|tls| Some(tls.certificates.first()?.certificate.clone())),
        "check_config": settings.check_config.value,
        "ciphers": settings.tls.as_ref().and_then(|tls| tls.ciphers.clone()),
        "daemon": process.daemon.value,
        "errorlog": place(&logging.errors.value),
        "graceful_timeout": seconds(pool.graceful.value),
        "group": text(&process.group),
        "keepalive": seconds(http.keep_alive.value),
        "keyfile": settings.tls.as_ref().and_then(|tls| tls.certificates.first()?.key.clone()),
        "limit_request_field_size": limits.field_size.value,
        "limit_request_fields": limits.fields.value,
        "limit_request_line": limits.line.value,
        "loglevel": logging.level.value.name(),
        "max_requests": recycling.requests.value.unwrap_or(0),
        "max_requests_jitter": recycling.requests_jitter.value,
        "pidfile": path(&process.pid),
        "preload_app": settings.mold.preload.value,
        "proc_name": text(&process.name).or_else(|| settings.target().ok().map(str::to_owned)),
        "pythonpath": settings.python_path.as_ref().map(|path| path.value.join(",")),
        "raw_env": environment,
        "reload": settings.development.reload.value,
        "reload_extra_files": settings.development.extra_files.value,
        "reuse_port": settings.reuse_port.value,
        "threads": settings.threads.value,
        "timeout": pool.timeout.value.map_or(json!(0), seconds),
        "umask": process.umask.as_ref().map_or(0, |umask| umask.value),
        "user": text(&process.user),
        "worker_class": if settings.threads.value > 1 { "gthread" } else { "sync" },
        "worker_connections": limits.connections.value,
        "workers": settings.workers.value,
        "wsgi_app": text(&settings.app),
    });
    if let (Some(directory), Value::Object(values)) = (path(&process.chdir), &mut values) {
        values.insert("chdir".to_owned(), json!(directory));
    }
    if let (Some(conf), Value::Object(values)) = (&settings.conf, &mut values) {
        for (name, value) in &conf.beside {
            values.entry(*name).or_insert_with(|| value.clone());
        }
    }
    values.to_string()
}

fn place(destination: &Destination) -> Value {
    match destination {
        Destination::Standard => json!("-"),
        Destination::File(path) => json!(path),
    }
}

/// Whole seconds as a whole number.
fn seconds(time: Duration) -> Value {
    if time.subsec_nanos() == 0 { json!(time.as_secs()) } else { json!(time.as_secs_f64()) }
}
