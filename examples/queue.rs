//! A pool without a listener: four workers that take jobs from a folder.
//!
//! `cargo run --example queue -- FOLDER`, then `echo hello >FOLDER/one`: it becomes `FOLDER/done/one`, in
//! capital letters. Reload the pool with `kill -HUP`, stop it with Ctrl-C.
//!
//! A file that is complete is moved into the folder (`mv`), since a worker takes each file at once. A worker
//! has the lock of its job (flock(2)) while it works. The kernel releases the lock when the worker dies, and
//! another worker takes the job.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcsup_core::{Prefork, Worker, WorkerContext, WorkerResult};
use rustix::fs::{FlockOperation, flock};

struct Clerk {
    folder: PathBuf,
}

impl Worker for Clerk {
    fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
        Ok(fs::create_dir_all(self.folder.join("done"))?)
    }

    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while context.phase().accepts() {
            match self.take()? {
                Some((job, path)) => {
                    context.request_began();
                    self.work(job, &path)?;
                    context.request_ended();
                    context.beat();
                }
                None => {
                    context.pause(Duration::from_millis(50))?;
                }
            }
        }
        Ok(())
    }
}

impl Clerk {
    /// Locks a job that no other worker has.
    fn take(&self) -> io::Result<Option<(File, PathBuf)>> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !path.is_file() {
                continue;
            }
            let Ok(job) = File::open(&path) else { continue };
            let is_ours = flock(&job, FlockOperation::NonBlockingLockExclusive).is_ok();
            // The worker that had the lock before may have finished the job.
            let is_there = || Ok::<_, io::Error>(fs::metadata(&path)?.ino() == job.metadata()?.ino());
            if is_ours && is_there().unwrap_or(false) {
                return Ok(Some((job, path)));
            }
        }
        Ok(None)
    }

    fn work(&self, mut job: File, path: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        job.read_to_end(&mut text)?;
        text.make_ascii_uppercase();
        // A result appears as a whole, also if the worker dies now.
        let name = path.file_name().unwrap_or_default();
        let done = self.folder.join("done");
        let draft = done.join(format!(".{}", name.to_string_lossy()));
        fs::write(&draft, text)?;
        fs::rename(draft, done.join(name))?;
        fs::remove_file(path)
    }
}

fn main() -> std::process::ExitCode {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "jobs".to_owned()));
    Prefork::new(move || Clerk { folder: folder.clone() }).without_listeners().workers(4).run().into()
}
