//! A fixed pool of threads that runs the chunks of one job at a time.
//!
//! Owns its helper threads. A run allocates nothing and waits only for helpers that joined it, so
//! a helper that the machine has no core for delays nobody. Which thread runs which chunk is left
//! to chance: whoever cuts work into chunks must choose sizes that do not depend on the threads.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

#[cfg(test)]
mod tests;

/// Spins before a waiting thread begins to offer its core to others: some microseconds.
const SPINS: usize = 512;

/// Offers of its core before a waiting thread sleeps: some hundred microseconds. Waking a sleeper
/// takes tens of them, and jobs of a training step follow each other faster than that; whoever
/// wants the core meanwhile gets it.
const YIELDS: usize = 512;

/// Elements that [`Pool::for_rows`] gives to one chunk.
const ROW_CHUNK_ELEMENTS: usize = 16 * 1024;

// The state word: how many helpers are in the job, two flags, and the job's number.
const ACTIVE: u64 = 0xFFFF;
const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const NUMBER_SHIFT: u32 = 32;

type Work = dyn Fn(usize, usize) + Sync;

struct Job {
    work: &'static Work,
    chunks: usize,
    caller: Thread,
}

/// Keeps a counter on cache lines of its own.
#[repr(align(128))]
struct Alone<T>(T);

struct Shared {
    state: Alone<AtomicU64>,
    next: Alone<AtomicUsize>,
    busy: AtomicBool,
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the caller while no helper is in the job, and read only by
// helpers that joined it; joining and leaving go through `state`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the rest is `Send`.
unsafe impl Send for Shared {}

/// `threads - 1` sleeping helpers and whoever calls [`Pool::run`].
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the helpers. One thread means none: every job runs inline.
    ///
    /// Panics if `threads` is 0 or above 65,535, or if the system refuses a thread.
    pub fn new(threads: usize) -> Self {
        assert!((1..=ACTIVE as usize).contains(&threads), "a pool of {threads} threads");
        let shared = Arc::new(Shared {
            state: Alone(AtomicU64::new(0)),
            next: Alone(AtomicUsize::new(0)),
            busy: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
        });
        let start = |worker| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("octet-cpu-{worker}"))
                .spawn(move || shared.help(worker))
                .expect("the system starts a thread")
        };
        let helpers = (1..threads).map(start).collect();
        Self { shared, helpers }
    }

    /// Threads that run chunks, the caller included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work(chunk, worker)` for every chunk in `0..chunks` and returns when all are done.
    ///
    /// `worker` is below [`Self::threads`], and no two chunks run with the same one at a time; the
    /// caller is worker 0. If a chunk panics, chunks not yet begun are dropped and the panic goes
    /// on here. Panics if a job is running already: neither a chunk nor another thread may call it.
    pub fn run(&self, chunks: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let busy = Busy::enter(&self.shared.busy);
        if chunks <= 1 || self.helpers.is_empty() {
            return (0..chunks).for_each(|chunk| work(chunk, 0));
        }
        // SAFETY: only the lifetime changes, and no helper is in the job when this returns.
        let work =
            unsafe { std::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static Work>(work) };
        let shared = &*self.shared;
        let job = Job { work, chunks, caller: thread::current() };
        // SAFETY: the job is closed and no helper is in it; `busy` keeps other callers out.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.0.store(0, Ordering::Relaxed);
        let number = (shared.state.0.load(Ordering::Relaxed) >> NUMBER_SHIFT) + 1;
        shared.state.0.store(number << NUMBER_SHIFT | OPEN, Ordering::Release);
        self.helpers.iter().take(chunks - 1).for_each(|helper| helper.thread().unpark());
        shared.take_chunks(work, chunks, 0);
        shared.close();
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(busy);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Cuts `0..length` into ranges of `chunk` (the last may be shorter) and runs them.
    pub fn for_chunks(&self, length: usize, chunk: usize, work: impl Fn(Range<usize>) + Sync) {
        self.run(length.div_ceil(chunk), &|index, _| {
            work(index * chunk..length.min((index + 1) * chunk));
        });
    }

    /// Cuts `0..rows` into ranges of about 16 Ki elements, given the elements of one row.
    pub fn for_rows(&self, rows: usize, row_elements: usize, work: impl Fn(Range<usize>) + Sync) {
        self.for_chunks(rows, (ROW_CHUNK_ELEMENTS / row_elements.max(1)).max(1), work);
    }

    /// Calls `work(index, part)` for every part of `chunk` elements (the last may be shorter).
    pub fn map_chunks<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let length = data.len();
        let data = Disjoint::new(data);
        self.run(length.div_ceil(chunk), &|index, _| {
            // SAFETY: chunks do not overlap, and every chunk runs once.
            let part = unsafe { data.range(index * chunk..length.min((index + 1) * chunk)) };
            work(index, part);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(STOP, Ordering::Release);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches the panics of chunks and has none of its own.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// A helper's life.
    fn help(&self, worker: usize) {
        let mut number_seen = 0;
        while let Some(number) = self.join(number_seen) {
            number_seen = number;
            // SAFETY: joined, so the caller neither changes nor leaves the job.
            let job = unsafe { &*self.job.get() }.as_ref().expect("an open job is set");
            self.take_chunks(job.work, job.chunks, worker);
            let caller = job.caller.clone();
            // From here on the job may be gone.
            let before = self.state.0.fetch_sub(1, Ordering::Release);
            if before & OPEN == 0 && before & ACTIVE == 1 {
                caller.unpark();
            }
        }
    }

    /// Waits for an open job other than `number_seen` and joins it. None: the pool ends.
    fn join(&self, number_seen: u64) -> Option<u64> {
        let mut patience = Patience::default();
        loop {
            let state = self.state.0.load(Ordering::Relaxed);
            if state & STOP != 0 {
                return None;
            }
            let number = state >> NUMBER_SHIFT;
            if state & OPEN != 0 && number != number_seen {
                let (joined, order) = (state + 1, Ordering::Acquire);
                let result =
                    self.state.0.compare_exchange_weak(state, joined, order, Ordering::Relaxed);
                if result.is_ok() {
                    return Some(number);
                }
            } else {
                patience.wait();
            }
        }
    }

    /// Runs chunks until none is left; keeps the first panic for the caller.
    fn take_chunks(&self, work: &Work, chunks: usize, worker: usize) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let chunk = self.next.0.fetch_add(1, Ordering::Relaxed);
                if chunk >= chunks {
                    return;
                }
                work(chunk, worker);
            }
        }));
        if let Err(payload) = result {
            self.next.0.store(chunks, Ordering::Relaxed);
            let mut slot = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            slot.get_or_insert(payload);
        }
    }

    /// Lets no further helper in and waits until the last one has left.
    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::Acquire);
        let mut patience = Patience::default();
        while state & ACTIVE != 0 {
            patience.wait();
            state = self.state.0.load(Ordering::Acquire);
        }
    }
}

/// How a thread waits for another: it spins, then offers its core, then sleeps until unparked.
#[derive(Debug, Default)]
struct Patience(usize);

impl Patience {
    fn wait(&mut self) {
        if self.0 < SPINS {
            spin_loop();
        } else if self.0 < SPINS + YIELDS {
            thread::yield_now();
        } else {
            thread::park();
            self.0 = 0;
            return;
        }
        self.0 += 1;
    }
}

/// Marks the pool as in use until it is dropped.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    fn enter(flag: &'a AtomicBool) -> Self {
        assert!(!flag.swap(true, Ordering::Acquire), "the pool runs one job at a time");
        Self(flag)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A mutable slice of which several workers each take their own part.
pub struct Disjoint<'a, T> {
    pointer: *mut T,
    length: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: hands out parts that, by the contract of `range`, do not overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as a mutable slice.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice for as long as parts of it are handed out.
    pub fn new(data: &'a mut [T]) -> Self {
        Self { pointer: data.as_mut_ptr(), length: data.len(), borrow: PhantomData }
    }

    /// The elements of `range`. Panics if it sticks out.
    ///
    /// # Safety
    /// No part that overlaps this one is alive at the same time.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts apart")]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} sticks out");
        // SAFETY: inside the slice, as just checked; the caller vouches for exclusion.
        unsafe {
            std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.end - range.start)
        }
    }
}
