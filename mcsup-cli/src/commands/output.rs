//! The places that a server writes to: its logs, and the targets on the network.

use std::path::Path;

use mcsup_core::Config;
use mcsup_core::host::own_file;

use super::remote::Remote;
use crate::failure::Failure;
use crate::logging::{Destination, ErrorLog, LogError};
use crate::settings::Settings;

/// The error log, standard output and error where they belong to it, and the targets on the network.
#[derive(Clone)]
pub(crate) struct Output {
    pub(super) log: ErrorLog,
    /// Whether the standard streams lead to the log.
    pub(super) takes_streams: bool,
    pub(super) remote: Remote,
}

impl Output {
    pub(super) fn reopen(&self) {
        if let Err(error) = self.log.reopen().and_then(|()| self.redirect()) {
            log::error!("{error}");
        }
    }

    /// Redirects the standard streams of a daemon, which has no terminal, to the log file.
    pub(super) fn redirect(&self) -> Result<(), LogError> {
        if self.takes_streams { self.log.take_standard_streams() } else { Ok(()) }
    }

    /// Checks that the log files can be written, and gives them to the user of the workers.
    ///
    /// The workers can then reopen them. A serving pool keeps its old files where one is refused.
    pub(super) fn give_away(
        &self,
        settings: &Settings,
        config: &Config,
        serves: bool,
    ) -> Result<(), Failure> {
        let refuse = |log: &str, path: &Path, error: &std::io::Error| {
            let text = format!("cannot write the {log} {}: {error}", path.display());
            if !serves || !own_file::is_refusal(error) {
                return Err(Failure::refused(text));
            }
            log::error!("{text}");
            Ok(())
        };
        let run_as = config.run_as.as_ref().map(|run_as| (run_as.uid(), run_as.gid()));
        if let (Some((uid, gid)), Destination::File(path)) = (run_as, &settings.logging.errors.value) {
            let given = self.log.give_to(uid, gid);
            given.or_else(|error| refuse("error log", path, error.cause()))?;
        }
        let access = settings.logging.access.as_ref().map(|place| &place.value);
        if let Some(Destination::File(path)) = access {
            prepare(path, run_as).or_else(|error| refuse("access log", path, &error))?;
        }
        Ok(())
    }
}

/// Creates a log file that only workers write to.
fn prepare(path: &Path, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    let file = own_file::append(path, own_file::LOG_MODE)?;
    owner.map_or(Ok(()), |owner| own_file::give(path, file, owner))
}
