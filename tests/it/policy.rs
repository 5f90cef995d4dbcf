//! Who may run what: rules of the configuration, asked for in every way that there is.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::support::terminal::Terminal;
use super::support::{Client, Ran, Server, json_in, raw::Raw};

/// A configuration in a folder of its own, which nobody else can write.
pub(super) struct Configured {
    pub(super) server: Server,
    _dir: tempfile::TempDir,
    pub(super) folder: PathBuf,
}

impl Configured {
    /// A server with this configuration; `FOLDER` stands for a folder of the test.
    pub(super) fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        let path = folder.join("server.toml");
        std::fs::write(&path, config.replace("FOLDER", folder.to_str().unwrap())).unwrap();
        let server = Server::start(&["--config", path.to_str().unwrap()]);
        Self { server, _dir: dir, folder }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.server.run(args)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

const LIST: &str = r#"
[rule.deploy]
for = ["local"]
allow = [
    ["echo", "pull"],
    ["printenv", "{name:[A-Z_]+}"],
    ["touch", "{file:FOLDER/[a-z]+}"],
    ["pwd"],
]
cwd = ["FOLDER"]
env = ["LEVEL"]
"#;

/// Nothing was run, and the answer names the rule.
#[track_caller]
fn refused(ran: Ran) {
    let ran = ran.expect(254);
    assert!(ran.stderr.starts_with("rexec: not started: rule \"deploy\" "), "{}", ran.stderr);
    assert!(ran.stderr.contains("(not_permitted; "), "{}", ran.stderr);
}

#[test]
fn under_an_allow_list_words_are_run_as_they_are_and_text_is_split_by_no_shell() {
    let configured = Configured::start(LIST);
    assert_eq!(configured.run(&["echo pull"]).expect(0).text(), "pull\n");
    assert_eq!(configured.run(&["'echo'  \"pull\""]).expect(0).text(), "pull\n");
    assert_eq!(configured.run(&["--", "echo", "pull"]).expect(0).text(), "pull\n");
    // What a shell would leave out or join is split the same way when it is judged and when it is run.
    for text in
        ["echo pull # ; id", "echo pull #\n", "ec\\\nho pull", "echo pu\\ll", "\techo\n pull\n"]
    {
        assert_eq!(configured.run(&[text]).expect(0).text(), "pull\n", "{text:?}");
    }
    let touched = configured.path("made");
    configured.run(&[&format!("touch {touched}")]).expect(0);
    assert!(Path::new(&touched).exists());
}

#[test]
fn no_way_around_an_allow_list_starts_anything() {
    let configured = Configured::start(LIST);
    let effect = configured.path("effect");
    let touch = format!("touch {effect}x1");
    for text in [
        &format!("echo pull; {touch}"),
        &format!("echo pull\n{touch}"),
        &format!("echo pull && {touch}"),
        &format!("echo pull | {touch}"),
        &format!("echo $({touch})"),
        &format!("echo `{touch}`"),
        &format!("{touch} &"),
        &format!("X=$({touch}) echo pull"),
        &touch,
        &format!("echo pull #\n{touch}"),
        &format!("echo pull\r\n{touch}"),
        &format!("echo pull \\\n{touch}"),
        &"echo pull\\".to_owned(),
        &"echo pull ''".to_owned(),
        &"# echo pull".to_owned(),
        &"echo\u{a0}pull".to_owned(),
        &"".to_owned(),
        &"echo 'pull".to_owned(),
        &"/bin/echo pull".to_owned(),
        &"sh -c 'echo pull'".to_owned(),
        &format!("env {touch}"),
    ] {
        refused(configured.run(&[text]));
        refused(configured.run(&["-d", text]));
        refused(configured.run(&["--", "sh", "-c", text]));
        refused(configured.run(&["--shell", "--", text, ""]));
    }
    refused(configured.run(&["--", "touch", &format!("{effect}\n")]));
    let script = configured.server.client().run_with(format!("{touch}\n").as_bytes());
    assert!(
        script.status == 254 && script.stderr.contains("allows no script"),
        "{}",
        script.stderr
    );
    assert_eq!(std::fs::read_dir(&configured.folder).unwrap().count(), 1, "something was made");
}

/// Each of them makes another program of an allowed one, or has it do something else.
#[test]
fn the_environment_and_the_folder_are_the_servers_unless_the_rule_lists_them() {
    let configured = Configured::start(LIST);
    let folder = configured.folder.to_str().unwrap();
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "GLIBC_TUNABLES",
        "BASH_ENV",
        "SHELLOPTS",
        "PATH",
        "GIT_SSH_COMMAND",
        "IFS",
        "HOME",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "LEVEL2",
        "level",
    ] {
        let ran = configured.run(&["-e", &format!("{name}=/tmp/x"), "echo pull"]).expect(254);
        assert!(
            ran.stderr.contains(&format!("does not let the client set \"{name}\"")),
            "{}",
            ran.stderr
        );
    }
    refused(configured.run(&["--cwd", "/tmp", "pwd"]));
    refused(configured.run(&["--cwd", &format!("{folder}/.."), "pwd"]));
    refused(configured.run(&["--cwd", "../../tmp", "pwd"]));
    let pwd = configured.run(&["--cwd", folder, "pwd"]).expect(0);
    assert_eq!(pwd.text().trim_end(), folder);
    assert_eq!(configured.run(&["-e", "LEVEL=3", "printenv LEVEL"]).expect(0).text(), "3\n");
}

#[test]
fn a_listed_path_variable_does_not_choose_the_program() {
    let configured = Configured::start(
        "[rule.deploy]\nfor = [\"local\"]\nallow = [[\"uptime\"]]\nenv = [\"PATH\"]\n",
    );
    let fake = configured.path("uptime");
    std::fs::write(&fake, "#!/bin/sh\necho taken\n").unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("PATH={}", configured.folder.display());
    let ran = configured.run(&["-e", &path, "uptime"]).expect(0);
    assert!(!ran.text().contains("taken"), "{}", ran.text());
}

#[test]
fn each_step_of_a_batch_and_each_line_of_a_prompt_is_judged_alone() {
    let configured = Configured::start(LIST);
    let report = configured.path("report");
    let client =
        Client::new(configured.server.state()).args(&["batch", "-H", &configured.server.addr]);
    let ran =
        client.args(&["-s", "echo pull", "-s", "id", "-s", "echo pull", "--report", &report]).run();
    assert_ne!(ran.status, 0);
    assert_eq!(ran.text().matches("pull").count(), 1, "{}", ran.text());
    assert!(json_in(Path::new(&report)).to_string().contains("rule \\\"deploy\\\""));
    let mut raw = Raw::login(&configured.server);
    for (id, text, kind) in
        [("a", "echo pull", "started"), ("b", "id", "refused"), ("c", "echo pull", "started")]
    {
        raw.run(id, text, json!({}));
        let (answer, _) = raw.expect(kind);
        if kind == "refused" {
            assert_eq!(answer["code"], "not_permitted");
            continue;
        }
        let seq = raw.until("verdict").pop().unwrap().0["seq"].clone();
        raw.send(&json!({"type": "ack", "seq": seq}), b"");
    }
    let mut terminal = Terminal::with(configured.server.state(), &configured.server.addr);
    for (line, shows) in [
        ("echo pull\n", "\npull\r\n"),
        ("echo pull; touch effect\n", "rule \"deploy\" does not allow this command"),
        ("id\n", "rule \"deploy\" does not allow this command"),
        ("echo pull\n", "\npull\r\n"),
    ] {
        terminal.shows("rexec> ");
        terminal.types(line);
        terminal.shows(shows);
    }
    terminal.types("exit 0\n");
    assert_eq!(terminal.ends(), 0);
    assert!(!configured.server.state().join("effect").exists());
}

/// What another may see and do of a run is nothing to who is held to running, as to anybody.
#[test]
fn who_is_held_to_a_list_does_not_reach_the_runs_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let (key, line) = super::auth::key(dir.path(), "bot");
    let list = dir.path().canonicalize().unwrap().join("keys");
    std::fs::write(&list, &line).unwrap();
    let bot = rexec::identity::PublicKey::from_base64(line.split(' ').nth(1).unwrap()).unwrap();
    let configured = Configured::start(&format!(
        "authorized-keys = [{list:?}]\n[rule.bot]\nfor = [\"{}\"]\nallow = [[\"true\"]]\n",
        bot.fingerprint()
    ));
    let server = &configured.server;
    let own = Client::new(server.state()).args(&["-d", &server.addr, "sleep 1000"]);
    let others = own.run().expect(0).text().trim().to_owned();
    let print = super::auth::host_key(server).1.to_string();
    let address = server.addr.replace("127.0.0.1", "127.1");
    let ask = |verb: &[&str], words: &[&str]| {
        let client = Client::new(&dir.path().join("state")).args(verb).arg("-i").arg(&key);
        client.args(&["--host-key", &print, &address]).args(words).run()
    };
    ask(&[], &["true"]).expect(0);
    for (verb, more) in
        [("attach", &[][..]), ("logs", &[]), ("wait", &[]), ("signal", &["KILL"]), ("stop", &[])]
    {
        let told = |id: &str| {
            let ran = ask(&[verb], &[&[id], more].concat());
            (ran.status, ran.stderr.replace(id, "ID"))
        };
        let (status, text) = told(&others);
        assert_ne!(status, 0, "{verb}: {text}");
        assert_eq!((status, text), told("no-such-run"), "{verb}");
    }
    // Its id is free to everybody else, and stands for another run then.
    ask(&["--id", &others], &["true"]).expect(0);
    let listed = super::durable::verb(server, "ps", &["--json"]).expect(0).text();
    assert!(listed.contains(&others) && listed.contains("running"), "{listed}");
    super::durable::verb(server, "stop", &[&others]).expect(0);
}

/// The id stands for what was asked, so the same request finds its run also after the policy has changed.
#[test]
fn who_is_held_to_running_may_follow_and_stop_own_runs_and_nothing_else() {
    let configured = Configured::start(
        "[rule.deploy]\nfor = [\"local\"]\nallow = [[\"sleep\", \"{n:[0-9]+}\"], [\"echo\", \"pull\"]]\n",
    );
    let id = configured.run(&["-d", "--id", "one", "sleep 1000"]).expect(0).text();
    assert_eq!(id, "one\n");
    for verb in [&["ps"][..], &["rm"]] {
        let run: &[&str] = if verb == ["ps"] { &[] } else { &["one"] };
        let words = [verb, &[&configured.server.addr], run].concat();
        let ran = Client::new(configured.server.state()).args(&words).run();
        assert_eq!(ran.status, 254, "{words:?} {}", ran.stderr);
        assert!(ran.stderr.contains("rule \"deploy\" lets nothing be done but"), "{}", ran.stderr);
    }
    let client = |words: &[&str]| Client::new(configured.server.state()).args(words).run();
    client(&["logs", &configured.server.addr, "one"]);
    client(&["stop", &configured.server.addr, "one"]).expect(0);
    client(&["wait", &configured.server.addr, "one"]).expect(251);
    assert_eq!(configured.run(&["--id", "two", "echo pull"]).expect(0).text(), "pull\n");
    assert_eq!(configured.run(&["--id", "two", "echo pull"]).expect(0).text(), "pull\n");
}

#[test]
fn a_configuration_with_a_mistake_starts_nothing_and_names_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("server.toml");
    std::fs::write(&path, "listen = [\"127.0.0.1:0\"]\n[rule.a]\nfor = [\"@x\"]\n").unwrap();
    for verb in [&[][..], &["check"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"))
            .args(verb)
            .arg("--config")
            .arg(&path)
            .env("REXEC_STATE_DIR", dir.path().join("state"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said, format!("rexec-server: {}:3:8: there is no [group.x]\n", path.display()));
    }
    assert!(!dir.path().join("state").exists());
}

#[test]
fn check_prints_what_is_in_force_and_where_it_comes_from_and_reads_what_it_prints() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("server.toml");
    let config = "listen = [\"127.0.0.1:8080\"]\nmax-runs = 7\n[rule.a]\nfor = [\"local\"]\n\
                  allow = [[\"git\", \"pull\"]]\ndeadline = \"10m\"\n";
    std::fs::write(&path, config).unwrap();
    let check = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        let output = command.args(["check", "--config"]).arg(&path).args(more).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = check(&["--max-connections", "5"]);
    let line = |key: &str| told.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("max-runs = 7").ends_with(&format!("# {}:2", path.display())), "{told}");
    assert!(line("max-connections = 5").ends_with("# command line"), "{told}");
    assert!(line("idle-timeout = \"10m\"").ends_with("# default"), "{told}");
    assert!(
        told.contains("[rule.a]\nfor = [\"local\"]\nallow = [[\"git\", \"pull\"]]\n"),
        "{told}"
    );
    std::fs::write(&path, &told).unwrap();
    let again = check(&[]);
    let without_origin = |text: &str| {
        text.lines()
            .map(|l| l.split(" # ").next().unwrap().trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(without_origin(&again), without_origin(&told));
}

/// A classic listener knows nobody: a rule for this account would not hold there.
#[test]
fn a_classic_listener_is_no_way_around_a_rule_for_this_account() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("server.toml");
    for subject in ["local", "*"] {
        let rule = format!("[rule.few]\nfor = [\"{subject}\"]\nruns = 1\n");
        std::fs::write(&path, format!("classic = [\"json=127.0.0.1:0\"]\n{rule}")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.arg("--config").arg(&path).env("REXEC_STATE_DIR", dir.path().join("state"));
        let ran = Ran::of(command.output().unwrap()).expect(1);
        assert!(
            ran.stderr.contains("and rule \"few\" of the policy is for them"),
            "{}",
            ran.stderr
        );
    }
}

/// The configuration of the page on the policy, with its commands by ones that do no harm here.
#[test]
fn the_configuration_of_the_page_on_the_policy_does_what_it_says() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md"))
            .unwrap();
    let config =
        page.split("```toml\n# server.toml\n").nth(1).unwrap().split("```").next().unwrap();
    let without_listen = config.replace("listen = [\"127.0.0.1:8080\"]", "");
    let as_robots = without_listen
        .replace("for = [\"@robots\"]", "for = [\"@robots\", \"local\"]")
        .replace("for = [\"local\"]\noperator", "for = [\"@robots\"]\noperator")
        .replace("[\"git\", \"pull\"]", "[\"git\", \"--version\"]")
        .replace("\"systemctl\", \"restart\"", "\"echo\", \"restart\"");
    let robots = Configured::start(&as_robots);
    assert!(robots.run(&["git --version"]).expect(0).text().starts_with("git version"));
    assert_eq!(
        robots.run(&["echo restart web-1".trim_end_matches("-1")]).expect(0).text(),
        "restart web\n"
    );
    assert!(robots.run(&["id"]).expect(254).stderr.contains("rule \"robots\""));
    let operators = Configured::start(&without_listen);
    assert_eq!(operators.run(&["echo $((1 + 1))"]).expect(0).text(), "2\n");
    super::durable::verb(&operators.server, "ps", &["--all"]).expect(0);
}

/// What would be found out by the next program would be found out by a server that is no more.
#[test]
fn a_configuration_that_is_wrong_by_now_stops_no_server_that_is_to_take_it_up() {
    use super::support::wait_until;
    use rustix::process::Signal;
    let configured =
        Configured::start("[rule.a]\nfor = [\"local\"]\nallow = [[\"echo\", \"one\"]]\n");
    let (server, path) = (&configured.server, configured.folder.join("server.toml"));
    configured.run(&["echo one"]).expect(0);
    std::fs::write(&path, "[rule.a]\nfor = [\"@x\"]\n").unwrap();
    server.signal(Signal::HUP);
    wait_until("the refusal in the log", || server.log().contains(":2:8: there is no [group.x]"));
    configured.run(&["echo one"]).expect(0);
    let keys = configured.folder.join("keys");
    std::fs::write(&keys, "no key\n").unwrap();
    let rule = "[rule.a]\nfor = [\"local\"]\nallow = [[\"echo\", \"two\"]]\n";
    std::fs::write(&path, format!("authorized-keys = [{keys:?}]\n{rule}")).unwrap();
    server.signal(Signal::HUP);
    wait_until("the new rule", || configured.run(&["echo two"]).status == 0);
    configured.run(&["echo one"]).expect(254);
}

/// Who sets a limit is told by what it is held, and cannot ask for what nothing holds.
#[test]
fn limits_are_said_to_be_those_of_each_process_and_none_for_a_whole_run_can_be_set() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("server.toml");
    let check = |limit: &str| {
        std::fs::write(&path, format!("[rule.a]\nfor = [\"local\"]\n{limit}\n")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        Ran::of(command.args(["check", "--config"]).arg(&path).output().unwrap())
    };
    assert!(!check("deadline = \"1h\"").expect(0).text().contains("cgroups"));
    let says = "limits of each process, and processes one of the account (setrlimit(2)); cgroups are not used";
    assert!(check("memory = \"4G\"").expect(0).text().contains(says));
    let server = Server::start(&["--config", path.to_str().unwrap()]);
    assert!(server.log().contains(says), "{}", server.log());
    for whole in ["memory_total = \"4G\"", "pids = 7", "cpu_share = 2", "cgroup = \"a\""] {
        let refused = check(whole);
        assert_ne!(refused.status, 0, "{whole}");
        assert!(refused.stderr.contains("unknown field"), "{}", refused.stderr);
    }
}
