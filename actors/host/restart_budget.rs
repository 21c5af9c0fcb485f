//! How often something may be started again: a count within a window of time.
//!
//! A pure sum; whoever restarts brings the time.

use std::collections::VecDeque;
use std::time::Duration;

/// At most `restarts` within any `within`.
#[derive(Debug, Clone)]
pub struct RestartBudget {
    restarts: usize,
    within: Duration,
    spent: VecDeque<Duration>,
}

impl RestartBudget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(restarts: usize, within: Duration) -> Self {
        Self { restarts, within, spent: VecDeque::new() }
    }

    /// Takes one restart at `now` (monotonic). False: none is left.
    #[must_use]
    pub fn spend(&mut self, now: Duration) -> bool {
        while self.spent.front().is_some_and(|then| now.saturating_sub(*then) > self.within) {
            self.spent.pop_front();
        }
        let left = self.spent.len() < self.restarts;
        if left {
            self.spent.push_back(now);
        }
        left
    }

    /// `3 restarts within 60 s`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} restarts within {} s", self.restarts, self.within.as_secs())
    }
}
