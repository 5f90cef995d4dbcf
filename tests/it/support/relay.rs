//! A relay between client and server that the test can cut, hold and throttle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

#[derive(Default)]
struct Shared {
    /// Bytes that the first connections may still carry, each way; `u64::MAX`: any number.
    budget: Mutex<Vec<(Way, u64)>>,
    /// New connections are closed at once.
    closed: AtomicBool,
    connections: AtomicUsize,
    /// Bytes that came from servers.
    down: AtomicU64,
    /// Bytes per turn of about a millisecond; 0: as fast as it goes.
    throttle: AtomicU64,
    /// What comes is taken and dropped, as by a network that has lost its way.
    silent: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A relay on a free port. Its threads end when both ends of their connection are closed.
pub(crate) struct Relay {
    /// Where clients connect.
    pub(crate) addr: String,
    shared: Arc<Shared>,
}

impl Relay {
    /// Relays to `target`.
    pub(crate) fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let (target, relay) = (target.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !relay.closed.load(Ordering::Relaxed)
                    && let Ok(server) = TcpStream::connect(&target)
                {
                    let cut = relay.budget.lock().unwrap().pop();
                    relay.carry(&client, &server, cut);
                } else {
                    relay.connections.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { addr, shared }
    }

    /// The next connections are cut after so many bytes that way, the first of the list first.
    pub(crate) fn cut_after(&self, cuts: &[(Way, u64)]) {
        *self.shared.budget.lock().unwrap() = cuts.iter().rev().copied().collect();
    }

    /// Cuts every connection now.
    pub(crate) fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Refuses (or takes) new connections.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::Relaxed);
    }

    /// Carries at most about so many bytes a millisecond, each way.
    pub(crate) fn throttle(&self, bytes: u64) {
        self.shared.throttle.store(bytes, Ordering::Relaxed);
    }

    /// Drops what comes, from now on, on every connection there is.
    pub(crate) fn go_silent(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
    }

    /// Carries again what comes.
    pub(crate) fn speak(&self) {
        self.shared.silent.store(false, Ordering::Relaxed);
    }

    /// How many bytes servers have sent.
    pub(crate) fn sent_down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, client: &TcpStream, server: &TcpStream, cut: Option<(Way, u64)>) {
        let pair = |stream: &TcpStream| stream.try_clone().unwrap();
        self.open.lock().unwrap().extend([pair(client), pair(server)]);
        // A connection that is counted can be cut, and no byte comes of one that is not.
        self.connections.fetch_add(1, Ordering::SeqCst);
        for (way, from, to) in [(Way::Up, client, server), (Way::Down, server, client)] {
            let limit = match cut {
                Some((cut_way, bytes)) if cut_way == way => bytes,
                _ => u64::MAX,
            };
            let (shared, from, to) = (Arc::clone(self), pair(from), pair(to));
            thread::spawn(move || shared.one_way(way, (from, to), limit));
        }
    }

    fn one_way(&self, way: Way, (mut from, mut to): (TcpStream, TcpStream), mut left: u64) {
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let throttle = self.throttle.load(Ordering::Relaxed);
            let most =
                if throttle == 0 { buffer.len() as u64 } else { throttle.min(buffer.len() as u64) };
            let most = usize::try_from(most.min(left)).unwrap();
            let Ok(count @ 1..) = from.read(&mut buffer[..most]) else { break };
            if way == Way::Down {
                self.down.fetch_add(count as u64, Ordering::SeqCst);
            }
            if self.silent.load(Ordering::Relaxed) {
                continue;
            }
            if throttle > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            left -= count as u64;
        }
        // A cut takes both directions down, as a link that dies does; a clean end only this one.
        let how = if left == 0 { Shutdown::Both } else { Shutdown::Write };
        let _ = to.shutdown(how);
        if left == 0 {
            let _ = from.shutdown(Shutdown::Both);
        }
    }
}
