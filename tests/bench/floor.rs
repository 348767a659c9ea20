//! The floor under every server: epoll, recv, and a constant sent back. No parsing, no application, one thread.
//!
//! `floor PORT`. Linux only.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use rustix::event::epoll::{self, EventData, EventFlags};
    use std::collections::HashMap;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Wed, 25 Nov 2026 08:00:00 GMT\r\n\
        Content-Length: 6\r\nContent-Type: text/plain\r\n\r\nhello\n";
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poller, &listener, EventData::new_u64(0), EventFlags::IN)?;
    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let (mut events, mut bytes) = (Vec::with_capacity(64), [0; 8192]);
    loop {
        events.clear();
        epoll::wait(&poller, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let token = event.data.u64();
            if token == 0 {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    let token = u64::try_from(stream.as_raw_fd()).unwrap_or(0);
                    epoll::add(&poller, &stream, EventData::new_u64(token), EventFlags::IN)?;
                    connections.insert(token, stream);
                }
                continue;
            }
            let Some(stream) = connections.get(&token) else { continue };
            match rustix::net::recv(stream, &mut bytes, rustix::net::RecvFlags::empty()) {
                Ok((_, 1..)) => {
                    let _ = rustix::net::send(stream, ANSWER, rustix::net::SendFlags::NOSIGNAL);
                }
                Err(rustix::io::Errno::AGAIN) => {}
                _ => {
                    connections.remove(&token);
                }
            }
        }
    }
}
