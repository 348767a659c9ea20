//! The kinds of workers that gunicorn has, and what each is here: threads, or an error that names the equivalent.

use std::fmt::Write;

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
const ASGI: &str = "mcsup calls WSGI applications; an ASGI server can be the program of a pool";
const TORNADO: &str = "mcsup calls WSGI applications, which need -k gthread; a program that runs Tornado's own loop can be that \
     of a pool";
const OWN: &str = "a class of gunicorn's workers cannot be used: mcsup has a worker of its own; use -k gthread with --threads N";

/// The other settings that an answer repeats, as they are written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beside<'a> {
    /// The number of workers.
    pub workers: Option<&'a str>,
    /// The first address.
    pub bind: Option<&'a str>,
    /// The application.
    pub app: Option<&'a str>,
}

impl Beside<'_> {
    /// The command that runs a program in place of the workers.
    fn exec(&self, is_uvicorn: bool) -> String {
        let mut line = "mcsup exec".to_owned();
        for (option, value) in [("-w", self.workers), ("-b", self.bind)] {
            if let Some(value) = value.and_then(|value| shlex::try_quote(value).ok()) {
                let _ = write!(line, " {option} {value}");
            }
        }
        if !is_uvicorn {
            return line + " -- python app.py";
        }
        let is_unix = self.bind.is_some_and(|bind| bind.starts_with("unix:"));
        let app = self.app.and_then(|app| shlex::try_quote(app).ok()).unwrap_or("MODULE:APP".into());
        let ready = if is_unix { "timer:5" } else { "tcp" };
        let _ = write!(line, " --ready {ready} -- uvicorn --fd 3 {app}");
        line
    }
}

/// Parses a kind of workers. All that exist are the same here.
pub(crate) fn worker_class(text: &str, beside: Beside<'_>) -> Result<(), Refused> {
    if WORDS.contains(&text) || SAME.contains(&text) {
        return Ok(());
    }
    let name = text.rsplit(['.', '#', ':', '/']).next().unwrap_or(text).to_ascii_lowercase();
    let has = |part: &str| name.contains(part);
    if has("gevent") || has("eventlet") || name == "geventwsgi" {
        return Err(GREEN.to_owned());
    }
    if has("tornado") {
        return Err(format!("{TORNADO}: {}", beside.exec(false)));
    }
    let lower = text.to_ascii_lowercase();
    let is_of = |package: &str| lower.starts_with(package);
    if has("asgi") || has("uvicorn") || ["uvicorn", "hypercorn", "aiohttp", "daphne"].into_iter().any(is_of) {
        return Err(format!("{ASGI}: {}", beside.exec(true)));
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
            assert_eq!(worker_class(text, Beside::default()), Ok(()), "{text}");
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
            let refused = worker_class(text, Beside::default()).unwrap_err();
            assert!(refused.contains(hint), "{text}: {refused}");
        }
    }

    #[test]
    fn the_answer_for_asgi_repeats_what_is_written_beside_it() {
        let answer = |workers, bind, app| {
            let refused =
                worker_class("uvicorn.workers.UvicornWorker", Beside { workers, bind, app }).unwrap_err();
            refused.split_once(": ").unwrap().1.to_owned()
        };
        assert_eq!(
            answer(Some("4"), Some("0.0.0.0:4000"), Some("main:app")),
            "mcsup exec -w 4 -b 0.0.0.0:4000 --ready tcp -- uvicorn --fd 3 main:app"
        );
        // A probe by TCP does not reach it.
        assert_eq!(
            answer(Some("1"), Some("unix:/run/a b.sock"), None),
            "mcsup exec -w 1 -b 'unix:/run/a b.sock' --ready timer:5 -- uvicorn --fd 3 MODULE:APP"
        );
    }
}
