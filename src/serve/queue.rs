//! Texts that wait to be written: a line for each request, and the lines take turns, so that a
//! request for many texts keeps no other waiting. Whoever has gone waits no longer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::serve::desk::Text;

/// Texts that wait.
#[derive(Default)]
pub(super) struct Queue {
    lines: Mutex<Lines>,
    brought: Condvar,
}

#[derive(Default)]
struct Lines {
    /// None of them empty; the first one's turn is next.
    waiting: VecDeque<VecDeque<Text>>,
    closed: bool,
}

impl Lines {
    /// The next text that somebody waits for.
    fn next(&mut self) -> Option<Text> {
        loop {
            let mut line = self.waiting.pop_front()?;
            let text = line.pop_front();
            if !line.is_empty() {
                self.waiting.push_back(line);
            }
            if text.as_ref().is_some_and(Text::is_awaited) {
                return text;
            }
        }
    }
}

impl Queue {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of its own for the texts of a request; dropped if nobody will take them.
    pub(super) fn bring(&self, texts: Vec<Text>) {
        let mut lines = self.lines();
        if !lines.closed && !texts.is_empty() {
            lines.waiting.push_back(texts.into());
            self.brought.notify_one();
        }
    }

    /// Takes the next text; waits for one, at most so long.
    pub(super) fn take(&self, patience: Duration) -> Option<Text> {
        let mut lines = self.lines();
        if lines.waiting.is_empty() && !patience.is_zero() {
            let waited = self.brought.wait_timeout(lines, patience);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        lines.next()
    }

    /// Drops texts that nobody waits for any more.
    pub(super) fn forget_the_gone(&self) {
        let mut lines = self.lines();
        lines.waiting.iter_mut().for_each(|line| line.retain(Text::is_awaited));
        lines.waiting.retain(|line| !line.is_empty());
    }

    /// Nobody takes texts any more.
    pub(super) fn close(&self) {
        let mut lines = self.lines();
        lines.closed = true;
        lines.waiting.clear();
    }
}
