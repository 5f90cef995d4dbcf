//! What people use to run a command on many hosts over ssh.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Fallible;
use crate::contenders::Ssh;
use crate::fleet::{AT_ONCE, Contender, Fleet, SERVERS, Started, addresses};
use crate::report::Row;

/// One way to run `true` on the hosts of a list.
struct Way {
    name: &'static str,
    /// Debian's package.
    package: &'static str,
    command: fn(&Ssh, &Path) -> Command,
}

const WAYS: [Way; 4] = [
    Way { name: "clush over ssh", package: "clustershell", command: clush },
    Way { name: "pdsh over ssh", package: "pdsh", command: pdsh },
    Way { name: "GNU parallel over ssh", package: "parallel", command: parallel },
    Way { name: "ansible over ssh", package: "ansible-core", command: ansible },
];

/// Adds what each takes, once.
pub(crate) fn lines(row: &mut Row, ssh: &Ssh, dir: &Path, hosts: usize) -> Fallible<()> {
    let servers = hosts.min(SERVERS);
    let each = hosts.div_ceil(servers);
    let fleet = Fleet::start(servers, |server| ssh_server(ssh, server, each))?;
    let list = dir.join("ssh.hosts");
    fs::write(&list, fleet.list(hosts))?;
    for Way { name, package, command } in WAYS {
        let command = || {
            let mut command = command(ssh, &list);
            command.env("HOME", dir).env("ANSIBLE_LOCAL_TEMP", dir);
            command
        };
        if !is_installed(&command()) {
            row.notes.push(format!("{name}: left out, Debian's {package} is not here"));
            continue;
        }
        let mut other = Contender::new(name, hosts);
        other.measure(&fleet.servers, 1, true, command)?;
        row.lines.push(other.line());
    }
    row.notes.push(format!("over ssh: once, on {hosts} hosts, {servers} servers"));
    row.notes
        .push("ansible: its module raw, without ControlPersist, which leaves processes".into());
    Ok(())
}

fn is_installed(command: &Command) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command.get_program()).exists())
}

fn clush(ssh: &Ssh, hosts: &Path) -> Command {
    let mut command = Command::new("clush");
    command.args(["-q", "-S", "-f", AT_ONCE, "-o"]).arg(format!("-F {}", ssh.config.display()));
    command.arg("--hostfile").arg(hosts).arg("true");
    command
}

fn pdsh(ssh: &Ssh, hosts: &Path) -> Command {
    let mut command = Command::new("pdsh");
    command.env("PDSH_SSH_ARGS", format!("-F {} -a -x %h", ssh.config.display()));
    command.args(["-S", "-R", "ssh", "-f", AT_ONCE, "-w"]).arg(format!("^{}", hosts.display()));
    command.arg("true");
    command
}

fn parallel(ssh: &Ssh, hosts: &Path) -> Command {
    let mut command = Command::new("parallel");
    command.args(["--will-cite", "-j", AT_ONCE, "-a"]).arg(hosts);
    command.args(["ssh", "-F"]).arg(&ssh.config).args(["{}", "true"]);
    command
}

fn ansible(ssh: &Ssh, hosts: &Path) -> Command {
    let mut command = Command::new("ansible");
    command.env("ANSIBLE_SSH_ARGS", format!("-F {}", ssh.config.display()));
    command.args(["all", "-f", AT_ONCE, "-m", "raw", "-a", "true", "-i"]).arg(hosts);
    command
}

/// As `scripts/bench` has started one, at other addresses and the same port.
fn ssh_server(ssh: &Ssh, server: usize, hosts: usize) -> Fallible<Started> {
    let config = ssh.config.with_file_name("sshd_config");
    let mut command = Command::new(sshd()?);
    command.args(["-D", "-e", "-p", &ssh.port.to_string(), "-f"]).arg(config);
    let mut text = String::new();
    for address in addresses(server, hosts) {
        command.arg(format!("-oListenAddress={address}"));
        writeln!(text, "{address}")?;
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = BufReader::new(child.stderr.take().ok_or("no stderr")?);
    let told = stderr.lines().map_while(Result::ok).filter(|l| l.starts_with("Server listening"));
    if told.take(hosts).count() < hosts {
        return Err("an SSH server did not start".into());
    }
    Ok((child, text.lines().map(str::to_owned).collect()))
}

/// sshd(8) starts itself again, and so wants its whole path.
fn sshd() -> Fallible<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).map(|folder| folder.join("sshd"));
    all.into_iter().find(|path| path.exists()).ok_or_else(|| "there is no sshd".into())
}
