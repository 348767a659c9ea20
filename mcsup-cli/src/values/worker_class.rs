//! The kinds of workers that gunicorn has, and what each is here: threads, or an error that names the equivalent.

use super::Refused;
use crate::typos;

/// The words for workers that exist here. `--threads` alone decides how many threads they have.
const WORDS: [&str; 2] = ["sync", "gthread"];

/// gunicorn's names of the same: entry points, and its classes.
const SAME: [&str; 4] = [
    "egg:gunicorn#sync",
    "egg:gunicorn#gthread",
    "gunicorn.workers.sync.SyncWorker",
    "gunicorn.workers.gthread.ThreadWorker",
];

const GREEN: &str = "mcsup serves requests in threads, and needs none for a client that is idle or slow; use -k gthread with \
     --threads N, N being the number of requests that wait for something at the same time, and remove the patches of \
     gevent or eventlet from the application";
const ASGI: &str = "mcsup calls WSGI applications; an ASGI server can be the program of a pool: mcsup exec -w 2 \
     -b 127.0.0.1:8000 --ready tcp -- uvicorn --fd 3 MODULE:APP";
const TORNADO: &str = "mcsup calls WSGI applications, which need -k gthread; a program that runs Tornado's own loop can be that \
     of a pool: mcsup exec -w 2 -b 127.0.0.1:8000 -- python app.py";
const OWN: &str = "a class of gunicorn's workers cannot be used: mcsup has a worker of its own; use -k gthread with --threads N";

/// Parses a kind of workers. All that exist are the same here.
pub(crate) fn worker_class(text: &str) -> Result<(), Refused> {
    if WORDS.contains(&text) || SAME.contains(&text) {
        return Ok(());
    }
    let name = text.rsplit(['.', '#', ':', '/']).next().unwrap_or(text).to_ascii_lowercase();
    let has = |part: &str| name.contains(part);
    if has("gevent") || has("eventlet") || name == "geventwsgi" {
        return Err(GREEN.to_owned());
    }
    if has("tornado") {
        return Err(TORNADO.to_owned());
    }
    let lower = text.to_ascii_lowercase();
    let is_of = |package: &str| lower.starts_with(package);
    if has("asgi") || has("uvicorn") || ["uvicorn", "hypercorn", "aiohttp", "daphne"].into_iter().any(is_of) {
        return Err(ASGI.to_owned());
    }
    if text.contains(['.', '#', ':', '/']) {
        return Err(OWN.to_owned());
    }
    let all = WORDS.into_iter().chain(["gevent", "eventlet", "tornado", "asgi"]);
    Err(match typos::nearest(all, text) {
        Some(near) => format!("expected sync or gthread; is {near} meant?"),
        None => "expected sync or gthread".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_accepted_under_all_their_names_and_other_kinds_name_the_equivalent() {
        for text in ["sync", "gthread", "egg:gunicorn#gthread", "gunicorn.workers.sync.SyncWorker"] {
            assert_eq!(worker_class(text), Ok(()), "{text}");
        }
        for (text, hint) in [
            ("gevent", "--threads N"),
            ("gevent_wsgi", "--threads N"),
            ("eventlet", "--threads N"),
            ("gunicorn.workers.ggevent.GeventWorker", "--threads N"),
            ("egg:gunicorn#gevent", "--threads N"),
            ("flask_sockets.worker.GeventWebSocketWorker", "--threads N"),
            ("tornado", "mcsup exec"),
            ("asgi", "uvicorn --fd 3"),
            ("uvicorn.workers.UvicornWorker", "uvicorn --fd 3"),
            ("uvicorn_worker.UvicornH11Worker", "uvicorn --fd 3"),
            ("myapp.workers.MyUvicornWorker", "uvicorn --fd 3"),
            ("aiohttp.GunicornWebWorker", "uvicorn --fd 3"),
            ("meinheld.gmeinheld.MeinheldWorker", "a class of gunicorn's workers cannot be used"),
            ("gthred", "is gthread meant?"),
            ("", "expected sync or gthread"),
        ] {
            let refused = worker_class(text).unwrap_err();
            assert!(refused.contains(hint), "{text}: {refused}");
        }
    }
}
