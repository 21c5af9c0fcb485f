//! Where a step is given up, the same place for all ranks of one process.
//!
//! Every rank asks before each of its micro-batches, by number, and once more before the update.
//! Whoever asks for the end fixes a number that no rank has passed yet: all ranks run the
//! micro-batches below it and none above, so ranks that meet inside programs never wait for one
//! that has left. One word of memory; nobody waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(test)]
mod tests;

/// What a rank asks about after its last micro-batch: the update. Numbers of micro-batches are
/// below it, and what is begun with it stays below [`NONE`]: a limit always changes the word.
pub const UPDATE: u16 = u16::MAX - 2;

/// No limit.
const NONE: u16 = u16::MAX;

/// The word: a step's ticket, the first number that nobody may begin, and how many were begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    ticket: u32,
    limit: u16,
    begun: u16,
}

impl Word {
    fn pack(self) -> u64 {
        u64::from(self.ticket) << 32 | u64::from(self.limit) << 16 | u64::from(self.begun)
    }

    fn unpack(word: u64) -> Self {
        Self { ticket: (word >> 32) as u32, limit: (word >> 16) as u16, begun: word as u16 }
    }
}

/// Shared by all ranks and whoever may end a run.
#[derive(Debug)]
pub struct Agreement {
    requested: AtomicBool,
    word: AtomicU64,
}

impl Default for Agreement {
    fn default() -> Self {
        let word = Word { ticket: u32::MAX, limit: NONE, begun: 0 };
        Self { requested: AtomicBool::new(false), word: AtomicU64::new(word.pack()) }
    }
}

impl Agreement {
    /// Asks all ranks to give up what they do at the next occasion, now and from now on.
    pub fn give_up(&self) {
        self.requested.store(true, Ordering::SeqCst);
        let limit = |word| {
            let word = Word::unpack(word);
            Some(Word { limit: word.limit.min(word.begun), ..word }.pack())
        };
        // The closure always gives a value.
        let _always = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, limit);
    }

    /// Whether work outside of steps, where ranks do not meet, is to be given up.
    pub fn gives_up(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether micro-batch `number` of this rank, or [`UPDATE`], may begin in the step of `ticket`.
    /// Every rank gets the same answer for the same number.
    pub fn begins(&self, ticket: u64, number: u16) -> bool {
        let ticket = ticket as u32;
        let mut current = self.word.load(Ordering::SeqCst);
        loop {
            let mut word = Word::unpack(current);
            if word.ticket != ticket {
                let limit = if self.gives_up() { 0 } else { NONE };
                word = Word { ticket, limit, begun: 0 };
            }
            if number < word.limit {
                word.begun = word.begun.max(number + 1);
            }
            let new = word.pack();
            match self.word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return number < word.limit,
                Err(changed) => current = changed,
            }
        }
    }
}
