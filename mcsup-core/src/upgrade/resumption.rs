//! The start of a new image of a supervisor, or of the old one again, from the state of an upgrade.
//!
//! Until it has taken over, the old image can be executed again: its executable and descriptors are still
//! open. An error or a panic before that drops the value, and its drop executes the old image.

use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use super::state::ReceivedState;
use super::{Image, READY, VARIABLE, calls};
use crate::error::{Error, ErrorKind, Result};
use crate::listener::record::ListenerRecord;
use crate::sys::{descriptor, exec};

/// The task of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    /// Answer on this descriptor whether this image could take over.
    Check(RawFd),
    /// Take over.
    Resume,
    /// Continue as the old image, after a new one failed for this reason.
    FallBack(String),
}

/// The state of another image that this process should take over. Its drop returns to the old image unless
/// that is done.
///
/// An embedder with fallible steps before [`Prefork::run`](crate::Prefork::run) takes it first and passes it
/// to [`Prefork::resume`](crate::Prefork::resume); other embedders do not need it.
#[derive(Debug)]
pub struct Resumption {
    task: Task,
    upgrade_state: File,
    opened: ReceivedState,
    is_over: bool,
}

impl Resumption {
    /// Reads the state, if this process was started to take over. Removes the variable from the environment,
    /// so it must run on the process's only thread.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn from_environment() -> Result<Option<Self>> {
        let Some(value) = exec::take_variable(VARIABLE) else { return Ok(calls::take_passed_over()) };
        let wrong = || Error::new(ErrorKind::System, format!("{VARIABLE} is not what an upgrade sets it to"));
        let value = value.into_string().map_err(|_| wrong())?;
        let (task, fd) = parse(&value).ok_or_else(wrong)?;
        let upgrade_state =
            File::from(descriptor::take_inherited(fd).map_err(|error| wrong().caused_by(error))?);
        Ok(Some(Self::begin(task, upgrade_state)?))
    }

    /// Makes all descriptors close-on-exec: a program started meanwhile would otherwise hold a lifeline open.
    fn begin(task: Task, upgrade_state: File) -> Result<Self> {
        let opened = ReceivedState::read(&upgrade_state)?;
        let this = Self { task, upgrade_state, opened, is_over: false };
        calls::note_begin();
        descriptor::survive_exec(&this.descriptors(), false);
        if let Task::Check(answer) = this.task {
            descriptor::survive_exec(&[answer], false);
        }
        Ok(this)
    }

    /// All descriptors of the state.
    fn descriptors(&self) -> Vec<RawFd> {
        let described = self.opened.fallback.descriptors.iter().map(|(fd, _)| *fd);
        described.chain([self.upgrade_state.as_raw_fd()]).collect()
    }

    /// Whether this is a dry run. It must change no file, log or terminal.
    pub fn is_check(&self) -> bool {
        matches!(self.task, Task::Check(_))
    }

    /// Executes the old image again, with the reason. Returns only if there is none, as in a dry run, or on
    /// an error.
    pub fn give_up(mut self, reason: &str) {
        self.fall_back(reason);
    }

    /// A descriptor of the open socket of the program's own listener `name`
    /// ([`Prefork::listener`](crate::Prefork::listener)); `None`: the old image has no such listener.
    ///
    /// # Errors
    /// The state cannot be read, or no descriptor is left.
    pub fn listener(&self, name: &str) -> Result<Option<OwnedFd>> {
        #[derive(serde::Deserialize)]
        struct Listeners {
            listeners: Vec<ListenerRecord>,
        }
        let Listeners { listeners } = self.pool()?;
        let Some(own) = listeners.iter().find(|record| record.is_own && record.address == name) else {
            return Ok(None);
        };
        let duplicate = descriptor::duplicate_recorded(own.fd);
        duplicate.map(Some).map_err(|error| Error::system(format!("take over {name}"), error))
    }

    /// The text of [`Supervisor::note`](crate::Supervisor::note), in the old image again after the new one has failed;
    /// `None`: this is the new image, or there is no text.
    pub fn note(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Note {
            #[serde(default)]
            note: Option<String>,
        }
        self.failure()?;
        self.pool().ok().and_then(|Note { note }| note)
    }

    /// The old image's record of its pool.
    pub(crate) fn pool<P: serde::de::DeserializeOwned>(&self) -> Result<P> {
        self.opened.pool()
    }

    /// The number of the call that began the pool; `None`: the state cannot be read.
    pub(crate) fn call(&self) -> Option<u32> {
        #[derive(serde::Deserialize)]
        struct Call {
            #[serde(default = "first")]
            call: u32,
        }
        self.pool().ok().map(|Call { call }| call)
    }

    /// The name and version of the old image.
    pub(crate) fn by(&self) -> &str {
        &self.opened.heading.by
    }

    /// The reason why a new image failed, if this is the old image again.
    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.task {
            Task::FallBack(reason) => Some(reason),
            Task::Check(_) | Task::Resume => None,
        }
    }

    /// Answers that this image could take over.
    pub(crate) fn affirm(mut self) -> Result<()> {
        self.is_over = true;
        let Task::Check(fd) = self.task else { return Ok(()) };
        let failed = |error| Error::system("answer the old image", error);
        let mut answer = File::from(descriptor::take_recorded(fd).map_err(failed)?);
        std::io::Write::write_all(&mut answer, READY).map_err(failed)?;
        // The pipe closes only when this process ends.
        let _ = answer.into_raw_fd();
        Ok(())
    }

    /// Ends the return to the old image and closes its files: this image has taken over. Returns the recorded
    /// image, if this is the old image again.
    pub(crate) fn complete(mut self) -> Option<Image> {
        self.is_over = true;
        let take = |fd: RawFd| descriptor::take_recorded(fd).ok();
        drop(self.opened.fallback.executable.and_then(take));
        let image = self.opened.fallback.image.clone();
        let file = image.reexec.as_ref().and_then(|again| take(again.file));
        self.failure().is_some().then(|| image.adopt(file))
    }

    fn fall_back(&mut self, reason: &str) {
        if self.is_over || self.task != Task::Resume {
            self.is_over = true;
            return;
        }
        self.is_over = true;
        log::error!("The new image cannot take over, the old one goes on: {reason}");
        log::logger().flush();
        let (fallback, descriptors) = (&self.opened.fallback, self.descriptors());
        descriptor::survive_exec(&descriptors, true);
        let value = format!("fallback:{}:{}", self.upgrade_state.as_raw_fd(), sanitize(reason));
        let error = fallback.image.execute_again(fallback.executable, &value);
        descriptor::survive_exec(&descriptors, false);
        log::error!("The old image cannot be executed either: {error}");
    }
}

impl Drop for Resumption {
    fn drop(&mut self) {
        self.fall_back(if std::thread::panicking() {
            "it panicked"
        } else {
            "it ended before it had taken over"
        });
        calls::note_end(self.is_check());
    }
}

/// An older image has recorded no number.
fn first() -> u32 {
    calls::FIRST
}

/// Parses the value of [`VARIABLE`].
fn parse(value: &str) -> Option<(Task, RawFd)> {
    let (word, rest) = value.split_once(':')?;
    let (fd, more) = match rest.split_once(':') {
        Some((fd, more)) => (fd, Some(more)),
        None => (rest, None),
    };
    let task = match (word, more) {
        ("check", Some(answer)) => Task::Check(answer.parse().ok()?),
        ("resume", None) => Task::Resume,
        ("fallback", Some(reason)) => Task::FallBack(reason.to_owned()),
        _ => return None,
    };
    Some((task, fd.parse().ok()?))
}

/// Makes a reason fit into a variable and into one line.
fn sanitize(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2_000).collect()
}

#[cfg(test)]
mod tests {
    use super::super::state::UpgradeState;
    use super::*;

    #[test]
    fn descriptors_of_the_state_are_closed_in_other_programs() {
        let [file, answer] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let image = Image {
            program: "/bin/true".into(),
            arguments: vec!["true".into()],
            directory: "/".into(),
            reexec: None,
        };
        let upgrade_state = UpgradeState::write(&image, &(), &[file.as_raw_fd()]).unwrap();
        descriptor::survive_exec(upgrade_state.descriptors(), true);
        descriptor::survive_exec(&[answer.as_raw_fd()], true);
        let flags = |fd: &File| rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags(&file).is_empty() && flags(&answer).is_empty());
        let inherited = descriptor::take_inherited(upgrade_state.fd()).unwrap();
        std::mem::forget(upgrade_state);
        let resumption = Resumption::begin(Task::Check(answer.as_raw_fd()), File::from(inherited)).unwrap();
        for fd in [&file, &answer, &resumption.upgrade_state] {
            assert_eq!(flags(fd), rustix::io::FdFlags::CLOEXEC);
        }
    }

    #[test]
    fn the_note_of_the_old_image_is_for_its_return() {
        let image = Image {
            program: "/bin/true".into(),
            arguments: vec!["true".into()],
            directory: "/".into(),
            reexec: None,
        };
        let (old, noted) = (serde_json::json!({}), serde_json::json!({ "note": "kept" }));
        for (record, task, expected) in [
            (&noted, Task::FallBack(String::new()), Some("kept")),
            (&noted, Task::Resume, None),
            (&old, Task::FallBack(String::new()), None),
        ] {
            let state = UpgradeState::write(&image, record, &[]).unwrap();
            descriptor::survive_exec(state.descriptors(), true);
            let inherited = descriptor::take_inherited(state.fd()).unwrap();
            std::mem::forget(state);
            let mut resumption = Resumption::begin(task, File::from(inherited)).unwrap();
            assert_eq!(resumption.note().as_deref(), expected);
            resumption.is_over = true;
        }
    }

    #[test]
    fn the_variable_names_the_task_and_the_state() {
        assert_eq!(parse("check:5:6"), Some((Task::Check(6), 5)));
        assert_eq!(parse("resume:5"), Some((Task::Resume, 5)));
        let reason = sanitize("no: such\nfile\0");
        assert_eq!(reason, "no: such file ");
        assert_eq!(parse(&format!("fallback:7:{reason}")), Some((Task::FallBack(reason), 7)));
        for wrong in ["", "resume", "resume:x", "resume:5:6", "check:5", "other:5"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
