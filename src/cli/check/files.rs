//! The files of keys, line by line.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Findings;
use crate::cli::clean::is_obeyed;
use crate::cli::settings::Settings;
use crate::identity::{CheckedFile, CheckedLine, Role, Said};

/// For people: comments of TOML, so that the settings before them can be read as a configuration.
pub(super) fn told(files: &[CheckedFile]) -> String {
    let mut text = String::new();
    for file in files {
        // Writing to a String does not fail.
        let _ =
            writeln!(text, "\n# {} {}", file.role.option(), clean(&file.path.to_string_lossy()));
        match &file.lines {
            Ok(lines) if lines.is_empty() => text.push_str("#   nothing\n"),
            Ok(lines) => lines.iter().for_each(|line| {
                let _ = writeln!(text, "#   {}", clean(&line_told(file.role, line)));
            }),
            Err(e) => {
                let _ = writeln!(text, "#   REFUSED, all of it: {}", clean(e));
            }
        }
    }
    text
}

fn line_told(role: Role, line: &CheckedLine) -> String {
    let number = line.number;
    match &line.says {
        Ok(Said::Key { algorithm, fingerprint, comment, means }) => {
            let who = if comment.is_empty() { "without a comment" } else { comment };
            let means = match (role, means.is_empty()) {
                (Role::Authorities, _) => "signs certificates that name this account".to_owned(),
                (_, true) => "everything, from everywhere".to_owned(),
                (_, false) => means.join("; "),
            };
            format!("line {number}: {who}, {algorithm} {fingerprint}: {means}")
        }
        Ok(Said::Revoked(what)) => format!("line {number}: not let in any more: {what}"),
        Err(why) => format!("line {number}: REFUSED: {why}"),
    }
}

/// Without what a terminal obeys.
fn clean(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { '?' } else { c }).collect()
}

/// For programs. `refused`, why no server would start, is there only if there is a reason.
pub(super) fn json(settings: &Settings, found: &Findings) -> Value {
    let settings: serde_json::Map<String, Value> = settings
        .all
        .iter()
        .map(|setting| {
            let values: Vec<_> = setting.values.iter().map(|v| v.to_string_lossy()).collect();
            (setting.key.clone(), json!(values))
        })
        .collect();
    let files: Vec<Value> = found.files.iter().map(file_json).collect();
    let mut all = json!({ "settings": settings, "files": files, "notes": found.notes });
    if let Some(why) = &found.refused {
        all["refused"] = why.as_str().into();
    }
    all
}

fn file_json(file: &CheckedFile) -> Value {
    let (option, path) = (file.role.option().trim_start_matches('-'), file.path.to_string_lossy());
    match &file.lines {
        Ok(lines) => {
            let lines: Vec<Value> = lines.iter().map(line_json).collect();
            json!({ "setting": option, "path": path, "lines": lines })
        }
        Err(e) => json!({ "setting": option, "path": path, "refused": e }),
    }
}

fn line_json(line: &CheckedLine) -> Value {
    let number = line.number;
    match &line.says {
        Ok(Said::Key { algorithm, fingerprint, comment, means }) => json!({
            "line": number, "type": algorithm, "fingerprint": fingerprint.to_string(),
            "comment": comment, "means": means,
        }),
        Ok(Said::Revoked(what)) => json!({ "line": number, "revoked": what }),
        Err(why) => json!({ "line": number, "refused": why.to_string() }),
    }
}
