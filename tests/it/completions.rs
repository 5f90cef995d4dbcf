//! Completions, in the shells themselves: each completes lines as if they were typed.

use std::path::Path;
use std::process::Command;

use super::support::Ran;

const PROGRAMS: [(&str, &str); 2] =
    [("rexec", env!("CARGO_BIN_EXE_rexec")), ("rexec-server", env!("CARGO_BIN_EXE_rexec-server"))];

/// The beginnings of lines, and what the last word becomes.
const LINES: [(&str, &str); 12] = [
    ("rexec --verd", "--verdict"),
    ("rexec h", "host-key"),
    ("rexec ps --li", "--limit"),
    ("rexec attach h:80 --from=e", "end"),
    ("rexec host-key --host", "--host-key"),
    ("rexec batch --output=f", "fold"),
    ("rexec-server jo", "journal"),
    ("rexec-server journal s", "show"),
    ("rexec-server journal show --si", "--since"),
    ("rexec-server check --lis", "--listen"),
    ("rexec-server --journal-sync=n", "never"),
    ("rexec-server check --journal-commands=h", "hash"),
];

fn script(program: &str, shell: &str) -> String {
    let (_, path) = PROGRAMS.iter().find(|(name, _)| *name == program).unwrap();
    let printed = Command::new(path).args(["--completions", shell]).output().unwrap();
    Ran::of(printed).expect(0).text()
}

/// Whether the shell is here; CI installs all of them.
fn is_here(shell: &str) -> bool {
    Command::new(shell).args(["-c", ":"]).output().is_ok()
}

/// In an empty folder, where no file has the name of a word.
fn said(shell: &mut Command, home: &Path) -> String {
    shell.current_dir(home).env("HOME", home).env("TERM", "dumb");
    Ran::of(shell.output().unwrap()).expect(0).text()
}

#[test]
fn bash_completes_verbs_and_options() {
    let complete = "eval \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
        _${1//-/__} \"$1\" \"${!#}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; echo \"${COMPREPLY[*]}\"";
    let home = tempfile::tempdir().unwrap();
    for (line, expected) in LINES {
        // Readline takes the sign for the end of a word.
        let words: Vec<_> = line.split([' ', '=']).collect();
        let mut bash = Command::new("bash");
        bash.args(["-c", complete, "bash", &script(words[0], "bash")]).args(&words);
        assert_eq!(said(&mut bash, home.path()).trim_end(), expected, "{line}");
    }
}

#[test]
fn fish_completes_verbs_and_options() {
    if !is_here("fish") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for (line, expected) in LINES {
        let program = line.split(' ').next().unwrap();
        let complete = format!("{}\ncomplete -C {line:?}", script(program, "fish"));
        let said = said(Command::new("fish").args(["--no-config", "-c", &complete]), home.path());
        let words: Vec<_> = said.lines().filter_map(|row| row.split('\t').next()).collect();
        let expected = match line.split_once('=') {
            Some((option, _)) => {
                format!("{}={expected}", option.rsplit(' ').next().unwrap_or_default())
            }
            None => expected.to_owned(),
        };
        assert!(words.contains(&expected.as_str()), "{line}: {words:?}");
    }
}

/// A line is typed at a zsh on a terminal of its own, with Tab behind it.
#[test]
fn zsh_completes_verbs_and_options() {
    if !is_here("zsh") {
        return;
    }
    let complete = "zmodload zsh/zpty\n\
        zpty shell zsh -f -i\n\
        zpty -w shell \"PS1=; fpath=($1 \\$fpath); autoload -Uz compinit; compinit -u -D; print rea''dy\"\n\
        zpty -r -m shell shown '*ready*' || exit 1\n\
        zpty -n -w shell \"$2\"$'\\t'\n\
        zpty -r -m shell shown \"*$3*\"";
    let home = tempfile::tempdir().unwrap();
    for (program, _) in PROGRAMS {
        let path = home.path().join(format!("_{program}"));
        std::fs::write(path, script(program, "zsh")).unwrap();
    }
    for (line, expected) in LINES {
        let mut zsh = Command::new("timeout");
        zsh.args(["20", "zsh", "-f", "-c", complete, "zsh"])
            .arg(home.path())
            .args([line, expected]);
        said(&mut zsh, home.path());
    }
}
