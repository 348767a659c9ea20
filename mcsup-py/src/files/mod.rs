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

/// Folders whose files the engine serves itself.
///
/// It answers GET and HEAD for regular files. Other methods, and paths without a file, are the application's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StaticFiles {
    routes: Vec<Route>,
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

    /// Whether there is no folder.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether a file may answer this request. Reads no disk.
    pub(crate) fn may_answer(&self, head: &Head<'_>) -> bool {
        matches!(head.method(), "GET" | "HEAD")
            && self.routes.iter().any(|route| route.is_above(&percent_decoded(head.path())))
    }

    /// The answer; `None`: no file is meant, so that it is the application's. May wait for a disk.
    ///
    /// # Errors
    /// The file cannot be opened now.
    pub(crate) fn answer(&self, head: &Head<'_>) -> io::Result<Option<FileAnswer>> {
        let path = percent_decoded(head.path());
        let route = self.routes.iter().find(|route| route.is_above(&path));
        let Some((route, file)) = route.and_then(|route| Some((route, route.file(&path)?))) else {
            return Ok(None);
        };
        answer::make(&route.folder, &file, head)
    }
}

#[cfg(test)]
mod tests;
