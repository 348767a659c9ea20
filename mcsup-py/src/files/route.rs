//! The paths under which a folder is served, and the path of a file below it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder, and where it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Decoded, without a slash at its end; empty: all paths.
    pub(super) prefix: Vec<u8>,
    pub(super) folder: PathBuf,
}

impl Route {
    /// Checks both.
    pub(super) fn new(route: &str, folder: &Path) -> Result<Self, String> {
        if !route.starts_with('/') {
            return Err(format!("the route {route:?} does not begin with a slash"));
        }
        let prefix = route.trim_end_matches('/').as_bytes().to_vec();
        if !prefix.split(|byte| *byte == b'/').skip(1).all(is_name) {
            return Err(format!("the route {route:?} has an empty part, or one that begins with a dot"));
        }
        // Absolute, so that a change of the directory by the application changes nothing.
        let folder = std::path::absolute(folder)
            .map_err(|error| format!("the folder {} has no path: {error}", folder.display()))?;
        match std::fs::metadata(&folder) {
            Ok(found) if found.is_dir() => Ok(Self { prefix, folder }),
            Ok(_) => Err(format!("{} is not a folder", folder.display())),
            Err(error) => Err(format!("the folder {} cannot be used: {error}", folder.display())),
        }
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!("{}/", String::from_utf8_lossy(&self.prefix))
    }

    /// Whether a decoded path is below it.
    pub(super) fn is_above(&self, path: &[u8]) -> bool {
        path.strip_prefix(&*self.prefix).is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// The file below the folder that a decoded path names; `None`: it names none. Parts that begin with a dot name none
    /// (`.git`, `.env`), except for `.well-known` (RFC 8615).
    pub(super) fn file(&self, path: &[u8]) -> Option<PathBuf> {
        let rest = path.strip_prefix(&*self.prefix)?.strip_prefix(b"/")?;
        let mut file = PathBuf::new();
        for part in rest.split(|byte| *byte == b'/') {
            if !is_name(part) {
                return None;
            }
            file.push(OsStr::from_bytes(part));
        }
        Some(file)
    }
}

fn is_name(part: &[u8]) -> bool {
    let is_hidden = part.starts_with(b".") && part != b".well-known";
    !part.is_empty() && !is_hidden && !part.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(prefix: &str, path: &str) -> Option<PathBuf> {
        let route = Route { prefix: prefix.as_bytes().to_vec(), folder: PathBuf::new() };
        assert!(route.is_above(path.as_bytes()) || route.file(path.as_bytes()).is_none());
        route.file(path.as_bytes())
    }

    #[test]
    fn a_path_below_the_route_names_a_file_and_no_other_path_does() {
        assert_eq!(file("/static", "/static/a/b.css"), Some("a/b.css".into()));
        assert_eq!(file("", "/a"), Some("a".into()));
        assert_eq!(file("/static", "/static/.well-known/x"), Some(".well-known/x".into()));
        for path in [
            "/static",
            "/static/",
            "/static/a/",
            "/statics/a",
            "/other",
            "/static//a",
            "/static/../a",
            "/static/a/../b",
            "/static/./a",
            "/static/.git/config",
            "/static/.env",
            "/static/a\0b",
            "*",
            "",
        ] {
            assert_eq!(file("/static", path), None, "{path:?}");
        }
    }

    #[test]
    fn a_route_is_a_path_and_its_folder_exists() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Route::new("/a/b//", folder.path()).unwrap().prefix, b"/a/b");
        assert_eq!(Route::new("/", folder.path()).unwrap().shown(), "/");
        for (route, path, reason) in [
            ("static", folder.path(), "does not begin with a slash"),
            ("/a//b", folder.path(), "has an empty part"),
            ("/a/../b", folder.path(), "begins with a dot"),
            ("/a", &folder.path().join("none"), "none cannot be used: "),
            ("/a", Path::new("/dev/null"), "/dev/null is not a folder"),
        ] {
            let error = Route::new(route, path).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
