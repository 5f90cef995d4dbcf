//! Clients on a terminal, which `script` (util-linux) makes.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{Server, wait_until};

/// A client on a terminal of its own.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    keyboard: ChildStdin,
    pub(crate) screen: Arc<Mutex<String>>,
    /// So much of the screen was looked at.
    seen: usize,
}

impl Terminal {
    pub(crate) fn open(server: &Server) -> Self {
        Self::open_at(server, &server.addr)
    }

    /// `rexec ADDRESS`, where options may stand before the address.
    pub(crate) fn open_at(server: &Server, address: &str) -> Self {
        Self::with(server.state(), address)
    }

    /// `rexec LINE` with this state folder, which is its home too.
    pub(crate) fn with(state: &Path, line: &str) -> Self {
        // A shell that stays between would hear Ctrl-C too, and dash then ends as killed by it.
        Self::shell(state, &format!("exec {} {line}", env!("CARGO_BIN_EXE_rexec")))
    }

    /// A line of the shell's, with this state folder for every `rexec` in it.
    pub(crate) fn shell(state: &Path, line: &str) -> Self {
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", line, "/dev/null"]).env("SHELL", "/bin/sh");
        command.env("REXEC_STATE_DIR", state).env("HOME", state).env("NO_COLOR", "1");
        command.env_remove("SSH_AUTH_SOCK").env_remove("REXEC_ASKPASS");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let keyboard = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, keyboard, screen, seen: 0 }
    }

    pub(crate) fn types(&mut self, keys: impl AsRef<[u8]>) {
        self.keyboard.write_all(keys.as_ref()).unwrap();
    }

    /// Waits until something shows that was not there before; what came before it.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) -> String {
        let mut before = String::new();
        wait_until(&format!("{text:?} on the screen"), || {
            let screen = self.screen.lock().unwrap();
            let Some(at) = screen[self.seen..].find(text) else { return false };
            before = screen[self.seen..self.seen + at].to_owned();
            self.seen += at + text.len();
            true
        });
        before
    }

    /// The exit status of the client.
    pub(crate) fn ends(mut self) -> i32 {
        wait_until("the end of the prompt", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code().unwrap()
    }
}
