//! Streams as queues that run late: a call only puts work down, and some of what may run runs at
//! times, picked at random by seed; one stream after the other is slow for a while.
//!
//! Rules, those of a GPU's driver: work of one stream runs in order; a wait holds its stream until
//! the place that was last marked when it was asked for is passed; a failed piece of work fails
//! every later call.

use std::collections::{HashMap, VecDeque};

use crate::device::{Event, STREAMS};
use crate::error::{Error, Result};
use crate::ops::Stream;

#[cfg(test)]
mod tests;

/// For about so many pieces of work one stream is slower than all others: for a while, or for
/// steps.
const SLOW_FOR: [u64; 3] = [32, 256, 4096];

/// Work that waits for its turn.
pub type Work = Box<dyn FnOnce() -> Result<()>>;

enum Item {
    Work(Work),
    /// A place, the n-th that is marked by the event.
    Mark(Event, usize),
    Wait(Event, usize),
}

/// All streams of a device.
#[derive(Default)]
pub struct Streams {
    queues: [VecDeque<Item>; STREAMS],
    /// How often an event was asked to mark a place.
    marked: HashMap<Event, usize>,
    /// Up to which of these the streams have come.
    passed: HashMap<Event, usize>,
    failed: Option<String>,
    /// A stream that stands still for a while, unless it alone may go on.
    slow: usize,
    slow_for: u64,
    state: u64,
}

impl Streams {
    /// Empty streams whose order follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let slow_for = SLOW_FOR[(seed % SLOW_FOR.len() as u64) as usize];
        let mut streams = Self { slow_for, state: seed, ..Self::default() };
        streams.slow = streams.below(STREAMS as u64 + 1) as usize;
        streams
    }

    /// Gives work to a stream.
    ///
    /// # Errors
    /// Of earlier work, as for every call.
    pub fn push(&mut self, stream: Stream, work: Work) -> Result<()> {
        self.add(stream, Item::Work(work))
    }

    /// Marks the place that a stream has been given work up to.
    ///
    /// # Errors
    /// See [`Self::push`].
    pub fn record(&mut self, event: Event, stream: Stream) -> Result<()> {
        let marked = self.marked.entry(event).or_default();
        *marked += 1;
        let item = Item::Mark(event, *marked);
        self.add(stream, item)
    }

    /// Holds a stream until the last marked place is passed, if there is one.
    ///
    /// # Errors
    /// See [`Self::push`].
    pub fn wait(&mut self, stream: Stream, event: Event) -> Result<()> {
        let marked = self.marked.get(&event).copied().unwrap_or_default();
        self.add(stream, Item::Wait(event, marked))
    }

    /// Whether the last marked place is passed; whoever asks lets some time pass.
    ///
    /// # Errors
    /// See [`Self::push`].
    pub fn reached(&mut self, event: Event) -> Result<bool> {
        self.run_some()?;
        Ok(self.passed(event))
    }

    /// Whether the last marked place is passed, without letting time pass.
    pub fn passed(&self, event: Event) -> bool {
        let marked = self.marked.get(&event).copied().unwrap_or_default();
        self.is_passed(event, marked)
    }

    /// Runs work, of whichever streams, until the last marked place is passed.
    ///
    /// # Errors
    /// See [`Self::push`]; and when streams wait for each other.
    pub fn synchronize(&mut self, event: Event) -> Result<()> {
        while !self.passed(event) {
            if !self.run_one()? {
                return Err(Error::Device("streams wait for each other".to_string()));
            }
        }
        Ok(())
    }

    /// Runs everything.
    ///
    /// # Errors
    /// See [`Self::push`]; and when streams wait for each other.
    pub fn finish(&mut self) -> Result<()> {
        while self.run_one()? {}
        if self.queues.iter().all(VecDeque::is_empty) {
            return Ok(());
        }
        Err(Error::Device("streams wait for each other".to_string()))
    }

    fn add(&mut self, stream: Stream, item: Item) -> Result<()> {
        self.queues[stream as usize].push_back(item);
        self.run_some()
    }

    fn is_passed(&self, event: Event, marked: usize) -> bool {
        self.passed.get(&event).copied().unwrap_or_default() >= marked
    }

    /// Lets a random time pass, mostly none.
    fn run_some(&mut self) -> Result<()> {
        if let Some(why) = &self.failed {
            return Err(Error::Device(why.clone()));
        }
        while self.below(3) == 0 && self.run_one()? {}
        Ok(())
    }

    /// Runs the next item of a random stream that may go on. Returns whether any may.
    fn run_one(&mut self) -> Result<bool> {
        let may_run = |stream: &usize| match self.queues[*stream].front() {
            None => false,
            Some(Item::Wait(event, marked)) => self.is_passed(*event, *marked),
            Some(Item::Work(_) | Item::Mark(..)) => true,
        };
        let mut ready: Vec<usize> = (0..STREAMS).filter(may_run).collect();
        if ready.is_empty() {
            return Ok(false);
        }
        if self.below(self.slow_for) == 0 {
            self.slow = self.below(STREAMS as u64 + 1) as usize;
        }
        if ready.len() > 1 {
            ready.retain(|&stream| stream != self.slow);
        }
        let stream = ready[self.below(ready.len() as u64) as usize];
        match self.queues[stream].pop_front() {
            Some(Item::Work(work)) => {
                work().inspect_err(|error| self.failed = Some(error.to_string()))?;
            }
            Some(Item::Mark(event, number)) => {
                self.passed.insert(event, number);
            }
            Some(Item::Wait(..)) | None => {}
        }
        Ok(true)
    }

    /// SplitMix64, from 0 to `end` - 1.
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
