//! Every chunk once, whatever the threads do; panics arrive at the caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cpu::pool::{Disjoint, Pool};

#[test]
fn every_chunk_runs_once_and_no_worker_twice_at_a_time() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(threads);
        for chunks in [0, 1, 2, 3, 7, 64, 1000] {
            let counts: Vec<_> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            let inside: Vec<_> = (0..threads).map(|_| AtomicBool::new(false)).collect();
            pool.run(chunks, &|chunk, worker| {
                assert!(!inside[worker].swap(true, Ordering::SeqCst));
                counts[chunk].fetch_add(1, Ordering::SeqCst);
                inside[worker].store(false, Ordering::SeqCst);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::SeqCst) == 1));
        }
    }
}

#[test]
fn many_short_jobs_follow_each_other() {
    let pool = Pool::new(4);
    let mut data = vec![0u32; 37];
    for round in 1..=20_000 {
        pool.map_chunks(&mut data, 5, |_, part| part.iter_mut().for_each(|value| *value += 1));
        assert!(round % 1000 != 0 || data.iter().all(|&value| value == round));
    }
}

#[test]
fn helpers_take_part_and_wake_from_sleep() {
    let pool = Pool::new(2);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(5));
        let arrived = AtomicUsize::new(0);
        // Each chunk waits for the other one, so that two threads must run them.
        pool.run(2, &|_, _| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        for bad in [0, 1, 30] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(31, &|chunk, _| {
                    std::thread::yield_now();
                    assert!(chunk != bad, "chunk {bad} fails");
                });
            }));
            let payload = result.expect_err("the panic was swallowed");
            let message = payload.downcast_ref::<String>().expect("a formatted message");
            assert_eq!(*message, format!("chunk {bad} fails"));
            let done = AtomicUsize::new(0);
            pool.run(9, &|_, _| {
                done.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(done.load(Ordering::SeqCst), 9);
        }
    }
}

#[test]
fn a_job_inside_a_job_is_refused() {
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let nested = AssertUnwindSafe(|| pool.run(4, &|_, _| pool.run(1, &|_, _| ())));
        let payload = catch_unwind(nested).expect_err("nested jobs ran");
        let message = payload.downcast_ref::<&str>().expect("a plain message");
        assert!(message.contains("one job at a time"));
    }
}

#[test]
fn ranges_do_not_depend_on_threads() {
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        let mut data = vec![0usize; 100];
        let shared = Disjoint::new(&mut data);
        pool.for_chunks(100, 33, |range| {
            // SAFETY: ranges do not overlap.
            let part = unsafe { shared.range(range.clone()) };
            part.fill(range.len());
        });
        assert_eq!(data[..99], [33; 99]);
        assert_eq!(data[99], 1);
        let longest = AtomicUsize::new(0);
        pool.for_rows(50, 1000, |range| {
            longest.fetch_max(range.len(), Ordering::SeqCst);
        });
        assert_eq!(longest.load(Ordering::SeqCst), 16);
    }
}

#[test]
#[should_panic(expected = "sticks out")]
fn a_part_outside_the_slice_is_refused() {
    let mut data = [0u8; 4];
    let shared = Disjoint::new(&mut data);
    // SAFETY: the only part.
    let _ = unsafe { shared.range(2..5) };
}
