//! The answer to a request for a file: its head, and the part of the file that follows.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use super::coding::{self, CODINGS, Coding};
use super::conditions::{self, Outcome, Validators, whole_seconds};
use super::open;
use super::range::{self, Extent};
use crate::http::head::Head;
use crate::http::response::{HeadFault, ResponseHead};
use crate::net::buffer::FilePart;

/// An answer.
#[derive(Debug)]
pub(crate) struct FileAnswer {
    /// Status and fields, with Content-Length.
    pub head: ResponseHead,
    /// What is sent behind it.
    pub content: Content,
}

impl FileAnswer {
    /// The number of the descriptor that stays open until all of it has left.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &self.content {
            Content::Part(part) => Some(part.file.as_raw_fd()),
            Content::None | Content::Bytes(_) => None,
        }
    }
}

/// The content of an answer.
#[derive(Debug)]
pub(crate) enum Content {
    None,
    /// A short one, which leaves together with the head.
    Bytes(Vec<u8>),
    Part(FilePart),
}

/// The length of a short content.
const SHORT: u64 = 16 * 1024;

/// The file as it is chosen for a client.
struct Chosen {
    file: File,
    metadata: Metadata,
    coding: Option<Coding>,
    /// Whether another client may get another form of it.
    varies: bool,
}

/// Answers for the file `name` of `folder`; `None`: there is none.
///
/// # Errors
/// The file cannot be opened now.
pub(super) fn make(folder: &Path, name: &Path, head: &Head<'_>) -> io::Result<Option<FileAnswer>> {
    let chosen = choose(folder, name, head)?;
    // A value that cannot be sent is one of a file's name that no content type has: none.
    Ok(chosen.and_then(|chosen| answer(chosen, name, head, SystemTime::now()).ok()))
}

fn choose(folder: &Path, name: &Path, head: &Head<'_>) -> io::Result<Option<Chosen>> {
    let Some((file, metadata)) = open::open(folder, name)? else { return Ok(None) };
    let with_suffix = |suffix: &str| {
        let mut name = name.as_os_str().to_owned();
        name.push(suffix);
        name
    };
    let mut varies = false;
    for coding in CODINGS {
        varies = varies || open::is_there(folder, with_suffix(coding.suffix).as_ref())?;
    }
    if varies {
        let fields = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case(b"accept-encoding"));
        let values: Vec<_> = fields.map(|(_, value)| value).collect();
        for coding in coding::accepted(&values) {
            if let Some((file, metadata)) = open::open(folder, with_suffix(coding.suffix).as_ref())? {
                return Ok(Some(Chosen { file, metadata, coding: Some(coding), varies }));
            }
        }
    }
    Ok(Some(Chosen { file, metadata, coding: None, varies }))
}

fn answer(chosen: Chosen, name: &Path, asked: &Head<'_>, now: SystemTime) -> Result<FileAnswer, HeadFault> {
    let Chosen { file, metadata, coding, varies } = chosen;
    let size = metadata.len();
    let tag = entity_tag(&metadata, coding);
    let modified = change_of(&metadata, now);
    let validators = Validators { tag: &tag, modified };
    let extent = match conditions::evaluate(asked, validators) {
        Outcome::NotModified => {
            return Ok(FileAnswer { head: unmodified(validators, varies)?, content: Content::None });
        }
        Outcome::Failed => return refusal(412, b"Precondition Failed", None),
        Outcome::Send => match conditions::only(asked, "range") {
            Some(value) if asked.method() == "GET" && conditions::range_counts(asked, validators) => {
                range::of(value, size)
            }
            _ => Extent::Whole,
        },
    };
    let mut head = ResponseHead::new();
    let (offset, length) = match extent {
        Extent::Unsatisfiable => return refusal(416, b"Range Not Satisfiable", Some(size)),
        Extent::Whole => (0, size),
        Extent::Part { first, length } => {
            head.begin(206, b"Partial Content")?;
            let range = format!("bytes {first}-{}/{size}", first + length - 1);
            head.push(b"Content-Range", range.as_bytes())?;
            (first, length)
        }
    };
    head.push(b"Content-Type", content_type(name).as_bytes())?;
    if let Some(coding) = coding {
        head.push(b"Content-Encoding", coding.name.as_bytes())?;
    }
    head.push(b"Content-Length", length.to_string().as_bytes())?;
    head.push(b"Accept-Ranges", b"bytes")?;
    push_validators(&mut head, validators, varies)?;
    let has_content = asked.method() != "HEAD" && length > 0;
    let content = if has_content { content(FilePart { file, offset, length }) } else { Content::None };
    Ok(FileAnswer { head, content })
}

/// Reads a short part. One that is shorter than it was, or unreadable, stays a part: then the connection is aborted.
fn content(part: FilePart) -> Content {
    if part.length <= SHORT {
        let mut bytes = vec![0; usize::try_from(part.length).unwrap_or_default()];
        if part.file.read_exact_at(&mut bytes, part.offset).is_ok() {
            return Content::Bytes(bytes);
        }
    }
    Content::Part(part)
}

/// RFC 9110 §15.4.5: the fields that the answer with the file would have, as far as caches use them.
fn unmodified(validators: Validators<'_>, varies: bool) -> Result<ResponseHead, HeadFault> {
    let mut head = ResponseHead::new();
    head.begin(304, b"Not Modified")?;
    push_validators(&mut head, validators, varies)?;
    Ok(head)
}

fn push_validators(head: &mut ResponseHead, file: Validators<'_>, varies: bool) -> Result<(), HeadFault> {
    head.push(b"ETag", file.tag.as_bytes())?;
    if let Some(modified) = file.modified {
        head.push(b"Last-Modified", httpdate::fmt_http_date(modified).as_bytes())?;
    }
    if varies {
        head.push(b"Vary", b"Accept-Encoding")?;
    }
    Ok(())
}

/// An answer without a body. `size`: that of the file, for a range that it has not.
fn refusal(status: u16, reason: &[u8], size: Option<u64>) -> Result<FileAnswer, HeadFault> {
    let mut head = ResponseHead::new();
    head.begin(status, reason)?;
    head.push(b"Content-Length", b"0")?;
    if let Some(size) = size {
        head.push(b"Content-Range", format!("bytes */{size}").as_bytes())?;
    }
    Ok(FileAnswer { head, content: Content::None })
}

/// Builds give all files one time, so that equal results are equal byte for byte: 0, 1, or that at which the times of a
/// ZIP archive begin (1980). Such a time tells nothing of a change.
const CONSTANT_TIMES_END: i64 = 11 * 366 * 86_400;

/// When the file was changed. `None`: its time is a constant, or lies in the future. Then no date is sent, since a cache would
/// take its content for unchanged in years, and a date that moves on with the clock fits no condition.
fn change_of(metadata: &Metadata, now: SystemTime) -> Option<SystemTime> {
    let modified = metadata.modified().ok().filter(|modified| *modified <= now)?;
    (metadata.mtime() >= CONSTANT_TIMES_END).then(|| whole_seconds(modified))
}

/// Of the time of the last change in nanoseconds and the size, as hexadecimal numbers, and the coding. Where the first one
/// is a constant, the time at which this file was put there takes its place.
fn entity_tag(metadata: &Metadata, coding: Option<Coding>) -> String {
    let (seconds, nanoseconds) = match metadata.mtime() {
        ..CONSTANT_TIMES_END => (metadata.ctime(), metadata.ctime_nsec()),
        seconds => (seconds, metadata.mtime_nsec()),
    };
    let time = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    format!("\"{time:x}-{:x}{}\"", metadata.len(), coding.map_or("", |coding| coding.suffix))
}

/// Media types by the end of the name, where the one of IANA differs from the first guess.
const REGISTERED: [(&str, &str); 6] = [
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("mjs", "text/javascript"),
    ("otf", "font/otf"),
    ("ts", "video/mp2t"),
    ("ttf", "font/ttf"),
    ("woff", "font/woff"),
];

/// By the end of the name. Text is UTF-8.
fn content_type(name: &Path) -> String {
    let end = name.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let registered = REGISTERED.iter().find(|(known, _)| end.eq_ignore_ascii_case(known));
    let guessed = || mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    let guess = registered.map_or_else(guessed, |(_, registered)| registered);
    if guess.starts_with("text/") { format!("{guess}; charset=utf-8") } else { guess.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_types_of_streams_fonts_and_modules_are_those_of_iana() {
        for (name, expected) in [
            ("a.ts", "video/mp2t"),
            ("list.M3U8", "application/vnd.apple.mpegurl"),
            ("a.woff", "font/woff"),
            ("a.woff2", "font/woff2"),
            ("a.otf", "font/otf"),
            ("a.ttf", "font/ttf"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.svg", "image/svg+xml"),
            ("a.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
    }
}
