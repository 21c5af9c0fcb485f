//! The parent of the engine: starts it, passes signals on, and decides what its end means.
//!
//! It resolves what is to be done once, and keeps it and the snapshot memory, so that an engine
//! that dies of the world (a device, memory) is followed by one that goes on from the newest good
//! state: as long as each comes further than the one before, with the reason, never in an endless
//! loop, and not at all when the last word of an engine says that it would be no use. The engine
//! dies with its parent.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use octet::config::Config;
use octet::failure::{self, Failure};
use octet_actors::outcome::DEPTH_MAX;
use octet_actors::schedule::ahead;
use signal_hook::iterator::Signals;

use crate::cli::output::complain;
use crate::cli::signals;
use crate::cli::train::Arguments;

pub(crate) mod handover;
mod memory_kills;
#[cfg(test)]
mod tests;

use handover::{Handover, LastWord, Order, Said};
use memory_kills::MemoryKills;

/// Engines that may fail one after the other from the same state.
const RESTARTS: usize = 3;

/// What follows the failure of an engine.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Another one.
    Again,
    /// Nothing, since the engine has said all.
    End,
    /// Nothing, for this reason.
    GiveUp(String),
}

/// The failures of a run since it last came further.
#[derive(Debug, Default)]
struct Failures {
    count: usize,
    /// Where the last engine that came to a step had begun.
    begun: Option<u64>,
    last: Option<LastWord>,
}

impl Failures {
    /// An engine has failed that had begun at a step, if it came to one. Failures count until an
    /// engine begins from a later state than the one before: then something was kept, and a run is
    /// only so long. One that fails as the last one did, and came no further than what had been
    /// ordered by then, fails for a reason that stays.
    fn add(&mut self, begun: Option<u64>, why: &str, word: Option<LastWord>) -> Next {
        let last = std::mem::replace(&mut self.last, word);
        let word = &self.last;
        if word.as_ref().is_some_and(|word| word.lasting) {
            return Next::End;
        }
        if let (Some(last), Some(word)) = (last, word)
            && last.what == word.what
            && word.step <= last.step + ahead(DEPTH_MAX)
        {
            let LastWord { step, what, .. } = word;
            let what =
                format!("the same failure twice, at step {step}, so it is no chance: {what}");
            return Next::GiveUp(what);
        }
        if begun.is_some_and(|begun| self.begun.is_some_and(|before| before < begun)) {
            self.count = 0;
        }
        self.begun = begun.or(self.begun);
        self.count += 1;
        if self.count <= RESTARTS {
            return Next::Again;
        }
        let state = match self.begun {
            Some(step) => format!("from the same state, that of step {step}"),
            None => "before its first step".to_owned(),
        };
        Next::GiveUp(format!("the engine failed {} times {state}: {why}", self.count))
    }
}

/// Starts engines until one ends well or trying again is no use.
pub(crate) fn parent(arguments: &Arguments) -> Result<ExitCode, Failure> {
    // Bad input is refused here, before anything is started; engines do not read the file again.
    let (config, origins) = Config::load_located(&arguments.config, &arguments.sets)?;
    let Arguments { fresh, accept_new_numerics, .. } = *arguments;
    let order = Order::new((&config, origins), arguments.folder(), fresh, accept_new_numerics);
    let handover = Handover::new(&order)?;
    let listened = signals::ending().into_iter().chain([libc::SIGUSR1]);
    let mut signals = Signals::new(listened).map_err(Failure::world)?;
    let deadline = arguments.stop_after.and_then(|time| Instant::now().checked_add(time));
    let mut failures = Failures::default();
    let mut restarted = None;
    loop {
        let kills = MemoryKills::here();
        let (mut child, said) = start_engine(&handover, restarted.as_deref())?;
        let (status, interrupted) = wait(&mut child, &mut signals, deadline)?;
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code != failure::WORLD => return Ok(ExitCode::from(code)),
            // It was told to end before it could listen: nothing was begun, nothing is lost.
            None if interrupted
                && status.signal().is_some_and(|s| signals::ending().contains(&s)) =>
            {
                return Ok(ExitCode::SUCCESS);
            }
            _ if interrupted => return Ok(ExitCode::from(failure::WORLD)),
            _ => {}
        }
        let word = said.last_word();
        let why = describe(status, &kills);
        let reason = word.as_ref().map_or(why.clone(), |word| format!("{why}: {}", word.what));
        match failures.add(handover.begun(), &why, word) {
            Next::Again => {}
            Next::End => return Ok(ExitCode::from(failure::WORLD)),
            Next::GiveUp(what) => return Err(Failure::world(what)),
        }
        complain(format_args!("octet: {why}; starting it again from the newest good state"));
        restarted = Some(reason);
    }
}

fn describe(status: ExitStatus, kills: &MemoryKills) -> String {
    match status.signal() {
        Some(libc::SIGKILL) if kills.has_grown() => {
            "the engine was killed for want of memory (signal 9 of the kernel; octet plan says \
             what a run takes)"
                .to_owned()
        }
        Some(signal) => format!("the engine died of signal {signal}"),
        None => format!("the engine ended with code {}", status.code().unwrap_or(-1)),
    }
}

fn start_engine(handover: &Handover, restarted: Option<&str>) -> Result<(Child, Said), Failure> {
    // This very program, even if another has taken its name since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("octet").arg("engine");
    let mut said = handover.pass_on(&mut command, restarted)?;
    // A group of its own: signals from a terminal reach it through the parent, once.
    command.process_group(0);
    let (parent, word) = (std::process::id(), said.writer());
    // SAFETY: between fork and exec only async-signal-safe calls are made, and nothing allocates.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Until the engine listens there is nothing to save.
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            // The engine alone keeps this end, so that the pipe ends with it.
            libc::fcntl(word, libc::F_SETFD, 0);
            // A parent that died before the call above sends no signal.
            match libc::getppid() as u32 == parent {
                true => Ok(()),
                false => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
    let child =
        command.spawn().map_err(|e| Failure::world(format!("cannot start the engine: {e}")))?;
    said.close_writer();
    Ok((child, said))
}

/// Waits for the engine and passes signals on to it; at the deadline it is told to save and end.
fn wait(
    child: &mut Child,
    signals: &mut Signals,
    deadline: Option<Instant>,
) -> Result<(ExitStatus, bool), Failure> {
    let mut interrupted = false;
    loop {
        let is_late = deadline.is_some_and(|at| at <= Instant::now()) && !interrupted;
        for signal in signals.pending().chain(is_late.then_some(libc::SIGTERM)) {
            interrupted |= signal != libc::SIGUSR1;
            // SAFETY: sends a signal to our own child, which is not yet reaped.
            unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        }
        if let Some(status) = child.try_wait().map_err(Failure::world)? {
            return Ok((status, interrupted));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
