use super::*;

/// Six kinds of subject: `open` has no rule, `ceilings` no allow-list, `deploy` one with a folder and a
/// variable, `both` two of them, `nothing` an empty one, `operator` may see others; and two by their keys.
const POLICY: &str = r#"
[rule.ceilings]
for = ["local:1"]
deadline = "1m"
[rule.deploy]
for = ["local:2", "local:3"]
allow = [["git", "pull"], ["systemctl", "restart", "{service:[a-z-]+}"]]
cwd = ["/srv/app"]
env = ["LEVEL"]
[rule.ending]
for = ["local:3"]
allow = [["git", "pull"], ["uptime"]]
[rule.nothing]
for = ["local:4"]
allow = []
[rule.operator]
for = ["local:5", "local:6"]
operator = true
[rule.six]
for = ["local:6"]
allow = [["uptime"]]
"#;

struct Case<'a> {
    name: &'a str,
    identity: &'a str,
    rights: Rights,
}

fn subjects() -> Vec<Case<'static>> {
    let plain = |name, identity| Case { name, identity, rights: Rights::default() };
    let forced = Rights { forced: true, restricted: false };
    let restricted = Rights { forced: false, restricted: true };
    vec![
        plain("open", "local:0"),
        plain("ceilings", "local:1"),
        plain("deploy", "local:2"),
        plain("both", "local:3"),
        plain("nothing", "local:4"),
        plain("operator", "local:5"),
        plain("held-op", "local:6"),
        Case { name: "command=", identity: "local:0", rights: forced },
        Case { name: "restrict", identity: "local:0", rights: restricted },
        Case { name: "cmd+list", identity: "local:2", rights: forced },
    ]
}

fn argv<'a>(words: &[&'a str]) -> Command<'a> {
    let words = words.iter().map(|word| word.as_bytes()).collect();
    Command { form: Form::Argv, words, cwd: None, env: vec![] }
}

fn shell(text: &str) -> Command<'_> {
    Command { form: Form::Shell, ..argv(&[text]) }
}

fn questions() -> Vec<(&'static str, Asked<'static>)> {
    let (app, up) = (Some(Path::new("/srv/app")), Some(Path::new("/srv/app/..")));
    let pull = || argv(&["git", "pull"]);
    let script = Command { form: Form::Script, ..argv(&[]) };
    let run = |name, command| (name, Asked::Run(command));
    vec![
        run("argv git pull", pull()),
        run("text git pull", shell("git pull")),
        run("text 'git' \"pull\"", shell("'git'  \"pull\"")),
        run("argv git pull x", argv(&["git", "pull", "x"])),
        run("text git pull;id", shell("git pull;id")),
        run("text git pull\\nid", shell("git pull\nid")),
        run("text git $(id)", shell("git $(id)")),
        run("text open quote", shell("git 'pull")),
        run("argv /bin/git", argv(&["/bin/git", "pull"])),
        run("argv restart web", argv(&["systemctl", "restart", "web"])),
        run("argv restart --now", argv(&["systemctl", "restart", "web;id"])),
        run("argv sh -c", argv(&["sh", "-c", "git pull"])),
        run("argv uptime", argv(&["uptime"])),
        run("argv no text", Command { words: vec![b"\xff"], ..argv(&[]) }),
        run("script", script),
        run("pull in /srv/app", Command { cwd: app, ..pull() }),
        run("pull in ..", Command { cwd: up, ..pull() }),
        run("pull LEVEL", Command { env: vec![b"LEVEL"], ..pull() }),
        run("pull LD_PRELOAD", Command { env: vec![b"LEVEL", b"LD_PRELOAD"], ..pull() }),
        run("pull PATH", Command { env: vec![b"PATH"], ..pull() }),
        ("attach own", Asked::Attach(Whose::Own)),
        ("attach other's", Asked::Attach(Whose::All)),
        ("signal own", Asked::Signal(Whose::Own)),
        ("signal other's", Asked::Signal(Whose::All)),
        ("stop own", Asked::Stop(Whose::Own)),
        ("stop other's", Asked::Stop(Whose::All)),
        ("list own", Asked::List(Whose::Own)),
        ("list all", Asked::List(Whose::All)),
        ("remove own", Asked::Remove(Whose::Own)),
        ("remove other's", Asked::Remove(Whose::All)),
        ("close, resume", Asked::Keep),
    ]
}

/// `as is`, `argv`, `forced`, `yes`, or `-`.
fn answer(policy: &Policy, case: &Case<'_>, asked: &Asked<'_>) -> &'static str {
    let subject = Subject { identity: case.identity, rights: case.rights };
    match (decide(policy, subject, asked, Usage::default()), asked) {
        (Err(_), _) => "-",
        (Ok(Allowed { judged, .. }), Asked::Run(_)) => match judged.how {
            How::AsAsked => "as is",
            How::Argv => "argv",
            How::Forced => "forced",
        },
        (Ok(_), _) => "yes",
    }
}

const MATRIX: &str = "\
asked for          | open     | ceilings | deploy   | both     | nothing  | operator | held-op  | command= | restrict | cmd+list |
argv git pull      | as is    | as is    | argv     | argv     | -        | as is    | -        | forced   | as is    | -        |
text git pull      | as is    | as is    | argv     | argv     | -        | as is    | -        | forced   | as is    | -        |
text 'git' \"pull\"  | as is    | as is    | argv     | argv     | -        | as is    | -        | forced   | as is    | -        |
argv git pull x    | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
text git pull;id   | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
text git pull\\nid  | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
text git $(id)     | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
text open quote    | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
argv /bin/git      | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
argv restart web   | as is    | as is    | argv     | argv     | -        | as is    | -        | forced   | as is    | -        |
argv restart --now | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
argv sh -c         | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
argv uptime        | as is    | as is    | -        | argv     | -        | as is    | argv     | forced   | as is    | -        |
argv no text       | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
script             | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
pull in /srv/app   | as is    | as is    | argv     | argv     | -        | as is    | -        | forced   | as is    | -        |
pull in ..         | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
pull LEVEL         | as is    | as is    | argv     | argv     | -        | as is    | -        | forced   | as is    | -        |
pull LD_PRELOAD    | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
pull PATH          | as is    | as is    | -        | -        | -        | as is    | -        | forced   | as is    | -        |
attach own         | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      |
attach other's     | -        | -        | -        | -        | -        | yes      | -        | -        | -        | -        |
signal own         | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      |
signal other's     | -        | -        | -        | -        | -        | yes      | -        | -        | -        | -        |
stop own           | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      |
stop other's       | -        | -        | -        | -        | -        | yes      | -        | -        | -        | -        |
list own           | yes      | yes      | -        | -        | -        | yes      | -        | -        | -        | -        |
list all           | -        | -        | -        | -        | -        | yes      | -        | -        | -        | -        |
remove own         | yes      | yes      | -        | -        | -        | yes      | -        | -        | -        | -        |
remove other's     | -        | -        | -        | -        | -        | -        | -        | -        | -        | -        |
close, resume      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      | yes      |
";

#[test]
fn the_whole_matrix_of_subjects_and_requests() {
    let policy = Policy::parse(POLICY).unwrap();
    let (subjects, questions) = (subjects(), questions());
    let row = |name: &str, cells: Vec<&str>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:<8} |")).collect();
        format!("{name:<18} |{cells}\n")
    };
    let mut made = row("asked for", subjects.iter().map(|case| case.name).collect());
    for (name, asked) in &questions {
        let cells = subjects.iter().map(|case| answer(&policy, case, asked)).collect();
        made.push_str(&row(name, cells));
    }
    println!("{made}");
    assert_eq!(made, MATRIX, "\n{made}");
}

#[test]
fn a_refusal_names_its_rule_and_no_other() {
    let policy = Policy::parse(POLICY).unwrap();
    let others = ["ceilings", "deploy", "ending", "nothing", "operator", "six"];
    for case in subjects() {
        let own: Vec<&str> =
            policy.rules_for(case.identity).map(|rule| rule.name.as_str()).collect();
        for (_, asked) in questions() {
            let subject = Subject { identity: case.identity, rights: case.rights };
            let Err(refused) = decide(&policy, subject, &asked, Usage::default()) else { continue };
            assert_eq!(refused.code, Code::NotPermitted);
            let named: Vec<&&str> =
                others.iter().filter(|rule| refused.text.contains(&format!("{rule:?}"))).collect();
            assert!(named.len() <= 1 && named.iter().all(|rule| own.contains(rule)), "{refused:?}");
            let by = refused.text.split(' ').next();
            assert!(named.len() == 1 || by == Some("the"), "{refused:?}");
        }
    }
}

#[test]
fn the_surroundings_that_are_not_allowed_are_named() {
    let policy = Policy::parse(POLICY).unwrap();
    let rights = Rights::default();
    let subject = Subject { identity: "local:2", rights };
    let text = |command| {
        decide(&policy, subject, &Asked::Run(command), Usage::default()).unwrap_err().text
    };
    let pull = argv(&["git", "pull"]);
    let elsewhere = Command { cwd: Some(Path::new("/")), ..pull.clone() };
    assert_eq!(
        text(elsewhere),
        "rule \"deploy\" does not let the client choose this folder (--cwd)"
    );
    let preload = Command { env: vec![b"LD_PRELOAD"], ..pull };
    assert_eq!(text(preload), "rule \"deploy\" does not let the client set \"LD_PRELOAD\" (--env)");
}

#[test]
fn limits_on_runs_hold_at_the_limit_and_not_before() {
    let policy = Policy::parse("[rule.few]\nfor = [\"*\"]\nruns = 2\nrate = 3\n").unwrap();
    let rights = Rights::default();
    let subject = Subject { identity: "x", rights };
    let asked = Asked::Run(shell("id"));
    let usage = |running, seconds| Usage { running, ahead: Duration::from_secs(seconds) };
    let decide = |usage| decide(&policy, subject, &asked, usage);
    assert_eq!(decide(usage(1, 40)).unwrap().part, Duration::from_secs(20));
    let text = |usage| {
        let refused = decide(usage).unwrap_err();
        assert_eq!(refused.code, Code::OverLimit);
        refused.text
    };
    assert_eq!(text(usage(2, 0)), "rule \"few\" allows 2 runs at one time");
    assert_eq!(text(usage(0, 41)), "rule \"few\" allows 3 runs a minute; the next one in 1 s");
}
