//! Many durable runs at once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Fallible;
use crate::durable::{client, wait_for};
use crate::proc::Server;
use crate::report::{Limit, Line, Mark, Row};
use crate::spawn;
use crate::stats::median;

/// So many clients start runs at a time.
const STARTERS: usize = 20;

/// Many durable runs at once, on a server of their own that is killed and started again.
pub(crate) fn row(count: usize) -> Fallible<Row> {
    let mut own = Own::start()?;
    let gate = own.dir.path().join("gate");
    let text = format!("while ! test -e {}; do sleep 1; done", gate.display());
    let before = Instant::now();
    own.start_runs(count, &text)?;
    let started = before.elapsed();
    let private = own.supervisors()?.into_iter().map(|pid| Server(pid).private());
    let private = private.collect::<Result<Vec<_>, _>>()?;
    own.server.kill()?;
    own.server.wait()?;
    let before = Instant::now();
    own.restart()?;
    wait_for(|| Ok(own.running()? >= count))?;
    let found = before.elapsed();
    wait_for(|| Ok(own.connections()? >= count))?;
    let watched = before.elapsed();
    fs::write(gate, "")?;
    wait_for(|| Ok(own.running()? == 0))?;
    let seconds = |name: &str, took: Duration| Line {
        name: name.into(),
        samples: vec![took.as_secs_f64()],
        beside: Vec::new(),
    };
    let mut lines = vec![
        seconds("all started", started),
        seconds("restarted, all listed", found),
        seconds("restarted, all watched", watched),
    ];
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let mib: Vec<_> = private.iter().map(|bytes| *bytes as f64 / f64::from(1 << 20)).collect();
    lines[0].beside.push(("private MiB of a supervisor", median(&mib)));
    let most = mib.iter().copied().fold(0.0, f64::max);
    let mark = |line, what, limit, figure| Mark {
        line,
        what,
        limit: Limit::AtMost(limit),
        figures: vec![figure],
    };
    Ok(Row {
        title: format!("many: {count} durable runs at once, and a server killed and started again"),
        unit: "s",
        notes: vec![format!(
            "{STARTERS} clients start them; private: not shared with others (proc(5))"
        )],
        marks: vec![
            mark(0, "private MiB of a supervisor at most", 3.0, most),
            mark(1, "s", 2.0, found.as_secs_f64()),
            mark(2, "s", 2.0, watched.as_secs_f64()),
        ],
        lines,
    })
}

/// A server of this row's own; gone on drop, with its runs.
struct Own {
    dir: tempfile::TempDir,
    server: Child,
    addr: String,
}

impl Own {
    fn start() -> Fallible<Self> {
        let dir = tempfile::tempdir()?;
        let (server, addr) = serve(dir.path(), "127.0.0.1:0")?;
        Ok(Self { dir, server, addr })
    }

    fn restart(&mut self) -> Fallible<()> {
        (self.server, _) = serve(self.dir.path(), &self.addr)?;
        Ok(())
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = client(words);
        command.env("REXEC_STATE_DIR", self.dir.path().join("state"));
        command
    }

    fn start_runs(&self, count: usize, text: &str) -> Fallible<()> {
        let share = |starter| (starter..count).step_by(STARTERS);
        let start = |_| spawn::run(self.client(&["-d", &self.addr, text])).map(drop);
        std::thread::scope(|scope| {
            let starters: Vec<_> = (0..STARTERS)
                .map(|starter| scope.spawn(move || share(starter).try_for_each(start)))
                .collect();
            let done = starters.into_iter().map(std::thread::ScopedJoinHandle::join);
            done.map(|done| done.map_err(|_| "a starter failed")).try_for_each(|done| Ok(done??))
        })
    }

    fn running(&self) -> Fallible<usize> {
        let output = self.client(&["ps", "--limit", "10000", "--json", &self.addr]).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.matches("\"state\":\"running\"").count())
    }

    fn supervisors(&self) -> Fallible<Vec<u32>> {
        let folder = self.dir.path().as_os_str().as_encoded_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended meanwhile is none.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|b| *b == 0).skip(1);
            if words.next() == Some(b"supervise")
                && words.next().is_some_and(|word| word.starts_with(folder))
                // The one that waits for a run is none.
                && fs::read_link(format!("/proc/{pid}/fd/2"))
                    .is_ok_and(|log| !log.ancestors().nth(2).is_some_and(|of| of.ends_with("ready")))
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Descriptors of the server that lead to supervisors.
    fn connections(&self) -> Fallible<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.server.id()))?.flatten();
        let links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(links.filter(|to| to.to_string_lossy().starts_with("socket:")).count())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that ended by itself needs neither.
        let _ = self.server.kill();
        let _ = self.server.wait();
        for pid in self.supervisors().unwrap_or_default() {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.map(|pid| kill_process(pid, Signal::TERM));
        }
    }
}

fn serve(dir: &Path, listen: &str) -> Fallible<(Child, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["--name", "many", "--listen", listen]);
    command.env("REXEC_STATE_DIR", dir.join("state")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn()?;
    let line = spawn::first_line(&mut server)?;
    match line.strip_prefix("listening on ") {
        Some(addr) => Ok((server, addr.to_owned())),
        None => Err("the server did not start".into()),
    }
}
