//! The device holds what it announces and allocates nothing while it works.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cpu::CpuDevice;
use crate::cpu::gemm::{Matrix, Output, Size};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting per thread. The one allocator of this package's test binary.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The counter may be gone while a thread ends.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_device_holds_what_it_announces() {
    let device = CpuDevice::new(2);
    assert_eq!(device.threads(), 2);
    assert_eq!(device.host_bytes(), CpuDevice::host_bytes_for(2));
    assert!(device.host_bytes() > 0);
}

#[test]
fn work_allocates_nothing_on_any_thread() {
    let device = CpuDevice::new(3);
    let size = Size { m: 200, n: 300, k: 500 };
    let (a, b) = (vec![1.0; size.m * size.k], vec![1.0; size.k * size.n]);
    let mut c = vec![0.0; size.m * size.n];
    let counts = [0; 3].map(AtomicUsize::new);
    // All three threads wait for each other, so that each reports its own count.
    let report = || {
        let arrived = AtomicUsize::new(0);
        device.pool.run(3, &|_, worker| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            counts[worker].store(ALLOCATIONS.get(), Ordering::SeqCst);
        });
    };
    report();
    let before = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
    for _ in 0..20 {
        let (a, b) = (Matrix::rows(&a, size.k), Matrix::transposed(&b, size.k));
        device.gemm(size, a, b, Output::new(&mut c, size.n, false));
        device.pool.map_chunks(&mut c, 1000, |_, part| part.fill(0.0));
    }
    report();
    let after = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
    assert_eq!(after, before);
    drop(std::hint::black_box(vec![0u8; 100]));
    assert!(ALLOCATIONS.get() > after[0], "the counter counts");
}
