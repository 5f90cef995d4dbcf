//! The layers hold: each module imports only from rows below its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Rows from the lowest up. Modules of one row do not import each other.
const ROWS: &[&[&str]] = &[
    &["sys"],
    &["proto"],
    &["conn"],
    &["identity", "exec"],
    &["handshake", "transport"],
    &["runs"],
    &["client", "server"],
    &["cli"],
];

/// Edges that the rows would allow and that are not wanted.
const FORBIDDEN: &[(&str, &str)] = &[
    ("exec", "proto"),
    ("exec", "conn"),
    ("identity", "proto"),
    ("identity", "conn"),
    ("transport", "proto"),
    ("transport", "conn"),
    ("runs", "conn"),
    ("runs", "identity"),
    ("runs", "transport"),
    ("runs", "handshake"),
    ("client", "runs"),
    ("client", "exec"),
    ("proto", "sys"),
    ("conn", "sys"),
];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Names that follow `crate::` in the text, comments left out.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let names = code.split("crate::").skip(1);
    names
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_import_only_from_below() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&root).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        let Some(own) = row(module) else { continue };
        for name in imports(&fs::read_to_string(file).unwrap()) {
            let Some(other) = row(&name) else { continue };
            let forbidden = FORBIDDEN.contains(&(module, name.as_str()));
            if name != module && (other >= own || forbidden) {
                wrong.push(format!("{} imports {name}", inside.display()));
            }
        }
    }
    assert!(files.len() > 40, "only {} files were looked at", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files.iter().filter(|f| !f.starts_with(root.join("sys"))) {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains("unsafe {") && !text.contains("unsafe_code"), "{}", file.display());
    }
}
