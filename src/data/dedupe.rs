//! Finds what stands in the data more than once, or in the data that models are tested with.
//!
//! Duty: which documents go: exact copies, near duplicates by MinHash, documents that hold
//! evaluation samples, and semantic duplicates by given embeddings ([`documents`] asks them all);
//! and which [`passages`] of documents: lines, paragraphs, and whatever else is long enough.
//! Documents are known by their numbers in reading order, and the first of several stays.
//! Ownership: temporary files in the folder of the preparation. Prohibition: reads no text of the
//! data, changes none; nothing here depends on the number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::error::DataError;

mod bits;
mod clusters;
pub mod config;
mod contamination;
pub(super) mod documents;
mod exact;
mod index;
mod minhash;
mod near;
pub(super) mod passages;
mod semantic;
mod spill;
mod substring;
mod units;
mod words;

pub use config::DedupeConfig;
pub(super) use contamination::Samples;

/// What some work gives for each of `count` numbers, in order, on some threads.
///
/// # Errors
/// The first error by number.
fn in_partitions<T: Send>(
    count: usize,
    threads: usize,
    work: &(dyn Fn(usize) -> Result<T, DataError> + Sync),
) -> Result<Vec<T>, DataError> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, work(number)));
        }
    };
    let mut all: Vec<(usize, Result<T, DataError>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(take)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<_>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    all.sort_unstable_by_key(|&(number, _)| number);
    all.into_iter().map(|(_, result)| result).collect()
}
