//! Several servers of one account, and batches over them.

use super::{Client, Server};

/// Servers that share a state folder, and stop on drop.
pub(crate) struct Fleet {
    // Before the first one, whose folder they use.
    others: Vec<Server>,
    first: Server,
}

impl Fleet {
    /// So many.
    pub(crate) fn start(count: usize) -> Self {
        let first = Server::start(&[]);
        let others = (1..count).map(|n| first.beside(&format!("other{n}"), &[])).collect();
        Self { others, first }
    }

    /// The first of them, whose folder is for the test's files.
    pub(crate) fn first(&self) -> &Server {
        &self.first
    }

    /// All of them.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Their addresses.
    pub(crate) fn addrs(&self) -> Vec<String> {
        self.servers().map(|server| server.addr.clone()).collect()
    }

    /// `rexec batch -H ...` over all of them and these further addresses, without what a CI system sets.
    pub(crate) fn batch(&self, more: &[&str]) -> Client {
        let mut all = self.addrs();
        all.extend(more.iter().map(|addr| (*addr).to_owned()));
        self.plain().args(&["-H", &all.join(",")])
    }

    /// `rexec batch` alone.
    pub(crate) fn plain(&self) -> Client {
        let mut client = Client::new(self.first.state()).args(&["batch"]);
        for name in ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "GITHUB_STEP_SUMMARY"] {
            client.command.env_remove(name);
        }
        client
    }
}
