//! The state of the run in a few atomics, for `/healthz`.
//!
//! Telemetry writes it, the web server reads it; nobody waits for anybody.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// What the run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Loading state, compiling programs.
    Starting,
    /// Stepping.
    Training,
    /// On held-out data.
    Evaluating,
    /// Finishing the step, saving, ending.
    Draining,
    /// Done.
    Finished,
    /// Stopped by a fault.
    Failed,
}

const STATES: [RunState; 6] = [
    RunState::Starting,
    RunState::Training,
    RunState::Evaluating,
    RunState::Draining,
    RunState::Finished,
    RunState::Failed,
];

/// What `/healthz` answers with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Health {
    /// Whether all is well.
    pub ok: bool,
    /// What the run is doing.
    pub state: RunState,
    /// Steps done.
    pub step: u64,
    /// Seconds since the last step was done or the state last changed.
    pub last_step_age_s: f64,
}

/// The shared state. Times are those of the run's clock.
#[derive(Debug)]
pub struct Status {
    state: AtomicU8,
    step: AtomicU64,
    moved_ms: AtomicU64,
    /// The watchdog has named somebody.
    stalled: AtomicBool,
    patience: Duration,
}

impl Status {
    /// A run that is starting. It is unwell once nothing has moved for `patience`.
    #[must_use]
    pub fn new(now: Duration, patience: Duration) -> Self {
        Self {
            state: AtomicU8::new(0),
            step: AtomicU64::new(0),
            moved_ms: AtomicU64::new(milliseconds(now)),
            stalled: AtomicBool::new(false),
            patience,
        }
    }

    /// The run is in another state.
    pub fn enter(&self, state: RunState, now: Duration) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.moved_ms.fetch_max(milliseconds(now), Ordering::Relaxed);
    }

    /// A step is done.
    pub fn step_done(&self, step: u64, now: Duration) {
        self.step.store(step, Ordering::Relaxed);
        self.moved_ms.fetch_max(milliseconds(now), Ordering::Relaxed);
    }

    /// Somebody does not move any more: the run is unwell from now on, and will be ended.
    pub fn stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// How the run is.
    #[must_use]
    pub fn health(&self, now: Duration) -> Health {
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        let age = now.saturating_sub(moved);
        let state = STATES[usize::from(self.state.load(Ordering::Relaxed))];
        let ok = match state {
            _ if self.stalled.load(Ordering::Relaxed) => false,
            RunState::Failed => false,
            RunState::Finished => true,
            _ => age <= self.patience,
        };
        let step = self.step.load(Ordering::Relaxed);
        Health { ok, state, step, last_step_age_s: age.as_secs_f64() }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
