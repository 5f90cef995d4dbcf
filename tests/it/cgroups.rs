//! A control group for each run. The machine has to have cgroup v2, and let this account make groups in it, as it lets
//! root; which controllers it has there is another matter.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use super::durable::{leave, verb};
use super::support::server::{finish, line_of};
use super::support::user::User;
use super::support::{Ran, Server, is_alive, json_in, kill, pid_in, supervisors, wait_until};
use super::system::{Machine, listed};

/// A folder of cgroup v2 that is left to a server.
struct Delegated(PathBuf);

impl Delegated {
    /// None: there is no cgroup v2 here, or none for this account.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let mounted = Path::new(line.split(' ').nth(4)?).to_owned();
        let name = format!("rexec-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let dir = mounted.join(name.replace(['(', ')'], ""));
        fs::create_dir(&dir).ok()?;
        Some(Self(dir))
    }

    fn arg(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// The groups of runs in it.
    fn groups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }

    fn has(&self, controller: &str) -> bool {
        let there = fs::read_to_string(self.0.join("cgroup.controllers")).unwrap();
        there.split_whitespace().any(|one| one == controller)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for group in self.groups() {
            let _ = fs::write(group.join("cgroup.kill"), "1");
            wait_until("the end of what is in a group", || fs::remove_dir(&group).is_ok());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// A process that has left its process group and has no mark, whose id is in `file`.
fn strays(file: &Path) -> String {
    format!("env -i setsid /bin/sh -c 'echo $$ > {}; exec /bin/sleep 600' &", file.display())
}

#[test]
fn what_has_left_its_process_group_and_its_mark_is_found_in_the_runs_control_group() {
    let Some(delegated) = Delegated::new() else { return };
    let server = Server::start(&["--cgroup", delegated.arg()]);
    let (file, pid) = (server.dir().join("verdict"), server.dir().join("pid"));
    for durable in [&[][..], &["--durable"]] {
        let client = server.client().args(durable).args(&["--timeout", "1h", "--verdict"]);
        let text = format!("{} echo ready; sleep 600", strays(&pid));
        let mut child = client.arg(&file).arg(text).spawn();
        assert_eq!(line_of(&mut child), "ready");
        let stray = pid_in(&pid);
        assert_eq!(delegated.groups().len(), 1);
        kill(child.id(), Signal::TERM);
        finish(child).expect(143);
        let verdict = &json_in(&file)["verdict"];
        assert_eq!(verdict["containment"], "cgroup");
        assert_eq!(verdict["left_running"], 0);
        assert!(!is_alive(stray), "{durable:?}");
        wait_until("the end of its group", || delegated.groups().is_empty());
        fs::remove_file(&pid).unwrap();
    }
}

#[test]
fn what_is_left_running_in_a_control_group_is_counted_and_goes_on() {
    let Some(delegated) = Delegated::new() else { return };
    let server = Server::start(&["--cgroup", delegated.arg()]);
    let (file, pid) = (server.dir().join("verdict"), server.dir().join("pid"));
    let text = format!("{} while ! test -s {}; do :; done", strays(&pid), pid.display());
    server.client().arg("--verdict").arg(&file).arg(text).run().expect(0);
    let verdict = &json_in(&file)["verdict"];
    assert_eq!((&verdict["containment"], &verdict["left_running"]), (&json!("cgroup"), &json!(1)));
    let stray = pid_in(&pid);
    assert!(is_alive(stray));
    server.run(&["--verdict", file.to_str().unwrap(), "true"]).expect(0);
    let verdict = &json_in(&file)["verdict"];
    assert_eq!((&verdict["containment"], &verdict["left_running"]), (&json!("cgroup"), &json!(0)));
    kill(stray, Signal::KILL);
}

#[test]
fn what_a_killed_supervisor_leaves_in_a_control_group_is_stopped() {
    let Some(delegated) = Delegated::new() else { return };
    let server = Server::start(&["--cgroup", delegated.arg()]);
    let pid = server.dir().join("pid");
    let id = leave(&server, &format!("{} echo ready; sleep 600", strays(&pid)));
    wait_until("its output", || verb(&server, "logs", &[&id]).stdout == b"ready\n");
    let stray = pid_in(&pid);
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    kill(supervisor, Signal::KILL);
    wait_until("the end of what it left", || !is_alive(stray));
}

#[test]
fn a_user_of_the_machine_is_kept_in_the_runs_control_group() {
    let Some(delegated) = Delegated::new() else { return };
    let Some(alice) = User::new() else { return };
    let machine = Machine::with(&[&alice.name], &["--cgroup", delegated.arg()]);
    listed(&machine, &alice);
    let text = format!(
        "sed -n 's/^0:://p' /proc/self/cgroup; cd {}; echo $$ > cgroup.procs; for own in rexec-*; do mkdir $own/mine; done; id -u",
        delegated.arg()
    );
    let ran = machine.run(&alice.name, &[&text]).expect(0);
    let out = ran.text();
    let (group, uid) = out.trim_end().split_once('\n').unwrap();
    assert!(group.contains("/rexec-"), "{group}");
    assert_eq!(uid, alice.uid.to_string());
    assert_eq!(ran.stderr.matches("Permission denied").count(), 2, "{}", ran.stderr);
}

fn check(config: &Path, dir: &str) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    let command = command.args(["check", "--cgroup", dir, "--config"]).arg(config);
    Ran::of(command.output().unwrap())
}

/// The kernel has the last word on what it limits: where it cannot, nothing starts that would promise it.
#[test]
fn a_run_is_held_to_its_limits_as_a_whole_where_there_are_controllers_and_else_nothing_starts() {
    let Some(delegated) = Delegated::new() else { return };
    let here = tempfile::tempdir().unwrap();
    let config = here.path().canonicalize().unwrap().join("server.toml");
    let limits = [("memory = \"64M\"", "memory"), ("processes = 20", "pids")];
    for (limit, controller) in limits {
        fs::write(&config, format!("[rule.a]\nfor = [\"local\"]\n{limit}\n")).unwrap();
        let checked = check(&config, delegated.arg());
        if !delegated.has(controller) {
            let says = format!("has no controller {controller:?}");
            assert!(checked.expect(1).stderr.contains(&says));
            continue;
        }
        assert!(checked.expect(0).text().contains("limits of each run with all its processes"));
        let args = ["--cgroup", delegated.arg(), "--config", config.to_str().unwrap()];
        let server = Server::start(&args);
        // Three processes, none of which has too much.
        let hogs = "for i in 1 2 3; do head -c 30M /dev/zero | tail -c 30M | sleep 1 & done; wait";
        let bomb = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; wait";
        let ran = server.run(&[if controller == "memory" { hogs } else { bomb }]);
        match controller {
            "memory" => assert_eq!(ran.status, 137, "{}", ran.stderr),
            _ => assert!(ran.stderr.contains("fork"), "{}", ran.stderr),
        }
    }
    fs::write(&config, "").unwrap();
    let refused = check(&config, "/tmp").expect(1);
    assert!(refused.stderr.contains("/tmp is not a folder of cgroup v2"), "{}", refused.stderr);
}
