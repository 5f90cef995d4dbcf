//! Signals and stops, of the run of a connection or of one that is named.

use std::sync::Arc;

use super::Requests;
use crate::exec::Signal;
use crate::exec::signal::UnknownSignal;
use crate::proto::code::Code;
use crate::proto::header::ServerHeader;
use crate::proto::verdict::StopBy;
use crate::runs::entry::Entry;
use crate::server::end::SessionEnd;
use crate::server::policy::{Asked, Whose};
use crate::server::serving::Order;
use crate::server::waiting::{Answer, Of};

impl Requests {
    /// The client is gone. What it has asked of a run that is still being started holds when that has. Until then it
    /// counts as a connection: of these there is a limit.
    pub(in crate::server) async fn leave(&mut self) {
        if self.waiting.keep_orders() {
            // In a box: most have left nothing behind.
            let _ = Box::pin(self.obey_the_rest()).await;
        }
    }

    async fn obey_the_rest(&mut self) -> Result<(), SessionEnd> {
        while self.waiting.is_waiting() {
            let came = self.waiting.came().await;
            self.take_up(came).await?;
            while let Some(heard) = self.waiting.next() {
                self.handle(heard).await?;
            }
        }
        Ok(())
    }

    /// An order to the run of this connection, or to one that is named. One that crosses the run's end or
    /// its refusal is nobody's fault.
    pub(super) async fn order(
        &mut self,
        order: Order,
        run: Option<String>,
    ) -> Result<(), SessionEnd> {
        if let Some(part) = run {
            return self.order_by_name(order, &part).await;
        }
        let Some(serving) = self.outbox.serving() else { return Ok(()) };
        self.may_or_end(&Asked::Keep)?;
        match serving.order(order)? {
            Some(answer) => self.outbox.answer(&answer),
            None => Ok(()),
        }
    }

    async fn order_by_name(&mut self, order: Order, part: &str) -> Result<(), SessionEnd> {
        let asked = match order {
            Order::Signal(_) => Asked::Signal,
            Order::Cancel(_) => Asked::Stop,
        };
        let Some((kept, whose)) = self.find(part, asked)? else { return Ok(()) };
        let order = match order {
            Order::Cancel(said) => Order::Cancel(self.by_whom(whose, said)),
            signal @ Order::Signal(_) => signal,
        };
        let run = kept.id().to_string();
        let obeyed = match &*kept {
            Entry::Here(run) => match order {
                Order::Signal(signal) => run.signal(signal),
                Order::Cancel(Whose::Own) => run.stop(StopBy::Client),
                Order::Cancel(Whose::All) => run.stop(StopBy::Operator),
            },
            Entry::There(there) => {
                let (host, there) = (Arc::clone(&self.host), Arc::clone(there));
                let asked = Box::pin(async move {
                    let obeyed = host.order(&there, order.header(Some(&there.key.id))).await;
                    Answer::Order { run, obeyed }
                });
                return self.ask(asked, Of::Supervisor).await;
            }
            Entry::Gone(_) => false,
        };
        self.outbox.answer(&obeyed_or_not(run, obeyed))
    }
}

pub(super) fn obeyed_or_not(run: String, obeyed: bool) -> ServerHeader {
    if obeyed { ServerHeader::Done { run } } else { ServerHeader::AlreadyEnded { run } }
}

pub(super) fn signal_number(name: &str) -> Result<u8, SessionEnd> {
    let number = name.parse::<Signal>().ok().and_then(|s| u8::try_from(s.number()).ok());
    number.ok_or_else(|| SessionEnd::word(Code::BadRequest, UnknownSignal.to_string()))
}
