//! The floor under every server: epoll, recv, and a constant sent back. No parsing, no application, one thread.
//!
//! `floor PORT [close]`. With `close` each connection has one answer, as with `Connection: close`. Linux only.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use rustix::event::epoll::{self, EventData, EventFlags};
    use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, OwnedFd};

    const KEPT: &[u8] = b"HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Wed, 25 Nov 2026 08:00:00 GMT\r\n\
        Content-Length: 6\r\nContent-Type: text/plain\r\n\r\nhello\n";
    const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Wed, 25 Nov 2026 08:00:00 GMT\r\n\
        Connection: close\r\nContent-Length: 6\r\nContent-Type: text/plain\r\n\r\nhello\n";

    let mut words = std::env::args().skip(1);
    let port = words.next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
    let closes = words.next().is_some_and(|word| word == "close");
    let answer = if closes { CLOSED } else { KEPT };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poller, &listener, EventData::new_u64(u64::MAX), EventFlags::IN)?;
    // By descriptor, which is also the token.
    let mut connections: Vec<Option<OwnedFd>> = Vec::new();
    let (mut events, mut bytes) = (Vec::with_capacity(64), [0; 8192]);
    // Whether the connection stays.
    let mut serve = |stream: &OwnedFd| match recv(stream, &mut bytes, RecvFlags::empty()) {
        Ok((_, 1..)) => {
            let _ = send(stream, answer, SendFlags::NOSIGNAL);
            if closes {
                let _ = shutdown(stream, Shutdown::Both);
            }
            !closes
        }
        Err(rustix::io::Errno::AGAIN) => true,
        _ => false,
    };
    loop {
        events.clear();
        epoll::wait(&poller, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == u64::MAX {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let Ok(stream) = accept_with(&listener, flags) else { continue };
                // Most have asked by now, and need not be registered if they have their only answer.
                if !serve(&stream) {
                    continue;
                }
                let token = usize::try_from(stream.as_raw_fd()).unwrap_or(0);
                epoll::add(&poller, &stream, EventData::new_u64(token as u64), EventFlags::IN)?;
                connections.resize_with(connections.len().max(token + 1), || None);
                connections[token] = Some(stream);
                continue;
            }
            let token = usize::try_from(event.data.u64()).unwrap_or(0);
            if connections[token].as_ref().is_some_and(|stream| !serve(stream)) {
                connections[token] = None;
            }
        }
    }
}
