//! What order there is, and that there is no other.

use std::cell::RefCell;
use std::rc::Rc;

use super::Streams;
use crate::device::Event;
use crate::error::Error;
use crate::ops::Stream;

/// The order in which two pieces of work on two streams run.
fn order(seed: u64, waits: bool) -> Vec<u8> {
    let ran = Rc::new(RefCell::new(Vec::new()));
    let note = |name: u8| {
        let ran = ran.clone();
        Box::new(move || {
            ran.borrow_mut().push(name);
            Ok(())
        })
    };
    let mut streams = Streams::new(seed);
    streams.push(Stream::CopyIn, note(1)).unwrap();
    streams.record(Event(0), Stream::CopyIn).unwrap();
    if waits {
        streams.wait(Stream::Compute, Event(0)).unwrap();
    }
    streams.push(Stream::Compute, note(2)).unwrap();
    streams.finish().unwrap();
    assert!(streams.reached(Event(0)).unwrap());
    ran.take()
}

#[test]
fn only_a_wait_makes_order_between_streams() {
    let orders = |waits| (0..50).map(move |seed| order(seed, waits));
    assert!(orders(true).all(|order| order == [1, 2]));
    for either in [[1, 2], [2, 1]] {
        assert!(orders(false).any(|order| order == either), "never {either:?}");
    }
}

#[test]
fn a_wait_is_for_the_place_that_was_marked_last_when_it_was_asked_for() {
    for seed in 0..20 {
        let mut streams = Streams::new(seed);
        // Nothing is marked yet: nobody waits.
        streams.wait(Stream::Compute, Event(3)).unwrap();
        streams.record(Event(3), Stream::CopyIn).unwrap();
        streams.finish().unwrap();
        // It is passed, but the one after it is not.
        streams.wait(Stream::CopyIn, Event(4)).unwrap();
        streams.record(Event(4), Stream::Compute).unwrap();
        streams.wait(Stream::CopyIn, Event(4)).unwrap();
        streams.finish().unwrap();
    }
}

#[test]
fn work_that_fails_fails_what_comes_after_it() {
    let mut streams = Streams::new(0);
    let fails = || Err(Error::Device("a fault".to_string()));
    let first = streams.push(Stream::Compute, Box::new(fails));
    assert!(first.and_then(|()| streams.finish()).is_err());
    let later = streams.push(Stream::CopyIn, Box::new(|| Ok(()))).unwrap_err();
    assert!(later.to_string().contains("a fault"), "{later}");
}
