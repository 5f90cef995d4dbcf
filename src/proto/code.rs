//! The codes: stable names on the wire for everything that can be refused.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $advice:literal;)+) => {
        /// A kind of refusal or error. The name on the wire never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
            /// A code that this version does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ Self::Unknown => "unknown" }
            }

            /// What it means, as a part of a sentence.
            #[must_use]
            pub fn clause(self) -> String {
                let mut text = self.meaning().trim_end_matches('.').to_owned();
                if let Some(first) = text.get_mut(..1) {
                    first.make_ascii_lowercase();
                }
                text
            }

            /// What it means, as one or more sentences.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                    Self::Unknown => "A code of a newer server.",
                }
            }

            /// What a user can do about it: a sentence in the imperative, without its full stop.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)+ Self::Unknown => "update this client" }
            }
        }
    };
}

codes! {
    /// The key or account is not allowed here, or the proof of the key is wrong.
    NotAuthorized = "not_authorized", "add the client's public key to the server's --authorized-keys file; rexec -v says which keys it showed and which it left out";
    /// The client's key is let in, but the server's policy, or the key's own line, does not allow this.
    NotPermitted = "not_permitted", "use another key, or ask the server's operator";
    /// A rule of the server's policy allows no more of it at this time.
    OverLimit = "over_limit", "wait for earlier runs to end, or for the time that the answer names, then run it again";
    /// Another key that the client listed would be accepted.
    TryKey = "try_key", "prove the key that the answer names";
    /// The login was not finished in time.
    LoginTimeout = "login_timeout", "check the network between client and server, then run it again";
    /// The server has as many logged-in connections as it takes.
    TooManyConnections = "too_many_connections", "wait for others to finish, or raise the server's --max-connections";
    /// The server has as many runs as it takes.
    TooManyRuns = "too_many_runs", "wait for others to finish, or raise the server's --max-runs";
    /// The server is shutting down and starts nothing more.
    ShuttingDown = "shutting_down", "run it again when the server is back";
    /// The server cannot write its journal, so it starts nothing.
    JournalFailed = "journal_failed", "free space in the server's state folder, or see its log";
    /// The request asks for something that this server does not know.
    Unsupported = "unsupported", "update the server, or leave that option out";
    /// The request contradicts itself or breaks a limit.
    BadRequest = "bad_request", "correct the request";
    /// The bytes are not a frame of this protocol, or a frame that has no place here.
    BadFrame = "bad_frame", "check that both ends are rexec, and of matching versions";
    /// A piece does not continue its stream, or its digest does not match.
    Corrupt = "corrupt", "look for a faulty proxy or memory; the run can be resumed";
    /// The id is in use for another request.
    Conflict = "conflict", "choose another id, or send the request that the id stands for";
    /// Another connection of the same identity took this run over.
    TakenOver = "taken_over", "follow the run from the client that took it over";
    /// The connection was idle for longer than the server allows.
    IdleTimeout = "idle_timeout", "connect again, or raise the server's --idle-timeout";
    /// The peer was silent for longer than three heartbeats.
    PeerSilent = "peer_silent", "check the network between client and server";
    /// The peer asked for answers faster than it read them.
    Flooded = "flooded", "read the answers as they come";
    /// There is no such program on the server.
    ProgramNotFound = "program_not_found", "check its name and the PATH that the command gets";
    /// The program is there but may not be executed.
    ProgramNotExecutable = "program_not_executable", "make it executable for the server's account";
    /// The program's interpreter (its `#!` line, or its loader) is missing.
    InterpreterMissing = "interpreter_missing", "install the interpreter that the program's first line names";
    /// The program is in a format that the server's kernel does not run.
    BadFormat = "bad_format", "give scripts a #! line, and check the machine type of binaries";
    /// The working folder does not exist.
    CwdMissing = "cwd_missing", "correct --cwd, or create the folder on the server";
    /// The working folder is not a folder.
    CwdNotADirectory = "cwd_not_a_directory", "correct --cwd";
    /// The working folder may not be entered.
    CwdPermission = "cwd_permission", "give the server's account access to the folder";
    /// Arguments and environment are longer than the server's kernel takes (E2BIG).
    ArgumentsTooLong = "arguments_too_long", "pass the data on stdin";
    /// The command text is longer than one argument may be (128 KiB on Linux).
    TextTooLong = "text_too_long", "pass it on stdin: rexec ADDR < SCRIPT";
    /// An environment setting cannot be made.
    BadEnvironment = "bad_environment", "correct --env";
    /// The server's machine is out of processes, memory, descriptors or disk.
    OutOfResources = "out_of_resources", "wait, free space, or raise the limits of the server's account";
    /// The command could not be started for another reason.
    StartFailed = "start_failed", "see the reason that the server gave";
    /// The server was restarted while the run was under way.
    ServerRestarted = "server_restarted", "look at what the command did before you run it again";
    /// The run ended and its record is no longer kept.
    Forgotten = "forgotten", "look at what the command did before you run it again";
    /// The id was first sent before this server's memory begins.
    BeforeMemory = "before_memory", "look at what the command did before you run it again";
    /// The id was given up before and stays buried.
    Buried = "buried", "choose another id";
    /// The process that kept the durable run was ended; what the run had started was stopped.
    SupervisorLost = "supervisor_lost", "look at what the command did before you run it again";
    /// More than one run's id has the part that was given.
    Ambiguous = "ambiguous", "give more of the id";
    /// The run goes on, so its record cannot be deleted.
    StillRunning = "still_running", "stop it first: rexec stop ADDR RUN";
    /// The run is not durable: its output is for its own client only.
    NotDurable = "not_durable", "start it with -d, --durable or --id";
    /// There is no such run under this identity.
    NoSuchRun = "no_such_run", "check the id";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_name_meaning_and_advice() {
        for code in Code::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.name()));
            assert!(
                code.meaning().ends_with('.') && !code.advice().ends_with('.'),
                "{}",
                code.name()
            );
        }
    }

    #[test]
    fn a_newer_code_is_read_as_unknown() {
        assert_eq!(serde_json::from_str::<Code>("\"from_the_future\"").unwrap(), Code::Unknown);
    }
}
