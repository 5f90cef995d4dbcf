//! What a whole login costs the server: TLS, the proof of an Ed25519 key, the look into the lists of keys.

use std::time::Duration;

use rexec::client::Target;
use rexec::sys::fs::open_state_dir;

use crate::Fallible;
use crate::contenders::Rexec;
use crate::idle::log_in;
use crate::report::{Limit, Line, Mark, Row};
use crate::stats::median;

/// What the project allows itself.
const MS_LIMIT: f64 = 0.25;

/// Processor time of the server for each login, in rounds of so many, one after another.
pub(crate) fn row(rexec: &Rexec, rounds: usize, logins: usize) -> Fallible<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = Target::local(rexec.addr.parse()?, &open_state_dir()?)?;
    let mut samples = Vec::new();
    for _ in 0..rounds {
        let (done, spent) =
            rexec.server.spends(|| runtime.block_on(log_in_often(&target, logins)))?;
        done?;
        samples.push(ms(spent) / count(logins));
    }
    let figure = median(&samples);
    Ok(Row {
        title: format!(
            "login: server processor time for each of {logins} logins, one after another"
        ),
        unit: "ms",
        notes: vec!["by an Ed25519 key; the clock that the kernel shows ticks every 10 ms".into()],
        lines: vec![Line { name: "rexec".into(), samples, beside: Vec::new() }],
        marks: vec![Mark { line: 0, what: "ms for each", limit: Limit::AtMost(MS_LIMIT), figure }],
    })
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn count(logins: usize) -> f64 {
    logins as f64
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn log_in_often(target: &Target, logins: usize) -> Fallible<()> {
    for _ in 0..logins {
        drop(log_in(target).await?);
    }
    Ok(())
}
