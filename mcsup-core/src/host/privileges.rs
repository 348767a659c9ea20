//! Users and groups in the operator's notation, resolved before the first fork.

use crate::error::{Error, ErrorKind, Result};
use crate::sys::credentials::{self, Credentials};

/// The ids of the owner of a file, by name or number.
///
/// # Errors
/// [`ErrorKind::Setting`]: there is no such user or group. [`ErrorKind::Privileges`]: the look-up failed.
pub fn look_up_owner(user: Option<&str>, group: Option<&str>) -> Result<(Option<u32>, Option<u32>)> {
    let uid = user.map(find_user).transpose()?.map(|(uid, _)| uid);
    Ok((uid, group.map(find_group).transpose()?))
}

fn find_user(name: &str) -> Result<(u32, Option<u32>)> {
    found("user", name, credentials::find_user(name))
}

fn find_group(name: &str) -> Result<u32> {
    found("group", name, credentials::find_group(name))
}

/// The result of a look-up, with its name in the error.
fn found<T>(kind: &str, name: &str, result: std::io::Result<Option<T>>) -> Result<T> {
    result
        .map_err(failed(kind, name))?
        .ok_or_else(|| Error::new(ErrorKind::Setting, format!("there is no {kind} {name:?}")))
}

fn failed(kind: &str, name: &str) -> impl FnOnce(std::io::Error) -> Error {
    let step = format!("look up the {kind} {name:?}");
    move |error| Error::system(step, error).of_kind(ErrorKind::Privileges)
}

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
        let (uid, primary) = match user {
            Some(name) => find_user(name)?,
            None => (rustix::process::geteuid().as_raw(), None),
        };
        let gid = match (group, primary) {
            (Some(name), _) => find_group(name)?,
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

    /// The ids of all its groups.
    pub fn groups(&self) -> &[u32] {
        &self.0.groups
    }
}
