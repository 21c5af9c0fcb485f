//! Bytes as a person reads them.

/// Bytes with a unit: `12 B`, `1.5 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // What would be rounded to 1024.0 is 1.0 of the next.
        if value < 1023.95 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} EiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn every_size_has_a_unit_that_suits_it() {
        let sizes = [0, 1, 1023, 1024, 1536, (1 << 20) - 1, 16 << 20, 3 << 29, 1 << 50, u64::MAX];
        let expected = [
            "0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16.0 MiB", "1.5 GiB",
            "1.0 PiB", "16.0 EiB",
        ];
        assert_eq!(sizes.map(size), expected);
    }
}
