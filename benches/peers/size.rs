//! What the programs weigh, and how long they take to say who they are.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Fallible;
use crate::contenders::Peers;
use crate::report::{Line, Row};
use crate::rounds::Rounds;
use crate::spawn;
use crate::turns::{self, Run, TURNS};

/// The time of a start that does nothing.
pub(crate) fn row(peers: &Peers, rounds: Rounds) -> Fallible<Row> {
    let mut all: Vec<(&str, PathBuf, &'static str)> = vec![
        ("/bin/true", "/bin/true".into(), "--version"),
        ("rexec", env!("CARGO_BIN_EXE_rexec").into(), "--version"),
        ("rexec-server", env!("CARGO_BIN_EXE_rexec-server").into(), "--version"),
    ];
    if peers.ssh.is_some() {
        all.extend(found("ssh").map(|path| ("ssh", path, "-V")));
    }
    if peers.dropbear.is_some() {
        all.extend(found("dbclient").map(|path| ("dbclient", path, "-V")));
    }
    let mut lines = Vec::new();
    for (name, path, _) in &all {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        let mib = std::fs::metadata(path)?.len() as f64 / f64::from(1 << 20);
        lines.push(Line { beside: vec![("MiB", mib)], ..Line::new(*name) });
    }
    let start = |(_, path, word): &'_ (&str, PathBuf, &'static str)| -> Run<'static> {
        let (path, word) = (path.clone(), *word);
        Box::new(move || {
            let mut command = Command::new(&path);
            command.arg(word).stderr(Stdio::null());
            Ok(spawn::ms(command)?)
        })
    };
    turns::measure(rounds, TURNS, &mut all.iter().map(start).collect::<Vec<_>>(), &mut lines)?;
    let title = "size: of the programs, and the time of `--version`".into();
    let notes = vec![
        turns::NOTE.into(),
        "without the libraries that ssh and dbclient share with others".into(),
    ];
    Ok(Row { title, unit: "ms", notes, lines, marks: Vec::new() })
}

fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists())
}
