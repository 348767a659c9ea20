//! The configuration that is read if none is named: `gunicorn.conf.py` in the directory of the start.
//!
//! A supervisor that is root executes it as root, at each reload too. If the user of the workers may change it, code that
//! has taken over the application becomes root at the next reload. So it has to be named then.

use std::cell::OnceCell;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mcsup_core::host::privileges::RunAs;
use mcsup_core::host::processes;

use crate::failure::Failure;
use crate::settings::DEFAULT_CONF;

/// The default configuration, as it was at the start: a file that appears later is none.
pub(super) struct DefaultConf {
    directory: PathBuf,
    is_there: bool,
    /// The user of the workers, looked up once: a directory service may be slow.
    run_as: OnceCell<Option<RunAs>>,
}

impl DefaultConf {
    /// That of a start in `directory`.
    pub(super) fn find(directory: &Path) -> Self {
        let is_there = directory.join(DEFAULT_CONF).exists();
        Self { directory: directory.to_owned(), is_there, run_as: OnceCell::new() }
    }

    /// Whether there was one at the start.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Refuses it where root would execute it and the given user and group of the workers may change it.
    pub(super) fn check(&self, user: Option<&str>, group: Option<&str>) -> Result<(), Failure> {
        if user.is_none() || !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let run_as = match self.run_as.get() {
            Some(found) => found,
            None => {
                let found = RunAs::look_up(user, group)?;
                self.run_as.get_or_init(|| found)
            }
        };
        let Some(run_as) = run_as.as_ref().filter(|run_as| run_as.uid() != 0) else { return Ok(()) };
        match self.changeable_by(run_as.uid(), run_as.groups()) {
            None => Ok(()),
            Some(place) => Err(Failure::usage(format!(
                "{DEFAULT_CONF} is not executed as root: user {} may change {}; name it with -c to have it executed",
                processes::user_of(run_as.uid()),
                place.display()
            ))),
        }
    }

    /// The file or folder by which this user may change the configuration.
    fn changeable_by(&self, uid: u32, groups: &[u32]) -> Option<PathBuf> {
        let file = fs::canonicalize(self.directory.join(DEFAULT_CONF)).ok();
        // A link leads to another folder.
        let folder = file.as_deref().and_then(Path::parent).map(Path::to_owned);
        let places = [Some(self.directory.clone()), folder, file];
        places
            .into_iter()
            .flatten()
            .find(|place| fs::metadata(place).is_ok_and(|metadata| may_change(&metadata, uid, groups)))
    }
}

/// Whether a user may write the file, or replace files in the folder.
fn may_change(metadata: &Metadata, uid: u32, groups: &[u32]) -> bool {
    let mode = metadata.mode();
    if metadata.uid() == uid {
        return true;
    }
    // In such a folder only the owner of a file replaces it.
    let is_sticky = metadata.is_dir() && mode & 0o1000 != 0;
    let is_writable = mode & 0o002 != 0 || mode & 0o020 != 0 && groups.contains(&metadata.gid());
    is_writable && !is_sticky
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_user_may_change_it_by_owner_group_or_mode_of_the_file_or_a_folder() {
        let own = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let (other, stranger) = (own + 1, [group + 1]);
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let [start, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (conf, target) = (start.path().join(DEFAULT_CONF), elsewhere.path().join("conf.py"));
        let found = |uid, groups: &[u32]| DefaultConf::find(start.path()).changeable_by(uid, groups);
        assert!(!DefaultConf::find(start.path()).is_there());
        fs::write(&conf, "").unwrap();
        assert!(DefaultConf::find(start.path()).is_there());
        for (folder, file, of_group, of_others) in [
            (0o755, 0o644, false, false),
            (0o755, 0o664, true, false),
            (0o755, 0o646, true, true),
            (0o775, 0o644, true, false),
            (0o1777, 0o644, false, false),
            (0o777, 0o600, true, true),
        ] {
            set(start.path(), folder);
            set(&conf, file);
            let found = (found(other, &[group]).is_some(), found(other, &stranger).is_some());
            assert_eq!(found, (of_group, of_others), "{folder:o} {file:o}");
        }
        set(start.path(), 0o755);
        set(&conf, 0o600);
        assert_eq!(found(own, &stranger).as_deref(), Some(start.path()));
        fs::remove_file(&conf).unwrap();
        fs::write(&target, "").unwrap();
        symlink(&target, &conf).unwrap();
        set(&target, 0o644);
        set(elsewhere.path(), 0o755);
        assert_eq!(found(other, &stranger), None);
        set(elsewhere.path(), 0o757);
        assert_eq!(found(other, &stranger), Some(fs::canonicalize(elsewhere.path()).unwrap()));
    }
}
