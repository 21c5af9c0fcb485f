//! Sizes at the borders of units.

use super::size;

#[test]
fn every_size_has_a_unit_that_suits_it() {
    let sizes = [0, 1, 1023, 1024, 1536, (1 << 20) - 1, 16 << 20, 3 << 29, 1 << 50, u64::MAX];
    let expected = [
        "0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16.0 MiB", "1.5 GiB", "1.0 PiB",
        "16.0 EiB",
    ];
    assert_eq!(sizes.map(size), expected);
}
