//! A worker that runs on a thread of the test.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::remote::Remote;
use crate::worker::{Worker, WorkerContext, WorkerResult};

/// A worker that runs on a thread of the test. It has the methods of its [`Remote`].
///
/// Dropping it lets the worker [quit](Remote::quit), and does not wait for it.
#[derive(Debug)]
pub struct RunningWorker {
    remote: Remote,
    thread: Option<JoinHandle<WorkerResult>>,
    /// Disconnected when the thread ends.
    ends: Receiver<()>,
}

/// A worker that has not ended in time.
#[derive(Debug)]
pub struct StillRunning(Duration);

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker still runs after {:?}", self.0)
    }
}

impl Error for StillRunning {}

impl RunningWorker {
    /// Returns when the worker is ready.
    pub(super) fn start<W: Worker + Send + 'static>(
        mut worker: W,
        context: WorkerContext,
        remote: Remote,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (booted, boot) = mpsc::channel();
        let (runs, ends) = mpsc::channel::<()>();
        let run = move || {
            // Dropped last, also at a panic.
            let _runs = runs;
            worker.load(Some(&context))?;
            worker.boot(&context)?;
            context.booted();
            if booted.send(()).is_err() {
                return Ok(());
            }
            worker.run(&context)
        };
        let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(run)?;
        match boot.recv() {
            Ok(()) => Ok(Self { remote, thread: Some(thread), ends }),
            // The thread has ended before it was ready.
            Err(_) => match thread.join() {
                Ok(ended) => Err(ended.err().unwrap_or_else(|| "the worker has not booted".into())),
                Err(panic) => resume_unwind(panic),
            },
        }
    }

    /// Whether the worker has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the worker ends, for `limit` at most. Returns the result of [`Worker::run`].
    ///
    /// # Errors
    /// The error of the worker, or [`StillRunning`].
    ///
    /// # Panics
    /// If the worker has panicked.
    pub fn finish(mut self, limit: Duration) -> WorkerResult {
        if self.ends.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            return Err(StillRunning(limit).into());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            Some(Ok(ended)) => ended,
            None => Ok(()),
        }
    }
}

impl Deref for RunningWorker {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        self.remote.quit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::WorkerSetup;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};

    const LIMIT: Duration = Duration::from_secs(60);

    /// Echoes, or fails in the method that it names.
    struct Echo(&'static str);

    impl Worker for Echo {
        fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
            if self.0 == "boot" { Err("no database".into()) } else { Ok(()) }
        }

        fn run(&mut self, context: &WorkerContext) -> WorkerResult {
            assert!(self.0 != "run", "no queue");
            while let Some(mut connection) = context.accept()? {
                std::io::copy(&mut connection.try_clone()?, &mut connection)?;
            }
            Ok(())
        }
    }

    fn echo(fault: &'static str) -> Result<RunningWorker, Box<dyn Error + Send + Sync>> {
        WorkerSetup::new().bind("127.0.0.1:0").run(Echo(fault))
    }

    #[test]
    fn a_worker_answers_its_clients_and_ends_when_it_is_drained() {
        let worker = echo("").unwrap();
        let mut client = TcpStream::connect(worker.address().unwrap()).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        assert!(!worker.has_ended());
        worker.drain();
        worker.finish(LIMIT).unwrap();
    }

    #[test]
    fn a_worker_that_does_not_end_in_time_is_reported() {
        let worker = echo("").unwrap();
        let error = worker.finish(Duration::from_millis(1)).unwrap_err();
        assert!(error.downcast::<StillRunning>().is_ok());
    }

    #[test]
    fn a_boot_that_fails_is_the_error_of_the_start() {
        assert_eq!(echo("boot").unwrap_err().to_string(), "no database");
    }

    #[test]
    #[should_panic = "no queue"]
    fn a_panic_of_a_worker_fails_the_test() {
        let _ = echo("run").unwrap().finish(LIMIT);
    }
}
