//! The supervisor's clock, in seconds. Owns nothing but a handle.

use std::fmt;
use std::sync::Arc;

use crate::outside::Clock;

/// Time, as a part of a struct that can be shown.
#[derive(Clone)]
pub(super) struct ClockHandle(Arc<dyn Clock>);

impl ClockHandle {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(clock)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0.monotonic().as_secs_f64()
    }
}

impl fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
