//! The last messages of one actor, for the dump after a broken assertion.
//!
//! Bounded in number and in bytes; the oldest goes. Written by the actor's thread and read by
//! another without either waiting.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use serde::Serialize;

use crate::outside::Clock;

/// Events kept per actor.
pub const RING_EVENTS: usize = 64;
/// Bytes kept of each.
pub const EVENT_BYTES: usize = 240;

/// One thing that happened to an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// The message as `Debug` shows it, cut short.
    pub what: String,
}

/// The ring.
pub struct Ring {
    clock: Arc<dyn Clock>,
    events: ArrayQueue<Event>,
}

impl Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring of {}", self.events.len())
    }
}

impl Ring {
    /// An empty ring.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, events: ArrayQueue::new(RING_EVENTS) }
    }

    /// Keeps one event, and forgets the oldest if there are too many.
    pub fn record(&self, what: &dyn Debug) {
        let mut short = Short(String::new());
        // An error only says that the rest was cut off.
        let _cut = write!(short, "{what:?}");
        let event = Event { unix_ms: self.clock.unix_ms(), what: short.0 };
        drop(self.events.force_push(event));
    }

    /// Takes what is there, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        (0..RING_EVENTS).map_while(|_| self.events.pop()).collect()
    }
}

/// Ends the formatting, and not only its result, once there is enough.
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut left = EVENT_BYTES - self.0.len();
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        while !text.is_char_boundary(left) {
            left -= 1;
        }
        self.0.push_str(&text[..left]);
        Err(fmt::Error)
    }
}
