//! What holds the parts together: modules import only from rows below their own, and the documents
//! name what there is.

#![expect(clippy::unwrap_used, reason = "what is missing here fails the test, as it should")]

use std::fs;
use std::path::{Path, PathBuf};

/// Rows from the lowest up. Modules of one row do not import each other.
const ROWS: &[&[&str]] = &[
    &["sys", "units"],
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

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The options that a help text defines, such as `-n` and `--no-stdin`.
fn options(help: &str) -> Vec<String> {
    let defines = |line: &&str| line.starts_with("  ") && line.trim_start().starts_with('-');
    let is_option = |word: &&str| word.starts_with('-') && word.len() > 1;
    let words = help.lines().filter(defines).flat_map(|line| {
        let definition = line.trim_start().split("  ").next().unwrap_or_default();
        definition.split([' ', ',']).filter(is_option).map(str::to_owned).collect::<Vec<_>>()
    });
    words.collect()
}

#[test]
fn every_option_is_in_the_help_the_manual_page_and_the_readme() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (client, server) = (env!("CARGO_BIN_EXE_rexec"), env!("CARGO_BIN_EXE_rexec-server"));
    let commands: [(&str, &[&str], usize); 8] = [
        (client, &[], 30),
        (client, &["batch"], 30),
        (server, &[], 16),
        (server, &["journal", "show"], 7),
        (server, &["journal", "verify"], 5),
        (server, &["gc"], 6),
        (server, &["check"], 16),
        (server, &["status"], 3),
    ];
    for (program, command, least) in commands {
        let options = options(&said_by(program, &[command, &["--help"]].concat()));
        assert!(options.len() >= least, "{options:?}");
        let manual = said_by(program, &["--man"]).replace("\\-", "-");
        assert!(manual.contains(&command.join(" ")), "{command:?} is not in the manual page");
        for option in options {
            assert!(manual.contains(&option), "{option} is not in the manual page of {program}");
            let named = [format!("`{option}`"), format!("`{option} ")];
            assert!(named.iter().any(|n| readme.contains(n)), "{option} is not in the README");
        }
    }
}

#[test]
fn the_readme_names_files_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let scripts = readme.split("scripts/").skip(1).map(|rest| {
        let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        format!("scripts/{name}")
    });
    let names: Vec<String> = links.map(str::to_owned).chain(scripts).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names.iter().filter(|n| !n.contains("://")) {
        assert!(root.join(name).exists(), "{name} is missing");
    }
}

/// A test whose name has changed would leave a promise without its proof.
#[test]
fn every_test_that_the_page_on_security_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| sources(&root.join(folder), &mut files));
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let is_test = |word: &&str| {
        word.len() > 20 && word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "{name} is missing");
    }
}
