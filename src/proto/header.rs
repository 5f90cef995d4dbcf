//! The headers: every request and every reply, as serde types.
//!
//! A header of a type that the reader does not know is [`ClientHeader::Unknown`] or
//! [`ServerHeader::Unknown`] and is skipped: all frames have one shape.

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::digest::{Digest, State};
use super::verdict::Verdict;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientHeader {
    /// Who is calling. Over TCP with a proof; on a unix socket the kernel vouches for the peer.
    Hello(Hello),
    /// Start this run, or go on with it: the same thing.
    Run(Box<RunRequest>),
    /// Bytes for the command's standard input, in the body.
    Stdin(StdinPiece),
    /// The standard input ends here; `hash` covers all of it.
    StdinEnd(StdinPiece),
    /// Every frame up to `seq` has been written to the caller's output.
    Ack {
        /// The last frame that was written.
        seq: u64,
    },
    /// Send a signal to the process group of a run.
    Signal {
        /// Its name without `SIG`, as `kill -l` prints it.
        signal: String,
        /// The run, or a unique part of its id; none: the one that this connection owns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<String>,
    },
    /// Stop the whole process tree of a run.
    Cancel {
        /// The run, or a unique part of its id; none: the one that this connection owns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<String>,
        /// With `run`: the stop is an operator's, said by one who may stop the runs of others.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        as_operator: bool,
    },
    /// This client leaves its run; a durable one goes on.
    Detach,
    /// Look at a durable run without owning it.
    Attach(Attach),
    /// Which runs there are.
    List {
        /// List at most this many, the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        /// Those of all identities, which operators may see.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all: bool,
    },
    /// Delete the record of a durable run that has ended. Its id stays taken.
    Remove {
        /// The run, or a unique part of its id.
        run: String,
    },
    /// This client is about to be suspended by its terminal: silence is no death until its next frame.
    Pause,
    /// Give a run up: the answer is `never_started`, which buries the id, or the run's final answer.
    Close {
        /// The run.
        id: String,
        /// How long ago its request was first sent, as in [`RunRequest`].
        #[serde(default)]
        first_sent_ms_ago: u64,
    },
    /// Nothing to say; still here.
    Heartbeat,
    /// A type that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerHeader {
    /// Logged in.
    Welcome(Welcome),
    /// Not let in, or this request is not served. Nothing was started.
    Refused(Refused),
    /// The run is there.
    Started(Started),
    /// A piece of output, in the body.
    Output(Output),
    /// The hashers' states after `seq - 1`; only where they can be written down.
    Mark(Mark),
    /// How much standard input may be sent.
    Grant(Grant),
    /// The command closed its standard input; more would be thrown away.
    StdinClosed,
    /// How the run ended.
    Verdict(Box<Verdict>),
    /// The run ended by itself before the signal, cancel or detach arrived. Its verdict was or will be sent.
    AlreadyEnded {
        /// The run.
        run: String,
    },
    /// The request was understood and the run could not be started. The id is not used up.
    NotStarted(Refusal),
    /// The run may have started; nobody can say how it ended.
    Lost(Refusal),
    /// The answer to `close`: it never started and never will.
    NeverStarted {
        /// The run.
        run: String,
    },
    /// The answer to `detach`: the run goes on without this connection.
    Detached {
        /// The run.
        run: String,
    },
    /// What was asked of a run by its name was done.
    Done {
        /// The run.
        run: String,
    },
    /// All that there is of a record that was not to be followed.
    SoFar {
        /// The run.
        run: String,
        /// Place of the last frame.
        seq: u64,
    },
    /// The answer to `list`: a JSON array of [`super::listing::RunInfo`] in the body.
    Runs {
        /// Whether another such frame follows.
        more: bool,
        /// How many runs there are, told of or not.
        total: u64,
    },
    /// Frames that are no longer kept.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// The conversation ends here, and why.
    Error {
        /// The kind of error.
        code: Code,
        /// One line for people.
        text: String,
    },
    /// Nothing to say; still here.
    Heartbeat,
    /// A type that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ClientHeader {
    /// Reads a header. serde keeps all members of a tagged one aside until it knows the tag; that is not needed of
    /// frequent ones in which it comes first, as we write it.
    ///
    /// # Errors
    /// What serde says.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        match type_in_front(json) {
            Some(b"hello") => serde_json::from_slice(json).map(Self::Hello),
            Some(b"run") => serde_json::from_slice(json).map(Self::Run),
            Some(b"stdin") => serde_json::from_slice(json).map(Self::Stdin),
            _ => serde_json::from_slice(json),
        }
    }
}

impl ServerHeader {
    /// As [`ClientHeader::read`].
    ///
    /// # Errors
    /// What serde says.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        match type_in_front(json) {
            Some(b"welcome") => serde_json::from_slice(json).map(Self::Welcome),
            Some(b"started") => serde_json::from_slice(json).map(Self::Started),
            Some(b"output") => serde_json::from_slice(json).map(Self::Output),
            Some(b"verdict") => serde_json::from_slice(json).map(Self::Verdict),
            _ => serde_json::from_slice(json),
        }
    }
}

fn type_in_front(json: &[u8]) -> Option<&[u8]> {
    let rest = json.strip_prefix(br#"{"type":""#)?;
    rest.split(|b| *b == b'"').next()
}

/// A client's first frame.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the client, for the log.
    pub client: String,
    /// The account that is asked for; none: the server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fingerprints of every key that the client could prove, the proven one first; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The proven key: SSH wire format (RFC 4253, 6.6), base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A certificate of the proven key: OpenSSH's wire format (PROTOCOL.certkeys), base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Further certificates, of that key or of others that are listed; the first that lets in counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// SSHSIG in its armour (OpenSSH, PROTOCOL.sshsig) over the text in the protocol's chapter on login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// The server's answer to a `hello` that it accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name and version of the server.
    pub server: String,
    /// Under which name the client's runs are kept.
    pub identity: String,
}

/// Why a login or a request is not served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The kind of refusal.
    pub code: Code,
    /// One line for people.
    pub text: String,
    /// With [`Code::TryKey`]: the fingerprint of a listed key that would be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A final answer about one run that is not a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The run.
    pub run: String,
    /// What was wrong.
    pub code: Code,
    /// One line for people.
    pub text: String,
}

/// How a command is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One word: text for the server's shell.
    Shell,
    /// A program and its arguments, exactly; no shell.
    Argv,
    /// No words: the server's shell reads its commands from the standard input.
    Script,
}

/// A request to start a run or to go on with it. The body holds byte strings, each ended by NUL:
/// `words` words, then `env` settings `NAME=VALUE`, then the working folder if `cwd`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Chosen by the client: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub id: String,
    /// How the command is given.
    pub form: Form,
    /// Count of words in the body.
    pub words: u64,
    /// Count of environment settings in the body.
    #[serde(default)]
    pub env: u64,
    /// Whether a working folder ends the body.
    #[serde(default)]
    pub cwd: bool,
    /// Both streams through one pipe, named `both`, in exact order.
    #[serde(default)]
    pub merge: bool,
    /// Whether a standard input will be sent; without it the command reads from `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Wait for the end of both pipes, as ssh does, not just for the main process.
    #[serde(default)]
    pub wait_eof: bool,
    /// Stop the run after this many milliseconds, counted on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// How long the run waits for a client that vanished, milliseconds; 0 stops it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// The run outlives this server and its record is kept on disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// The run needs no client, as if `detach` had been said at its start; only with `durable`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// How long ago the client first sent this id, milliseconds by its own clock; 0 the first time.
    #[serde(default)]
    pub first_sent_ms_ago: u64,
    /// The client has had `started` for this id: a server that does not know the run must not start it,
    /// however short a time ago the client believes to have sent it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_started: bool,
    /// The last frame of the record that the client has; 0 for none.
    #[serde(default)]
    pub after: u64,
    /// From where to show the record; only of a durable run.
    #[serde(default, skip_serializing_if = "ShowFrom::is_start")]
    pub from: ShowFrom,
    /// Name of the digest that the client would like; none: SHA-256. What counts is what [`Started`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Fields of this request that change what is done: a server that does not know one must refuse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must: Vec<String>,
}

impl RunRequest {
    /// Fields that may stand in `must`.
    pub const KNOWN: [&'static str; 18] = [
        "id",
        "form",
        "words",
        "env",
        "cwd",
        "merge",
        "stdin",
        "wait_eof",
        "deadline_ms",
        "grace_ms",
        "durable",
        "keep",
        "first_sent_ms_ago",
        "was_started",
        "after",
        "from",
        "hash",
        "must",
    ];
}

/// A request to look at a durable run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// The run, or a unique part of its id.
    pub run: String,
    /// The last frame of the record that the client has; 0 for none.
    #[serde(default)]
    pub after: u64,
    /// From where to show the record.
    #[serde(default)]
    pub from: ShowFrom,
    /// Whether to wait for what is still to come.
    #[serde(default = "yes")]
    pub follow: bool,
}

/// From where a record is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShowFrom {
    /// From frame `after` + 1.
    #[default]
    Start,
    /// From what is made after the request; a `gap` tells what is left out.
    End,
    /// Only the verdict; a `gap` tells what is left out.
    Verdict,
}

impl ShowFrom {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
    fn is_start(&self) -> bool {
        *self == Self::Start
    }
}

fn yes() -> bool {
    true
}

/// A piece of standard input, or its end (no body).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StdinPiece {
    /// Bytes of the stream before this piece.
    pub offset: u64,
    /// Digest of the stream from its first byte to the end of this piece.
    pub hash: Digest,
}

/// The run is there: either just started or taken over from an earlier connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The run.
    pub run: String,
    /// Process id of its main process on the server.
    pub pid: u32,
    /// True if the run was there before this request.
    pub attached: bool,
    /// Bytes of standard input that the server has; sending goes on here.
    pub stdin_offset: u64,
    /// Digest of these bytes.
    pub stdin_hash: Digest,
    /// Standard input may be sent up to this offset.
    pub stdin_grant: u64,
    /// Name of the digest in all `hash` fields of this run, both ways.
    pub hash: String,
}

/// Which output a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both through one pipe.
    Both,
}

/// The metadata of a piece of output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The stream.
    pub stream: Stream,
    /// The frame's place in the run's record, across all streams, from 1.
    pub seq: u64,
    /// Bytes of the stream before this piece.
    pub offset: u64,
    /// Digest of the stream from its first byte to the end of this piece.
    pub hash: Digest,
    /// Base name for saved output. A client never opens a path that a server named.
    pub filename: Option<String>,
    /// When the piece was read, milliseconds after the start.
    pub time_ms: u64,
}

/// The hashers' states at one place of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The frame's place in the record.
    pub seq: u64,
    /// One entry for each stream.
    pub streams: Vec<MarkedStream>,
}

/// One stream in a [`Mark`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MarkedStream {
    /// The stream.
    pub stream: Stream,
    /// Bytes of it so far.
    pub offset: u64,
    /// Its hasher after them.
    pub state: State,
}

/// Credit for standard input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Standard input may be sent up to this offset.
    pub to: u64,
    /// The server has everything up to this offset; the client may forget it.
    pub taken: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn client(text: &str) {
        let read = ClientHeader::read(text.as_bytes());
        let plain = serde_json::from_str(text);
        assert_eq!(
            read.map_err(|e| e.to_string()),
            plain.map_err(|e: serde_json::Error| e.to_string())
        );
    }

    fn server(text: &str) {
        let read = ServerHeader::read(text.as_bytes());
        let plain = serde_json::from_str(text);
        assert_eq!(
            read.map_err(|e| e.to_string()),
            plain.map_err(|e: serde_json::Error| e.to_string())
        );
    }

    /// A header with its type in front, at the end, and in front with spaces.
    fn orders(kind: &str, header: &serde_json::Value) -> [String; 3] {
        let members = header.to_string();
        let (members, kind) = (&members[1..members.len() - 1], format!(r#""type":"{kind}""#));
        [
            format!("{{{kind},{members}}}"),
            format!("{{{members},{kind}}}"),
            format!("{{ {kind} , {members}}}"),
        ]
    }

    #[test]
    fn a_header_means_the_same_wherever_its_type_stands() {
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let run = json!({"id": "x", "form": "shell", "words": 1, "later": [1, {"a": null}]});
        let stdin = json!({"offset": 1, "hash": hash});
        let started = json!({"run": "x", "pid": 7, "attached": false, "stdin_offset": 0, "stdin_hash": hash,
            "stdin_grant": 0, "hash": "sha256"});
        let output = json!({"stream": "both", "seq": 1, "offset": 0, "hash": hash, "filename": null,
            "time_ms": 3, "size": 2});
        let hello = json!({"client": "c", "keys": ["k"], "signature": "-\n-", "later": 1});
        let welcome = json!({"server": "s", "identity": "i", "later": [1]});
        for (kind, header) in [("hello", hello), ("run", run), ("stdin", stdin)] {
            orders(kind, &header).iter().for_each(|text| client(text));
        }
        for (kind, header) in [("welcome", welcome), ("started", started), ("output", output)] {
            orders(kind, &header).iter().for_each(|text| server(text));
        }
        for other in [r#"{"type":"heartbeat"}"#, r#"{"type":"new","a":1}"#, r#"{"type":"#, "{}"] {
            client(other);
            server(other);
        }
        assert!(ServerHeader::read(br#"{"type":"verdict","seq":"x"}"#).is_err());
    }
}
