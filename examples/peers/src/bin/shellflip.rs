//! shellflip 2.1.3: one process, which a new one replaces. `shellflip server`, `order` or `udp`, started by
//! `systemd-socket-activate -l 127.0.0.1:7000` or, for `udp`, `systemd-socket-activate -d -l 127.0.0.1:7001`.
//!
//! The crate passes no socket on (its examples/restarter.rs). One from systemd has the descriptor 3 in each version,
//! because the crate renews `LISTEN_PID` (`fixup_systemd_env`).

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 1. USR1 starts the new version; the old one serves its connections to their end.
///
/// It has one process: a number of workers is no part of the crate (its README).
mod server {
    use listenfd::ListenFd;
    use shellflip::{RestartConfig, ShutdownCoordinator};
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::net::TcpListener;

    pub async fn echo(connection: impl AsyncRead + AsyncWrite) -> std::io::Result<u64> {
        let (mut reader, mut writer) = tokio::io::split(connection);
        tokio::io::copy(&mut reader, &mut writer).await
    }

    pub fn listener() -> std::io::Result<TcpListener> {
        let listener = ListenFd::from_env().take_tcp_listener(0)?.ok_or(std::io::ErrorKind::NotFound)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    #[tokio::main]
    pub async fn run() -> super::Result<()> {
        let listener = listener()?;
        let config = RestartConfig { exit_on_error: false, ..RestartConfig::default() };
        let restart = config.try_into_restart_task()?;
        tokio::pin!(restart);
        let clients = ShutdownCoordinator::new();
        loop {
            tokio::select! {
                Ok((connection, _)) = listener.accept() => {
                    let handle = clients.handle();
                    tokio::spawn(async move {
                        let _ = echo(connection).await;
                        drop(handle);
                    });
                }
                outcome = &mut restart => {
                    outcome?;
                    break;
                }
            }
        }
        drop(listener);
        clients.shutdown().await;
        Ok(())
    }
}

/// 2. Each line at the standard input starts the new version, and the outcome is printed: its pid, or the error.
mod order {
    use super::server::{echo, listener};
    use shellflip::{RestartConfig, ShutdownCoordinator};
    use tokio::io::{AsyncBufReadExt, BufReader, stdin};

    fn config() -> RestartConfig {
        let coordination_socket_path = "restart.sock".into();
        RestartConfig {
            enabled: true,
            coordination_socket_path,
            exit_on_error: false,
            ..RestartConfig::default()
        }
    }

    #[tokio::main]
    pub async fn run() -> super::Result<()> {
        let listener = listener()?;
        let restart = config().try_into_restart_task()?;
        tokio::pin!(restart);
        let clients = ShutdownCoordinator::new();
        let mut lines = BufReader::new(stdin()).lines();
        loop {
            tokio::select! {
                Ok((connection, _)) = listener.accept() => {
                    let handle = clients.handle();
                    tokio::spawn(async move {
                        let _ = echo(connection).await;
                        drop(handle);
                    });
                }
                Ok(Some(_)) = lines.next_line() => {
                    let handle = clients.handle();
                    tokio::spawn(async move {
                        println!("{:?}", config().request_restart().await);
                        drop(handle);
                    });
                }
                outcome = &mut restart => {
                    outcome?;
                    break;
                }
            }
        }
        drop(listener);
        clients.shutdown().await;
        Ok(())
    }
}

// 3. Death of a worker: none. `LifecycleHandler::new_process_failed` reports a new version that does not start, and no
// item reports a later end (docs.rs/shellflip, "Transferring state to the new process").

/// 4. Datagrams, at a socket from systemd.
mod udp {
    use listenfd::ListenFd;
    use shellflip::RestartConfig;
    use tokio::net::UdpSocket;

    #[tokio::main]
    pub async fn run() -> super::Result<()> {
        let socket = ListenFd::from_env().take_udp_socket(0)?.ok_or("systemd has passed no socket")?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let config = RestartConfig { exit_on_error: false, ..RestartConfig::default() };
        let restart = config.try_into_restart_task()?;
        tokio::pin!(restart);
        let mut buffer = [0; 1500];
        loop {
            tokio::select! {
                Ok((length, client)) = socket.recv_from(&mut buffer) => {
                    let _ = socket.send_to(&buffer[..length], client).await;
                }
                outcome = &mut restart => {
                    outcome?;
                    break;
                }
            }
        }
        Ok(())
    }
}

// 5. Test of a worker: the crate has no item for tests. A test calls the program's own `echo`.

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("order") => order::run(),
        Some("udp") => udp::run(),
        _ => server::run(),
    }
}
