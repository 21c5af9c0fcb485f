//! The parent of the engine: starts it, passes signals on, and decides what its end means.
//!
//! It keeps the snapshot memory, so that an engine that dies of the world (a device, memory) is
//! followed by one that goes on from the newest good state: a few times, with the reason, never in
//! an endless loop, and not at all when the last word of an engine says that it would be no use.
//! The engine dies with its parent.

use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use octet::config::Config;
use octet::failure::{self, Failure};
use octet_actors::schedule::STEPS_AHEAD;
use octet_actors::snapshot::SnapshotSlots;
use serde::{Deserialize, Serialize};
use signal_hook::iterator::Signals;

use crate::cli::signals;
use crate::cli::train::Arguments;

#[cfg(test)]
mod tests;

/// The descriptor of the snapshot memory, for the engine.
const SNAPSHOTS: &str = "OCTET_SNAPSHOTS";
/// The descriptor of a pipe, for the engine's last word.
const LAST_WORD: &str = "OCTET_LAST_WORD";
/// Why the engine before it ended.
const RESTARTED: &str = "OCTET_RESTARTED";

/// Longest last word: it must fit in the pipe while nobody reads.
const WORD_BYTES_MAX: usize = 16 << 10;

/// Engines that may fail one after the other within [`RESTART_WINDOW`].
const RESTARTS: usize = 3;
const RESTART_WINDOW: Duration = Duration::from_secs(3600);

/// What an engine says when it fails, for its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastWord {
    /// Steps done.
    pub(crate) step: u64,
    /// Why.
    pub(crate) what: String,
    /// Another engine would come to the same end.
    pub(crate) lasting: bool,
}

/// What an engine knows of its parent.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Snapshot memory.
    pub(crate) snapshots: Option<RawFd>,
    /// Why the engine before it ended.
    pub(crate) restarted: Option<String>,
    last_word: Option<RawFd>,
}

impl Inherited {
    /// What the parent of this process has left it; nothing if it was not started by one.
    pub(crate) fn take() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
        let (snapshots, last_word) = (number(SNAPSHOTS), number(LAST_WORD));
        Self { snapshots, restarted: std::env::var(RESTARTED).ok(), last_word }
    }

    /// Tells the parent. That nobody listens is no failure of its own.
    pub(crate) fn say(self, mut word: LastWord) {
        let Some(number) = self.last_word else { return };
        word.what.truncate(word.what.floor_char_boundary(WORD_BYTES_MAX / 2));
        let text = serde_json::to_vec(&word).expect("plain data becomes JSON");
        // SAFETY: the parent made it for this process alone, and nobody else here knows it.
        let mut pipe = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(number) });
        let _nobody_listens = pipe.write_all(&text);
    }
}

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

/// The failures of a run.
#[derive(Debug, Default)]
struct Failures {
    at: Vec<Instant>,
    last: Option<LastWord>,
}

impl Failures {
    /// An engine has failed. One that fails as the last one did, and came no further than what had
    /// been ordered by then, fails for a reason that stays.
    fn add(&mut self, now: Instant, why: &str, word: Option<LastWord>) -> Next {
        let last = std::mem::replace(&mut self.last, word);
        let Self { at, last: word } = self;
        if word.as_ref().is_some_and(|word| word.lasting) {
            return Next::End;
        }
        if let (Some(last), Some(word)) = (last, word)
            && last.what == word.what
            && word.step <= last.step + STEPS_AHEAD
        {
            let LastWord { step, what, .. } = word;
            let what =
                format!("the same failure twice, at step {step}, so it is no chance: {what}");
            return Next::GiveUp(what);
        }
        at.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
        at.push(now);
        if at.len() > RESTARTS {
            return Next::GiveUp(format!(
                "the engine failed {} times within an hour: {why}",
                at.len()
            ));
        }
        Next::Again
    }
}

/// Starts engines until one ends well or trying again is no use.
pub(crate) fn parent(arguments: &Arguments) -> Result<ExitCode, Failure> {
    // Bad input is refused here, before anything is started.
    Config::load(&arguments.config, &arguments.sets)?;
    // It outlives engines; the first one decides how much there is.
    let memory = SnapshotSlots::reserve()?;
    let mut signals = Signals::new(signals::ending()).map_err(Failure::world)?;
    let mut failures = Failures::default();
    let mut restarted = None;
    loop {
        let (mut child, mut said) = start_engine(arguments, &memory, restarted.as_deref())?;
        let (status, interrupted) = wait(&mut child, &mut signals)?;
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
        let word = last_word(&mut said);
        let why = describe(status);
        let reason = word.as_ref().map_or(why.clone(), |word| format!("{why}: {}", word.what));
        match failures.add(Instant::now(), &why, word) {
            Next::Again => {}
            Next::End => return Ok(ExitCode::from(failure::WORLD)),
            Next::GiveUp(what) => return Err(Failure::world(what)),
        }
        // Its terminal may be gone.
        let _unread = writeln!(
            std::io::stderr(),
            "octet: {why}; starting it again from the newest good state"
        );
        restarted = Some(reason);
    }
}

/// What an engine that has ended left in its pipe.
fn last_word(said: &mut PipeReader) -> Option<LastWord> {
    let mut text = Vec::new();
    // An engine that was killed has said nothing, or half of it.
    let _cut_off = said.take(WORD_BYTES_MAX as u64).read_to_end(&mut text);
    serde_json::from_slice(&text).ok()
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("the engine died of signal {signal}"),
        None => format!("the engine ended with code {}", status.code().unwrap_or(-1)),
    }
}

fn start_engine(
    arguments: &Arguments,
    memory: &OwnedFd,
    restarted: Option<&str>,
) -> Result<(Child, PipeReader), Failure> {
    let program = std::env::current_exe().map_err(Failure::world)?;
    let (said, says) = std::io::pipe().map_err(Failure::world)?;
    let mut command = Command::new(program);
    command.arg("engine");
    arguments.pass_on(&mut command);
    command.env(SNAPSHOTS, memory.as_raw_fd().to_string());
    command.env(LAST_WORD, says.as_raw_fd().to_string());
    command.env_remove(RESTARTED);
    if let Some(why) = restarted {
        command.env(RESTARTED, why);
    }
    // A group of its own: signals from a terminal reach it through the parent, once.
    command.process_group(0);
    let (parent, word) = (std::process::id(), says.as_raw_fd());
    // SAFETY: between fork and exec only async-signal-safe calls are made, and nothing allocates.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
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
        command.spawn().map_err(|e| Failure::world(format!("cannot start the engine: {e}")));
    Ok((child?, said))
}

/// Waits for the engine and passes signals on to it.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<(ExitStatus, bool), Failure> {
    let mut interrupted = false;
    loop {
        for signal in signals.pending() {
            interrupted = true;
            // SAFETY: sends a signal to our own child, which is not yet reaped.
            unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        }
        if let Some(status) = child.try_wait().map_err(Failure::world)? {
            return Ok((status, interrupted));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
