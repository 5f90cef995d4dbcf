//! Output that is shown host by host: when a host has ended, or once for all hosts that wrote the same.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::SystemTime;

use super::live::Live;
use super::report::unix_ms;
use super::spill::{Block, Spill};
use crate::cli::output::write_all;
use crate::client::batch::hosts::fold;

/// How a CI system is told what belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    Plain,
    GitHub,
    GitLab,
}

impl Groups {
    /// The CI system that reads what is printed.
    pub(super) fn detect() -> Self {
        let is = |name| std::env::var_os(name).is_some_and(|value| value == "true");
        if is("GITHUB_ACTIONS") {
            Self::GitHub
        } else if is("GITLAB_CI") {
            Self::GitLab
        } else {
            Self::Plain
        }
    }

    fn begin(self, number: usize, title: &str) -> String {
        match self {
            Self::Plain => format!("== {title} ==\n"),
            Self::GitHub => format!("::group::{title}\n"),
            Self::GitLab => format!(
                "\x1b[0Ksection_start:{}:rexec_{number}[collapsed=true]\r\x1b[0K{title}\n",
                unix_ms(SystemTime::now()) / 1000
            ),
        }
    }

    fn end(self, number: usize) -> String {
        match self {
            Self::Plain => String::new(),
            Self::GitHub => "::endgroup::\n".into(),
            Self::GitLab => format!(
                "\x1b[0Ksection_end:{}:rexec_{number}\r\x1b[0K\n",
                unix_ms(SystemTime::now()) / 1000
            ),
        }
    }
}

/// Output that waits to be shown.
pub(super) struct Blocks {
    groups: Groups,
    spill: Spill,
    /// Hosts that wrote something.
    wrote: HashSet<usize>,
    /// Blocks that differ, in the order of their first hosts; only when they are folded.
    alike: Option<Alike>,
    /// How many were shown.
    shown: usize,
}

#[derive(Default)]
struct Alike {
    blocks: Vec<(Block, Vec<String>)>,
    by_digest: HashMap<[u8; 32], usize>,
}

impl Blocks {
    pub(super) fn new(groups: Groups, fold: bool) -> Self {
        let alike = fold.then(Alike::default);
        Self { groups, spill: Spill::default(), wrote: HashSet::new(), alike, shown: 0 }
    }

    pub(super) fn push(&mut self, host: usize, bytes: &[u8]) -> io::Result<()> {
        self.wrote.insert(host);
        self.spill.push(host, bytes)
    }

    /// Adds a line of this program's own, for which alone there is no block: it was told elsewhere.
    pub(super) fn remark(&mut self, host: usize, line: &str) -> io::Result<()> {
        self.spill.push(host, format!("-- {line}\n").as_bytes())
    }

    /// A host has ended: it is shown now, unless it is folded.
    pub(super) fn host_ended(&mut self, host: usize, name: &str, live: &Live) -> io::Result<()> {
        let mut block = self.spill.take(host);
        let wrote = self.wrote.remove(&host);
        let Some(alike) = &mut self.alike else {
            return if wrote { live.around(|| self.show(name, &block)) } else { Ok(()) };
        };
        let digest = block.digest();
        match alike.by_digest.get(&digest) {
            Some(at) => alike.blocks[*at].1.push(name.to_owned()),
            None => {
                alike.by_digest.insert(digest, alike.blocks.len());
                self.spill.settle(&mut block)?;
                alike.blocks.push((block, vec![name.to_owned()]));
            }
        }
        Ok(())
    }

    /// All hosts have ended.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(alike) = self.alike.take() else { return Ok(()) };
        for (block, names) in alike.blocks {
            let title = match names.len() {
                1 => fold(&names),
                hosts => format!("{} ({hosts} hosts)", fold(&names)),
            };
            self.show(&title, &block)?;
        }
        Ok(())
    }

    fn show(&mut self, title: &str, block: &Block) -> io::Result<()> {
        let write = |bytes: &[u8]| write_all(rustix::stdio::stdout(), bytes);
        self.shown += 1;
        write(self.groups.begin(self.shown, title).as_bytes())?;
        self.spill.read(block, write)?;
        write(self.groups.end(self.shown).as_bytes())
    }
}
