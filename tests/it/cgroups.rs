//! A control group for each run. The machine has to know cgroup v2, and let this account make groups in it, as it lets
//! root; which controllers it has there is another matter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use super::durable::{leave, verb};
use super::support::mounts::Mounts;
use super::support::server::{finish, line_of};
use super::support::user::User;
use super::support::{Ran, Server, is_alive, json_in, kill, pid_in, supervisors, wait_until};
use super::system::{Machine, listed};

/// A folder of cgroup v2 that is left to a server.
struct Delegated {
    /// As this process sees it.
    dir: PathBuf,
    /// As the programs do that are started by it.
    inside: PathBuf,
    /// If it is mounted where nobody else sees it.
    mounts: Option<Mounts>,
}

impl Delegated {
    /// None, and a line that says so: there is no cgroup v2 here, or none for this account.
    fn new() -> Option<Self> {
        let made = Self::mounted().or_else(Self::mounting);
        if made.is_none() {
            println!("left out: there is no cgroup v2 here, or none for this account");
        }
        made
    }

    fn mounted() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        Self::below(Path::new(line.split(' ').nth(4)?).to_owned(), None)
    }

    fn mounting() -> Option<Self> {
        let place = Path::new("/mnt");
        let mounts = Mounts::by("mount -t cgroup2 none $1", place)?;
        Self::below(place.to_owned(), Some(mounts))
    }

    fn below(mounted: PathBuf, mounts: Option<Mounts>) -> Option<Self> {
        let name = format!("rexec-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let inside = mounted.join(name.replace(['(', ')'], ""));
        let dir = mounts.as_ref().map_or_else(|| inside.clone(), |mounts| mounts.seen(&inside));
        fs::create_dir(&dir).ok()?;
        // Whatever the umask is: users of the machine look into it.
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        Some(Self { dir, inside, mounts })
    }

    fn arg(&self) -> &str {
        self.inside.to_str().unwrap()
    }

    /// Has a program started where the folder can be seen.
    fn show(&self, command: &mut Command) {
        if let Some(mounts) = &self.mounts {
            mounts.show(command);
        }
    }

    fn server(&self, args: &[&str]) -> Server {
        Server::with(&[&["--cgroup", self.arg()], args].concat(), |command| self.show(command))
    }

    /// The groups of runs in it.
    fn groups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect()
    }

    fn has(&self, controller: &str) -> bool {
        let there = fs::read_to_string(self.dir.join("cgroup.controllers")).unwrap();
        there.split_whitespace().any(|one| one == controller)
    }

    /// What `rexec-server check` says of a folder.
    fn check(&self, config: &Path, dir: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["check", "--cgroup", dir, "--config"]).arg(config);
        self.show(&mut command);
        Ran::of(command.output().unwrap())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for group in self.groups() {
            let _ = fs::write(group.join("cgroup.kill"), "1");
            wait_until("the end of what is in a group", || fs::remove_dir(&group).is_ok());
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// A process that has left its process group and has no mark, whose id is in `file`.
fn strays(file: &Path) -> String {
    format!("env -i setsid /bin/sh -c 'echo $$ > {}; exec /bin/sleep 600' &", file.display())
}

#[test]
fn what_has_left_its_process_group_and_its_mark_is_found_in_the_runs_control_group() {
    let Some(delegated) = Delegated::new() else { return };
    let server = delegated.server(&[]);
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
    let server = delegated.server(&[]);
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
fn groups_that_a_run_makes_below_its_own_go_with_it() {
    let Some(delegated) = Delegated::new() else { return };
    let server = delegated.server(&[]);
    let file = server.dir().join("verdict");
    let text = format!(
        "cd {}/$(sed -n 's,^0::.*/,,p' /proc/self/cgroup) && mkdir -p a/b c && \
         (env -i setsid /bin/sh -c 'echo 0 > a/b/cgroup.procs; exec /bin/sleep 600' & ) && \
         until grep -q . a/b/cgroup.procs; do :; done; echo ready; sleep 600",
        delegated.arg()
    );
    let mut child = server.client().arg("--verdict").arg(&file).arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::TERM);
    finish(child).expect(143);
    assert_eq!(json_in(&file)["verdict"]["left_running"], 0);
    wait_until("the end of its groups", || delegated.groups().is_empty());
}

#[test]
fn what_a_killed_supervisor_leaves_in_a_control_group_is_stopped() {
    let Some(delegated) = Delegated::new() else { return };
    let server = delegated.server(&[]);
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
    let machine = Machine::adapted(&[&alice.name], &["--cgroup", delegated.arg()], |command| {
        delegated.show(command);
    });
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

/// The kernel has the last word on what it limits: where it cannot, nothing starts that would promise it.
#[test]
fn a_run_is_held_to_its_limits_as_a_whole_where_there_are_controllers_and_else_nothing_starts() {
    let Some(delegated) = Delegated::new() else { return };
    let here = tempfile::tempdir().unwrap();
    let config = here.path().canonicalize().unwrap().join("server.toml");
    let limits = [("memory = \"64M\"", "memory"), ("processes = 20", "pids")];
    for (limit, controller) in limits {
        fs::write(&config, format!("[rule.a]\nfor = [\"local\"]\n{limit}\n")).unwrap();
        let checked = delegated.check(&config, delegated.arg());
        if !delegated.has(controller) {
            let says = format!("has no controller {controller:?}");
            assert!(checked.expect(1).stderr.contains(&says));
            continue;
        }
        assert!(checked.expect(0).text().contains("limits of each run with all its processes"));
        let server = delegated.server(&["--config", config.to_str().unwrap()]);
        // Three processes, none of which has too much.
        let hogs = "for i in 1 2 3; do head -c 30M /dev/zero | tail -c 30M | sleep 1 & done; wait";
        let bomb = "i=0; while [ $i -lt 30 ]; do sleep 5 & i=$((i+1)); done; wait";
        let ran = server.run(&[if controller == "memory" { hogs } else { bomb }]);
        match controller {
            "memory" => {
                assert_eq!(ran.status, 251, "{}", ran.stderr);
                let says = "by which a run has at most 67108864 bytes of memory";
                assert!(ran.stderr.contains(says), "{}", ran.stderr);
            }
            _ => assert!(ran.stderr.contains("fork"), "{}", ran.stderr),
        }
    }
    fs::write(&config, "").unwrap();
    let refused = delegated.check(&config, "/tmp").expect(1);
    assert!(refused.stderr.contains("/tmp is not a folder of cgroup v2"), "{}", refused.stderr);
}
