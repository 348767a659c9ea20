//! The supervisor's set of open listeners, and its changes. A change yields a new set that shares common
//! sockets with the old one; the old one stays valid until it is dropped.

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use super::options::Options;
use super::per_slot::PerSlot;
use super::socket::SocketListening;
use super::tcp::TcpListening;
use super::unix::{UnixKind, UnixListening};
use super::{Address, Connection, Listener, Local, inherited, own};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{duplicates, listening};

/// Open listeners in the configured order, each identified by its address in the operator's notation.
///
/// Port 0 keeps the port that the kernel chose first. Sockets close when the last set that contains them is
/// dropped. Their paths stay until [`OpenSet::withdraw`]: a worker that drops its copy must not remove the
/// path of its siblings.
///
/// It dereferences to the slice of all its sockets, in the same order.
#[derive(Debug, Default, Clone)]
pub(crate) struct OpenSet {
    members: Vec<Member>,
    sockets: Vec<Arc<dyn Listener>>,
}

/// The sockets of an address, or a program's own listener.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(super) key: Key,
    pub(super) sockets: Sockets,
}

/// The identity of a member through changes of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Address(Address),
    /// The name of a program's own listener ([`own::name`]).
    Own(String),
}

impl Key {
    fn address(&self) -> Option<&Address> {
        match self {
            Key::Address(address) => Some(address),
            Key::Own(_) => None,
        }
    }
}

/// The sockets of an address.
#[derive(Debug, Clone)]
pub(crate) enum Sockets {
    /// One socket that all workers share.
    Shared(Arc<dyn Listener>),
    /// The same, with a path that is ours.
    Unix(Arc<UnixListening>),
    /// One for each slot.
    PerSlot(PerSlot),
}

impl OpenSet {
    /// A set of one socket.
    #[cfg(test)]
    pub(crate) fn with(listener: Arc<dyn Listener>) -> Self {
        Self::default().with_own(&[listener])
    }

    /// Opens all of `addresses`, or none, for `slots` slots.
    pub(crate) fn open(addresses: &[Address], options: &Options, slots: usize) -> Result<Self> {
        Self::default().opened(addresses, options, slots)
    }

    /// The same, with the open sockets of an earlier supervisor where it has that address.
    pub(crate) fn open_beside(
        earlier: &Self,
        addresses: &[Address],
        options: &Options,
        slots: usize,
    ) -> Result<Self> {
        earlier.opened(addresses, options, slots)
    }

    /// The set for other addresses, options and slots. Common sockets are kept, new ones opened.
    ///
    /// On an error nothing has changed. New connections go to the same slots as before until
    /// [`aim`](Self::aim), and kept sockets have their previous options until [`apply`](Self::apply).
    pub(crate) fn changed_to(&self, addresses: &[Address], options: &Options, slots: usize) -> Result<Self> {
        let is_new = |address: &&Address| self.at(address).is_none();
        if let Some(Address::Inherited(fd)) =
            addresses.iter().filter(is_new).find(|address| matches!(address, Address::Inherited(_)))
        {
            // The number may be a descriptor of this process by now.
            let why = format!("cannot listen on fd://{fd}: descriptors are taken over at the start only");
            return Err(Error::new(ErrorKind::Bind, why));
        }
        self.opened(addresses, options, slots)
    }

    /// The set with a program's own listeners as well, which [`own::prepare`] has checked.
    pub(crate) fn with_own(self, listeners: &[Arc<dyn Listener>]) -> Self {
        let mut members = self.members;
        members.extend(listeners.iter().map(|listener| Member {
            key: Key::Own(own::name(&**listener)),
            sockets: Sockets::Shared(Arc::clone(listener)),
        }));
        Self::of(members)
    }

    /// Releases the sockets and their duplicates in this process: nothing arrives at them any more, and the
    /// addresses are free as far as this process is concerned.
    ///
    /// Returns `false` if some refer to /dev/null, which is readable for ever, as no descriptor was left.
    pub(crate) fn release(&self) -> bool {
        duplicates::release(&self.iter().map(|listener| listener.as_fd()).collect::<Vec<_>>())
    }

    /// Puts this set's own listeners in the place of those in `listeners` with the same names.
    pub(crate) fn replace_own(&self, listeners: &mut [Arc<dyn Listener>]) {
        for listener in listeners {
            let key = Key::Own(own::name(&**listener));
            if let Some(Member { sockets: Sockets::Shared(adopted), .. }) = self.member(&key) {
                *listener = Arc::clone(adopted);
            }
        }
    }

    /// Applies `options` to all open sockets: mode and owner of socket files, length of queues.
    ///
    /// A failed change is logged and leaves the socket unchanged. A changed `reuse_port` applies to new
    /// addresses only.
    pub(crate) fn apply(&mut self, options: &Options) {
        for member in &self.members {
            let Sockets::Unix(listener) = &member.sockets else { continue };
            if let Err(error) = listener.refit(options) {
                log::error!("{error}");
            }
        }
        self.set_backlog(options.backlog);
    }

    /// The set for another number of slots.
    ///
    /// Further slots get no connections until [`aim`](Self::aim). Surplus sockets get no new ones from now on
    /// and stay open, leaving, until [`end_leaving`](Self::end_leaving).
    pub(crate) fn resized(&self, slots: usize) -> Result<Self> {
        let members = self.members.iter().map(|member| member.resized(slots));
        let resized = Self::of(members.collect::<Result<_>>()?);
        for group in resized.groups().filter(|group| group.aimed_at() > group.slots()) {
            group.aim_at(slots)?;
        }
        Ok(resized)
    }

    /// The set for another number of slots. Shares common sockets with the resized set `other`.
    pub(crate) fn resized_beside(&self, other: &Self, slots: usize) -> Result<Self> {
        let members = self.members.iter().map(|member| match other.member(&member.key) {
            Some(shared) => Ok(shared.clone()),
            None => member.resized(slots),
        });
        Ok(Self::of(members.collect::<Result<_>>()?))
    }

    /// Whether `other` listens at an address that this set lacks.
    pub(crate) fn lacks_any_of(&self, other: &Self) -> bool {
        other.members.iter().any(|member| self.member(&member.key).is_none())
    }

    /// Whether sockets of removed slots are still open.
    pub(crate) fn is_leaving(&self) -> bool {
        self.groups().any(|group| group.sockets().len() > group.slots())
    }

    /// Directs new connections to the first `slots` slots. Other addresses than those with one socket for
    /// each slot are unaffected.
    ///
    /// Called when workers have become ready, and before workers are retired for good.
    pub(crate) fn aim(&self, slots: usize) -> Result<()> {
        self.groups().try_for_each(|group| group.aim_at(slots))
    }

    /// Whether the sockets of removed slots will get no further connection: only then may their workers
    /// drain.
    ///
    /// Reads the kernel's table of connections while handshakes are unfinished.
    pub(crate) fn is_settled(&self) -> bool {
        self.groups().all(PerSlot::is_settled)
    }

    /// Stops the sockets of removed slots and returns their queued connections, for other workers.
    ///
    /// Called when the set [is settled](Self::is_settled) and the workers of these slots have ended.
    pub(crate) fn end_leaving(&mut self) -> Vec<Connection> {
        let groups = self.members.iter_mut().filter_map(|member| match &mut member.sockets {
            Sockets::PerSlot(group) => Some(group),
            _ => None,
        });
        let waited = groups.flat_map(PerSlot::end_leaving).collect();
        self.sockets = sockets_of(&self.members);
        waited
    }

    /// The listeners of the worker of a slot: all shared ones, and its own.
    pub(crate) fn for_slot(&self, slot: usize) -> Self {
        self.for_slots(&[slot])
    }

    /// The listeners of a worker that serves several slots.
    pub(crate) fn for_slots(&self, slots: &[usize]) -> Self {
        let members = self.members.iter().flat_map(|member| match &member.sockets {
            Sockets::PerSlot(group) => {
                let own = slots.iter().map(|slot| Sockets::Shared(Arc::clone(group.of_slot(*slot))));
                own.map(|sockets| Member { key: member.key.clone(), sockets }).collect()
            }
            _ => vec![member.clone()],
        });
        Self::of(members.collect())
    }

    /// The local addresses, each once.
    pub(crate) fn locals(&self) -> impl Iterator<Item = &Local> {
        self.members.iter().map(|member| match &member.sockets {
            Sockets::Shared(listener) => listener.local(),
            Sockets::Unix(listener) => listener.local(),
            Sockets::PerSlot(group) => group.local(),
        })
    }

    /// The number of connections in the queues, as far as the kernel reports it: over TCP, on Linux.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.sockets.iter().map(|listener| listening::queued(listener.as_fd())).sum()
    }

    /// Keeps new clients out of the queues of TCP addresses that `other` lacks.
    ///
    /// Queued clients can then be served before the listeners close. A socket that the pool has not opened takes new
    /// clients on: it may serve others afterwards, and would refuse theirs.
    pub(crate) fn refuse_new_where_lacking(&self, other: &Self) {
        for member in self.members.iter().filter(|member| other.member(&member.key).is_none()) {
            if !matches!(member.key, Key::Address(Address::Tcp { .. })) {
                continue;
            }
            for socket in member.sockets() {
                if let Err(error) = listening::refuse_new(socket.as_fd()) {
                    log::debug!("cannot keep new clients from {}: {error}", socket.local());
                }
            }
        }
    }

    /// Removes the paths of the listeners, as the supervisor's last act.
    pub(crate) fn withdraw(&self) {
        self.withdraw_unless_in(&Self::default());
    }

    /// Removes the paths of the listeners that `other` lacks: those of the old set after a change, those of
    /// the new one after a failed change.
    pub(crate) fn withdraw_unless_in(&self, other: &Self) {
        for member in &self.members {
            match (&member.sockets, other.member(&member.key)) {
                (Sockets::PerSlot(group), Some(Member { sockets: Sockets::PerSlot(others), .. })) => {
                    group.stop_unless_in(others);
                }
                (_, Some(_)) => {}
                (Sockets::Unix(listener), None) => listener.withdraw(),
                (Sockets::Shared(listener), None) => listener.withdraw(),
                (Sockets::PerSlot(_), None) => {}
            }
        }
    }

    /// Undoes the opening of the set before another attempt: removes paths and returns inherited sockets.
    pub(crate) fn put_back(self) {
        self.put_back_unless_in(&Self::default());
    }

    fn put_back_unless_in(self, other: &Self) {
        self.withdraw_unless_in(other);
        for member in self.members.into_iter().filter(|member| other.member(&member.key).is_none()) {
            if let (Key::Address(Address::Inherited(_)), Sockets::Shared(listener)) =
                (member.key, member.sockets)
            {
                inherited::put_back(listener);
            }
        }
    }

    pub(super) fn of(members: Vec<Member>) -> Self {
        let sockets = sockets_of(&members);
        Self { members, sockets }
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether it listens at an address of `other`.
    pub(super) fn shares_any_with(&self, other: &Self) -> bool {
        other.members.iter().any(|member| self.member(&member.key).is_some())
    }

    /// Adds the members of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        self.members.extend(other.members);
        self.sockets.extend(other.sockets);
    }

    /// The socket with the descriptor number `fd`.
    pub(super) fn descriptor(&self, fd: RawFd) -> Option<BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd).find(|socket| socket.as_raw_fd() == fd)
    }

    /// Whether it listens at `address`.
    pub(super) fn contains(&self, address: &Address) -> bool {
        self.at(address).is_some()
    }

    fn member(&self, key: &Key) -> Option<&Member> {
        self.members.iter().find(|member| member.key == *key)
    }

    fn at(&self, address: &Address) -> Option<&Member> {
        self.members.iter().find(|member| member.key.address() == Some(address))
    }

    fn groups(&self) -> impl Iterator<Item = &PerSlot> {
        self.members.iter().filter_map(|member| match &member.sockets {
            Sockets::PerSlot(group) => Some(group),
            _ => None,
        })
    }

    /// Keeps the common sockets of `addresses` and opens the rest, or nothing.
    fn opened(&self, addresses: &[Address], options: &Options, slots: usize) -> Result<Self> {
        let mut opened = Self::default();
        for address in addresses {
            if opened.at(address).is_some() {
                continue;
            }
            let member = match self.at(address) {
                Some(member) => member.resized(slots),
                None => open(address, options, slots),
            };
            match member {
                Ok(member) => opened.members.push(member),
                Err(error) => {
                    opened.put_back_unless_in(self);
                    return Err(error);
                }
            }
        }
        Ok(Self::of(opened.members))
    }

    /// Sets the length of the queues, except those of sockets that the pool has not opened.
    fn set_backlog(&mut self, backlog: i32) {
        for member in &mut self.members {
            if matches!(member.key, Key::Address(Address::Inherited(_)) | Key::Own(_)) {
                continue;
            }
            if let Sockets::PerSlot(group) = &mut member.sockets {
                group.set_backlog(backlog);
            }
            for listener in member.sockets().iter().filter(|listener| listener.has_connections()) {
                // A socket that already listens takes the new length (listen(2)).
                if let Err(error) = rustix::net::listen(listener.as_fd(), backlog) {
                    log::error!("cannot change the backlog of {}: {error}", listener.local());
                }
            }
        }
    }
}

impl Deref for OpenSet {
    type Target = [Arc<dyn Listener>];

    fn deref(&self) -> &Self::Target {
        &self.sockets
    }
}

impl Member {
    fn sockets(&self) -> Vec<Arc<dyn Listener>> {
        match &self.sockets {
            Sockets::Shared(listener) => vec![Arc::clone(listener)],
            Sockets::Unix(listener) => vec![Arc::clone(listener) as _],
            Sockets::PerSlot(group) => group.sockets().to_vec(),
        }
    }

    fn resized(&self, slots: usize) -> Result<Self> {
        let sockets = match &self.sockets {
            Sockets::PerSlot(group) => Sockets::PerSlot(group.resized(slots)?),
            shared => shared.clone(),
        };
        Ok(Self { key: self.key.clone(), sockets })
    }
}

fn sockets_of(members: &[Member]) -> Vec<Arc<dyn Listener>> {
    members.iter().flat_map(Member::sockets).collect()
}

fn open(address: &Address, options: &Options, slots: usize) -> Result<Member> {
    if options.streams_only && !address.may_be_stream() {
        let why = format!("cannot listen on {address}: {}", inherited::NO_STREAM);
        return Err(Error::new(ErrorKind::Setting, why));
    }
    let unix = |path, kind| UnixListening::open(path, kind, options).map(Arc::new).map(Sockets::Unix);
    let sockets = match address {
        Address::Tcp { host, port } => open_tcp(host, *port, options, slots)?,
        Address::Unix(path) => unix(path, UnixKind::Stream)?,
        Address::UnixDatagram(path) => unix(path, UnixKind::Datagram)?,
        Address::UnixSeqpacket(path) => unix(path, UnixKind::Seqpacket)?,
        Address::Udp { host, port } => Sockets::Shared(Arc::new(SocketListening::udp(host, *port)?)),
        Address::Vsock { cid, port } => {
            Sockets::Shared(Arc::new(SocketListening::vsock(*cid, *port, options)?))
        }
        Address::Inherited(fd) => Sockets::Shared(inherited::open(*fd, options.streams_only)?),
        Address::Passed(name) => {
            let why = "descriptors are taken over at the start only";
            return Err(Error::new(ErrorKind::Bind, format!("cannot listen on fd://{name}: {why}")));
        }
    };
    if options.reuse_port && !matches!(address, Address::Tcp { .. }) {
        log::debug!("{address} has no socket for each slot: the workers share it");
    }
    Ok(Member { key: Key::Address(address.clone()), sockets })
}

fn open_tcp(host: &str, port: u16, options: &Options, slots: usize) -> Result<Sockets> {
    let first = TcpListening::open(host, port, options)?;
    Ok(match options.reuse_port.then(|| first.share_port()) {
        Some(Ok(())) => Sockets::PerSlot(PerSlot::beside(Arc::new(first), slots, options.backlog)?),
        Some(Err(error)) => {
            log::debug!("{} has no socket for each slot: {error}", first.local());
            Sockets::Shared(Arc::new(first))
        }
        None => Sockets::Shared(Arc::new(first)),
    })
}
