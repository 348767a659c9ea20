//! What a supervisor leaves to the next image of itself about its open listeners: the descriptors stay open across the
//! exec, and this says what they are.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inherited;
use super::open::{Member, OpenSet, Sockets};
use super::per_slot::PerSlot;
use super::unix::{Bound, UnixListening};
use super::{Address, Listener};
use crate::error::{Error, ErrorKind, Result};

/// One open listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerRecord {
    /// As the operator wrote it.
    pub(crate) address: String,
    pub(crate) fd: RawFd,
    /// Its place, where each slot has its own.
    pub(crate) slot: Option<SlotRecord>,
    /// Its file, where it has one that is ours.
    pub(crate) bound: Option<Bound>,
}

/// A socket's place among those of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) slot: usize,
    /// How many slots there are; a socket of a later one is leaving.
    slots: usize,
    /// How many sockets, from the first, get new connections.
    aimed_at: usize,
    backlog: i32,
}

impl OpenSet {
    /// Describes the set, socket by socket, for [`adopt`](Self::adopt).
    pub(crate) fn describe(&self) -> Vec<ListenerRecord> {
        self.members().iter().flat_map(describe).collect()
    }

    /// The set that was described, in the process that has inherited its descriptors. All or none: on an error all
    /// descriptors stay open (and may be close-on-exec by now), so that there is a way back.
    pub(crate) fn adopt(records: &[ListenerRecord]) -> Result<Self> {
        let mut members = Vec::new();
        let mut rest = records;
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|record| record.address == first.address).count();
            let (records, others) = rest.split_at(count);
            rest = others;
            match adopt_member(records) {
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
        address: member.address.to_string(),
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

/// All records of one address.
fn adopt_member(records: &[ListenerRecord]) -> Result<Member> {
    let wrong = || Error::new(ErrorKind::System, "take over the listeners: the record contradicts itself");
    let first = records.first().ok_or_else(wrong)?;
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
    Ok(Member { address, sockets })
}
