//! One run over as many connections as it takes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::command::millis;
use super::connection::{Connection, NoWelcome, Target};
use super::control::{Control, Input, RunIo};
use super::error::{Error, OutputError};
use super::leg::Leg;
use super::outage::{Outage, is_restart};
use super::sink::Sink;
use super::state::{Leave, LegEnd, Role, State};
use super::stdin::StdinSender;
use crate::conn::HEARTBEAT;
use crate::identity::KeyRing;
use crate::proto::code::Code;
use crate::proto::digest::Running;
use crate::proto::frame::{self, FrameError};
use crate::proto::header::{Attach, ClientHeader, Form, RunRequest, ShowFrom};
use crate::proto::verdict::Verdict;
use crate::sys::clock::{boottime, until};
use crate::transport::DialError;

/// Sending a request and logging in may take so long: the longest request, over 64 kbit/s.
const ASK_TIMEOUT: Duration = Duration::from_secs(180);

/// Bytes of a script that are read at once, where it is only compared.
const READ_AT_ONCE: usize = 64 * 1024;

/// A run and what it takes to go on with it on another connection.
pub(super) struct Driver<'a> {
    target: &'a Target,
    reconnect_timeout: Duration,
    wanted: Wanted,
    /// Time since boot when the request was first sent, or when this driver was made if another program had
    /// sent it before: it may be sent again after the machine has slept.
    first_sent: Option<Duration>,
    /// A server has left without having begun the run. As long as it is not sent again, the request is nowhere.
    sent_on: bool,
    /// Why a server that was there was not reached: it went while TLS was set up, or another is not there yet.
    unreached: Option<DialError>,
    /// How long before that the other program had sent it.
    sent_before: Duration,
    /// The keys to prove; once the request was sent, the one under which it was: under another identity
    /// the same request would be another run.
    keys: KeyRing,
    state: State,
    input: Option<Input>,
    control: mpsc::UnboundedReceiver<Control>,
}

/// What is asked of the server.
pub(super) enum Wanted {
    /// To start a run, or to go on with it; its body.
    Run(RunRequest, Bytes),
    /// To look at one.
    Look(Attach),
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        target: &'a Target,
        reconnect_timeout: Duration,
        wanted: Wanted,
        leave: Leave,
        io: RunIo,
    ) -> Self {
        let (id, role, stdin, sent_before) = match &wanted {
            Wanted::Run(header, _) => {
                let role = match header.from {
                    ShowFrom::Start => Role::Owner { durable: header.durable },
                    ShowFrom::End | ShowFrom::Verdict => Role::Starter,
                };
                (header.id.clone(), role, header.stdin, header.first_sent_ms_ago)
            }
            Wanted::Look(attach) => {
                let role = Role::Viewer { late: attach.from != ShowFrom::Start };
                (attach.run.clone(), role, false, 0)
            }
        };
        let sent_before = Duration::from_millis(sent_before);
        let sink = Sink::new(io.output, role.is_late());
        let mut state = State::new(id, role, leave, sink, StdinSender::new(stdin));
        // That request may still arrive, or have started the run.
        state.unanswered = u32::from(!sent_before.is_zero());
        let (input, control) = (io.stdin, io.control);
        let keys = target.keys.clone();
        Self {
            target,
            reconnect_timeout,
            wanted,
            first_sent: (!sent_before.is_zero()).then(boottime),
            sent_on: false,
            unreached: None,
            sent_before,
            keys,
            state,
            input,
            control,
        }
    }

    /// Runs to the end. The connection that is left in `connection` can be used again.
    pub(super) async fn run(
        mut self,
        connection: &mut Option<Connection>,
    ) -> Result<Verdict, Error> {
        let mut outage: Option<Outage> = None;
        loop {
            let (progress, began) = (self.state.progress(), Instant::now());
            let why = match self.connected(connection).await {
                Ok(open) => {
                    if self.unreached.take().is_some() {
                        outage = None;
                    }
                    match self.leg(open).await {
                        LegEnd::Final(end) => return self.by_its_script(*end).await,
                        LegEnd::Doubted => continue,
                        LegEnd::SentOn(why) => {
                            self.send_on()?;
                            why
                        }
                        LegEnd::Broken(why) => {
                            self.state.unanswered += u32::from(!self.state.is_started());
                            why
                        }
                    }
                }
                Err(Error::Unreached(e)) => self.not_reached(e)?,
                Err(e) => return Err(e),
            };
            *connection = None;
            // A connection that lasted, or brought something, was no part of an outage.
            let lasted = self.state.is_started() && began.elapsed() >= HEARTBEAT;
            if lasted || self.state.progress() != progress {
                outage = None;
            }
            self.state.lose_connection();
            if self.state.has_end() {
                let end = self.write_the_rest().await;
                return self.by_its_script(end).await;
            }
            self.pause(&mut outage, why).await?;
        }
    }

    /// Whoever is looked for again may come: the server that has the request, the next one, or that after one that
    /// went while this client was let in, which has seen nothing of the request.
    fn not_reached(&mut self, error: DialError) -> Result<String, Error> {
        let why = error.to_string();
        if self.was_sent() || self.sent_on {
            return Ok(why);
        }
        if !is_restart(&error, self.unreached.is_some()) {
            return Err(error.into());
        }
        self.unreached = Some(error);
        Ok(why)
    }

    /// How long a server is looked for. One that has nothing of the request is still being reached.
    fn patience(&self) -> Duration {
        match self.unreached {
            Some(_) => self.reconnect_timeout.min(self.target.connect_timeout),
            None => self.reconnect_timeout,
        }
    }

    /// Whether the request may have arrived.
    fn was_sent(&self) -> bool {
        self.first_sent.is_some()
    }

    /// The server that had the request is leaving: it will not begin the run, and another is asked. If no earlier
    /// request may still arrive, that is asked for the first time.
    fn send_on(&mut self) -> Result<(), Error> {
        if self.state.may_be_started() {
            return Ok(());
        }
        if self.state.is_to_be_ended() {
            return Err(Error::Interrupted);
        }
        (self.sent_on, self.first_sent) = (true, None);
        Ok(())
    }

    /// Whether no server has the request, although one had it.
    fn is_nowhere(&self) -> bool {
        self.sent_on && !self.was_sent()
    }

    async fn connected<'c>(
        &mut self,
        connection: &'c mut Option<Connection>,
    ) -> Result<&'c mut Connection, Error> {
        let open = match connection.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        Ok(connection.insert(open))
    }

    async fn open(&mut self) -> Result<Connection, Error> {
        let keys = self.keys.clone();
        let (target, is_nowhere) = (self.target, self.is_nowhere());
        let open = async {
            let mut connection = Connection::open(target, &keys).await?;
            if is_nowhere {
                // Nobody may answer, where connections wait for a server that comes: there the request would be
                // taken up after this client has gone.
                connection.log_in(target).await?;
            }
            Ok(connection)
        };
        let mut open = std::pin::pin!(open);
        loop {
            tokio::select! {
                opened = &mut open => return opened,
                Some(asked) = self.control.recv() => self.ask_later(asked, self.was_sent())?,
                () = until(self.state.cancelled) => return Err(self.state.no_answer()),
            }
        }
    }

    /// What is asked before there is an answer. Before the request `was_sent`, every wish to end it can be
    /// granted at once.
    fn ask_later(&mut self, asked: Control, was_sent: bool) -> Result<(), Error> {
        if !was_sent && !matches!(asked, Control::Pause { .. }) {
            return Err(Error::Interrupted);
        }
        self.state.control(asked).map_err(|e| self.unknown(&e.to_string()))
    }

    /// One connection's time: the request, and all that follows.
    async fn leg(&mut self, connection: &mut Connection) -> LegEnd {
        // Before the request: what is asked for while that is answered is sent behind it.
        self.state.start_leg();
        let request = match self.request() {
            Ok(request) => request,
            Err(e) => return LegEnd::Broken(e.to_string()),
        };
        let has_begun = AtomicBool::new(self.was_sent());
        self.first_sent.get_or_insert_with(boottime);
        let asked = self.ask(connection, request.into(), &has_begun).await;
        if let Some(key) = connection.key() {
            self.keys = self.keys.only(Arc::clone(key));
        }
        match asked {
            Ok(Ok(())) => {}
            Ok(Err(NoWelcome::Broken(why))) => return LegEnd::Broken(why),
            Ok(Err(NoWelcome::Late)) => return LegEnd::Broken("the server took no request".into()),
            Ok(Err(NoWelcome::NoKey(why))) if self.state.may_be_started() => {
                return LegEnd::Broken(why);
            }
            Ok(Err(NoWelcome::NoKey(why))) => {
                let endpoint = self.target.endpoint.clone();
                return LegEnd::done(Err(DialError::NoLogin { endpoint, why }.into()));
            }
            Ok(Err(NoWelcome::Refused(code, text))) => {
                // A server that has no room for a connection now may have some later.
                if self.state.may_be_started() && code != Code::NotAuthorized {
                    return LegEnd::Broken(text);
                }
                return LegEnd::done(Err(self.state.not_let_in(code, text)));
            }
            Err(e) => return LegEnd::done(Err(e)),
        }
        let leg = Leg::new(&mut self.state, self.target.keys.ask());
        leg.drive(connection, &mut self.input, &mut self.control).await
    }

    /// Sends the request and logs in. Fails if the caller wants the run stopped and nobody answers.
    async fn ask(
        &mut self,
        connection: &mut Connection,
        request: Bytes,
        has_begun: &AtomicBool,
    ) -> Result<Result<(), NoWelcome>, Error> {
        let asking = connection.ask_noting(request, ASK_TIMEOUT, has_begun);
        let mut asking = std::pin::pin!(asking);
        loop {
            tokio::select! {
                asked = &mut asking => return Ok(asked),
                Some(asked) = self.control.recv() => self.ask_later(asked, has_begun.load(Ordering::Relaxed))?,
                () = until(self.state.cancelled) => return Err(self.state.no_answer()),
            }
        }
    }

    /// The `run` frame, or once the run was given up and may never have arrived, `close`: sending `run`
    /// again would start it.
    fn request(&mut self) -> Result<Vec<u8>, FrameError> {
        // A request that was sent before is never 0 ms old: 0 means the first time.
        let ago = self.first_sent.map_or(0, |at| {
            millis(self.sent_before.saturating_add(boottime().saturating_sub(at))).max(1)
        });
        let mut frame = Vec::new();
        self.state.closing = self.state.is_given_up();
        if self.state.closing {
            let close = ClientHeader::Close { id: self.state.id.clone(), first_sent_ms_ago: ago };
            frame::encode(&close, b"", &mut frame)?;
            return Ok(frame);
        }
        if self.state.only_looks() && matches!(self.wanted, Wanted::Run(..)) {
            let (run, from) = (self.state.id.clone(), ShowFrom::Start);
            self.wanted = Wanted::Look(Attach { run, after: 0, from, follow: true });
        }
        match &mut self.wanted {
            Wanted::Run(header, body) => {
                header.first_sent_ms_ago = ago;
                header.was_started = self.state.was_started();
                header.after = self.state.received;
                let run = ClientHeader::Run(Box::new(header.clone()));
                frame::encode(&run, body, &mut frame)?;
            }
            Wanted::Look(attach) => {
                if self.state.was_started() {
                    attach.run.clone_from(&self.state.id);
                }
                if self.state.received > 0 && attach.from == ShowFrom::End {
                    attach.from = ShowFrom::Start;
                }
                attach.after = self.state.received;
                frame::encode(&ClientHeader::Attach(attach.clone()), b"", &mut frame)?;
            }
        }
        Ok(frame)
    }

    async fn pause(&mut self, outage: &mut Option<Outage>, why: String) -> Result<(), Error> {
        let Some(next) = outage.get_or_insert_with(Outage::new).next(self.patience()) else {
            if let Some(unreached) = self.unreached.take() {
                return Err(unreached.into());
            }
            return Err(match self.is_nowhere() {
                true => Error::no_other_server(&why, self.reconnect_timeout),
                false => Error::lost_link(&self.state.id, &why, self.reconnect_timeout),
            });
        };
        tracing::info!(run = %self.state.id, "reconnecting: {why}");
        self.target.keys.ask().note(&format!("reconnecting: {why}"));
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => return Ok(()),
                Some(asked) = self.control.recv() => self.ask_later(asked, self.was_sent())?,
                () = until(self.state.cancelled) => return Err(self.state.no_answer()),
            }
        }
    }

    /// The link is gone but nothing more is needed of it.
    async fn write_the_rest(&mut self) -> Result<Verdict, Error> {
        loop {
            if let Some(LegEnd::Final(end)) = self.state.last_word() {
                return *end;
            }
            let progress = self.state.sink.progress();
            tokio::select! {
                () = progress => {}
                Some(asked) = self.control.recv() => self.ask_later(asked, self.was_sent())?,
            }
            self.state.note_failure();
        }
    }

    /// A script is the command itself: with another one the same id is another request, also when the run takes
    /// no more of it. Other input is data, which whoever asks again need not have any more.
    async fn by_its_script(&mut self, end: Result<Verdict, Error>) -> Result<Verdict, Error> {
        let is_script = matches!(&self.wanted, Wanted::Run(run, _) if run.form == Form::Script);
        let is_told = matches!(end, Ok(_) | Err(Error::Detached { .. }));
        let (Some((size, digest)), Some(input)) = (self.state.stdin.unread(), &mut self.input)
        else {
            return end;
        };
        if !is_script || !is_told {
            return end;
        }
        let mut running = self.state.hasher();
        let read = read_through(input, size, &mut running, &mut self.control).await;
        match read {
            Ok(()) if (running.offset(), running.digest()) == (size, digest) => end,
            Ok(()) => Err(self.state.other_input()),
            Err(e) => {
                let (error, verdict) = (OutputError::Input(e), end.ok().map(Box::new));
                Err(Error::Output { error, verdict })
            }
        }
    }

    fn unknown(&self, why: &str) -> Error {
        Error::Unknown { run: self.state.id.clone(), text: why.into(), code: None }
    }
}

/// Reads so many bytes, or up to an earlier end, unless the caller gives it up: then it is not known whose input it is.
async fn read_through(
    input: &mut Input,
    size: u64,
    into: &mut Running,
    control: &mut mpsc::UnboundedReceiver<Control>,
) -> io::Result<()> {
    let mut source = input.take(size);
    let mut buffer = BytesMut::with_capacity(READ_AT_ONCE);
    loop {
        tokio::select! {
            read = source.read_buf(&mut buffer) => if read? == 0 {
                return Ok(());
            },
            Some(asked) = control.recv() => if !matches!(asked, Control::Pause { .. }) {
                return Err(io::Error::other("given up before all of it was compared with the run's"));
            },
        }
        into.update(&buffer);
        buffer.clear();
    }
}
