//! What the figures depend on: the machine, and the versions of what is measured.

use std::fmt;
use std::process::{Command, Stdio};

/// How each program is asked for its version; most say it on their standard output.
const PROGRAMS: [(&str, &str); 8] = [
    ("ssh", "-V"),
    ("dropbear", "-V"),
    ("socat", "-V"),
    ("clush", "--version"),
    ("pdsh", "-V"),
    ("parallel", "--version"),
    ("ansible", "--version"),
    ("rustc", "--version"),
];

/// This machine.
pub(crate) struct Machine {
    /// Processor, kernel, load.
    text: String,
    /// The first line that tells each program's version.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let versions = PROGRAMS.iter().filter_map(|(program, word)| version(program, word));
        Self { text: hardware(), versions: versions.collect() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.versions.iter().try_for_each(|version| write!(f, "; {version}"))
    }
}

fn hardware() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let gib = rustix::system::sysinfo().totalram >> 30;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "rexec {}, {cpus} x {}, {gib} GiB, {} {}, load {} at the start",
        env!("CARGO_PKG_VERSION"),
        model.unwrap_or("unknown processor"),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        load.split(' ').next().unwrap_or_default(),
    )
}

/// None if it is not installed.
fn version(program: &str, word: &str) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.arg(word).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()))?;
    Some(line.split(" (-").next().unwrap_or(line).trim().to_owned())
}
