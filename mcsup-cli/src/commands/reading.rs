//! Reading the settings of a pool from all sources, at the start and at each reload.
//!
//! A configuration in Python is executed by another process, within a limit: it may end its process, hang, or leave
//! threads behind.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use mcsup_core::Preparation;
use mcsup_core::host::inquiry::Inquiry;
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_py::conf::{self, Report, Source};
use mcsup_py::python::fork;

use super::beats::Beats;
use super::default_conf::DefaultConf;
use crate::failure::Failure;
use crate::settings::{self, Conf, NamedConf, Settings};
use crate::table::Given;

/// The longest time of a configuration in Python.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// The sources of the settings of a pool.
pub(crate) struct Reading {
    given: Given,
    /// The directory of the start, from which paths of settings files begin.
    start: PathBuf,
    /// The configuration that is read if none is named.
    default: DefaultConf,
    /// `sys.argv` of a configuration in Python.
    arguments: Vec<String>,
    /// Looks up variables of the environment.
    variables: fn(&str) -> Option<OsString>,
}

/// A reading whose configuration in Python is being executed.
#[derive(Debug)]
pub(super) struct Executing {
    source: Source,
    inquiry: Inquiry,
}

impl Reading {
    /// The sources of a command line, whose words are `argv`.
    pub(crate) fn new(given: Given, argv: &[OsString]) -> Self {
        let start = std::env::current_dir().unwrap_or_default();
        conf::remember_directory(start.clone());
        let arguments = argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let default = DefaultConf::find(&start);
        Self { given, start, default, arguments, variables: |name| std::env::var_os(name) }
    }

    /// The same without the environment of this process: a service manager passes another one.
    pub(super) fn without_variables(self) -> Self {
        Self { variables: |_| None, ..self }
    }

    /// The words of the command line.
    pub(super) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Begins to execute the configuration in Python; `None`: there is none.
    pub(super) fn begin(&self) -> Result<Option<Executing>, Failure> {
        let named = settings::named_conf(&self.given, &self.variables, self.default.is_there())?;
        let Some(NamedConf { source, is_default, run_as: (user, group) }) = named else { return Ok(None) };
        if is_default {
            self.default.check(user.as_deref(), group.as_deref())?;
        }
        let venv = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
        let inquiry = Inquiry::start(LIMIT, around_fork, || {
            conf::report(&source, &settings::known_names(), (venv.as_deref(), &self.arguments))
        })?;
        Ok(Some(Executing { source, inquiry }))
    }

    /// Reads the other sources, with the report on the configuration in Python.
    fn read_with(&self, conf: Option<&Conf>) -> Result<Settings, Failure> {
        let read_file = settings::reader(self.start.clone());
        let settings = Settings::resolve_with(self.given.clone(), &self.variables, (&read_file, conf))?;
        Ok(settings.anchored(&self.start))
    }

    /// Reads all sources, and waits for the configuration in Python.
    pub(crate) fn read(&self) -> Result<Settings, Failure> {
        self.read_alive(&mut Beats::new(ServiceManager::default()), None)
    }

    /// The same in a process that a service manager watches.
    ///
    /// `note` is that of an image to which an upgrade has returned. It has the report on the configuration in Python, which
    /// is not executed again, since it may fail as it has in the next image.
    pub(crate) fn read_alive(&self, beats: &mut Beats, note: Option<&str>) -> Result<Settings, Failure> {
        if let Some(conf) = note.and_then(Conf::of_note) {
            return self.read_with(conf.as_ref());
        }
        let executed = self.execute(beats)?;
        self.read_with(executed.as_ref())
    }

    /// Executes the configuration in Python alone; `None`: there is none.
    pub(super) fn conf(&self) -> Result<Option<Conf>, Failure> {
        self.execute(&mut Beats::new(ServiceManager::default()))
    }

    fn execute(&self, beats: &mut Beats) -> Result<Option<Conf>, Failure> {
        Ok(self.begin()?.map(|executing| executing.wait(beats)).transpose()?)
    }

    /// Reads all sources after the configuration in Python was executed, or had its time.
    pub(super) fn finish(&self, executing: Option<Executing>) -> mcsup_core::Result<Settings> {
        let executed = executing.map(Executing::finish).transpose()?;
        let refused =
            |failure: Failure| mcsup_core::Error::new(mcsup_core::ErrorKind::Setting, failure.to_string());
        self.read_with(executed.as_ref()).map_err(refused)
    }
}

impl Executing {
    /// The time that it may take.
    pub(super) fn preparation(&self) -> mcsup_core::Result<Preparation> {
        Ok(Preparation::new(self.inquiry.readiness()?, self.inquiry.limit()))
    }

    fn wait(self, beats: &mut Beats) -> mcsup_core::Result<Conf> {
        conf_of(self.source, self.inquiry.wait(|| beats.beat()))
    }

    fn finish(self) -> mcsup_core::Result<Conf> {
        conf_of(self.source, self.inquiry.finish())
    }
}

/// The configuration, or the error of its execution.
fn conf_of(source: Source, text: mcsup_core::Result<String>) -> mcsup_core::Result<Conf> {
    let failed = |why: String| {
        mcsup_core::Error::new(mcsup_core::ErrorKind::Setting, format!("cannot read {source}: {why}"))
    };
    let text = text.map_err(|error| match error.detail() {
        // Its own error names the file and the line.
        Some(_) => error,
        None if error.to_string().contains(&source.to_string()) => error,
        None => failed(error.to_string()),
    })?;
    let report = Report::parse(&text).map_err(failed)?;
    Ok(Conf { source, report })
}

fn around_fork(after_in_child: Option<bool>) {
    match after_in_child {
        None => fork::before(),
        Some(true) => fork::after_in_child(),
        Some(false) => fork::after_in_parent(),
    }
}
