//! A network that can be cut: it stands between the clients and the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::Fallible;

#[derive(Debug, Default)]
struct Shared {
    /// New connections are closed at once.
    closed: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A relay on a free port. Its threads end with the connections that they carry.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where clients connect.
    pub(crate) addr: String,
    shared: Arc<Shared>,
}

impl Relay {
    /// Relays to `target`.
    pub(crate) fn to(target: &str) -> Fallible<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared::default());
        let (target, relay) = (target.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !relay.closed.load(Ordering::Relaxed)
                    && let Ok(server) = TcpStream::connect(&target)
                {
                    // Out of descriptors is one more cut.
                    let _ = relay.carry(&client, &server);
                }
            }
        });
        Ok(Self { addr, shared })
    }

    /// Cuts every connection now; how many there were.
    pub(crate) fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.shared.open());
        for stream in &open {
            // One that has ended cannot be cut.
            let _ = stream.shutdown(Shutdown::Both);
        }
        open.len() / 2
    }

    /// Refuses (or takes) new connections.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Ordering::Relaxed);
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(&self, client: &TcpStream, server: &TcpStream) -> std::io::Result<()> {
        let mut open = self.open();
        // Those that have ended have no peer any more.
        open.retain(|stream| stream.peer_addr().is_ok());
        open.extend([client.try_clone()?, server.try_clone()?]);
        drop(open);
        for (from, to) in [(client, server), (server, client)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            to.set_nodelay(true)?;
            thread::Builder::new().spawn(move || one_way(from, to))?;
        }
        Ok(())
    }
}

fn one_way(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
