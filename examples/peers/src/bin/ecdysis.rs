//! ecdysis 1.1.1: one process, which a new one replaces. `ecdysis server`, `order` or `udp`.

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 1. HUP starts the new version, which inherits the listener; the old one serves its connections to their end.
///
/// It has one process: a number of workers is no part of the crate (its README).
mod server {
    use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::task::JoinSet;
    use tokio_stream::StreamExt;

    pub async fn echo(connection: impl AsyncRead + AsyncWrite) -> std::io::Result<u64> {
        let (mut reader, mut writer) = tokio::io::split(connection);
        tokio::io::copy(&mut reader, &mut writer).await
    }

    #[tokio::main]
    pub async fn run() -> super::Result<()> {
        let mut ecdysis = TokioEcdysisBuilder::new(SignalKind::hangup())?;
        ecdysis.stop_on_signal(SignalKind::terminate())?;
        let mut connections = ecdysis.listen_tcp(StopOnShutdown::Yes, "127.0.0.1:7000".parse()?)?;
        let (_ecdysis, ending) = ecdysis.ready()?;
        let serving = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Some(Ok(connection)) = connections.next().await {
                clients.spawn(echo(connection));
            }
            while clients.join_next().await.is_some() {}
        });
        ending.await?;
        Ok(serving.await?)
    }
}

/// 2. Each line at the standard input starts the new version. `Ecdysis::upgrade` waits for it, for five seconds at
/// most, and returns its error; the old version goes on then.
mod order {
    use super::server::echo;
    use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
    use tokio::io::{AsyncBufReadExt, BufReader, stdin};
    use tokio::task::{JoinSet, block_in_place};
    use tokio_stream::StreamExt;

    #[tokio::main]
    pub async fn run() -> super::Result<()> {
        let ecdysis = TokioEcdysisBuilder::new(SignalKind::hangup())?;
        let mut connections = ecdysis.listen_tcp(StopOnShutdown::Yes, "127.0.0.1:7000".parse()?)?;
        let (ecdysis, _ending) = ecdysis.ready()?;
        let mut lines = BufReader::new(stdin()).lines();
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                Some(Ok(connection)) = connections.next() => {
                    clients.spawn(echo(connection));
                }
                Ok(Some(_)) = lines.next_line() => match block_in_place(|| ecdysis.std_ecdysis().upgrade()) {
                    Ok(()) => break,
                    Err(error) => println!("{error}"),
                },
            }
        }
        ecdysis.std_ecdysis().quit();
        drop(connections);
        while clients.join_next().await.is_some() {}
        Ok(())
    }
}

// 3. Death of a worker: none. `upgrade` reports a new version that ends before `ready` (`UpgradeError::ChildExit`), and
// no item reports a later end (docs.rs/ecdysis, `Ecdysis::upgrade`).

/// 4. Datagrams; the new version inherits the socket.
mod udp {
    use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};

    #[tokio::main]
    pub async fn run() -> super::Result<()> {
        let mut ecdysis = TokioEcdysisBuilder::new(SignalKind::hangup())?;
        ecdysis.stop_on_signal(SignalKind::terminate())?;
        let address = "127.0.0.1:7001".parse()?;
        let socket =
            ecdysis.build_stoppable_socket_udp(StopOnShutdown::Yes, address, |socket, address| {
                socket.bind(&address.into())?;
                Ok(socket.into())
            })?;
        let (_ecdysis, ending) = ecdysis.ready()?;
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Some(Ok((length, client))) =
                socket.until_stopped(|socket| socket.recv_from(&mut buffer)).await
            {
                let _ = socket.as_unstoppable_ref().send_to(&buffer[..length], client).await;
            }
        });
        ending.await?;
        Ok(serving.await?)
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
