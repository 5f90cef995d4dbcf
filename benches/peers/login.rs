//! What a whole login costs the server: TLS, the proof of an Ed25519 key, the look into the lists of keys.

use std::time::Duration;

use rexec::Client;

use crate::Fallible;
use crate::cold::runtime;
use crate::contenders::Rexec;
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;

/// What the project allows itself.
const MS_LIMIT: f64 = 0.25;

/// Processor time of the server for each login, in rounds of so many, one after another.
pub(crate) fn row(rexec: &Rexec, rounds: Rounds, logins: usize) -> Fallible<Row> {
    let runtime = runtime()?;
    let mut line = Line::new("rexec");
    for round in rounds.after_warm_up() {
        let log_in = || runtime.block_on(log_in_often(&rexec.addr, logins));
        let (done, spent) = rexec.server.spends(log_in)?;
        done?;
        if round > 0 {
            line.samples.push(ms(spent) / count(logins));
        }
    }
    let figures = line.samples.clone();
    Ok(Row {
        title: format!(
            "login: server processor time for each of {logins} logins, one after another"
        ),
        unit: "ms",
        notes: vec!["by an Ed25519 key; the clock that the kernel shows ticks every 10 ms".into()],
        lines: vec![line],
        marks: vec![Mark { line: 0, what: "ms for each", limit: Limit::AtMost(MS_LIMIT), figures }],
    })
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn count(logins: usize) -> f64 {
    logins as f64
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn log_in_often(addr: &str, logins: usize) -> Fallible<()> {
    let mut client = Client::local(addr)?;
    for _ in 0..logins {
        client.connect().await?;
    }
    Ok(())
}
