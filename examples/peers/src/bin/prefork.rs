//! prefork 0.6.0: a fixed number of processes, forked once. `prefork server`, `order`, `death` or `udp`.

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 1. Four workers; HUP forks four more and lets the first four finish, by the program's own code.
///
/// The new workers run the same executable: the crate executes no new one. It has no readiness either, so the old ones
/// finish although the new ones may not serve yet.
mod server {
    use nix::sys::signal::Signal;
    use prefork::{Prefork, kill_all_with, wait_process};
    use signal_hook::{consts::*, iterator::Signals};
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::net::TcpListener;
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::task::JoinSet;

    async fn echo(connection: impl AsyncRead + AsyncWrite) -> std::io::Result<u64> {
        let (mut reader, mut writer) = tokio::io::split(connection);
        tokio::io::copy(&mut reader, &mut writer).await
    }

    pub async fn worker(_: u32, listener: std::net::TcpListener) {
        let mut stop = signal(SignalKind::terminate()).expect("a handler");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                Ok((connection, _)) = listener.accept() => {
                    clients.spawn(echo(connection));
                }
                _ = stop.recv() => break,
            }
        }
        drop(listener);
        while clients.join_next().await.is_some() {}
    }

    pub fn run() -> super::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:7000")?;
        listener.set_nonblocking(true)?;
        let mut server = Prefork::from_resource(listener).with_num_processes(4).with_tokio(worker).server();
        let Some(mut pids) = server.prefork()? else { return Ok(()) };
        for signal in Signals::new([SIGHUP, SIGTERM, SIGCHLD])?.forever() {
            match signal {
                SIGHUP => {
                    let Some(new) = server.prefork()? else { return Ok(()) };
                    kill_all_with(std::mem::replace(&mut pids, new), Signal::SIGTERM)?;
                }
                SIGCHLD => wait_process(&mut pids),
                _ => break,
            }
        }
        Ok(kill_all_with(pids, Signal::SIGTERM)?)
    }
}

/// 2. Each line at the standard input replaces the workers, by the program's own code. There is no outcome.
mod order {
    use super::server::worker;
    use nix::sys::signal::Signal;
    use prefork::{Prefork, kill_all_with, wait_process};

    pub fn run() -> super::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:7000")?;
        listener.set_nonblocking(true)?;
        let mut server = Prefork::from_resource(listener).with_num_processes(4).with_tokio(worker).server();
        let Some(mut pids) = server.prefork()? else { return Ok(()) };
        for _ in std::io::stdin().lines() {
            wait_process(&mut pids);
            let Some(new) = server.prefork()? else { return Ok(()) };
            kill_all_with(std::mem::replace(&mut pids, new), Signal::SIGTERM)?;
        }
        Ok(kill_all_with(pids, Signal::SIGTERM)?)
    }
}

/// 3. The death of a worker is printed, and the program replaces it. Its cause is in the crate's log only
/// (docs.rs/prefork, `wait_process`).
mod death {
    use super::server::worker;
    use prefork::{Prefork, wait_process};
    use signal_hook::{consts::SIGCHLD, iterator::Signals};

    pub fn run() -> super::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:7000")?;
        listener.set_nonblocking(true)?;
        let mut server = Prefork::from_resource(listener).with_num_processes(4).with_tokio(worker).server();
        let Some(mut pids) = server.prefork()? else { return Ok(()) };
        for _ in Signals::new([SIGCHLD])?.forever() {
            let before = pids.clone();
            wait_process(&mut pids);
            for dead in before.difference(&pids.clone()) {
                println!("worker {dead} has ended");
                let Some(new) = server.fork()? else { return Ok(()) };
                pids.insert(new);
            }
        }
        Ok(())
    }
}

/// 4. Datagrams, at a socket that all workers share. Its program replaces workers as `server` does.
mod udp {
    use prefork::Prefork;
    use std::net::UdpSocket;

    fn worker(_: u32, socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], client);
        }
    }

    pub fn run() -> super::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:7001")?;
        Prefork::from_resource(socket).with_num_processes(4).with_init(worker).fork()?;
        Ok(())
    }
}

// 5. Test of a worker: the crate has no item for tests. A test calls the program's own `worker` with a listener.

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("order") => order::run(),
        Some("death") => death::run(),
        Some("udp") => udp::run(),
        _ => server::run(),
    }
}
