//! Applications of PasteDeploy: an ini file names the factories of an application and its middleware.

use std::fmt;
use std::path::{Path, PathBuf};

use pyo3::exceptions::PyModuleNotFoundError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::loading::LoadError;

/// A section of a configuration of PasteDeploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paste {
    /// The ini file, by an absolute path.
    pub file: PathBuf,
    /// The section: `NAME` of `[app:NAME]` or `[composite:NAME]`; `None`: `main`.
    pub section: Option<String>,
    /// Values for `global_conf`, over those of the file's `[DEFAULT]`.
    pub globals: Vec<(String, String)>,
}

impl Paste {
    /// The application of `INI` or `INI#SECTION`; a relative path refers to `directory`.
    pub fn of(text: &str, directory: &Path, globals: Vec<(String, String)>) -> Self {
        let (file, section) = text.split_once('#').map_or((text, None), |(file, name)| (file, Some(name)));
        let section = section.filter(|name| !name.is_empty()).map(str::to_owned);
        Self { file: directory.join(file), section, globals }
    }

    /// Makes the application. A section `[loggers]` of the file first configures Python's `logging`.
    ///
    /// # Errors
    /// The file or PasteDeploy is absent, or a factory raises an exception.
    pub(super) fn load<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>, LoadError> {
        if !self.file.is_file() {
            return Err(LoadError::new(format!("there is no file {}", self.file.display())));
        }
        let deploy = py.import("paste.deploy").map_err(|error| {
            if error.is_instance_of::<PyModuleNotFoundError>(py) {
                return LoadError::new(
                    "--paste needs PasteDeploy, which is not installed: pip install PasteDeploy",
                );
            }
            LoadError::raised(py, "importing PasteDeploy failed", &error)
        })?;
        let failed = |error: PyErr| LoadError::raised(py, &format!("loading {self} failed"), &error);
        self.configure_logging(py).map_err(failed)?;
        self.application(py, &deploy).map_err(failed)
    }

    fn application<'py>(
        &self,
        py: Python<'py>,
        deploy: &Bound<'py, PyModule>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = PyDict::new(py);
        options.set_item("name", self.section.as_deref())?;
        options.set_item("relative_to", std::env::current_dir()?.as_os_str())?;
        if !self.globals.is_empty() {
            let globals = PyDict::new(py);
            self.globals.iter().try_for_each(|(name, value)| globals.set_item(name, value))?;
            options.set_item("global_conf", globals)?;
        }
        // PasteDeploy removes the escapes of a URL.
        let path = py.import("urllib.parse")?.call_method1("quote", (self.file.as_os_str(),))?;
        let address = format!("config:{}", path.extract::<String>()?);
        deploy.call_method("loadapp", (address,), Some(&options))
    }

    fn configure_logging(&self, py: Python<'_>) -> PyResult<()> {
        let file = self.file.as_os_str();
        let parser = py.import("configparser")?.call_method0("ConfigParser")?;
        parser.call_method1("read", (file,))?;
        if !parser.call_method1("has_section", ("loggers",))?.extract::<bool>()? {
            return Ok(());
        }
        let (defaults, options) = (PyDict::new(py), PyDict::new(py));
        defaults.set_item("__file__", file)?;
        defaults.set_item("here", self.file.parent().unwrap_or(Path::new("/")).as_os_str())?;
        options.set_item("defaults", defaults)?;
        options.set_item("disable_existing_loggers", false)?;
        py.import("logging.config")?.call_method("fileConfig", (file,), Some(&options))?;
        Ok(())
    }
}

impl fmt::Display for Paste {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.display().fmt(f)?;
        self.section.iter().try_for_each(|section| write!(f, "#{section}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_stands_behind_the_file() {
        for (text, file, section) in [
            ("app.ini", "/srv/app.ini", None),
            ("app.ini#", "/srv/app.ini", None),
            ("/etc/app.ini#web", "/etc/app.ini", Some("web")),
        ] {
            let paste = Paste::of(text, Path::new("/srv"), Vec::new());
            assert_eq!((paste.file.as_path(), paste.section.as_deref()), (Path::new(file), section));
        }
        assert_eq!(Paste::of("a.ini#web", Path::new("/srv"), Vec::new()).to_string(), "/srv/a.ini#web");
    }
}
