//! The open listeners as one image of a supervisor passes them to the next: their descriptors stay open
//! across the exec, and a record describes them.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::open::{Key, Member, OpenSet, Sockets};
use super::per_slot::PerSlot;
use super::unix::{Bound, UnixListening};
use super::{Address, Listener, inherited, own};
use crate::error::{Error, ErrorKind, Result};

/// One open listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerRecord {
    /// The address in the operator's notation, or the name of a program's own listener.
    pub(crate) address: String,
    /// Whether it is a program's own listener. An older image had none.
    #[serde(default)]
    pub(crate) is_own: bool,
    pub(crate) fd: RawFd,
    /// The socket's place in its row, if each slot has its own.
    pub(crate) slot: Option<SlotRecord>,
    /// The socket file, if this supervisor bound it.
    pub(crate) bound: Option<Bound>,
}

/// The place of a socket among those of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) slot: usize,
    /// The number of slots; a socket of a later slot is leaving.
    slots: usize,
    /// The number of sockets, from the first, that get new connections.
    aimed_at: usize,
    backlog: i32,
}

impl OpenSet {
    /// Records the set, socket by socket, for [`adopt`](Self::adopt).
    pub(crate) fn describe(&self) -> Vec<ListenerRecord> {
        self.members().iter().flat_map(describe).collect()
    }

    /// The recorded set, in the process that has inherited its descriptors. `own` are this program's own
    /// listeners, which take their sockets over.
    ///
    /// # Errors
    /// No part of the set is adopted. All descriptors stay open (some may be close-on-exec), so that the
    /// previous image can be executed again.
    pub(crate) fn adopt(records: &[ListenerRecord], own: &[Arc<dyn Listener>]) -> Result<Self> {
        let mut members = Vec::new();
        let mut rest = records;
        while let Some(first) = rest.first() {
            let is_of_first =
                |record: &&ListenerRecord| (&record.address, record.is_own) == (&first.address, first.is_own);
            let count = rest.iter().take_while(is_of_first).count();
            let (records, others) = rest.split_at(count);
            rest = others;
            match adopt_member(records, own) {
                Ok(member) => members.push(member),
                Err(error) => {
                    std::mem::forget(members);
                    return Err(error);
                }
            }
        }
        Ok(Self::of(members))
    }
}

fn describe(member: &Member) -> Vec<ListenerRecord> {
    let record = |fd: &dyn Listener, slot, bound| ListenerRecord {
        address: match &member.key {
            Key::Address(address) => address.to_string(),
            Key::Own(name) => name.clone(),
        },
        is_own: matches!(member.key, Key::Own(_)),
        fd: fd.as_fd().as_raw_fd(),
        slot,
        bound,
    };
    match &member.sockets {
        Sockets::Shared(listener) => vec![record(&**listener, None, None)],
        Sockets::Unix(listener) => vec![record(&**listener, None, listener.bound().cloned())],
        Sockets::PerSlot(group) => {
            let (slots, aimed_at, backlog) = (group.slots(), group.aimed_at(), group.backlog());
            let place = |slot| Some(SlotRecord { slot, slots, aimed_at, backlog });
            let sockets = group.sockets().iter().enumerate();
            sockets.map(|(slot, listener)| record(&**listener, place(slot), None)).collect()
        }
    }
}

/// Adopts all records of one address.
fn adopt_member(records: &[ListenerRecord], own: &[Arc<dyn Listener>]) -> Result<Member> {
    let wrong = || Error::new(ErrorKind::System, "adopt the listeners: the record contradicts itself");
    let first = records.first().ok_or_else(wrong)?;
    if first.is_own {
        let sockets = Sockets::Shared(own::adopt(&first.address, first.fd, own)?);
        return Ok(Member { key: Key::Own(first.address.clone()), sockets });
    }
    let address: Address = first.address.parse()?;
    let sockets = match (&first.slot, &first.bound) {
        (None, None) if records.len() == 1 => Sockets::Shared(inherited::adopt(first.fd)?),
        (None, Some(bound)) if records.len() == 1 => {
            let socket = inherited::socket(first.fd)?;
            Sockets::Unix(Arc::new(UnixListening::adopt_bound(socket, bound.clone())?))
        }
        (Some(place), None) => {
            let is_row =
                (0..).zip(records).all(|(slot, record)| record.slot == Some(SlotRecord { slot, ..*place }));
            if !is_row || place.slots == 0 {
                return Err(wrong());
            }
            let mut sockets = Vec::new();
            for record in records {
                match inherited::adopt(record.fd) {
                    Ok(listener) => sockets.push(listener),
                    Err(error) => {
                        std::mem::forget(sockets);
                        return Err(error);
                    }
                }
            }
            Sockets::PerSlot(PerSlot::adopt(sockets, place.slots, place.aimed_at, place.backlog))
        }
        _ => return Err(wrong()),
    };
    Ok(Member { key: Key::Address(address), sockets })
}
