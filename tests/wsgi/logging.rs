//! Python's `logging` for the server's own records.

use std::path::Path;
use std::time::{Duration, SystemTime};

use pyo3::prelude::*;

use super::fixture::{log_record, module, no_access_log, start_python};
use crate::python::logging::{Fed, Feeder, LogConfig, Loggers, Outputs};
use crate::targets::Severity;
use crate::targets::queue::{Entry, Value};

/// A configuration whose handlers write to files of `folder`, by a formatter that shows all that matters.
fn dictionary(folder: &Path) -> String {
    format!(
        r#"{{
  "version": 1,
  "loggers": {{
    "gunicorn.error": {{"level": "INFO", "handlers": ["error"], "propagate": false}},
    "gunicorn.access": {{"level": "INFO", "handlers": ["access"], "propagate": false}}
  }},
  "handlers": {{
    "console": {{"class": "logging.NullHandler"}},
    "error": {{"class": "logging.FileHandler", "formatter": "all", "filename": "{folder}/error.log"}},
    "access": {{"class": "logging.FileHandler", "formatter": "all", "filename": "{folder}/access.log"}}
  }},
  "root": {{"level": "INFO", "handlers": ["console"]}},
  "formatters": {{"all": {{"format": "%(created).1f %(levelname)s %(name)s %(message)s"}}}}
}}"#,
        folder = folder.display()
    )
}

fn access(line: Option<&str>) -> Entry {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let atoms = vec![
        ("m".to_owned(), text("GET")),
        ("B".to_owned(), Value::Number(7)),
        ("{x-id}i".to_owned(), text("a\\\"b")),
    ];
    Entry::Access { line: line.map(str::to_owned), atoms, time: moment() }
}

fn error(text: &str) -> Entry {
    Entry::Error { severity: Severity::Warning, text: text.to_owned(), time: moment() }
}

fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500)
}

// One test, since the loggers belong to the process.
#[test]
fn records_reach_the_configured_handlers_whole_and_in_order() {
    start_python();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logging.json");
    std::fs::write(&file, dictionary(folder.path())).unwrap();
    let config = LogConfig { json: Some(file), ini: None };
    let outputs = || Outputs::new(&log_record(), &no_access_log());
    let both = Fed { errors: true, access: true };
    let loggers = Python::attach(|py| {
        let loggers = Loggers::configure(py, (&config, &[]), None, outputs())
            .map_err(|error| error.summary)
            .unwrap()
            .unwrap();
        assert_eq!(loggers.fed(py).unwrap(), both);
        loggers
    });
    let feeder = Feeder::start(loggers, "%(m)s %(B)s %({X-Id}i)s %({none}o)s 100%%".to_owned()).unwrap();
    feeder.queue().push(error("100% {} %s\nof it"));
    feeder.queue().push(access(None));
    feeder.queue().push(access(Some("{\"a\": \"%d\"}")));
    std::fs::rename(folder.path().join("error.log"), folder.path().join("error.old")).unwrap();
    feeder.queue().push(Entry::Reopen);
    feeder.queue().push(error("after"));
    feeder.end();
    let text = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let stamp = "1700000000.5";
    assert_eq!(text("error.old"), format!("{stamp} WARNING gunicorn.error 100% {{}} %s\nof it\n"));
    assert_eq!(text("error.log"), format!("{stamp} WARNING gunicorn.error after\n"));
    let lines = ["GET 7 a\\\"b - 100%", "{\"a\": \"%d\"}"];
    let lines = lines.map(|line| format!("{stamp} INFO gunicorn.access {line}\n")).concat();
    assert_eq!(text("access.log"), lines);

    // A dictionary replaces the file, and what it does not name has gunicorn's defaults.
    Python::attach(|py| {
        let code = "logconfig_dict = {'loggers': {'gunicorn.access': {'level': 'INFO', 'handlers': []}}, 'root': {'handlers': []}}";
        let given = module(py, code).dict();
        let loggers = Loggers::configure(py, (&config, &[]), Some(&given), outputs())
            .map_err(|error| error.summary)
            .unwrap()
            .unwrap();
        assert!(!loggers.fed(py).unwrap().access);
    });
}

#[test]
fn a_missing_file_is_an_error() {
    start_python();
    Python::attach(|py| {
        let outputs = || Outputs::new(&log_record(), &no_access_log());
        let missing = LogConfig { ini: Some("/nowhere/logging.ini".into()), json: None };
        let error = Loggers::configure(py, (&missing, &[]), None, outputs()).err().unwrap().summary;
        assert!(error.contains("/nowhere/logging.ini"), "{error}");
    });
}
