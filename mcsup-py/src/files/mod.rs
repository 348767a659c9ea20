//! Static files: which file a request asks for, and what is answered. No code here sends anything.
//!
//! - `route`: the paths under which a folder is served, and the path of a file below it.
//! - `open`: opens a file, and never one outside of its folder.
//! - `conditions`: `If-None-Match` and its like (RFC 9110 §13).
//! - `range`: `Range` (RFC 9110 §14).
//! - `coding`: files that are compressed already, by `Accept-Encoding` (RFC 9110 §12.5.3).
//! - `answer`: the head and the part of the file, made of all these.

mod answer;
mod coding;
mod conditions;
mod open;
mod range;
mod route;

use std::io;
use std::path::Path;

pub(crate) use answer::{Content, FileAnswer};
use route::Route;

use crate::http::head::Head;
use crate::http::target::percent_decoded;
use crate::trust::mount_point;

/// Folders whose files the engine serves itself.
///
/// It answers GET and HEAD for regular files. Other methods, and paths without a file, are the application's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StaticFiles {
    routes: Vec<Route>,
    /// The mount point of the application, where no field of a request names another one.
    mount_point: Vec<u8>,
}

impl StaticFiles {
    /// Serves the files of `folder` under `route`, a path such as `/static`. The longest route counts that a request's path
    /// begins with.
    ///
    /// # Errors
    /// A route that is no path, or a folder that is none: the text says which.
    pub fn add(&mut self, route: &str, folder: &Path) -> Result<(), String> {
        let route = Route::new(route, folder)?;
        if self.routes.iter().any(|other| other.prefix == route.prefix) {
            return Err(format!("the route {} has two folders", route.shown()));
        }
        self.routes.push(route);
        // The longest first.
        self.routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Ok(())
    }

    /// Sets the mount point of the application: routes begin below it.
    #[must_use]
    pub fn mounted_at(mut self, script_name: &str) -> Self {
        self.mount_point = mount_point::of(script_name.as_bytes()).into_owned();
        self
    }

    /// Whether there is no folder.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether a file may answer this request. Reads no disk.
    pub(crate) fn may_answer(&self, head: &Head<'_>) -> bool {
        matches!(head.method(), "GET" | "HEAD")
            && self.routes.iter().any(|route| route.is_above(&self.path_of(head)))
    }

    /// The path of a request below the mount point, as the application gets it in PATH_INFO.
    fn path_of(&self, head: &Head<'_>) -> Vec<u8> {
        match head.script_name().map(mount_point::of) {
            Some(field) => {
                percent_decoded(mount_point::below(head.path(), &field).unwrap_or_else(|| head.path()))
            }
            None => {
                let mut path = percent_decoded(head.path());
                let rest = mount_point::below(&path, &self.mount_point).map_or(path.len(), <[u8]>::len);
                path.drain(..path.len() - rest);
                path
            }
        }
    }

    /// The answer; `None`: no file is meant, so that it is the application's. May wait for a disk.
    ///
    /// # Errors
    /// The file cannot be opened now.
    pub(crate) fn answer(&self, head: &Head<'_>) -> io::Result<Option<FileAnswer>> {
        let path = self.path_of(head);
        let route = self.routes.iter().find(|route| route.is_above(&path));
        let Some((route, file)) = route.and_then(|route| Some((route, route.file(&path)?))) else {
            return Ok(None);
        };
        answer::make(&route.folder, &file, head)
    }
}

#[cfg(test)]
mod tests;
