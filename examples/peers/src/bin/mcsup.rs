//! mcsup-core of this repository. `mcsup server`, `order`, `death` or `udp`; `cargo test --bin mcsup` runs `unit`.

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 1. Four workers; USR2 executes a new program, HUP replaces the workers, and no connection is lost.
mod server {
    use mcsup_core::{Ending, Prefork, Worker, WorkerContext, WorkerResult, upgrade::Image};
    use tokio::task::JoinSet;

    pub struct Echo;

    impl Worker for Echo {
        fn run(&mut self, context: &WorkerContext) -> WorkerResult {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut clients = JoinSet::new();
                while let Some(connection) = context.accept_async().await? {
                    clients.spawn(async move {
                        let (mut reader, mut writer) = tokio::io::split(connection);
                        tokio::io::copy(&mut reader, &mut writer).await
                    });
                }
                while clients.join_next().await.is_some() {}
                Ok(())
            })
        }
    }

    pub fn run() -> super::Result<Ending> {
        let image = Image::of_this_process()?;
        Ok(Prefork::new(|| Echo).bind("127.0.0.1:7000").workers(4).image(image).run())
    }
}

/// 2. Each line at the standard input executes a new program and replaces the workers; both outcomes are printed.
mod order {
    use super::server::Echo;
    use mcsup_core::{Ending, Prefork, upgrade::Image};

    pub fn run() -> super::Result<Ending> {
        let image = Image::of_this_process()?;
        let pool = Prefork::new(|| Echo).bind("127.0.0.1:7000").workers(4).image(image).spawn()?;
        for _ in std::io::stdin().lines() {
            println!("{:?}", pool.handle().upgrade()?.wait(None));
            println!("{:?}", pool.handle().reload()?.wait(None));
        }
        Ok(pool.wait())
    }
}

/// 3. The death of a worker is printed, with its cause; the pool replaces it.
mod death {
    use super::server::Echo;
    use mcsup_core::{Ending, PoolEvent, Prefork, Supervisor};

    struct Observer;

    impl Supervisor for Observer {
        type Worker = Echo;

        fn worker(&mut self, _: u64) -> Echo {
            Echo
        }

        fn observe(&mut self, event: &PoolEvent) {
            if let PoolEvent::Died { process, cause, .. } = event {
                println!("{process:?}: {cause}");
            }
        }
    }

    pub fn run() -> super::Result<Ending> {
        Ok(Prefork::new(Observer).bind("127.0.0.1:7000").workers(4).run())
    }
}

/// 4. Datagrams; those that arrive during a reload wait at the socket.
mod udp {
    use mcsup_core::{Ending, Prefork, Worker, WorkerContext, WorkerResult};
    use std::os::fd::AsFd;

    struct Echo;

    impl Worker for Echo {
        fn run(&mut self, context: &WorkerContext) -> WorkerResult {
            let sockets = context.udp_sockets()?;
            let mut buffer = [0; 1500];
            while context.readable(&[sockets[0].as_fd()])?.is_some() {
                if let Ok((length, client)) = sockets[0].recv_from(&mut buffer) {
                    sockets[0].send_to(&buffer[..length], client)?;
                }
            }
            Ok(())
        }
    }

    pub fn run() -> super::Result<Ending> {
        Ok(Prefork::new(|| Echo).bind("udp://127.0.0.1:7001").workers(4).run())
    }
}

/// 5. A worker in the test's own process answers a client that is queued when the pool stops.
#[cfg(test)]
mod unit {
    use super::server::Echo;
    use mcsup_core::testing::WorkerSetup;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};

    #[test]
    fn a_queued_client_is_answered_at_the_stop() {
        let worker = WorkerSetup::new().bind("127.0.0.1:0").run(Echo).unwrap();
        let mut client = TcpStream::connect(worker.address().unwrap()).unwrap();
        worker.drain();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        worker.finish(std::time::Duration::from_secs(5)).unwrap();
    }
}

fn main() -> Result<mcsup_core::Ending> {
    match std::env::args().nth(1).as_deref() {
        Some("order") => order::run(),
        Some("death") => death::run(),
        Some("udp") => udp::run(),
        _ => server::run(),
    }
}
