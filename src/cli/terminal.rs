//! Questions on this process's terminal, whatever stdin and stdout are. While one is open the terminal
//! sends keys one by one, Ctrl-C too; afterwards it is as it was, however the question ends, and only then the
//! key does what it does elsewhere.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr,
};
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

use super::output::write_all;
use super::signals::suspend;
use crate::sys::poll::watch;
use crate::sys::signals::is_ignored;

/// Most bytes of a passphrase, or of an answer.
pub(super) const PASSPHRASE_LIMIT: usize = 1024;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const CTRL_Z: u8 = 26;
const CTRL_BACKSLASH: u8 = 28;
const DELETE: u8 = 127;

/// Whether what is typed shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    On,
    Off,
}

/// What was typed at a question.
enum Typed {
    Line(Zeroizing<String>),
    /// No answer: Ctrl-D, or the end of the terminal.
    Nothing,
    /// A key that is a signal elsewhere.
    Signal(Signal),
}

/// The terminal that controls this process.
pub(super) struct Terminal {
    file: AsyncFd<OwnedFd>,
}

/// Puts the terminal back on drop.
struct Raw<'a> {
    file: &'a AsyncFd<OwnedFd>,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn new(file: &'a AsyncFd<OwnedFd>) -> io::Result<Self> {
        let before = tcgetattr(file)?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(file, OptionalActions::Now, &raw)?;
        Ok(Self { file, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.file, OptionalActions::Now, &self.before);
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    Ok(rustix::fs::open("/dev/tty", flags, Mode::empty())?)
}

impl Terminal {
    /// Opens it.
    ///
    /// # Errors
    /// This process has no terminal.
    pub(super) fn open() -> io::Result<Self> {
        let file = open()?;
        // What was typed before the question is no answer to it.
        tcflush(&file, QueueSelector::IFlush)?;
        Ok(Self { file: watch(file)? })
    }

    /// Whether there is one.
    pub(super) fn is_there() -> bool {
        open().is_ok()
    }

    fn say(&self, text: &str) -> io::Result<()> {
        write_all(&self.file, text.as_bytes())
    }

    /// What is typed until Enter as the answer to a question, which holds nothing of a peer's but what is fit
    /// to be shown; none for Ctrl-D or the end of the terminal. After Ctrl-Z it is asked again.
    pub(super) async fn ask(
        &mut self,
        question: &str,
        echo: Echo,
    ) -> io::Result<Option<Zeroizing<String>>> {
        loop {
            // Who sees the question may answer at once, and is not to see a passphrase.
            let raw = Raw::new(&self.file)?;
            self.say(question)?;
            let typed = self.keys(echo).await;
            drop(raw);
            self.say("\n")?;
            match typed? {
                Typed::Line(line) => return Ok(Some(line)),
                Typed::Nothing => return Ok(None),
                Typed::Signal(signal) if is_ignored(signal.as_raw()) => return Ok(None),
                Typed::Signal(Signal::TSTP) => suspend(),
                Typed::Signal(signal) => {
                    kill_process(getpid(), signal)?;
                    // It ends this process, or whoever hears it ends the wait for an answer.
                    return pending().await;
                }
            }
        }
    }

    async fn keys(&self, echo: Echo) -> io::Result<Typed> {
        // Never grows, so that no copy is left behind.
        let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_LIMIT));
        loop {
            let Some(key) = self.key().await? else { return Ok(Typed::Nothing) };
            match key {
                b'\r' | b'\n' => break,
                CTRL_C => return Ok(Typed::Signal(Signal::INT)),
                CTRL_BACKSLASH => return Ok(Typed::Signal(Signal::QUIT)),
                CTRL_Z => return Ok(Typed::Signal(Signal::TSTP)),
                CTRL_D if line.is_empty() => return Ok(Typed::Nothing),
                CTRL_U => self.take_back(&mut line, echo, usize::MAX)?,
                BACKSPACE | DELETE => self.take_back(&mut line, echo, 1)?,
                key if line.len() < PASSPHRASE_LIMIT => {
                    line.push(key);
                    if echo == Echo::On {
                        write_all(&self.file, &[key])?;
                    }
                }
                _ => {}
            }
        }
        let text = std::str::from_utf8(&line).map_err(|_| io::Error::other("it is not UTF-8"))?;
        Ok(Typed::Line(Zeroizing::new(text.to_owned())))
    }

    /// Takes back the last characters.
    fn take_back(&self, line: &mut Vec<u8>, echo: Echo, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let Some(start) = line.iter().rposition(|byte| byte & 0xc0 != 0x80) else { break };
            line.truncate(start);
            if echo == Echo::On {
                self.say("\x08 \x08")?;
            }
        }
        Ok(())
    }

    /// The next byte; none at the end.
    async fn key(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            let mut ready = self.file.readable().await?;
            let read = ready.try_io(|file| Ok(rustix::io::read(file, &mut byte)?));
            match read {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_)) => return Ok(Some(byte[0])),
                Ok(Err(e)) => return Err(e),
                Err(_not_yet) => {}
            }
        }
    }
}
