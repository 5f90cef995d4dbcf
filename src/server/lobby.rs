//! Where strangers wait until they have logged in: at most [`PLACES`]. When it is full the one who has
//! waited longest is shown out, so an honest client, who needs a millisecond, always gets through.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};

use crate::sys::mutex::lock;

/// Most connections that have not logged in.
pub const PLACES: usize = 256;

/// The lobby of one server.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    waiting: Mutex<Waiting>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    places: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A place in the lobby; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    lobby: Arc<Lobby>,
    number: u64,
    shown_out: oneshot::Receiver<()>,
}

impl Lobby {
    /// Takes a place, if need be that of the one who has waited longest.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let (sender, shown_out) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.places.len() >= PLACES {
            waiting.places.pop_front();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.push_back((number, sender));
        Place { lobby: Arc::clone(self), number, shown_out }
    }

    /// Waits until nobody is in it.
    pub(super) async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            if self.lock().places.is_empty() {
                return;
            }
            left.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

impl Place {
    /// Waits until the place is needed for somebody else.
    pub(super) async fn shown_out(&mut self) {
        // The sender is never used, only dropped.
        let _ = (&mut self.shown_out).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.lobby.lock();
        // Numbers rise from front to back.
        if let Ok(at) = waiting.places.binary_search_by_key(&self.number, |(number, _)| *number) {
            waiting.places.remove(at);
        }
        drop(waiting);
        self.lobby.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_past_the_limit_shows_the_first_out() {
        let lobby = Arc::new(Lobby::default());
        let mut places: Vec<_> = (0..PLACES).map(|_| lobby.enter()).collect();
        assert!(places[0].shown_out.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let _one_more = lobby.enter();
        places[0].shown_out().await;
        assert!(places[1].shown_out.try_recv() == Err(oneshot::error::TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_place_is_given_back() {
        let lobby = Arc::new(Lobby::default());
        let mut first = lobby.enter();
        for _ in 0..2 * PLACES {
            drop(lobby.enter());
        }
        assert!(first.shown_out.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(lobby.lock().places.len(), 1);
    }

    #[tokio::test]
    async fn it_is_empty_once_the_last_one_has_left() {
        use std::future::poll_fn;
        use std::task::Poll;
        let lobby = Arc::new(Lobby::default());
        lobby.emptied().await;
        let place = lobby.enter();
        let mut emptied = std::pin::pin!(lobby.emptied());
        let at_first = poll_fn(|cx| Poll::Ready(emptied.as_mut().poll(cx))).await;
        assert!(at_first.is_pending());
        drop(place);
        emptied.await;
    }
}
