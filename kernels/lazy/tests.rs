//! What every device promises, on one that is done with a call at once and on one that is late.

use std::time::Duration;

use bytemuck::bytes_of;

use crate::cpu::CpuDevice;
use crate::device::{BlockSums, Decision, Device, Event, Events, HELD, OVERFLOW};
use crate::lazy;
use crate::memory::{ArenaPlan, DeviceSlice};
use crate::ops::Stream;

fn late(seed: u64) -> Box<dyn Device> {
    lazy::open(1, seed, None).remove(0)().expect("the CPU is there").0
}

#[test]
fn time_is_told_where_a_stream_passes_an_event() {
    let mut plan = ArenaPlan::new();
    let cells = plan.reserve("cells", 64);
    for seed in 0..20 {
        for (device, is_late) in
            [(Box::new(CpuDevice::new(1)) as Box<dyn Device>, false), { (late(seed), true) }]
        {
            let arena = device.allocate(&plan, Events { all: 3, timed: 2 }).unwrap();
            assert!(device.elapsed(Event(1), Event(2)).is_err(), "nothing is marked");
            device.record(Event(1), Stream::CopyOut).unwrap();
            // SAFETY: memory that was just taken.
            unsafe { device.clear(arena.slice(cells)) }.unwrap();
            device.record(Event(0), Stream::Compute).unwrap();
            device.record(Event(2), Stream::Compute).unwrap();
            device.synchronize(Event(2)).unwrap();
            device.synchronize(Event(1)).unwrap();
            assert!(device.reached(Event(2)).unwrap());
            device.elapsed(Event(1), Event(2)).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            device.record(Event(2), Stream::Compute).unwrap();
            // Not passed yet, perhaps: then there is no answer, and not an old one.
            let early = device.elapsed(Event(1), Event(2));
            assert!(early.is_ok_and(|time| time >= Duration::from_millis(2)) || is_late);
            device.finish().unwrap();
            let time = device.elapsed(Event(1), Event(2)).unwrap();
            assert!(time >= Duration::from_millis(2), "{time:?}");
            assert!(device.elapsed(Event(0), Event(2)).is_err(), "an event without a clock");
        }
    }
}

#[test]
fn host_memory_of_a_device_is_read_when_a_copys_turn_comes() {
    let mut plan = ArenaPlan::new();
    let cells = plan.reserve("cells", 8);
    let outcome = |seed, waits: bool| {
        let device = late(seed);
        let arena = device.allocate(&plan, Events { all: 1, timed: 0 }).unwrap();
        let mut host = device.host_memory(16).unwrap();
        assert_eq!(host.as_slice(), [0; 16]);
        host.as_mut_slice()[..8].fill(1);
        // SAFETY: memory that was just taken, and touched too early on purpose.
        unsafe { device.copy_in(Stream::CopyIn, host.part(0, 8), arena.slice(cells)) }.unwrap();
        device.record(Event(0), Stream::CopyIn).unwrap();
        if waits {
            device.synchronize(Event(0)).unwrap();
        }
        host.as_mut_slice()[..8].fill(2);
        device.finish().unwrap();
        let mut found = [0; 8];
        // SAFETY: as above.
        unsafe { device.download(arena.slice(cells), &mut found) }.unwrap();
        found[0]
    };
    assert!((0..20).all(|seed| outcome(seed, true) == 1));
    assert!((0..20).any(|seed| outcome(seed, false) == 2), "a slot that is reused early");
}

#[test]
fn what_overflowed_holds_back_what_was_given_behind_it() {
    let device = CpuDevice::new(1);
    let mut cells = [4.0f64, 0.0];
    let (mut order, mut decision) = ([0i32], [Decision::default()]);
    let mut decide = |overflows: bool, updates| {
        cells[1] = f64::from_bits(u64::from(overflows));
        let gathered = DeviceSlice::from_host(&mut cells);
        let order = DeviceSlice::from_host(&mut order);
        let sums = BlockSums { gathered, order, flags: &[1] };
        let into = DeviceSlice::from_host(&mut decision);
        // SAFETY: host memory of this function.
        unsafe { device.decide(&sums, f64::INFINITY, updates, into) }.unwrap();
        (decision[0].skip, decision[0].updates)
    };
    assert_eq!(decide(false, Some(7)), (0, 8));
    assert_eq!(decide(false, None), (0, 9), "the host does not know yet");
    assert_eq!(decide(true, None), (OVERFLOW, 9));
    assert_eq!(decide(false, None), (HELD, 9), "given behind it, before the host knew");
    assert_eq!(decide(true, None), (OVERFLOW | HELD, 9));
    assert_eq!(decide(false, None), (HELD, 9));
    assert_eq!(decide(false, Some(9)), (0, 10), "repeated");
    assert_eq!(bytes_of(&decision).len(), 24, "as kernels lay it out");
}
