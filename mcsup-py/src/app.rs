//! The seam between the request engine and what it serves: a parsed request in, a response out.
//!
//! The engine knows sockets, framing and deadlines; an [`App`] knows how to answer. Python is one `App`
//! (`wsgi/`), a Rust closure in a test is another, so that the engine is tested and measured without an
//! interpreter.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub use crate::http::head::Head;
pub use crate::http::response::{HeadFault, ResponseHead};
pub use crate::http::version::Version;
pub use crate::net::buffer::Block;
pub use crate::net::memory::Memory;
pub use crate::tls::Secured;

/// Answers requests; called on the thread that holds the permit, one request at a time.
pub trait App {
    /// Answers one request through `reply`.
    ///
    /// The request's body has arrived whole before the call: reading it never waits for the client.
    fn call(&mut self, request: Request<'_>, reply: &mut dyn Reply) -> Verdict;

    /// Whether it runs handlers of signals while its answer waits for the client. Then a wait of the engine's first thread ends
    /// early when a signal may have come: [`Reply::is_interrupted`] says so, and [`Reply::go_on`] is due after the handlers.
    fn handles_signals(&self) -> bool {
        false
    }

    /// Whether memory of responses that have left waits for [`App::free`]. Asked before each wait for requests, so it must
    /// cost next to nothing.
    fn has_garbage(&self) -> bool {
        false
    }

    /// The values that the last request has left, for the access log. Asked once after each call if there is one.
    fn left(&mut self) -> Left {
        Left::default()
    }

    /// Frees it. It may take as long as a call, and is called on the same thread, while no request is ready.
    fn free(&mut self) {}
}

/// The values that an application has left in the environ of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// The client's address, where the application has replaced it.
    pub remote: Option<Vec<u8>>,
    /// The variables of the access log's format, in its order; `None`: there is no such variable. Empty if the application
    /// did not get the request.
    pub variables: Vec<Option<Vec<u8>>>,
}

/// One request, whole.
#[derive(Debug)]
pub struct Request<'a> {
    /// Request line and header fields, borrowed from the connection's buffer.
    pub head: Head<'a>,
    /// The decoded body.
    pub body: Body,
    /// The two ends of the connection it came on.
    pub peer: &'a Peer,
    /// What the handshake of TLS has determined; `None`: the connection is without TLS.
    pub secured: Option<&'a Secured>,
}

impl Request<'_> {
    /// The client's address, as trusted proxies name it, or as that of the connection; `None` on a Unix socket.
    pub fn client(&self) -> Option<SocketAddr> {
        self.head.client().or(self.peer.remote)
    }
}

/// A request body that was received whole and de-chunked.
#[derive(Debug)]
pub enum Body {
    /// No body.
    Empty,
    /// Held in memory: one of up to 64 KiB, or of up to 2 MiB that said how long it is, if memory for such bodies was left.
    Memory(Memory),
    /// Spooled to an unlinked temporary file, positioned at its beginning.
    File {
        /// The open file. Shared: the last owner gives its pages back, which takes a tenth of a second for a gibibyte.
        file: Arc<File>,
        /// Its length in bytes.
        length: u64,
    },
}

impl Body {
    /// The body's length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File { length, .. } => *length,
        }
    }

    /// Whether there are no bytes in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The two ends of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The client's address, as it was when the connection was accepted, or as a PROXY header names it; `None` on a Unix
    /// socket.
    pub remote: Option<SocketAddr>,
    /// Our address, or the path of the Unix socket.
    pub local: Local,
    /// What is known besides of a connection whose PROXY header has named the client.
    pub proxied: Option<Box<Proxied>>,
}

/// The proxy of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// The proxy's own address, from which it has connected to us; `None` on a Unix socket.
    pub proxy: Option<SocketAddr>,
    /// The address at which the proxy has accepted the client.
    pub server: SocketAddr,
    /// Whether the client has used TLS, as the header says.
    pub is_https: bool,
}

impl Peer {
    /// Whether all is known that there is: a client by TCP has an address.
    pub(crate) fn is_known(&self) -> bool {
        self.remote.is_some() || matches!(self.local, Local::Unix(_))
    }
}

/// Our end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket, as it was bound.
    Unix(String),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The application said all that it wanted to say. The engine ends the message, or closes the connection
    /// where fewer bytes came than the head announced.
    Complete,
    /// The application failed. Where nothing was sent yet the client gets a 500; otherwise the connection is
    /// aborted, never ended cleanly, so that no proxy takes the fragment for the whole.
    Failed,
}

/// The client is gone (or stalled past the write deadline): nothing that is sent will arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Where an application puts its response.
pub trait Reply {
    /// Sends `chunk` behind everything sent before; the first call (also with an empty chunk) sends `head` first.
    ///
    /// The bytes are sent, or below the connection's high-water mark queued, before it returns. The engine frames
    /// them (Content-Length, chunked, or until close), cuts them at the announced length, and drops them where the
    /// response may have no body (HEAD, 204, 304).
    fn send(&mut self, head: &ResponseHead, chunk: &[u8]) -> Result<(), Gone>;

    /// Like [`Reply::send`], for the only chunk of a response: lets the engine announce its length where the head
    /// does not, and send head and body in one call.
    fn send_whole(&mut self, head: &ResponseHead, body: &[u8]) -> Result<(), Gone>;

    /// Like [`Reply::send_whole`] for a body that is too large to be copied: it is held until all of it has been sent.
    fn send_block(&mut self, head: &ResponseHead, block: Block) -> Result<(), Gone>;

    /// Sends an interim response (RFC 9110 §15.2), such as 103 Early Hints: the fields of `head` under its status.
    /// Does nothing where the client may not understand it, or the final head has been sent.
    fn send_interim(&mut self, head: &ResponseHead) -> Result<(), Gone>;

    /// Like [`Reply::send`] for `length` bytes of `file` from `offset` on. The file's own position is not used.
    fn send_file(&mut self, head: &ResponseHead, file: File, offset: u64, length: u64) -> Result<(), Gone>;

    /// Whether the last call has ended before its time, for an application that [handles signals](App::handles_signals).
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Goes on with what was interrupted; it may be again.
    fn go_on(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    /// Ends the answer before the call ends, and sends what the socket takes of it at once. Nothing may be said afterwards.
    fn complete(&mut self) {}

    /// A socket for an application that may take the connection: a second descriptor of the connection's own, or, with TLS, one
    /// behind which the bytes are encrypted. `None`: there is none.
    ///
    /// # Errors
    /// Those of dup(2).
    fn socket(&mut self) -> Option<io::Result<OwnedFd>> {
        None
    }

    /// The application takes the connection, to speak another protocol on it until its call ends. Sends first what was said
    /// before; nothing that is said afterwards is sent, and the time limit of requests ends. Returns the bytes that were
    /// received behind the request. The connection is closed when the call has ended.
    fn take(&mut self) -> Result<Vec<u8>, Gone> {
        Err(Gone)
    }

    /// Whether the head has been sent: from then on neither status nor header can be changed.
    fn head_sent(&self) -> bool;

    /// The number of bytes of the body that have been handed over.
    fn body_bytes(&self) -> u64;

    /// Whether nothing more will be sent whatever is said: all that Content-Length announced has been handed over, or
    /// the response may have no body. Asking the application for more has no use.
    fn is_full(&self) -> bool;
}
