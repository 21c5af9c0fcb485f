//! Which slot is filled next: never the one that a start after a crash would need.

use serde_json::Value;

use crate::snapshot::tests::{cursor, layout};
use crate::snapshot::{SLOTS, SnapshotSlots};
use crate::supervisor::slot_table::SlotTable;

#[test]
fn the_newest_state_stays_while_the_next_is_written() {
    let layout = layout(64);
    let memory = SnapshotSlots::create(layout.bytes()).expect("memory");
    let handles = || (0..SLOTS).map(|i| memory.slot(i, &layout)).collect();
    let mut table = SlotTable::new(handles(), Default::default());
    for step in 1..=5 {
        let slot = table.take_oldest(0.0).expect("one is free");
        let good = memory.newest_good(&layout).good;
        assert_eq!(good.map_or(0, |good| good.head.step), step - 1, "while {step} is being filled");
        table.commit(slot, (step, &cursor(step)), Value::Null, 0.0).expect("commit");
        assert!(table.any_writing());
        table.free(slot);
        assert!(!table.any_writing());
    }
    // The next engine counts on, so that what it commits is newer.
    let mut table = SlotTable::new(handles(), Default::default());
    let newest = memory.newest_good(&layout).good.expect("step 5");
    table.lend(newest.slot);
    let slot = table.take_oldest(0.0).expect("the other one");
    assert_ne!(slot, newest.slot);
    assert_eq!(table.take_oldest(0.0), None, "one is read, one is being filled");
    table.commit(slot, (6, &cursor(6)), Value::Null, 0.0).expect("commit");
    assert!(memory.newest_good(&layout).good.expect("step 6").head.sequence > newest.head.sequence);
}
