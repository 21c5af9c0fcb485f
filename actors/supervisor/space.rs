//! The last save of a run finds no space on the disk: it is tried again for a while, since somebody
//! may make some, and nothing else keeps what the run has done since its last checkpoint.
//!
//! The state stays with the ranks meanwhile. Whoever interrupts the run does not wait: a wait ends
//! with one more try, or with the one that is being made; a save that fails after the interrupt is
//! tried once more, [`FIRST_WAIT_S`] later.

use crate::fault::Fault;
use crate::supervisor::Supervisor;
use crate::telemetry::TelemetryMessage;

/// Seconds before the second try; every further wait is twice as long.
const FIRST_WAIT_S: f64 = 5.0;
/// Longest wait between two tries, in seconds.
const WAIT_S_MAX: f64 = 60.0;
/// For how long there are tries, in seconds.
pub(super) const PATIENCE_S: f64 = 300.0;

/// Where the tries stand.
#[derive(Debug)]
pub(super) struct SpaceWait {
    /// The wait after the next failure, in seconds.
    wait_s: f64,
    /// When the next try is due; `None` while one is being made.
    due: Option<f64>,
    /// When the last try is due.
    until: f64,
}

impl SpaceWait {
    fn new(now: f64, interrupted: bool) -> Self {
        let patience = if interrupted { FIRST_WAIT_S } else { PATIENCE_S };
        Self { wait_s: FIRST_WAIT_S, due: None, until: now + patience }
    }

    /// Seconds to the next try after a failure; `None` if it was the last one.
    fn again(&mut self, now: f64) -> Option<f64> {
        let left = self.until - now;
        let wait = self.wait_s.min(left);
        self.wait_s = (2.0 * self.wait_s).min(WAIT_S_MAX);
        self.due = (left > 0.0).then_some(now + wait);
        self.due.map(|_| wait)
    }

    /// No try is being made.
    pub(super) fn waits(&self) -> bool {
        self.due.is_some()
    }
}

impl Supervisor {
    /// The last save of the run has found no space: waits, or gives up. What is on disk stays.
    pub(super) fn no_space(&mut self, fault: Fault) {
        let now = self.clock.seconds();
        let interrupted = self.interrupted;
        let space = self.space.get_or_insert_with(|| SpaceWait::new(now, interrupted));
        let Some(wait) = space.again(now) else {
            // Another engine would find the same disk.
            let what = format!(
                "{}; no space came free, so what came after the checkpoint before is not saved",
                fault.what
            );
            return self.fail(Fault::lasting(fault.actor, what));
        };
        let left = space.until - now;
        let what = format!(
            "{fault}; free some space: it is tried again in {wait:.0} s, and for up to {left:.0} s \
             more"
        );
        self.ports.telemetry.tell(TelemetryMessage::Note { what });
    }

    /// Nothing is done until a try is due.
    #[cfg(test)]
    pub(crate) fn waits_for_space(&self) -> bool {
        !self.ended && self.space.as_ref().is_some_and(SpaceWait::waits)
    }

    /// Tries again, if that is due.
    pub(super) fn tick(&mut self) {
        let now = self.clock.seconds();
        let space = self.space.as_mut();
        if space.and_then(|space| space.due.take_if(|due| *due <= now)).is_some() {
            self.try_again();
        }
    }

    /// The person at the run does not wait: no try after this one.
    pub(super) fn wait_no_longer(&mut self) {
        let now = self.clock.seconds();
        let Some(space) = &mut self.space else { return };
        space.until = now.min(space.until);
        if space.due.take().is_some() {
            self.try_again();
        }
    }

    fn try_again(&mut self) {
        // A save is the last piece of work: nothing came after the one that failed.
        let idle = self.current.is_none() && self.filling.is_none() && self.given.is_empty();
        assert!(idle, "work beside a wait for space");
        self.advance();
    }
}
