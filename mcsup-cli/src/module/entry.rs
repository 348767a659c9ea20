//! Determines whether `__main__` is the command itself, under any name, or a program that calls it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;

/// The module of the command, as `python -m` runs it.
const MODULE: &str = "mcsup.__main__";

/// The line of a script that imports the command.
const IMPORT: &str = "from mcsup.__main__ import main";

/// Largest size of a console script.
const MOST_BYTES: u64 = 64 * 1024;

/// The properties of `__main__`.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Its file, if it has one.
    pub(super) file: Option<OsString>,
    /// The name of its module, if `python -m` found it.
    pub(super) module: Option<String>,
    /// Whether it is the command and no program that calls it.
    pub(super) is_command: bool,
    /// The line of a distribution's script that extends `sys.path`.
    pub(super) preparation: Option<String>,
}

impl Entry {
    /// Inspects this interpreter. `package` is the folder of mcsup.
    pub(super) fn of_this_process(py: Python<'_>, package: &Path) -> PyResult<Self> {
        let main = py.import("__main__")?;
        let attribute =
            |name: &str| main.getattr_opt(name).map(|found| found.filter(|value| !value.is_none()));
        let spec = attribute("__spec__")?;
        let module = spec.map(|spec| spec.getattr("name")?.extract::<String>()).transpose()?;
        let file = attribute("__file__")?.map(|file| file.extract::<OsString>()).transpose()?;
        // A folder that is run has a spec of this name.
        let module = module.filter(|name| name != "__main__");
        let kind = match (&module, &file) {
            (Some(name), _) => Kind::of_module(name),
            (None, Some(file)) => Kind::of_file(Path::new(file), package),
            (None, None) => Kind::Program,
        };
        let is_command = !matches!(kind, Kind::Program);
        let preparation = if let Kind::Command(preparation) = kind { preparation } else { None };
        Ok(Self { file, module, is_command, preparation })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The command, with its line of preparation.
    Command(Option<String>),
    /// A program that may do more than call the command.
    Program,
}

impl Kind {
    fn of_module(name: &str) -> Self {
        if name == MODULE { Self::Command(None) } else { Self::Program }
    }

    fn of_file(file: &Path, package: &Path) -> Self {
        // A link has another name than its script.
        let path = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let module: PathBuf = package.join("__main__.py");
        if path == fs::canonicalize(&module).unwrap_or(module) {
            return Self::Command(None);
        }
        let is_short = fs::metadata(&path).is_ok_and(|status| status.len() <= MOST_BYTES);
        let text = if is_short { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        match Self::of_text(&text) {
            // A script of this name, with any content, is an installer's.
            Self::Program if path.file_name().is_some_and(|name| name == "mcsup") => Self::Command(None),
            kind => kind,
        }
    }

    /// Recognises the scripts of installers: pip, uv, and Nix, which adds folders to `sys.path`.
    fn of_text(text: &str) -> Self {
        let mut preparation = None;
        let mut imports = false;
        for line in text.lines().map(str::trim) {
            if line == IMPORT {
                imports = true;
            } else if line.starts_with("import sys;import site;") && line.contains("site.addsitedir") {
                preparation = Some(line.to_owned());
            } else if !is_boilerplate(line) {
                return Self::Program;
            }
        }
        if imports { Self::Command(preparation) } else { Self::Program }
    }
}

/// Whether a line belongs to the scripts of installers.
///
/// The lines with quotes start an interpreter whose path is too long for a first line.
fn is_boilerplate(line: &str) -> bool {
    let starts = [
        "#",
        "'''exec' ",
        "' '''",
        "if __name__ == ",
        "sys.argv[0] = ",
        "if sys.argv[0].endswith(",
        "elif sys.argv[0].endswith(",
    ];
    let whole = ["", "import re", "import sys", "sys.exit(main())", "raise SystemExit(main())"];
    whole.contains(&line) || starts.iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIP: &str = "#!/venv/bin/python\n# -*- coding: utf-8 -*-\nimport re\nimport sys\nfrom mcsup.__main__ import main\n\
        if __name__ == '__main__':\n    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n    \
        sys.exit(main())\n";
    const UV: &str = "#!/bin/sh\n'''exec' '/a long/python' \"$0\" \"$@\"\n' '''\nimport sys\n\
        from mcsup.__main__ import main\nif __name__ == \"__main__\":\n    \
        if sys.argv[0].endswith(\"-script.pyw\"):\n        sys.argv[0] = sys.argv[0][:-11]\n    \
        elif sys.argv[0].endswith(\".exe\"):\n        sys.argv[0] = sys.argv[0][:-4]\n    sys.exit(main())\n";
    const NIX: &str = "import sys;import site;import functools;sys.argv[0] = '/a/bin/mcsup';\
        functools.reduce(lambda k, p: site.addsitedir(p, k), ['/a/site-packages'], site._init_pathinfo());";

    #[test]
    fn a_console_script_is_the_command_by_its_text() {
        assert_eq!(Kind::of_text(PIP), Kind::Command(None));
        assert_eq!(Kind::of_text(UV), Kind::Command(None));
        assert_eq!(Kind::of_text(&format!("{NIX}\n{PIP}")), Kind::Command(Some(NIX.to_owned())));
    }

    #[test]
    fn a_script_that_does_more_is_a_program_of_its_own() {
        for text in
            ["", "import sys\n", &format!("import prepared\n{PIP}"), &PIP.replace("mcsup.", "gunicorn.")]
        {
            assert_eq!(Kind::of_text(text), Kind::Program, "{text}");
        }
    }

    #[test]
    fn a_link_or_a_copy_is_the_command_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| Kind::of_file(&dir.path().join(name), dir.path());
        fs::write(dir.path().join("mcsup"), "load_entry_point()\n").unwrap();
        std::os::unix::fs::symlink("mcsup", dir.path().join("serve")).unwrap();
        fs::write(dir.path().join(".mcsup-wrapped"), PIP).unwrap();
        fs::write(dir.path().join("__main__.py"), "its own\n").unwrap();
        fs::write(dir.path().join("other"), "load_entry_point()\n").unwrap();
        for name in ["mcsup", "serve", ".mcsup-wrapped", "__main__.py"] {
            assert_eq!(of(name), Kind::Command(None), "{name}");
        }
        assert_eq!(of("other"), Kind::Program);
        assert_eq!(of("absent"), Kind::Program);
    }
}
