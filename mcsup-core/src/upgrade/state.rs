//! The state passed from the old image to the new one: a record in a sealed file, and descriptors that stay
//! open.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::image::ImageRecord;
use super::{Image, PROGRAM};
use crate::error::{Error, ErrorKind, Result};
use crate::link::{handover, message, scoreboard};
use crate::sys::anonymous_file;
use crate::sys::descriptor::{self, Identity};

/// The version of the whole record: this file's part, the supervisor's, and the records of policy, listeners
/// and control socket in it.
///
/// A new field that older images ignore and that has a default here needs no new number; any other change
/// does.
pub(crate) const VERSION: u32 = 3;

/// The versions of the interfaces between both images and workers that outlive the exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Interfaces {
    link: u32,
    scoreboard: u32,
    handover: u32,
}

const INTERFACES: Interfaces =
    Interfaces { link: message::PROTOCOL, scoreboard: scoreboard::LAYOUT, handover: handover::FORM };

/// The beginning of every version of a record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heading {
    version: u32,
    /// The name and version of the writer.
    pub(crate) by: String,
}

/// The information for the return to the old image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fallback {
    /// The old image.
    pub(crate) image: ImageRecord,
    /// Its executable, open, in case its path refers to another one.
    pub(crate) executable: Option<RawFd>,
    /// All descriptors that stay open, with their identities.
    pub(crate) descriptors: Vec<(RawFd, Identity)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record<P> {
    #[serde(flatten)]
    heading: Heading,
    interfaces: Interfaces,
    #[serde(rename = "back")]
    fallback: Fallback,
    pool: P,
}

#[derive(Deserialize)]
struct FallbackOnly {
    #[serde(rename = "back")]
    fallback: Fallback,
}

/// A written state and all its descriptors.
#[derive(Debug)]
pub(crate) struct UpgradeState {
    file: File,
    /// Held as long as the state is.
    _executable: Option<File>,
    descriptors: Vec<RawFd>,
}

impl UpgradeState {
    /// Writes the record `pool` with its descriptors.
    pub(crate) fn write(image: &Image, pool: &impl Serialize, descriptors: &[RawFd]) -> Result<Self> {
        let failed = |error: io::Error| Error::system("write down what the new image needs", error);
        let executable = own_executable();
        let number = executable.as_ref().map(AsRawFd::as_raw_fd);
        let image = image.describe();
        let again = image.reexec.as_ref().map(|again| again.file);
        let mut all: Vec<RawFd> = descriptors.iter().copied().chain(number).chain(again).collect();
        all.sort_unstable();
        all.dedup();
        let identified = all.iter().map(|fd| Ok((*fd, descriptor::identity(*fd)?)));
        let record = Record {
            heading: Heading { version: VERSION, by: PROGRAM.to_owned() },
            interfaces: INTERFACES,
            fallback: Fallback {
                image,
                executable: number,
                descriptors: identified.collect::<io::Result<_>>().map_err(failed)?,
            },
            pool,
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        let file = anonymous_file::holding("mcsup-upgrade", &bytes).map_err(failed)?;
        all.push(file.as_raw_fd());
        Ok(Self { file, _executable: executable, descriptors: all })
    }

    /// The descriptor number for the new image.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// All descriptors that must stay open for the new image.
    pub(crate) fn descriptors(&self) -> &[RawFd] {
        &self.descriptors
    }
}

/// A received state, as far as it can be read.
#[derive(Debug)]
pub(crate) struct ReceivedState {
    bytes: Vec<u8>,
    pub(crate) heading: Heading,
    pub(crate) fallback: Fallback,
}

impl ReceivedState {
    /// Reads the part that every version has.
    pub(crate) fn read(file: &File) -> Result<Self> {
        let bytes = anonymous_file::contents(file)
            .map_err(|error| Error::system("read what the old image has left", error))?;
        let heading = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let FallbackOnly { fallback } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        Ok(Self { bytes, heading, fallback })
    }

    /// The supervisor's record, if this image understands it and all descriptors have their identities.
    pub(crate) fn pool<P: DeserializeOwned>(&self) -> Result<P> {
        let refused = |why: String| Error::new(ErrorKind::System, why);
        let Heading { version, by } = &self.heading;
        if *version != VERSION {
            return Err(refused(format!(
                "{by} has left a record of version {version}, {PROGRAM} reads version {VERSION}: a restart is needed"
            )));
        }
        let record: Record<P> = serde_json::from_slice(&self.bytes).map_err(unreadable)?;
        if record.interfaces != INTERFACES {
            let (theirs, ours) = (record.interfaces, INTERFACES);
            return Err(refused(format!(
                "workers of {by} and of {PROGRAM} do not understand each other ({theirs:?}, {ours:?}): a restart is needed"
            )));
        }
        for (fd, identity) in &record.fallback.descriptors {
            if descriptor::identity(*fd).ok() != Some(*identity) {
                return Err(refused(format!("descriptor {fd} did not come along from {by}")));
            }
        }
        Ok(record.pool)
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::system("understand what the old image has left", io::Error::from(error))
}

/// Opens the executable of this process, independent of its path.
fn own_executable() -> Option<File> {
    File::open("/proc/self/exe").ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn upgrade_state(pool: &impl Serialize, descriptors: &[RawFd]) -> UpgradeState {
        let image = Image {
            program: PathBuf::from("/bin/true"),
            arguments: vec!["true".into()],
            directory: PathBuf::from("/"),
            reexec: None,
        };
        UpgradeState::write(&image, pool, descriptors).unwrap()
    }

    fn changed(upgrade_state: &UpgradeState, from: &str, to: &str) -> ReceivedState {
        let text = String::from_utf8(anonymous_file::contents(&upgrade_state.file).unwrap()).unwrap();
        assert!(text.contains(from), "{text}");
        let file = anonymous_file::holding("test", text.replacen(from, to, 1).as_bytes()).unwrap();
        ReceivedState::read(&file).unwrap()
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let file = tempfile::tempfile().unwrap();
        let upgrade_state = upgrade_state(&vec![1, 2], &[file.as_raw_fd()]);
        assert!(upgrade_state.descriptors().contains(&upgrade_state.fd()));
        let opened = ReceivedState::read(&upgrade_state.file).unwrap();
        assert_eq!(opened.pool::<Vec<u32>>().unwrap(), [1, 2]);
        assert_eq!(opened.fallback.image.arguments, ["true"]);
    }

    #[test]
    fn another_version_is_refused_and_its_fallback_is_still_read() {
        let upgrade_state = upgrade_state(&(), &[]);
        let opened = changed(&upgrade_state, &format!("\"version\":{VERSION}"), "\"version\":99");
        let refused = opened.pool::<()>().unwrap_err().to_string();
        assert!(refused.contains("version 99") && refused.contains("mcsup "), "{refused}");
        assert_eq!(opened.fallback.image.program, PathBuf::from("/bin/true"));
        let refused =
            changed(&upgrade_state, "\"scoreboard\":", "\"scoreboard\":9").pool::<()>().unwrap_err();
        assert!(refused.to_string().contains("do not understand each other"), "{refused}");
    }

    #[test]
    fn a_descriptor_that_is_something_else_by_now_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let upgrade_state = upgrade_state(&(), &[fd]);
        let opened = ReceivedState::read(&upgrade_state.file).unwrap();
        opened.pool::<()>().unwrap();
        rustix::io::dup2(
            tempfile::tempfile().unwrap(),
            &mut std::mem::ManuallyDrop::new(std::os::fd::OwnedFd::from(file)),
        )
        .unwrap();
        assert!(opened.pool::<()>().unwrap_err().to_string().contains("did not come along"));
        drop(descriptor::take_recorded(fd));
    }
}
