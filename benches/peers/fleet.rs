//! Many hosts on this machine, and what a command on all of them takes.

use std::net::Ipv4Addr;
use std::process::{Child, Command};
use std::time::Duration;

use crate::Fallible;
use crate::proc::{Server, spends};
use crate::report::Line;
use crate::spawn::{self, Sample};
use crate::stats::median;

/// Server processes; each one is several hosts.
pub(crate) const SERVERS: usize = 100;
/// Hosts at once.
pub(crate) const AT_ONCE: &str = "32";
const MIB: f64 = (1u64 << 20) as f64;

/// Servers of this row's own; gone on drop.
pub(crate) struct Fleet {
    children: Vec<Child>,
    pub(crate) servers: Vec<Server>,
    /// Where they listen, as their clients name it.
    hosts: Vec<String>,
}

/// A server's process, and its hosts.
pub(crate) type Started = (Child, Vec<String>);

impl Fleet {
    pub(crate) fn start(
        count: usize,
        mut start: impl FnMut(usize) -> Fallible<Started>,
    ) -> Fallible<Self> {
        let mut fleet = Self { children: Vec::new(), servers: Vec::new(), hosts: Vec::new() };
        for server in 0..count {
            let (child, hosts) = start(server)?;
            fleet.servers.push(Server(child.id()));
            fleet.children.push(child);
            fleet.hosts.extend(hosts);
        }
        Ok(fleet)
    }

    /// The first hosts, one a line.
    pub(crate) fn list(&self, count: usize) -> String {
        self.hosts.iter().take(count).flat_map(|host| [host.as_str(), "\n"]).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that ended by itself needs neither.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The addresses of a server: of this machine, and of nobody else's.
pub(crate) fn addresses(server: usize, count: usize) -> impl Iterator<Item = Ipv4Addr> {
    let number = move |at: usize| u32::try_from(server * count + at).unwrap_or(0);
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (0..count).map(move |at| Ipv4Addr::from(base + number(at)))
}

/// One way to do it.
pub(crate) struct Contender {
    name: &'static str,
    hosts: usize,
    samples: Vec<Sample>,
}

impl Contender {
    pub(crate) fn new(name: &'static str, hosts: usize) -> Self {
        Self { name, hosts, samples: Vec::new() }
    }

    /// Runs it so often and notes the mean, with what that cost the servers.
    pub(crate) fn measure(
        &mut self,
        servers: &[Server],
        times: u32,
        counted: bool,
        mut command: impl FnMut() -> Command,
    ) -> Fallible<()> {
        let task =
            || (0..times).map(|_| spawn::run_apart(&command())).collect::<Result<Vec<_>, _>>();
        // rexec's servers wait for all of their commands.
        let (samples, spent) = spends(servers, times == 1, task)?;
        let samples = samples?;
        let cpu = samples.iter().map(|sample| sample.cpu).sum::<Duration>() + spent;
        let wall = samples.iter().map(|sample| sample.wall).sum::<Duration>();
        let peak = samples.iter().map(|sample| sample.peak).max().unwrap_or(0);
        if counted {
            self.samples.push(Sample { wall: wall / times, cpu: cpu / times, peak, bytes: 0 });
        }
        Ok(())
    }

    /// The most memory that any of them took.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.samples.iter().map(|sample| mib(sample.peak)).fold(0.0, f64::max)
    }

    #[expect(clippy::cast_precision_loss, reason = "a few thousand hosts")]
    pub(crate) fn line(&self) -> Line {
        let of = |of: &dyn Fn(&Sample) -> f64| self.samples.iter().map(of).collect::<Vec<_>>();
        let beside = vec![
            ("hosts", self.hosts as f64),
            ("wall s", median(&of(&|sample| sample.wall.as_secs_f64()))),
            ("client peak MiB", median(&of(&|sample| mib(sample.peak)))),
        ];
        let each = |sample: &Sample| sample.cpu.as_secs_f64() * 1e3 / self.hosts as f64;
        Line { name: self.name.into(), samples: of(&each), beside }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
