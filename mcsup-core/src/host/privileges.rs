//! Users and groups in the operator's notation, resolved before the first fork.

use crate::error::{Error, ErrorKind, Result};
use crate::sys::credentials::{self, Credentials};

/// The user and groups of the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs(pub(crate) Credentials);

impl RunAs {
    /// Resolves a user and a group by name or number; `None`: the workers keep the supervisor's.
    ///
    /// The supplementary groups are those of the user, never those of the supervisor.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`]: there is no such user or group. [`ErrorKind::Privileges`]: this process may not run
    /// workers as another user, or the look-up failed.
    pub fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let unknown =
            |what: &str, name: &str| Error::new(ErrorKind::Setting, format!("there is no {what} {name:?}"));
        let failed = |what: &str, name: &str| {
            let step = format!("look up the {what} {name:?}");
            move |error| Error::system(step, error).of_kind(ErrorKind::Privileges)
        };
        let (uid, primary) = match user {
            Some(name) => {
                let found = credentials::find_user(name).map_err(failed("user", name))?;
                found.ok_or_else(|| unknown("user", name))?
            }
            None => (rustix::process::geteuid().as_raw(), None),
        };
        let gid = match (group, primary) {
            (Some(name), _) => {
                let found = credentials::find_group(name).map_err(failed("group", name))?;
                found.ok_or_else(|| unknown("group", name))?
            }
            (None, Some(gid)) => gid,
            (None, None) => rustix::process::getegid().as_raw(),
        };
        let groups = match credentials::user_of(uid).map_err(failed("user", &uid.to_string()))? {
            Some((name, _)) => credentials::groups_of(&name, gid).map_err(failed("groups of", &name))?,
            None => vec![gid],
        };
        let wanted = Credentials { uid, gid, groups };
        if rustix::process::geteuid().is_root() {
            return Ok(Some(Self(wanted)));
        }
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if own == (uid, gid) {
            return Ok(None);
        }
        Err(Error::new(ErrorKind::Privileges, "only root can run workers as another user or group"))
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        self.0.uid
    }

    /// The group id.
    pub fn gid(&self) -> u32 {
        self.0.gid
    }
}
