//! The plan is the allocation.

use crate::memory::{Arena, ArenaPlan, REGION_ALIGNMENT};

#[test]
fn regions_are_aligned_disjoint_and_sum_to_the_arena() {
    let mut plan = ArenaPlan::new();
    let spans = [1usize, 256, 0, 257, 4096].map(|bytes| plan.reserve(format!("{bytes}"), bytes));
    let mut end = 0;
    for span in spans {
        assert_eq!(span.offset % REGION_ALIGNMENT, 0);
        assert!(span.offset >= end);
        end = span.offset + span.bytes;
    }
    assert_eq!(plan.bytes(), 256 + 256 + 512 + 4096);
    let arena = Arena::in_host_memory(&plan).unwrap();
    assert_eq!(arena.bytes(), plan.bytes());
    // SAFETY: the arena is alive and only this test uses it.
    assert!(unsafe { arena.slice(spans[3]).as_slice::<u8>() }.iter().all(|&byte| byte == 0));
}

#[test]
#[should_panic(expected = "part")]
fn a_span_outside_the_arena_is_refused() {
    let mut plan = ArenaPlan::new();
    let span = plan.reserve("a", 16);
    let _ = span.part(8, 9);
}
