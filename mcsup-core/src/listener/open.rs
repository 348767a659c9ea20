//! The supervisor's set of open listeners.

use std::ops::Deref;

use super::options::Options;
use super::tcp::TcpListening;
use super::unix::UnixListening;
use super::{Address, Listener, inherited};
use crate::error::Result;

/// Open listeners, in the order in which they were asked for. Closed when dropped; their paths stay until
/// [`OpenSet::withdraw`], because a worker that drops its copy must not take the path from its siblings.
#[derive(Debug, Default)]
pub(crate) struct OpenSet(Vec<Box<dyn Listener>>);

impl OpenSet {
    /// Opens all of `addresses`, or none.
    pub(crate) fn open(addresses: &[Address], options: &Options) -> Result<Self> {
        let mut set = Self::default();
        for address in addresses {
            match open(address, options) {
                Ok(listener) => set.0.push(listener),
                Err(error) => {
                    set.withdraw();
                    return Err(error);
                }
            }
        }
        Ok(set)
    }

    /// Removes what the listeners left in the file system; the supervisor's last act with them.
    pub(crate) fn withdraw(&self) {
        for listener in &self.0 {
            listener.withdraw();
        }
    }
}

impl Deref for OpenSet {
    type Target = [Box<dyn Listener>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn open(address: &Address, options: &Options) -> Result<Box<dyn Listener>> {
    Ok(match address {
        Address::Tcp { host, port } => Box::new(TcpListening::open(host, *port, options)?),
        Address::Unix(path) => Box::new(UnixListening::open(path, options)?),
        Address::Inherited(fd) => inherited::open(*fd)?,
    })
}
