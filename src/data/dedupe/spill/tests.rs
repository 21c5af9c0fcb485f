//! More records than the buffers hold.

use super::Spill;
use crate::data::dedupe::words::mixed;

#[test]
fn all_records_come_back_sorted_and_the_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spill");
    let mut expected: Vec<[u64; 2]> =
        (0..900_000).map(|number| [mixed(number % 700_000), number]).collect();
    let mut spill = Spill::new(&path);
    expected.iter().rev().for_each(|&record| spill.push(record).unwrap());
    assert!(path.exists(), "it does not fit into the buffers");
    expected.sort_unstable();
    let sorted: Vec<[u64; 2]> =
        (0..spill.partitions()).flat_map(|number| spill.sorted(number).unwrap()).collect();
    assert!(sorted == expected);
    drop(spill);
    assert!(!path.exists());
}

#[test]
fn a_disk_that_refuses_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = Spill::<2>::new(&folder.path().join("gone/spill"));
    let refused = (0..4096).find_map(|number| spill.push([0, number]).err()).unwrap();
    assert!(refused.to_string().contains("gone/spill: cannot create"), "{refused}");
}
