//! What holds the parts together: modules import only from rows below their own, and the documents
//! name what there is.

#![expect(clippy::unwrap_used, reason = "what is missing here fails the test, as it should")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows from the lowest up. Modules of one row do not import each other.
const ROWS: &[&[&str]] = &[
    &["sys", "units", "mistake"],
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
fn every_option_is_in_the_help_the_manual_page_and_the_pages_that_the_readme_names() {
    let pages: String = linked_from_the_readme().iter().map(|(_, text)| text.as_str()).collect();
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
            assert!(named.iter().any(|n| pages.contains(n)), "{option} is in no page");
        }
    }
}

/// The README, and each page below `docs` that it names.
fn linked_from_the_readme() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| (name.to_owned(), fs::read_to_string(root.join(name)).unwrap());
    let readme = read("README.md");
    let mut names: Vec<_> = links(&readme.1).map(|(name, _)| name.to_owned()).collect();
    names.retain(|name| name.starts_with("docs/"));
    names.sort_unstable();
    names.dedup();
    [readme].into_iter().chain(names.iter().map(|name| read(name))).collect()
}

/// The file and the heading that each link of a page names.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|t| !t.contains("://")).map(|t| t.split_once('#').unwrap_or((t, "")))
}

/// The names by which the headings of a page are linked to.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let plain = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        heading.chars().filter(plain).collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn the_pages_name_files_and_headings_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = linked_from_the_readme();
    assert!(pages.len() > 8, "only {} pages were looked at", pages.len());
    for (page, text) in &pages {
        let folder = root.join(page).parent().unwrap().to_owned();
        for (name, heading) in links(text) {
            let file = if name.is_empty() { root.join(page) } else { folder.join(name) };
            assert!(file.exists(), "{page}: {name} is missing");
            let is_there = heading.is_empty()
                || anchors(&fs::read_to_string(&file).unwrap()).iter().any(|a| a == heading);
            assert!(is_there, "{page}: {name} has no heading {heading}");
        }
    }
    for rest in pages.iter().flat_map(|(_, text)| text.split("scripts/").skip(1)) {
        let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(root.join("scripts").join(&name).exists(), "scripts/{name} is missing");
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

/// Nothing else tells when `scripts/order` has to be run again: the linker passes over names that it does not find.
#[test]
fn most_functions_that_are_to_lie_side_by_side_are_there() {
    let script =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/rexec.ld")).unwrap();
    let names = script.lines().filter_map(|line| line.trim_start().strip_prefix("*(.text._"));
    let wanted: Vec<_> =
        names.map(|rest| without_hashes(rest.split(' ').next().unwrap())).collect();
    let mut nm = std::process::Command::new("nm");
    let symbols = nm.arg("-P").arg(env!("CARGO_BIN_EXE_rexec")).output().unwrap();
    assert!(symbols.status.success());
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let names = symbols.lines().filter_map(|line| line.strip_prefix('_')?.split(' ').next());
    let there: HashSet<_> = names.map(without_hashes).collect();
    let found = wanted.iter().filter(|name| there.contains(*name)).count();
    assert!(wanted.len() > 300 && there.len() > 1000, "{} of {}", wanted.len(), there.len());
    assert!(found * 5 >= wanted.len() * 4, "{found} of {}: run scripts/order", wanted.len());
}

/// A mangled name without what a compiler chooses anew, and with what a linker script has of the rest.
fn without_hashes(name: &str) -> String {
    let name = name.rfind("17h").map_or(name, |hash| &name[..hash]);
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '*');
    let mut parts = name.split("Cs");
    let first = parts.next().unwrap_or_default().to_owned();
    let whole = parts.fold(first, |whole, part| {
        let is_hash = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '*');
        let rest = part.split_once('_').filter(|(hash, _)| is_hash(hash));
        whole + "Cs" + rest.map_or(part, |(_, rest)| rest)
    });
    whole.replace(['$', '@'], "?")
}
