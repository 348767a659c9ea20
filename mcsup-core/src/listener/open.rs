//! The supervisor's set of open listeners.

use std::ops::Deref;
use std::sync::Arc;

use super::options::Options;
use super::tcp::TcpListening;
use super::unix::UnixListening;
use super::{Address, Listener, inherited};
use crate::error::Result;

/// Open listeners, in the order in which they were asked for. Closed when dropped; their paths stay until
/// [`OpenSet::withdraw`], because a worker that drops its copy must not take the path from its siblings.
#[derive(Debug, Default, Clone)]
pub(crate) struct OpenSet(Vec<Arc<dyn Listener>>, Vec<Address>);

impl OpenSet {
    /// Opens all of `addresses`, or none.
    pub(crate) fn open(addresses: &[Address], options: &Options, slots: usize) -> Result<Self> {
        Self::default().changed_to(addresses, options, slots)
    }

    pub(crate) fn changed_to(&self, addresses: &[Address], options: &Options, _: usize) -> Result<Self> {
        let mut set = Self::default();
        for address in addresses {
            if let Some(at) = self.1.iter().position(|other| other == address) {
                set.0.push(Arc::clone(&self.0[at]));
                set.1.push(address.clone());
                continue;
            }
            match open(address, options) {
                Ok(listener) => {
                    set.0.push(listener);
                    set.1.push(address.clone());
                }
                Err(error) => {
                    set.withdraw_what_is_not_in(self);
                    return Err(error);
                }
            }
        }
        Ok(set)
    }

    pub(crate) fn withdraw_what_is_not_in(&self, other: &Self) {
        for (listener, address) in self.0.iter().zip(&self.1) {
            if !other.1.contains(address) {
                listener.withdraw();
            }
        }
    }

    pub(crate) fn has_what_lacks_in(&self, other: &Self) -> bool {
        self.1.iter().any(|address| !other.1.contains(address))
    }

    pub(crate) fn for_slot(&self, _: usize) -> Self {
        self.clone()
    }

    pub(crate) fn resized(&self, _: usize) -> Result<Self> {
        Ok(self.clone())
    }

    pub(crate) fn queued(&self) -> usize {
        0
    }

    /// Removes what the listeners left in the file system; the supervisor's last act with them.
    pub(crate) fn withdraw(&self) {
        for listener in &self.0 {
            listener.withdraw();
        }
    }
}

impl Deref for OpenSet {
    type Target = [Arc<dyn Listener>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn open(address: &Address, options: &Options) -> Result<Arc<dyn Listener>> {
    Ok(match address {
        Address::Tcp { host, port } => Arc::new(TcpListening::open(host, *port, options)?),
        Address::Unix(path) => Arc::new(UnixListening::open(path, options)?),
        Address::Inherited(fd) => Arc::from(inherited::open(*fd)?),
    })
}
