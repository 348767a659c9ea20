//! Applications that stay with a request for as long as a test wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use mcsup_py::app::{Reply, Request, Verdict};

use crate::fixture::*;

/// Applications that stay inside until they are let go, and count how many are.
#[derive(Clone, Default)]
pub(crate) struct Hold {
    pub(crate) inside: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Hold {
    pub(crate) fn stay(&self) {
        let now = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let (open, changed) = &*self.open;
        let is_open = open.lock().unwrap();
        drop(changed.wait_timeout_while(is_open, PATIENCE, |open| !*open).unwrap());
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn let_go(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }

    pub(crate) fn wait_inside(&self, count: usize) {
        wait_for("the applications to be busy", || self.inside.load(Ordering::SeqCst) == count);
    }

    /// `permits` applications that hold requests for `/hold` and echo the others.
    pub(crate) fn apps(
        &self,
        permits: usize,
    ) -> Vec<impl FnMut(Request<'_>, &mut dyn Reply) -> Verdict + Send + 'static> {
        (0..permits)
            .map(|_| {
                let hold = self.clone();
                move |request: Request<'_>, reply: &mut dyn Reply| {
                    if request.head.path() == b"/hold" {
                        hold.stay();
                    }
                    echo(request, reply)
                }
            })
            .collect()
    }

    /// Clients that are inside.
    pub(crate) fn occupy(&self, server: &Server, count: usize) -> Vec<Client> {
        let clients = (0..count).map(|_| {
            let mut client = server.connect();
            client.send("GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
            client
        });
        let clients = clients.collect();
        self.wait_inside(count);
        clients
    }
}
