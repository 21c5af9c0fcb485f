//! Collectives take no memory per call. A test of its own, since it replaces the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use octet_kernels::collectives::{Communicator, JoinTree, LaneTree, LocalGroup};
use octet_kernels::dtype::DType;
use octet_kernels::memory::DeviceSlice;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Every collective once, over this rank's `memory` of 4 KiB.
fn all_calls(group: &mut dyn Communicator, join: &JoinTree, memory: DeviceSlice) {
    let rank = group.rank();
    let send = [0, 1, 2, 3].map(|q| memory.part(q * 64, 64));
    let receive = [4, 5, 6, 7].map(|q| memory.part(q * 64, 64));
    let staging = memory.part(1024, 1024);
    // SAFETY: the memory is this rank's own and outlives the calls.
    unsafe {
        group.broadcast(1, memory).unwrap();
        group.all_gather(send[0], &receive).unwrap();
        group.all_to_all(&send, &receive).unwrap();
        group.join(join, DType::F32, &receive, receive[0]).unwrap();
        group.reduce_scatter(DType::F32, &send, staging, send[rank]).unwrap();
        group.all_reduce(DType::F64, memory.part(0, 1024), staging).unwrap();
    }
    group.barrier().unwrap();
}

#[test]
fn no_call_allocates() {
    let tree = LaneTree::new(4, 4).unwrap();
    let group = LocalGroup::new(4, Duration::from_secs(60));
    std::thread::scope(|scope| {
        for mut group in group {
            scope.spawn(move || {
                let mut memory = vec![0f64; 512];
                let memory = DeviceSlice::from_host(&mut memory);
                let before = ALLOCATIONS.get();
                let join = tree.join_tree();
                assert!(ALLOCATIONS.get() > before, "the counter counts");
                let before = ALLOCATIONS.get();
                for _ in 0..100 {
                    all_calls(&mut group, &join, memory);
                }
                assert_eq!(ALLOCATIONS.get(), before);
            });
        }
    });
}
