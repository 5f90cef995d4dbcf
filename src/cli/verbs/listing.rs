//! `rexec ps`: the list of runs.

use super::failed;
use crate::cli::clean::{in_ci, without_commands};
use crate::cli::past::short;
use crate::cli::print;
use crate::cli::reach::At;
use crate::cli::report::without_orders;
use crate::cli::status::{Asked, Status, of_verdict};
use crate::cli::visible::{json_for_stdout, visible};
use crate::client::{Client, Runs};
use crate::proto::listing::{RunInfo, RunState};
use crate::units::counted;

pub(super) async fn ps(at: &At, mut client: Client, (limit, all): (u64, bool), json: bool) -> u8 {
    let runs = match all {
        true => client.runs_of_all(limit).await,
        false => client.runs(limit).await,
    };
    let Runs { newest, total } = match runs {
        Ok(runs) => runs,
        Err(e) => return failed(at, e),
    };
    if let Some(line) = not_shown(newest.len() as u64, total, limit) {
        at.reach.say(&line);
    }
    if json {
        let lines: Vec<_> =
            newest.iter().filter_map(|run| serde_json::to_string(run).ok()).collect();
        let end = if lines.is_empty() { "" } else { "\n" };
        return print("rexec", &json_for_stdout(without_orders(&lines.join("\n")) + end));
    }
    print("rexec", &table(&newest))
}

/// Of how many runs nothing is shown, and what to do about it.
fn not_shown(shown: u64, total: u64, limit: u64) -> Option<String> {
    let left_out = total.checked_sub(shown).filter(|count| *count > 0)?;
    let why =
        if shown < limit { "the server lists no more at a time" } else { "--limit shows more" };
    Some(format!("not shown: {}; {why}", counted(left_out, "older run")))
}

fn table(runs: &[RunInfo]) -> String {
    let mut text = format!(
        "{:<8}  {:<12}  {:>7}  {:>9}  {:>9}  {}\n",
        "RUN", "STATE", "AGE", "OUTPUT", "DISK", "COMMAND"
    );
    for run in runs {
        let command = if run.command.trim().is_empty() { "(a script)" } else { run.command.trim() };
        let mut line = format!(
            "{:<8}  {:<12}  {:>7}  {:>9}  {:>9}  {}",
            short(&run.run),
            state(run),
            age(run.age_s),
            size(run.bytes),
            size(run.disk),
            command
        );
        if let Some(identity) = &run.identity {
            line.push_str(&format!("  ({identity})"));
        }
        let line = visible(&line);
        text.push_str(&if in_ci() { without_commands(&line) } else { line.as_str().into() });
        text.push('\n');
    }
    text
}

fn state(run: &RunInfo) -> String {
    match (run.state, &run.verdict) {
        (RunState::Running, _) => "running".into(),
        (RunState::Lost, _) => "lost".into(),
        (RunState::Ended, None) => "forgotten".into(),
        (RunState::Ended, Some(verdict)) => {
            let status = of_verdict(verdict, Asked::Nothing).status;
            match status {
                Status::Code(code) => format!("exited {code}"),
                Status::Signal(signal) => format!("signal {signal}"),
                other => other.name().to_owned(),
            }
        }
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T"];
    let mut at = 0;
    let mut whole = bytes;
    while whole >= 10_240 && at + 1 < units.len() {
        whole /= 1024;
        at += 1;
    }
    format!("{whole}{}", units[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greater_limit_is_recommended_only_where_it_helps() {
        let shown = |shown, limit| not_shown(shown, 20_000, limit).unwrap();
        assert_eq!(shown(1000, 1000), "not shown: 19000 older runs; --limit shows more");
        assert!(shown(10_000, 10_001).ends_with("; the server lists no more at a time"));
        assert_eq!(not_shown(5, 5, 1000), None);
    }
}
