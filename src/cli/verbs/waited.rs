//! `rexec wait`: how runs end.

use tokio::task::JoinSet;

use super::{At, among, answer_of, client, printed, tell};
use crate::cli::print;
use crate::cli::report::Report;
use crate::cli::status::{Asked, Status};
use crate::client::{Client, Error};
use crate::proto::verdict::Verdict;

/// Runs that are waited for.
pub(super) struct Waited<'a> {
    pub(super) at: &'a At,
    pub(super) runs: &'a [String],
    /// Whether only the first that ends is told of.
    pub(super) is_one: bool,
    pub(super) json: bool,
}

impl Waited<'_> {
    pub(super) async fn all(&self, mut client: Client) -> u8 {
        let mut first_failure = 0;
        for run in self.runs {
            let status = self.told(run, &client.wait(run).await);
            if first_failure == 0 {
                first_failure = status;
            }
        }
        first_failure
    }

    pub(super) async fn any(&self) -> u8 {
        let mut waits = JoinSet::new();
        for run in self.runs {
            let mut client = match client(self.at) {
                Ok(client) => client,
                Err(status) => return status,
            };
            let run = run.clone();
            waits.spawn(async move {
                let end = client.wait(&run).await;
                (run, end)
            });
        }
        match waits.join_next().await {
            Some(Ok((run, end))) => self.told(&run, &end),
            // A panic there would be a bug.
            Some(Err(_)) | None => Status::Unknown.code(),
        }
    }

    /// Tells how a run ended, on stdout where it must be said whose end it is; the exit status.
    fn told(&self, run: &str, end: &Result<Verdict, Error>) -> u8 {
        let answer = answer_of(end, Asked::Nothing);
        let verdict = end.as_ref().ok();
        let status = tell(self.at, among(self.runs, run).filter(|_| end.is_err()), &answer);
        if self.json {
            return printed(self.at, Some(Report::new(&answer, verdict, None).of(run)), status);
        }
        if !self.is_one && self.runs.len() == 1 {
            return status;
        }
        let line = format!("{} {} {status}\n", called(run, end), answer.status.name());
        match print("rexec", &line) {
            0 => status,
            unwritten => unwritten,
        }
    }
}

/// The run, by its whole id where the server has told that.
fn called<'a>(run: &'a str, end: &'a Result<Verdict, Error>) -> &'a str {
    match end {
        Ok(verdict) => &verdict.run,
        Err(Error::Unknown { run, .. }) => run,
        Err(_) => run,
    }
}
