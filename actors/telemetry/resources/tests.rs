//! Reading what Linux writes, and warning once.

use std::path::Path;

use super::{Floors, Resources, Watch, kilobytes, room_in_container};
use crate::outside::LocalDisk;

const GIB: u64 = 1 << 30;

#[test]
fn reads_the_lines_of_proc() {
    let status = "Name:\toctet\nVmPeak:\t  9999 kB\nVmRSS:\t  123456 kB\nThreads:\t3\n";
    assert_eq!(kilobytes(status, "VmRSS:"), Some(123_456 * 1024));
    assert_eq!(kilobytes(status, "VmSwap:"), None);
    assert_eq!(kilobytes("VmRSS:\tmany kB\n", "VmRSS:"), None);
}

#[test]
fn a_container_leaves_its_limit_less_what_cannot_go() {
    let two = room_in_container(Some("1000\n"), Some("900\n"), Some("anon 300\nfile 600\n"));
    assert_eq!(two, Some(700));
    let one = room_in_container(Some("1000"), Some("900"), Some("cache 1\ntotal_cache 500\n"));
    assert_eq!(one, Some(600));
    assert_eq!(room_in_container(Some("max\n"), Some("900"), None), None);
    assert_eq!(room_in_container(Some("9223372036854771712"), Some("900"), None), None);
    assert_eq!(room_in_container(None, None, None), None);
}

#[test]
fn this_machine_answers() {
    let resources = Resources::read(&LocalDisk, Path::new("/"));
    assert!(resources.resident_bytes.unwrap() > 1 << 20, "{resources:?}");
    assert!(resources.available_bytes.unwrap() > 0, "{resources:?}");
    assert!(resources.free_disk_bytes.is_some(), "{resources:?}");
}

#[test]
fn warns_once_until_there_is_room_again() {
    let mut watch = Watch::new(Floors { available_bytes: 4 * GIB, free_disk_bytes: 8 * GIB });
    let mut look = |memory: u64, disk: u64| {
        let resources = Resources {
            resident_bytes: None,
            available_bytes: Some(memory),
            free_disk_bytes: Some(disk),
        };
        watch.look(&resources).len()
    };
    assert_eq!(look(5 * GIB, 9 * GIB), 0);
    assert_eq!(look(3 * GIB, 9 * GIB), 1);
    assert_eq!(look(2 * GIB, 7 * GIB), 1, "the disk only: memory was said already");
    assert_eq!(look(4 * GIB, 7 * GIB), 0);
    assert_eq!(look(3 * GIB, 7 * GIB), 0, "it hovers at the floor");
    assert_eq!(look(5 * GIB, 7 * GIB), 0);
    assert_eq!(look(3 * GIB, 7 * GIB), 1, "it had recovered");
    let warnings = watch.look(&Resources { free_disk_bytes: Some(0), ..Resources::default() });
    assert!(warnings.is_empty(), "unknown is not zero: {warnings:?}");
}
