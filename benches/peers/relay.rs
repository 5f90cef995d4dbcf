//! A network of a known length, which may break: a relay that delivers every byte a fixed time after it
//! was sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Relays connections to a port of this machine, for as long as the program runs.
pub(crate) struct Relay {
    /// The port to connect to instead.
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

/// What has passed.
#[derive(Debug, Default)]
struct Seen {
    /// Changes of direction, the first packet among them, and in the lowest bit the last direction.
    flights: AtomicU32,
    /// After so many more bytes to a client its connection breaks; 0: never.
    left: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Relay {
    /// Relays to `port`, each way with this delay.
    pub(crate) fn start(port: u16, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self { port: listener.local_addr()?.port(), seen: Arc::default() };
        let seen = Arc::clone(&relay.seen);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A connection that breaks shows in the client's exit status.
                let _ = carry(&client, port, delay, &seen);
            }
        });
        Ok(relay)
    }

    /// Counts anew.
    pub(crate) fn reset(&self) {
        self.seen.flights.store(0, Ordering::Relaxed);
    }

    /// How often the direction of the packets has changed, the first one counted.
    pub(crate) fn flights(&self) -> u32 {
        self.seen.flights.load(Ordering::Relaxed) >> 1
    }

    /// Breaks the connection that brings the byte after so many to a client.
    pub(crate) fn break_after(&self, bytes: u64) {
        self.seen.left.store(bytes, Ordering::Relaxed);
    }
}

impl Seen {
    fn packet(&self, way: Way) {
        let way = u32::from(way == Way::Out);
        let changed = |count: u32| {
            let is_new = count < 2 || count & 1 != way;
            is_new.then_some(((count >> 1) + 1) << 1 | way)
        };
        // None: the direction is the same.
        let _ = self.flights.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }

    /// Whether the connection breaks with these bytes.
    fn breaks(&self, bytes: u64) -> bool {
        let before = self.left.load(Ordering::Relaxed);
        if before > 0 {
            self.left.store(before.saturating_sub(bytes), Ordering::Relaxed);
        }
        (1..=bytes).contains(&before)
    }
}

fn carry(client: &TcpStream, port: u16, delay: Duration, seen: &Arc<Seen>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    one_way(client.try_clone()?, server.try_clone()?, delay, Way::In, Arc::clone(seen));
    one_way(server, client.try_clone()?, delay, Way::Out, Arc::clone(seen));
    Ok(())
}

fn one_way(mut from: TcpStream, mut to: TcpStream, delay: Duration, way: Way, seen: Arc<Seen>) {
    let (sent, due) = mpsc::sync_channel(64);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            seen.packet(way);
            if way == Way::Out && seen.breaks(count as u64) {
                // Both ends see it at once, as when a router forgets a connection and says so.
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            if sent.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        // The other side has closed by now; so does this one.
        let _ = to.shutdown(Shutdown::Write);
    });
}
