//! A worker in a tokio runtime: the accept loop, and its end as a future.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::accepting::{Attempts, Next, REST, only_queued, ready, take};
use super::async_connection::AsyncConnection;
use super::context::WorkerContext;
use crate::error::Result;
#[cfg(feature = "hyper")]
use crate::listener::Connection;

/// The pause between looks at the phase of a worker that cannot register.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl WorkerContext {
    /// [`accept`](Self::accept) in a tokio runtime. Needs the feature `tokio`.
    ///
    /// Several tasks may wait at once, also in several runtimes. A future that is dropped takes no connection
    /// along. A worker of a pool that hands connections over receives them with their bytes.
    ///
    /// After `None` the worker waits for the tasks that serve its connections, for example in a `JoinSet`, before its
    /// runtime ends: a runtime that ends drops them.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept). There is no runtime.
    ///
    /// # Panics
    /// As tokio does, in a runtime without I/O or time (`Builder::enable_all`).
    pub async fn accept_async(&self) -> Result<Option<AsyncConnection>> {
        let mut attempts = Attempts::default();
        loop {
            self.beat();
            let reactor = self.reactors().here(self)?;
            let mut changed = pin!(self.control().changed());
            changed.as_mut().enable();
            let Some(is_draining) = only_queued(self.phase()) else { return Ok(None) };
            let found = match is_draining {
                true => {
                    // Nothing else here waits, and the runtime may have one thread.
                    tokio::task::consume_budget().await;
                    ready(self, true)
                }
                false => reactor.connection(self, changed).await,
            };
            let found = found.inspect_err(|_| self.reactors().forget(&reactor))?;
            let tried = take(self, |source| found.get(source) == Some(&true), &AsyncConnection::new)?;
            match attempts.next(tried, is_draining) {
                Next::Return(connection) => return Ok(Some(connection)),
                Next::End => {
                    if self.has_released() {
                        // The sockets may be open in other processes.
                        self.reactors().forget_all();
                    }
                    return Ok(None);
                }
                Next::Again => {}
                Next::Rest => tokio::time::sleep(REST).await,
            }
        }
    }

    /// Takes a connection that a worker has handed over, with its bytes; `None`: there is none.
    #[cfg(feature = "hyper")]
    pub(crate) fn take_handed_over_async(&self) -> std::io::Result<Option<AsyncConnection>> {
        let Some((socket, bytes)) = self.take_handed_over()? else { return Ok(None) };
        AsyncConnection::new(Connection::adopt(socket)?, bytes).map(Some)
    }

    /// Waits until the worker should stop accepting and finish: until [`Phase::accepts`](crate::Phase::accepts)
    /// is `false`. Needs the feature `tokio`.
    ///
    /// The future suits axum's `with_graceful_shutdown`, and outlives the borrow of this context. It does not
    /// end in [`Phase::LameDuck`](crate::Phase::LameDuck): such a worker serves.
    ///
    /// # Panics
    /// As tokio does, in a runtime without I/O or time (`Builder::enable_all`).
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let worker = self.clone();
        async move {
            loop {
                let mut changed = pin!(worker.control().changed());
                changed.as_mut().enable();
                if !worker.phase().accepts() {
                    return;
                }
                match worker.reactors().here(&worker) {
                    Ok(reactor) if reactor.change(worker.control(), changed).await.is_ok() => {}
                    Ok(failed) => worker.reactors().forget(&failed),
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::with_max_requests;
    use super::*;
    use crate::link::lifeline::Phase;
    use crate::listener::open::OpenSet;
    use crate::listener::{Address, Listener, Options};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::task::Poll;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A worker with a listener, the listener, and a function that connects to it.
    fn listening() -> (WorkerContext, Arc<dyn Listener>, impl Fn() -> TcpStream) {
        let address: Address = "127.0.0.1:0".parse().unwrap();
        let set = OpenSet::open(&[address], &Options::default(), 1).unwrap();
        let listener = Arc::clone(&set[0]);
        let local = listener.local().to_string();
        let (worker, _) = with_max_requests(None);
        let worker = worker.with_listener(Arc::clone(&listener));
        (worker, listener, move || TcpStream::connect(&local).unwrap())
    }

    async fn accepted(worker: &WorkerContext) -> AsyncConnection {
        worker.accept_async().await.unwrap().unwrap()
    }

    /// Polls a future once.
    async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[test]
    fn a_connection_is_accepted_in_each_of_several_runtimes() {
        let (worker, _listener, connect) = listening();
        for runtime in [runtime(), runtime()] {
            let mut client = connect();
            runtime.block_on(async {
                let mut connection = accepted(&worker).await;
                assert_eq!(connection.peer_addr(), client.local_addr().ok());
                connection.write_all(b"hello").await.unwrap();
            });
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "hello");
        }
    }

    #[test]
    fn a_future_that_is_dropped_takes_no_connection_along() {
        let (worker, _listener, connect) = listening();
        runtime().block_on(async {
            let mut waiting = Box::pin(worker.accept_async());
            assert!(is_pending(&mut waiting).await);
            let _client = connect();
            drop(waiting);
            accepted(&worker).await;
        });
    }

    #[test]
    fn a_connection_that_is_handed_over_yields_its_bytes_first() {
        let (worker, _supervisor) = with_max_requests(None);
        let (mut client, server) = UnixStream::pair().unwrap();
        worker.hand_over(server.as_fd(), b"GET ").unwrap();
        client.write_all(b"/ HTTP").unwrap();
        runtime().block_on(async {
            let mut connection = accepted(&worker).await;
            let mut start = [0; 2];
            connection.read_exact(&mut start).await.unwrap();
            let mut rest = [0; 8];
            connection.read_exact(&mut rest).await.unwrap();
            assert_eq!((&start, &rest), (b"GE", b"T / HTTP"));
            let (_, unread) = connection.into_parts().unwrap();
            assert!(unread.is_empty());
        });
    }

    #[test]
    fn bytes_that_were_not_read_leave_with_the_socket() {
        let (worker, _supervisor) = with_max_requests(None);
        let (mut client, server) = UnixStream::pair().unwrap();
        worker.hand_over(server.as_fd(), b"hello").unwrap();
        let (socket, unread) = runtime().block_on(async {
            let mut connection = accepted(&worker).await;
            connection.read_exact(&mut [0; 3]).await.unwrap();
            connection.into_parts().unwrap()
        });
        assert_eq!(unread, b"lo");
        UnixStream::from(socket).write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }

    #[test]
    fn each_waiting_task_in_each_runtime_notices_the_end_of_its_worker() {
        let (worker, _listener, _) = listening();
        let (ready, are_ready) = std::sync::mpsc::channel();
        let threads = [(); 2].map(|()| {
            let (worker, ready) = (worker.clone(), ready.clone());
            std::thread::spawn(move || {
                runtime().block_on(async {
                    let tasks = [(); 3].map(|()| tokio::spawn(worker.draining()));
                    let mut accepting = Box::pin(worker.accept_async());
                    assert!(is_pending(&mut accepting).await);
                    tokio::task::yield_now().await;
                    ready.send(()).unwrap();
                    assert!(accepting.await.unwrap().is_none());
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            })
        });
        threads.iter().for_each(|_| are_ready.recv().unwrap());
        worker.raise(Phase::LameDuck);
        worker.raise(Phase::Retiring);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_worker_that_drains_takes_what_is_queued_and_then_ends() {
        let (worker, _listener, connect) = listening();
        let _clients = [connect(), connect()];
        worker.raise(Phase::Draining);
        runtime().block_on(async {
            accepted(&worker).await;
            accepted(&worker).await;
            assert!(worker.accept_async().await.unwrap().is_none());
        });
    }

    #[test]
    fn a_listener_that_another_thread_closes_leaves_no_poller_busy() {
        let (worker, listener, connect) = listening();
        // As by a process that still has the socket.
        let _other = listener.as_fd().try_clone_to_owned().unwrap();
        let runtime = runtime();
        runtime.block_on(async {
            let mut waiting = Box::pin(worker.accept_async());
            assert!(is_pending(&mut waiting).await);
            // As the lifeline does when the supervisor is gone.
            worker.control().release(worker.open_listeners());
            worker.raise(Phase::Draining);
            let _client = connect();
            assert!(waiting.await.unwrap().is_none());
            worker.close_listeners();
            let metrics = runtime.metrics();
            let before = metrics.worker_park_count(0);
            let connects = tokio::task::spawn_blocking(move || {
                for _ in 0..100 {
                    drop(connect());
                    // Each wakes the runtime by itself if it does.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            connects.await.unwrap();
            let parked = metrics.worker_park_count(0) - before;
            assert!(parked < 10, "the runtime has waited {parked} times");
        });
    }

    #[test]
    fn without_a_runtime_an_error_says_so() {
        let (worker, _supervisor) = with_max_requests(None);
        let mut accepting = Box::pin(worker.accept_async());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Err(error)) = accepting.as_mut().poll(&mut context) else { panic!("it waits") };
        assert!(error.to_string().contains("tokio runtime"), "{error}");
    }
}
