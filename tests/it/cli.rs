//! The two command lines: help that teaches, versions, completions, manual pages, wrong usage.

use std::process::Command;

use super::durable::verb;
use super::support::server::under;
use super::support::terminal::Terminal;
use super::support::{Ran, Server};

const PROGRAMS: [&str; 2] = [env!("CARGO_BIN_EXE_rexec"), env!("CARGO_BIN_EXE_rexec-server")];

fn ran(program: &str, args: &[&str]) -> Ran {
    Ran::of(Command::new(program).args(args).env_remove("REXEC_STATE_DIR").output().unwrap())
}

#[test]
fn help_teaches_the_exit_statuses_and_shows_examples() {
    let help = ran(PROGRAMS[0], &["--help"]).expect(0).text();
    for (status, meaning, _) in rexec::cli::status::TABLE {
        let row = help.lines().find(|line| line.trim_start().starts_with(&format!("{status} ")));
        assert!(row.is_some_and(|row| row.contains(meaning)), "{status}: {row:?}");
    }
    assert!(help.contains("Examples:") && help.contains("rexec 127.0.0.1:8080"), "{help}");
    let help = ran(PROGRAMS[1], &["--help"]).expect(0).text();
    assert!(help.contains("Example:") && help.contains("rexec-server --listen"), "{help}");
    assert!(help.contains("listening on ADDR"), "{help}");
    let page = ran(PROGRAMS[1], &["--man"]).expect(0).text();
    let statuses = page.split(".SH \"EXIT STATUS\"\n").nth(1).unwrap();
    for status in ["0", "1", "2", "141", "252"] {
        let row = |line: &str| line.trim_start().starts_with(&format!("{status} "));
        assert!(help.lines().any(row) && statuses.lines().any(row), "{status}");
    }
}

#[test]
fn help_may_be_asked_for_by_a_word() {
    for (program, word, option) in [
        (PROGRAMS[0], &["help"][..], &["--help"][..]),
        (PROGRAMS[0], &["help", "attach"], &["attach", "--help"]),
        (PROGRAMS[0], &["help", "batch"], &["batch", "--help"]),
        (PROGRAMS[0], &["help", "help"], &["--help"]),
        (PROGRAMS[1], &["help"], &["--help"]),
        (PROGRAMS[1], &["help", "journal", "show"], &["journal", "show", "--help"]),
    ] {
        let text = ran(program, word).expect(0).text();
        assert_eq!(text, ran(program, option).expect(0).text(), "{word:?}");
    }
}

#[test]
fn a_flag_that_is_said_twice_is_said_once() {
    let server = Server::start(&[]);
    for flags in [["-v", "-v"], ["-q", "-q"], ["-n", "-n"]] {
        let words = [&flags[..], &["echo", "hi"]].concat();
        assert_eq!(server.run(&words).expect(0).text(), "hi\n");
    }
    ran(PROGRAMS[1], &["check", "-vv", "--listen", "127.0.0.1:0"]).expect(0);
}

#[test]
fn both_programs_say_their_version() {
    for (program, name) in PROGRAMS.iter().zip(["rexec", "rexec-server"]) {
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(ran(program, &["--version"]).expect(0).text(), expected);
    }
}

#[test]
fn completions_and_manual_pages_know_every_flag() {
    for program in PROGRAMS {
        let help = ran(program, &["--help"]).expect(0).text();
        let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let flags: Vec<_> = words.filter(|w| w.starts_with("--") && w.len() > 2).collect();
        assert!(flags.len() > 10, "{flags:?}");
        let man = ran(program, &["--man"]).expect(0).text().replace("\\-", "-");
        assert!(man.contains(".TH") && man.contains(".SH OPTIONS"), "{man}");
        for flag in &flags {
            assert!(man.contains(flag), "{flag} is not in the manual page");
        }
        for shell in ["bash", "zsh", "fish"] {
            let script = ran(program, &["--completions", shell]).expect(0).text();
            for flag in &flags {
                let name = if shell == "fish" { &flag[2..] } else { flag };
                assert!(script.contains(name), "{flag} is not in the completions for {shell}");
            }
        }
    }
}

#[test]
fn only_a_terminal_that_knows_them_gets_colours() {
    let state = tempfile::tempdir().unwrap();
    for (environment, before) in [
        ("-u NO_COLOR TERM=xterm", "\x1b[1mrexec:\x1b[0m "),
        ("-u NO_COLOR TERM=dumb", "rexec: "),
        ("-u NO_COLOR -u TERM", "rexec: "),
        ("NO_COLOR=1 TERM=xterm", "rexec: "),
    ] {
        let line = format!("env {environment} {} 127.0.0.1:1 true", PROGRAMS[0]);
        let mut terminal = Terminal::shell(state.path(), &line);
        assert_eq!(terminal.shows("cannot reach"), before, "{environment}");
        assert_eq!(terminal.ends(), 255);
    }
}

#[test]
fn completions_and_the_manual_page_know_the_subcommands() {
    let man = ran(PROGRAMS[1], &["--man"]).expect(0).text().replace("\\-", "-");
    let synopsis = man.split(".SH SYNOPSIS\n").nth(1).unwrap().split(".SH").next().unwrap();
    let commands = man.split(".SH COMMANDS\n").nth(1).unwrap().split("\n.SH ").next().unwrap();
    for (name, option) in
        [("journal show", "--since"), ("journal verify", "--anchor"), ("gc", "--dry-run")]
    {
        let command = name.rsplit(' ').next().unwrap();
        let name = format!("rexec-server {name}");
        assert!(synopsis.contains(&name) && synopsis.contains(option), "{synopsis}");
        assert!(commands.contains(&format!(".SS \"{name}\"\n")) && commands.contains(option));
        for shell in ["bash", "zsh", "fish"] {
            let script = ran(PROGRAMS[1], &["--completions", shell]).expect(0).text();
            let option = if shell == "fish" { &option[2..] } else { option };
            assert!(
                script.contains(command) && script.contains(option),
                "{shell}: {command} {option}"
            );
        }
    }
}

#[test]
fn the_manual_page_has_the_options_of_each_verb() {
    let man = ran(PROGRAMS[0], &["--man"]).expect(0).text().replace("\\-", "-");
    let commands = man.split(".SH COMMANDS\n").nth(1).unwrap().split("\n.SH ").next().unwrap();
    let cases = [
        ("ps", "--limit"),
        ("attach", "--forward-signals"),
        ("logs", "RUN"),
        ("wait", "--any"),
        ("signal", "SIGNAL"),
        ("host-key", "ADDR"),
        ("batch", "--serial"),
    ];
    for (verb, option) in cases {
        let section = commands.split(&format!(".SS \"rexec {verb}\"\n")).nth(1).expect(verb);
        let section = section.split(".SS").next().unwrap();
        assert!(section.contains(option), "{verb}: {section}");
        let is_said_once = verb == "batch" || !section.contains("--known-hosts");
        assert!(is_said_once, "{verb}: {section}");
    }
    assert!(man.contains("known-hosts, --host-key"), "whose options they are too");
    let synopsis = man.split(".SH SYNOPSIS\n").nth(1).unwrap().split(".SH").next().unwrap();
    let plain = ["\\fB", "\\fI", "\\fR"].iter().fold(synopsis.to_owned(), |s, f| s.replace(f, ""));
    assert!(plain.contains("rexec signal ADDR RUN SIGNAL\n"), "{plain}");
    assert!(plain.contains("[--json] ADDR RUN...\n") && plain.contains(" [COMMAND]...\n.br\n"));
}

#[test]
fn a_server_that_is_not_reached_is_named_once() {
    let ran = ran(PROGRAMS[0], &["127.0.0.1:1", "true"]).expect(255);
    assert_eq!(ran.stderr.matches("127.0.0.1:1").count(), 1, "{}", ran.stderr);
}

#[test]
fn an_output_file_that_cannot_be_made_is_named_and_nothing_is_run() {
    let ran = ran(PROGRAMS[0], &["127.0.0.1:1", "-o", "/no/such/file", "true"]).expect(2);
    let expected = "rexec: cannot write /no/such/file: No such file or directory (os error 2); nothing was run\n";
    assert_eq!(ran.stderr, expected);
}

#[test]
fn a_state_folder_without_servers_has_none_that_runs() {
    let state = tempfile::tempdir().unwrap();
    let said = |verb: &[&str], status| {
        let mut command = Command::new(PROGRAMS[1]);
        let ran =
            Ran::of(command.args(verb).env("REXEC_STATE_DIR", state.path()).output().unwrap());
        let ran = ran.expect(status);
        assert!(ran.stderr.contains("no server has been started"), "{}", ran.stderr);
    };
    said(&["status"], 1);
    said(&["gc"], 2);
    said(&["journal", "show"], 2);
}

#[test]
fn the_verb_of_supervisors_has_no_options() {
    let ran = ran(PROGRAMS[1], &["supervise", "--help"]).expect(2);
    assert!(ran.stderr.contains("unrecognized subcommand"), "{}", ran.stderr);
}

#[test]
fn wrong_usage_is_2_and_says_what_was_wrong() {
    let cases: [(&[&str], &str); 28] = [
        (&["hlep"], "'help'"),
        (&[], "ADDR"),
        (&["8080", "true"], "such as localhost:8080"),
        (&["me@build", "true"], "such as me@build:8080"),
        (&["-p", "8080", "127.0.0.1", "true"], "tip: the port is a part of the address"),
        (&["-l", "me", "127.0.0.1:1"], "USER@HOST:PORT"),
        (&["-N", "127.0.0.1:1"], "no forwarding"),
        (&["-x", "127.0.0.1:1"], "no forwarding to be switched off"),
        (&["-S", "none", "127.0.0.1:1"], "rexec batch"),
        (&["-E", "log", "127.0.0.1:1"], "2>>FILE"),
        (&["-t", "127.0.0.1:1", "true"], "no command gets a terminal"),
        (&["-tt", "127.0.0.1:1", "true"], "no command gets a terminal"),
        (&["-o", "BatchMode=yes", "127.0.0.1:1", "true"], "-o is --output here"),
        (&["atach", "127.0.0.1:1", "5f1c"], "'attach'"),
        (&["bach", "-H", "127.0.0.1:1", "true"], "'batch'"),
        (&["", "true"], "the address is empty"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["127.0.0.1:0", "true"], "127.0.0.1:0"),
        (&["127.0.0.1:99999", "true"], "99999"),
        (&["no-port", "true"], "no-port"),
        (&["127.0.0.1:1", "--timeout", "soon", "true"], "30s"),
        (&["127.0.0.1:1", "--timeout", "0", "true"], "shorter than 1ms"),
        (&["127.0.0.1:1", "-t", "0s", "true"], "--timeout"),
        (&["127.0.0.1:1", "--connect-timeout", "0", "true"], "shorter than 1ms"),
        (&["127.0.0.1:1", "--json", "-o", "x", "true"], "--json"),
        (&["127.0.0.1:1", "-q", "-v", "true"], "--verbose"),
        (&["127.0.0.1:1", "--shell"], "COMMAND"),
        (&["--host-key", "SHA256:x", "127.0.0.1:1", "true"], "43 characters"),
    ];
    for (args, culprit) in cases {
        let ran = ran(PROGRAMS[0], args).expect(2);
        let is_time = args.contains(&"soon");
        assert!(!is_time || !ran.stderr.contains("terminal"), "{}", ran.stderr);
        let is_mistyped = args.first().is_some_and(|word| word.ends_with("ach") || *word == "hlep");
        assert_eq!(ran.stderr.contains("similar subcommand"), is_mistyped, "{}", ran.stderr);
        assert!(ran.stderr.contains(culprit) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
    }
    let cases: [(&[&str], &str); 9] = [
        (&[], "--listen"),
        (&["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"], "127.0.0.1:1 is named twice"),
        (&["--listen", "[::1]:1", "--classic", "raw=[::1]:1"], "[::1]:1 is named twice"),
        (&["--listen", "no-port"], "no-port"),
        (&["--listen", "127.0.0.1:0", "--max-runs", "0"], "--max-runs"),
        (&["--listen", "127.0.0.1:0", "--memory-budget", "much"], "64M"),
        (&["--listen", "127.0.0.1:0", "--log-format", "xml"], "json"),
        (&["--listen", "127.0.0.1:0", "--idle-timeout", "0"], "--idle-timeout"),
        (&["--listen", "127.0.0.1:0", "--drain-timeout", "later"], "30s"),
    ];
    for (args, culprit) in cases {
        let ran = ran(PROGRAMS[1], args).expect(2);
        assert!(ran.stderr.contains(culprit) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
    }
    let twice = ["check", "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"];
    assert!(ran(PROGRAMS[1], &twice).expect(1).stderr.contains("127.0.0.1:1 is named twice"));
}

/// What hands type that know docker and kubectl.
#[test]
fn habits_of_other_programs_are_told_what_there_is_in_their_place() {
    let at = "127.0.0.1:1";
    let cases: [(&[&str], &str); 14] = [
        (&["logs", "-f", at, "x"], "tip: rexec attach"),
        (&["logs", at, "--follow", "x"], "tip: rexec attach"),
        (&["logs", "--tail=3", at, "x"], "| tail -n N"),
        (&["logs", "-n", "3", at, "x"], "| tail -n N"),
        (&["attach", "--tail", "0", at, "x"], "--from end"),
        (&["ps", "-a", at], "that have ended are listed too"),
        (&["wait", "--timeout", "5s", at, "x"], "timeout(1)"),
        (&["stop", "-s", "KILL", at, "x"], "rexec signal"),
        (&["rm", "-f", at, "x"], "rexec stop"),
        (&["logs", "5f1c2a9e"], "the server stands before the run"),
        (&["kill", at, "x"], "'signal'"),
        (&["ls", at], "'ps'"),
        (&["exec", at, "ls"], "a command needs no verb: rexec ADDR COMMAND"),
        (&["-w", "/srv", at, "ls"], "--cwd"),
    ];
    for (args, culprit) in cases {
        let ran = ran(PROGRAMS[0], args).expect(2);
        assert!(ran.stderr.contains(culprit) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("as a value"), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn whoever_starts_a_server_as_others_are_started_is_told_how() {
    let cases: [(&[&str], &str); 8] = [
        (&["-p", "7791"], "tip: --listen HOST:PORT"),
        (&["--port=7791"], "tip: --listen HOST:PORT"),
        (&["127.0.0.1:7791"], "tip: --listen HOST:PORT"),
        (&["7791"], "tip: --listen HOST:PORT"),
        (&["-c", "server.toml"], "tip: --config FILE"),
        (&["-d", "--listen", "127.0.0.1:1"], "a shell with &"),
        (&["start"], "without a command it serves"),
        (&["stop"], "SIGTERM"),
    ];
    for (args, tip) in cases {
        let ran = ran(PROGRAMS[1], args).expect(2);
        assert!(ran.stderr.contains(tip) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("'status'"), "{args:?}: {}", ran.stderr);
    }
    let ran = ran(PROGRAMS[1], &["stauts"]).expect(2);
    assert!(ran.stderr.contains("'status'"), "{}", ran.stderr);
}

#[test]
fn manual_pages_name_values_and_have_the_usual_sections() {
    let page = |program| ran(program, &["--man"]).expect(0).text();
    for (program, option) in
        PROGRAMS.into_iter().zip(["[\\fB\\-\\-cwd\\fR \\fIDIR\\fR]", "\\fINAME\\fR"])
    {
        let page = page(program);
        let titles: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        let first = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"];
        assert!(titles.starts_with(&first) && !titles.contains(&"EXTRA"), "{titles:?}");
        let synopsis = page.split(".SH SYNOPSIS\n").nth(1).unwrap().split(".SH").next().unwrap();
        assert!(synopsis.contains(option), "{synopsis}");
    }
    let page = page(PROGRAMS[0]);
    let statuses = page.split(".SH \"EXIT STATUS\"\n").nth(1).unwrap();
    assert!(statuses.starts_with(".nf\n") && statuses.contains("255 "), "{statuses}");
}

#[test]
fn what_cannot_be_printed_is_a_failure_and_a_pager_that_was_left_is_none_to_speak_of() {
    for program in PROGRAMS {
        for args in [&["--help"][..], &["--version"], &["--man"], &["--completions", "bash"]] {
            let onto = |stdout: std::process::Stdio| {
                let mut command = Command::new(program);
                Ran::of(command.args(args).stdout(stdout).output().unwrap())
            };
            let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
            let ran = onto(full.into()).expect(252);
            assert!(ran.stderr.contains("cannot write to standard output"), "{}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            assert_eq!(onto(writer.into()).expect(141).stderr, "");
        }
    }
}

/// Options end where the command begins.
#[test]
fn the_commands_own_options_are_left_to_it() {
    let server = super::support::Server::start(&[]);
    assert_eq!(server.run(&["echo", "-n", "--json", "--", "-q"]).expect(0).text(), "--json -- -q");
}

/// The next file that is opened would take the number of one that is closed, and with it what was meant for
/// that: the connection to the server would get the output.
#[test]
fn standard_descriptors_that_are_closed_count_as_null() {
    let server = Server::start(&[]);
    let script = r#"exec "$REXEC" "$ADDR" 'cat; echo out; echo err >&2; exit 7' <&- >&- 2>&-"#;
    let client =
        server.client().env("REXEC", env!("CARGO_BIN_EXE_rexec")).env("ADDR", &server.addr);
    let mut shell = Command::new("sh");
    for (name, value) in client.command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    assert_eq!(shell.args(["-c", script]).status().unwrap().code(), Some(7));
}

/// 101, that of a panic, would pass for the command's.
#[test]
fn too_few_descriptors_are_said_and_no_status_of_the_commands() {
    for most in 4..16 {
        let script = format!("ulimit -n {most}; exec \"$0\" 127.0.0.1:1 true");
        let ran = Command::new("sh").args(["-c", &script, PROGRAMS[0]]).output().unwrap();
        let ran = Ran::of(ran).expect(255);
        let line =
            format!("rexec: cannot start: `ulimit -n` is {most}, and 16 descriptors are needed\n");
        assert_eq!(ran.stderr, line);
    }
    for most in [4, 5, 8, 31] {
        let script = format!("ulimit -n {most}; exec \"$0\" --listen 127.0.0.1:0");
        let ran = Command::new("sh").args(["-c", &script, PROGRAMS[1]]).output().unwrap();
        let line = format!("rexec-server: `ulimit -n` is {most}, and 32 descriptors are needed\n");
        assert_eq!(Ran::of(ran).expect(1).stderr, line);
    }
    let few = under(&["sh", "-c", "ulimit -n 32; exec \"$@\"", "sh"]);
    let server = Server::with(&[], few);
    server.run(&["true"]).expect(0);
    server.run(&["--durable", "true"]).expect(0);
}

#[test]
fn a_run_of_several_that_is_not_there_is_named() {
    let server = Server::start(&[]);
    for name in ["wait", "rm"] {
        let ran = verb(&server, name, &["one", "two"]).expect(254);
        let lines: Vec<_> = ran.stderr.lines().collect();
        assert!(lines[0].starts_with("rexec: one: there is no such run"), "{lines:?}");
        assert!(lines[1].starts_with("rexec: two: there is no such run"), "{lines:?}");
    }
    let long = "x".repeat(100_000);
    for id in ["", "a b", "*", &long] {
        let ran = verb(&server, "stop", &[id]).expect(2);
        assert!(ran.stderr.contains("a run id has 1 to 64 of A-Z a-z 0-9 . _ -"), "{}", ran.stderr);
    }
}
