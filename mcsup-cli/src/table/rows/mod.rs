//! The rows, one file for each group.

mod application;
mod gunicorn;
mod hooks;
mod life;
mod limits;
mod logging;
mod process;
mod program;
mod proxies;
mod serving;
mod tls;

use super::Section;
use super::row::Row;

/// All sections in the order of the help.
pub(super) const SECTIONS: [Section; 15] = [
    Section { heading: "", rows: GENERAL },
    Section { heading: "Program", rows: program::ROWS },
    Section { heading: "Serving", rows: serving::ROWS },
    Section { heading: "Application", rows: application::ROWS },
    Section { heading: "Proxies", rows: proxies::ROWS },
    Section { heading: "TLS", rows: tls::ROWS },
    Section { heading: "Reloading", rows: life::RELOADING },
    Section { heading: "Recycling", rows: life::RECYCLING },
    Section { heading: "Development", rows: life::DEVELOPMENT },
    Section { heading: "Time limits", rows: limits::TIMES },
    Section { heading: "Size limits", rows: limits::SIZES },
    Section { heading: "Process", rows: process::ROWS },
    Section { heading: "Logging", rows: logging::ROWS },
    Section { heading: "Hooks of gunicorn.conf.py", rows: hooks::ROWS },
    Section { heading: "Gunicorn", rows: gunicorn::ROWS },
];

const GENERAL: &[Row] = &[
    Row::value("app", "", "APP", "The application: MODULE:ATTRIBUTE; in a settings file the key `app`")
        .gunicorn("wsgi_app")
        .of_applications(),
    Row::value(
        "config",
        "config",
        "FILE",
        "Settings file: a gunicorn.conf.py, also as python:MODULE; or FILE.toml, its keys the long names of \
         the options with _ for -, or gunicorn's names; each reload reads it again",
    )
    .short('c')
    .default_in_words("./gunicorn.conf.py, if it is there")
    .as_in_gunicorn(),
];
