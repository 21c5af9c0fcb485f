//! How many slots there are: fewer than two, and as many as whoever came first has made.

use std::os::fd::AsRawFd;

use serde_json::json;

use super::{SLOTS, SnapshotError, SnapshotSlots, cursor, layout};
use crate::snapshot::{Region, digest};

#[test]
fn a_slot_in_a_file_holds_a_state_and_goes_with_its_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = layout(64);
    let slots = SnapshotSlots::on_disk(folder.path(), layout.bytes()).expect("space");
    assert_eq!(slots.count(), 1);
    let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(names(), 0, "nobody finds it by a name");
    let slot = slots.all(&layout).remove(0);
    assert!(slot.memory().is_none(), "there is nothing to pin");
    // SAFETY: the test alone knows the slot.
    unsafe { slot.region(Region::Masters).as_mut_slice::<f32>() }.fill(0.5);
    slot.commit(3, &json!({ "step": 3 }), 1).expect("commit");
    assert_eq!(slot.seal().expect("seal"), digest(&slot.view().expect("committed")));
    // Whoever comes next has another file, with nothing in it.
    let next = SnapshotSlots::on_disk(folder.path(), layout.bytes()).expect("space");
    assert!(next.newest_good(&layout).good.is_none());
    let refused = SnapshotSlots::on_disk(&folder.path().join("none"), layout.bytes());
    assert!(matches!(refused, Err(SnapshotError::File { .. })), "{refused:?}");
}

#[test]
fn a_later_engine_finds_as_many_slots_as_the_first_has_made() {
    let layout = layout(64);
    let count = |number| SnapshotSlots::count_of(number, layout.bytes());
    for slots in [1, 2] {
        let reserved = SnapshotSlots::reserve().expect("a descriptor");
        let number = reserved.as_raw_fd();
        assert_eq!(count(number), None, "nobody has been there");
        SnapshotSlots::from_fd(number, layout.bytes(), slots).expect("empty");
        assert_eq!(count(number), Some(slots));
    }
    let reserved = SnapshotSlots::reserve().expect("a descriptor");
    SnapshotSlots::take_none(reserved.as_raw_fd()).expect("a mark");
    assert_eq!(count(reserved.as_raw_fd()), Some(0));
}

#[test]
fn the_first_engine_sizes_a_reserved_descriptor() {
    let (layout, other) = (layout(256), layout(4096));
    let reserved = SnapshotSlots::reserve().expect("a descriptor");
    let first = SnapshotSlots::from_fd(reserved.as_raw_fd(), layout.bytes(), SLOTS).expect("empty");
    first.slot(1, &layout).commit(7, &cursor(7), 1).expect("commit");
    drop(first);
    let second =
        SnapshotSlots::from_fd(reserved.as_raw_fd(), layout.bytes(), SLOTS).expect("sized");
    assert_eq!(second.newest_good(&layout).good.expect("committed").head.step, 7);
    let refused = SnapshotSlots::from_fd(reserved.as_raw_fd(), other.bytes(), SLOTS);
    assert!(matches!(refused, Err(SnapshotError::Size { .. })), "another configuration");
}
