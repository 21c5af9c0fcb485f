//! The last save of a run finds no space on the disk: it is tried again for a while, since somebody
//! may make some, and nothing else keeps what the run has done since its last checkpoint.
//!
//! The state stays with the ranks meanwhile. Whoever interrupts the wait gets one more try.

use crate::fault::Fault;
use crate::supervisor::Supervisor;
use crate::telemetry::TelemetryMessage;

/// Seconds before the second try; every further wait is twice as long.
const FIRST_WAIT_S: f64 = 5.0;
/// Longest wait between two tries, in seconds.
const WAIT_S_MAX: f64 = 60.0;
/// For how long there are tries, in seconds: less than what `/healthz` bears without a step.
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
    fn new(now: f64) -> Self {
        Self { wait_s: FIRST_WAIT_S, due: None, until: now + PATIENCE_S }
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
        let space = self.space.get_or_insert_with(|| SpaceWait::new(now));
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
            "{fault}; free some space: it is tried again in {wait:.0} s, and for {left:.0} s in all"
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
            self.advance();
        }
    }

    /// The person at the run does not wait: tries once more, at once.
    pub(super) fn wait_no_longer(&mut self) {
        if let Some(space) = &mut self.space
            && space.due.take().is_some()
        {
            space.until = self.clock.seconds();
            self.advance();
        }
    }
}
