//! What has moved since an earlier measurement.

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::Fallible;
use crate::report::Row;

/// A change of a ratio is told from here on.
const WORTH_TELLING: f64 = 0.03;

/// Reads what `--json` wrote.
pub(crate) fn read(path: &Path) -> Fallible<Value> {
    let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// Says how the ratios of a row were then, where they were others.
pub(crate) fn print(old: &Value, row: &Row, out: &mut impl Write) -> io::Result<()> {
    let new = row.json();
    for line in items(&new["lines"]).skip(1) {
        let before = items(&old["rows"]).find(|old| kind(old) == kind(&new));
        let before =
            before.and_then(|row| items(&row["lines"]).find(|old| old["name"] == line["name"]));
        let ratios = before.and_then(|before| before["ratio"].as_f64()).zip(line["ratio"].as_f64());
        let Some((before, now)) = ratios else { continue };
        let change = now / before - 1.0;
        if change.abs() >= WORTH_TELLING {
            let name = line["name"].as_str().unwrap_or_default();
            writeln!(
                out,
                "  moved: {name}: {before:.2} x before, now {now:.2} x ({:+.0} %)",
                change * 100.0
            )?;
        }
    }
    Ok(())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The row's name; the rest of its title says how much was done.
fn kind(row: &Value) -> Option<&str> {
    row["title"].as_str()?.split(':').next()
}
