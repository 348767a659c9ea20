//! pingora-core 0.9.1: one process with threads, which a new one replaces. `pingora server`, `order` or `udp`;
//! `cargo test --bin pingora` runs `unit`.

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 1. The new version is started with `--upgrade`, and asks for the listeners; QUIT makes the old one send them.
///
/// It has one process: a number of workers is no part of the crate (docs.rs/pingora-core, `server::Server`).
mod server {
    use async_trait::async_trait;
    use pingora_core::apps::ServerApp;
    use pingora_core::protocols::Stream;
    use pingora_core::server::{Server, ShutdownWatch, configuration::Opt};
    use pingora_core::services::listening::Service;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    pub struct Echo;

    #[async_trait]
    impl ServerApp for Echo {
        async fn process_new(self: &Arc<Self>, mut client: Stream, _: &ShutdownWatch) -> Option<Stream> {
            let mut buffer = [0; 1500];
            while let Ok(length @ 1..) = client.read(&mut buffer).await {
                client.write_all(&buffer[..length]).await.ok()?;
                client.flush().await.ok()?;
            }
            None
        }
    }

    pub fn options() -> Opt {
        Opt { upgrade: std::env::args().any(|argument| argument == "--upgrade"), ..Opt::default() }
    }

    pub fn run() -> super::Result<()> {
        let mut server = Server::new(options())?;
        server.bootstrap();
        let mut echo = Service::new("echo".to_owned(), Echo);
        echo.add_tcp("127.0.0.1:7000");
        server.add_service(echo);
        server.run_forever()
    }
}

/// 2. A line at the standard input starts the new version, and the old one sends the listeners and ends.
///
/// There is no outcome: the old one ends also if the new one does not start (`Server::run`).
mod order {
    use super::server::{Echo, options};
    use async_trait::async_trait;
    use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch};
    use pingora_core::services::listening::Service;
    use tokio::io::{AsyncBufReadExt, BufReader, stdin};

    struct Line;

    #[async_trait]
    impl ShutdownSignalWatch for Line {
        async fn recv(&self) -> ShutdownSignal {
            let _ = BufReader::new(stdin()).lines().next_line().await;
            let program = std::env::args().next().expect("a program");
            std::process::Command::new(program).args(["order", "--upgrade"]).spawn().expect("a new version");
            ShutdownSignal::GracefulUpgrade
        }
    }

    pub fn run() -> super::Result<()> {
        let mut server = Server::new(options())?;
        server.bootstrap();
        let mut echo = Service::new("echo".to_owned(), Echo);
        echo.add_tcp("127.0.0.1:7000");
        server.add_service(echo);
        server.run(RunArgs { shutdown_signal: Box::new(Line) });
        Ok(())
    }
}

// 3. Death of a worker: none. `Server::watch_execution_phase` reports the phases of its own process, and no item reports
// those of the next version.

/// 4. Datagrams, by an own service: the crate's listeners are TCP and Unix streams (`listeners::ServerAddress`).
mod udp {
    use async_trait::async_trait;
    use pingora_core::server::{ListenFds, Server, ShutdownWatch};
    use pingora_core::services::Service;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use std::os::fd::AsRawFd;
    use tokio::net::UdpSocket;

    const ADDRESS: &str = "127.0.0.1:7001";

    struct Echo;

    fn socket(fds: &ListenFds) -> std::io::Result<UdpSocket> {
        let mut fds = fds.lock();
        let socket = match fds.get(ADDRESS) {
            // A second descriptor of the socket that the old version has sent: its owner is known.
            Some(fd) => {
                let own = pidfd_open(getpid(), PidfdFlags::empty())?;
                pidfd_getfd(own, *fd, PidfdGetfdFlags::empty())?.into()
            }
            None => std::net::UdpSocket::bind(ADDRESS)?,
        };
        fds.add(ADDRESS.to_owned(), socket.as_raw_fd());
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    #[async_trait]
    impl Service for Echo {
        async fn start_service(&mut self, fds: Option<ListenFds>, mut stop: ShutdownWatch, _: usize) {
            let socket = socket(&fds.expect("descriptors")).expect("a socket");
            let mut buffer = [0; 1500];
            loop {
                tokio::select! {
                    Ok((length, client)) = socket.recv_from(&mut buffer) => {
                        let _ = socket.send_to(&buffer[..length], client).await;
                    }
                    _ = stop.changed() => return,
                }
            }
        }

        fn name(&self) -> &str {
            "echo"
        }
    }

    pub fn run() -> super::Result<()> {
        let mut server = Server::new(super::server::options())?;
        server.bootstrap();
        server.add_service(Echo);
        server.run_forever()
    }
}

/// 5. An application on a stream in memory; listeners, signals and upgrades have no part in it.
#[cfg(test)]
mod unit {
    use super::server::Echo;
    use pingora_core::apps::ServerApp;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_client_is_answered() {
        let (mut client, server) = tokio::io::duplex(64);
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let serving =
            tokio::spawn(
                async move { Arc::new(Echo).process_new(Box::new(server), &stopped).await.is_none() },
            );
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        drop(client);
        assert!(serving.await.unwrap());
    }
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("order") => order::run(),
        Some("udp") => udp::run(),
        _ => server::run(),
    }
}
