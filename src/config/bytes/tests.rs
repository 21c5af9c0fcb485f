//! Sizes in words.

use super::Bytes;

#[test]
fn sizes_are_read_with_their_units() {
    for (text, bytes) in [
        ("60 GB", 60_000_000_000),
        ("60GB", 60_000_000_000),
        ("1.5 GiB", 3 << 29),
        ("512 mib", 512 << 20),
        ("1000", 1000),
        ("2 kB", 2000),
    ] {
        assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
    }
    for wrong in ["", "GB", "60 G", "-1 GB", "1e9", "0", "1..2 MB", "99999999999 TB"] {
        let refused = wrong.parse::<Bytes>().unwrap_err();
        assert!(refused.contains("a size like") && refused.contains(wrong), "{refused}");
    }
}
