//! Requests that wait for the server that comes.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Requests;
use crate::proto::code::Code;
use crate::runs::request::Request;
use crate::server::end::SessionEnd;
use crate::server::held::{Held, Wait};
use crate::server::waiting::Looked;

impl Requests {
    /// Holds what is not to be started now for the server that comes, if one does, there is room, and it has not waited
    /// for too long. Once this server leaves, its client is sent there.
    pub(super) fn hold(&mut self, request: Request, wait: Option<Wait>) -> Result<(), SessionEnd> {
        let is_closed = self.host.is_closed_to_new();
        if is_closed && !self.is_managed {
            return self.not_held("the server is shutting down");
        }
        if is_closed && self.holds.are_left() {
            return Err(sent_on());
        }
        match wait.or_else(|| self.holds.begin(&request)) {
            Some(wait) if wait.is_over() && is_closed => {
                self.not_held("the server is shutting down and waits for other runs to end")
            }
            Some(wait) if wait.is_over() => {
                self.not_held("the server is being upgraded and waits for other runs to end")
            }
            Some(wait) => {
                self.held = Some(Held { request, wait });
                Ok(())
            }
            None => self.not_held("too many requests wait for the end of other runs"),
        }
    }

    fn not_held(&self, text: &str) -> Result<(), SessionEnd> {
        self.host.counts().refused.fetch_add(1, Ordering::Relaxed);
        self.refuse(Code::ShuttingDown, text.into())
    }

    /// Asks again for what was held.
    pub(in crate::server) async fn go_on(&mut self) -> Result<(), SessionEnd> {
        if self.held.is_some() && self.host.is_closed_to_new() && self.holds.are_left() {
            // It keeps its room until its client has been told.
            return Err(sent_on());
        }
        let Some(held) = self.held.take() else { return Ok(()) };
        let Some(guest) = self.guest.clone() else { return self.start_held(held).await };
        self.waiting.look(async move {
            guest.refresh_for_request(Instant::now()).await;
            Looked::Held(Box::new(held))
        });
        Ok(())
    }

    pub(super) async fn start_held(&mut self, held: Held) -> Result<(), SessionEnd> {
        self.start(held.request, Some(held.wait)).await
    }

    /// The client does not want what was held any more.
    pub(super) fn let_go(&mut self) -> Result<(), SessionEnd> {
        match self.held.take() {
            Some(_) => {
                self.refuse(Code::ShuttingDown, "the run was given up before it began".into())
            }
            None => Ok(()),
        }
    }
}

/// Nothing was started, and this server starts nothing any more.
fn sent_on() -> SessionEnd {
    SessionEnd::word(Code::ShuttingDown, "the server shut down before it began the run")
}
