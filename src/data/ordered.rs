//! Work on the parts of a corpus on all cores, with the results in the order of the parts.
//!
//! Duty: one thread reads parts, others work on them, the caller's thread takes the results.
//! Limits: so many parts at once, whose memory is used again. Prohibition: no result depends on
//! the number of threads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::error::DataError;
use super::source::Corpus;
use super::source::parts::{Cut, Part};

/// More threads than this only wait for the reader.
const THREADS_MAX: usize = 64;
/// Parts for each working thread: one in work, one ready.
const PARTS_PER_THREAD: usize = 2;
/// Parts for the reader and the writer.
const PARTS_BESIDES: usize = 2;
/// Between two questions whether to go on while nothing happens.
const POLL: Duration = Duration::from_millis(100);

/// Threads to work with on this machine.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX))
}

/// What is read, and by how many threads it is worked on.
#[derive(Clone, Copy)]
pub(super) struct Ordered<'a> {
    pub(super) corpus: &'a Corpus,
    /// Where a text may be cut into parts.
    pub(super) cut: Cut<'a>,
    pub(super) threads: usize,
    /// Parts at the start that are passed over.
    pub(super) skip: u64,
}

/// The place of a part in the corpus, and what became of it.
type Numbered<T> = (u64, thread::Result<Result<(T, Part), DataError>>);

impl Ordered<'_> {
    /// Each thread makes itself a worker, which turns parts into results; `take` gets these in the
    /// order of the parts, with the bytes of text done so far after each, and now and then
    /// nothing, so that it can end the work.
    ///
    /// # Errors
    /// The first error, in the order of parts, of reading, working or taking.
    pub(super) fn run<T: Send, W: FnMut(&Part) -> Result<T, DataError>>(
        &self,
        worker: &(dyn Fn() -> W + Sync),
        take: &mut dyn FnMut(Option<T>, u64) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let slots = self.threads * PARTS_PER_THREAD + PARTS_BESIDES;
        thread::scope(|scope| {
            let (give_back, memory) = bounded(slots);
            for _ in 0..slots {
                // The channel holds them all.
                let _held = give_back.send(Part::default());
            }
            let (work, parts) = bounded(slots);
            let (done, results) = bounded(slots + 1);
            for _ in 0..self.threads {
                let (parts, done) = (parts.clone(), done.clone());
                scope.spawn(move || work_on(worker(), &parts, &done));
            }
            drop(parts);
            scope.spawn(move || self.read(&memory, &work, &done));
            // Whatever ends this early closes the channels, and that ends the threads.
            in_order(&results, &give_back, self.skip, take)
        })
    }

    fn read<T>(
        &self,
        memory: &Receiver<Part>,
        work: &Sender<(u64, Part)>,
        done: &Sender<Numbered<T>>,
    ) {
        let mut number = 0;
        // Of the parts that are passed over.
        let spare = Cell::new(None);
        // A closed channel means that the taker has ended with an error of its own.
        let read = self.corpus.for_each_part(
            self.cut,
            &mut || match spare.take() {
                Some(part) => Ok(part),
                None => memory.recv().map_err(|_| DataError::Interrupted),
            },
            &mut |part| {
                number += 1;
                if number <= self.skip {
                    spare.set(Some(part));
                    return Ok(());
                }
                work.send((number - 1, part)).map_err(|_| DataError::Interrupted)
            },
        );
        if let Err(error) = read {
            let _nobody_listens = done.send((number, Ok(Err(error))));
        }
    }
}

fn work_on<T>(
    mut worker: impl FnMut(&Part) -> Result<T, DataError>,
    parts: &Receiver<(u64, Part)>,
    done: &Sender<Numbered<T>>,
) {
    for (number, part) in parts {
        let work = AssertUnwindSafe(|| Ok((worker(&part)?, part)));
        // A panic is carried to the taker, which else would wait for this part.
        let result = catch_unwind(work);
        if done.send((number, result)).is_err() {
            return;
        }
    }
}

/// Takes results in their order until there are no more.
fn in_order<T>(
    results: &Receiver<Numbered<T>>,
    give_back: &Sender<Part>,
    mut next: u64,
    take: &mut dyn FnMut(Option<T>, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut early = BTreeMap::new();
    let mut done = 0;
    loop {
        match results.recv_timeout(POLL) {
            Ok((number, result)) => {
                early.insert(number, result);
            }
            Err(RecvTimeoutError::Timeout) => take(None, done)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while let Some(result) = early.remove(&next) {
            let (made, mut part) = result.unwrap_or_else(|panic| resume_unwind(panic))?;
            next += 1;
            done += part.text.len() as u64;
            take(Some(made), done)?;
            part.clear();
            let _reader_is_done = give_back.send(part);
        }
    }
}
