//! What goes wrong while runs are under way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rexec::sys::process;
use rustix::process::{Pid, Signal};

use crate::Fallible;
use crate::random::Random;
use crate::world::{World, send};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    Cut,
    NoNetwork,
    ServerKilled,
    ServerTerminated,
    ServerStopped,
    SupervisorKilled,
    SupervisorStopped,
}

impl Harm {
    /// For the summary.
    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "connections cut",
            Self::NoNetwork => "times no network",
            Self::ServerKilled => "servers killed",
            Self::ServerTerminated => "servers shut down under load",
            Self::ServerStopped => "servers suspended",
            Self::SupervisorKilled => "supervisors killed",
            Self::SupervisorStopped => "supervisors suspended",
        }
    }
}

/// The network fails most often.
const HARMS: [Harm; 12] = [
    Harm::Cut,
    Harm::Cut,
    Harm::Cut,
    Harm::Cut,
    Harm::NoNetwork,
    Harm::ServerKilled,
    Harm::ServerKilled,
    Harm::ServerTerminated,
    Harm::ServerStopped,
    Harm::SupervisorKilled,
    Harm::SupervisorKilled,
    Harm::SupervisorStopped,
];

/// How often each thing went wrong.
pub(crate) type Harms = BTreeMap<&'static str, usize>;

/// Does harm until `over`.
pub(crate) fn harm(world: &World, random: &mut Random, over: &AtomicBool) -> Fallible<Harms> {
    let mut done = Harms::new();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50 + random.below(700)));
        let harm = random.one_of(&HARMS);
        *done.entry(harm.name()).or_default() += one(world, random, harm)?;
    }
    Ok(done)
}

/// How many were harmed.
fn one(world: &World, random: &mut Random, harm: Harm) -> Fallible<usize> {
    let a_while = Duration::from_millis(20 + random.below(400));
    match harm {
        Harm::Cut => return Ok(world.relay.cut()),
        Harm::NoNetwork => {
            world.relay.close(true);
            world.relay.cut();
            std::thread::sleep(a_while);
            world.relay.close(false);
        }
        Harm::ServerKilled => world.restart(Signal::KILL)?,
        Harm::ServerTerminated => world.restart(Signal::TERM)?,
        Harm::ServerStopped => {
            world.signal(Signal::STOP);
            std::thread::sleep(a_while);
            world.signal(Signal::CONT);
        }
        Harm::SupervisorKilled | Harm::SupervisorStopped => {
            // Between vfork(2) and execve(2) its command looks like the supervisor itself, but leads no session.
            let mut all = world.supervisors();
            all.retain(|pid| leads_session(*pid));
            if all.is_empty() {
                return Ok(0);
            }
            let pid = random.one_of(&all);
            if harm == Harm::SupervisorKilled {
                send(pid, Signal::KILL);
            } else {
                send(pid, Signal::STOP);
                std::thread::sleep(a_while);
                send(pid, Signal::CONT);
            }
        }
    }
    Ok(1)
}

fn leads_session(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(process::leads_session)
}
