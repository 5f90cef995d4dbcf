//! CI systems: the scripts of `docs/ci.md` and of `action.yml`, the identity in a variable, the plan's schema.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rexec::client::batch::plan::Plan;
use serde_json::Value;

use super::super::support::{Client, Ran, Server};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What stands, indented further, below a line that ends in `|` and contains `key`.
fn scripts(text: &str, key: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let starts =
        (0..lines.len()).filter(|at| lines[*at].contains(key) && lines[*at].ends_with('|'));
    let script = |at: usize| {
        let inside = lines[at + 1..].iter().take_while(|line| indent(line) > indent(lines[at]));
        inside.map(|line| format!("{}\n", line.trim_start())).collect()
    };
    starts.map(script).collect()
}

/// The shell scripts in a page's code blocks, from the heading on.
fn blocks(text: &str, heading: &str) -> Vec<String> {
    let rest = text.split_once(heading).unwrap().1;
    let section = rest.split("\n## ").next().unwrap();
    let parts = section.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

/// A server that lets in one further key, that key, and the string to connect with.
struct Site {
    keys: tempfile::TempDir,
    server: Server,
    key: String,
    connect: String,
}

impl Site {
    /// The key is made as the page says.
    fn new() -> Self {
        let keys = tempfile::tempdir().unwrap();
        let [keygen] = &blocks(&page("docs/ci.md"), "# rexec in CI")[..] else { panic!("no key") };
        let mut shell = Command::new("sh");
        shell.args(["-ec", keygen]).current_dir(keys.path()).stdin(Stdio::null());
        assert!(shell.status().unwrap().success());
        let path = keys.path().join("ci_key");
        let server = Server::start(&["--authorized-keys", &format!("{}.pub", path.display())]);
        let log = server.log();
        let print = log.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
        let connect = format!("rexec://{}?host-key={print}", server.addr);
        let key = fs::read_to_string(path).unwrap();
        Self { keys, server, key, connect }
    }

    /// A job's folder.
    fn job(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.keys).unwrap()
    }

    /// A shell as a CI system starts it: `rexec` in the PATH, a home folder of its own, and the variables.
    fn sh(&self, job: &Path, script: &str) -> Ran {
        let programs = Path::new(env!("CARGO_BIN_EXE_rexec")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.args(["-eo", "pipefail", "-c", script]).current_dir(job).env_clear();
        shell.env("PATH", path).env("HOME", job).stdin(Stdio::null());
        shell.env("REXEC_IDENTITY", self.key.trim_end()).env("REXEC_HOSTS", &self.connect);
        shell.env("DEPLOY_TOKEN", "t0ken-value").env("REXEC_OPTIONS", "--jobs 4");
        shell.env("REXEC_STEPS", "# first\necho building\ntest -z \"$NOTHING\"");
        let ran = Ran::of(shell.output().unwrap());
        assert!(
            walk(job).iter().all(|file| !fs::read_to_string(file).unwrap().contains("PRIVATE KEY"))
        );
        ran
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn the_scripts_of_the_ci_page_the_readme_and_the_action_work() {
    let site = Site::new();
    let text = page("docs/ci.md");
    let jobs = [
        scripts(&text, "run:"),
        scripts(&text, "- |"),
        scripts(&page("action.yml"), "run:"),
        blocks(&page("README.md"), "\n## In CI\n"),
    ];
    assert_eq!(jobs.each_ref().map(Vec::len), [2, 2, 2, 1]);
    for job in jobs {
        let folder = site.job();
        for script in &job {
            let ran = site.sh(folder.path(), script).expect(0);
            let has_run = script.contains("rexec batch");
            assert_eq!(ran.text().contains("building\n"), has_run, "{script}\n{}", ran.text());
            assert_eq!(ran.stderr.contains("2 steps each: 2 ok"), has_run, "{}", ran.stderr);
        }
    }
}

#[test]
fn a_job_that_was_cut_off_goes_on_as_the_ci_page_says() {
    let site = Site::new();
    let text = page("docs/ci.md");
    let job = site.job();
    let gate = job.path().join("open");
    let script = format!(
        "rexec batch -H \"$REXEC_HOSTS\" --report rexec.json -s 'echo first' -s 'test -e {}'",
        gate.display()
    );
    site.sh(job.path(), &script).expect(1);
    fs::write(gate, "").unwrap();
    let [resume] = &blocks(&text, "\n## When a job was cut off\n")[..] else { panic!("{text}") };
    let ran = site.sh(job.path(), resume).expect(0);
    assert!(!ran.text().contains("first") && ran.stderr.contains("2 ok"), "{}", ran.stderr);
    assert!(job.path().join("rexec.xml").exists());
}

#[test]
fn the_batches_of_the_readme_are_understood() {
    let site = Site::new();
    let readme = page("README.md");
    let [examples] = &blocks(&readme, "\n## Many machines\n")[..] else { panic!("{readme}") };
    let page = page("docs/batch.md");
    let plan = page.split("```toml\n").find(|part| part.contains("[[steps]]")).unwrap();
    let job = site.job();
    fs::write(job.path().join("hosts.txt"), "web[01-20]:8080\n").unwrap();
    fs::write(job.path().join("deploy.toml"), plan.split("```").next().unwrap()).unwrap();
    let lines: Vec<_> = examples.lines().filter(|line| line.starts_with("rexec batch")).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        let ran = site.sh(job.path(), &format!("{line} --dry-run")).expect(0);
        assert!(ran.text().contains("on web20:8080"), "{line}: {}", ran.text());
    }
}

#[test]
fn an_identity_in_a_variable_is_used_and_one_that_is_none_is_refused() {
    let site = Site::new();
    let client = |key: &str| Client::new(site.server.state()).env("REXEC_IDENTITY", key);
    let ran = client(&site.key).args(&["-v", &site.connect, "echo hi"]).run().expect(0);
    assert_eq!(ran.text(), "hi\n");
    assert!(ran.stderr.contains("let us in as key:SHA256:"), "{}", ran.stderr);
    let ran = client("no key").args(&["batch", "-H", &site.connect, "true"]).run().expect(2);
    assert!(
        ran.stderr.contains("REXEC_IDENTITY is not a whole OpenSSH private key"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("no key"), "{}", ran.stderr);
    // As CI systems do that take a secret for one line.
    let ran = client(&site.key.replace('\n', " ")).args(&[&site.connect, "true"]).run().expect(255);
    assert!(ran.stderr.contains("with its line breaks"), "{}", ran.stderr);
    let wrong = site.connect.replace("host-key=SHA256:", "host-key=SHA256:A");
    let wrong = &wrong[..wrong.len() - 1];
    let ran = client(&site.key).args(&[wrong, "true"]).run();
    assert!([2, 255].contains(&ran.status), "{}", ran.stderr);
}

fn toml_of(value: &Value) -> String {
    match value {
        Value::Array(all) => {
            format!("[{}]", all.iter().map(toml_of).collect::<Vec<_>>().join(", "))
        }
        Value::Object(all) => {
            let pairs: Vec<_> = all.iter().map(|(k, v)| format!("{k} = {}", toml_of(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// The names of the fields, from the error about one that is none of them.
fn fields(text: &str) -> Vec<String> {
    let error = Plan::parse(text, &|_| None).unwrap_err().text;
    let names = error.split("expected one of ").nth(1).unwrap();
    names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_schema_of_plans_is_what_the_program_reads() {
    let schema: Value = serde_json::from_str(&page("docs/batch-plan.schema.json")).unwrap();
    let step = &schema["$defs"]["step"];
    for (object, text) in [(&schema, "nothing = 1"), (step, "[[steps]]\nnothing = 1")] {
        let mut known: Vec<String> =
            object["properties"].as_object().unwrap().keys().cloned().collect();
        let mut read = fields(text);
        known.sort();
        read.sort();
        assert_eq!(known, read);
        assert_eq!(object["additionalProperties"], false);
    }
    for (name, property) in step["properties"].as_object().unwrap() {
        let command = if name == "argv" || name == "command" { "" } else { "command = \"x\"\n" };
        let values = property["enum"].as_array().into_iter().chain(property["examples"].as_array());
        for value in values.flatten() {
            let text = format!("[[steps]]\n{command}{name} = {}\n", toml_of(value));
            let plan = Plan::parse(&text, &|_| Some("value".into()));
            assert!(plan.is_ok(), "{text}: {plan:?}");
        }
        let wrong = format!("[[steps]]\n{command}{name} = 1.5\n");
        assert!(Plan::parse(&wrong, &|_| Some("value".into())).is_err(), "{wrong}");
    }
}

#[test]
fn the_plan_of_the_page_on_batches_is_one() {
    let page = page("docs/batch.md");
    let plan = page.split("```toml\n").find(|part| part.contains("[[steps]]")).unwrap();
    let plan = plan.split("```").next().unwrap();
    let plan = Plan::parse(plan, &|name| (name == "DEPLOY_TOKEN").then(|| "x".into())).unwrap();
    assert_eq!(plan.steps.len(), 1);
}
