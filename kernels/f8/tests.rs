//! Every code, and every number between two codes.

use crate::f8::{E4M3, E5M2, Format};

/// All codes of finite numbers, from 0 up.
fn numbers(format: Format) -> Vec<f32> {
    (0..=format.largest).map(|code| format.decode(code)).collect()
}

#[test]
fn codes_are_those_of_the_paper() {
    // Table 1 of arXiv:2209.05433: largest, smallest normal, largest and smallest subnormal.
    let e4m3 = [0x7E, 0x08, 0x07, 0x01].map(|code| E4M3.decode(code));
    let power = |exponent: i32| 2.0f32.powi(exponent);
    assert_eq!(e4m3, [448.0, power(-6), 0.875 * power(-6), power(-9)]);
    let e5m2 = [0x7B, 0x04, 0x03, 0x01].map(|code| E5M2.decode(code));
    assert_eq!(e5m2, [57344.0, power(-14), 0.75 * power(-14), power(-16)]);
    assert!(E4M3.decode(0x7F).is_nan() && E4M3.decode(0xFF).is_nan());
    assert_eq!(E5M2.decode(0x7C), f32::INFINITY);
    assert!([0x7D, 0x7E, 0x7F].iter().all(|&code| E5M2.decode(code).is_nan()));
    assert_eq!(E4M3.decode(0xB8), -1.0);
}

#[test]
fn every_number_becomes_the_nearest_code() {
    for format in [E4M3, E5M2] {
        let numbers = numbers(format);
        assert!(numbers.is_sorted());
        for (code, pair) in numbers.windows(2).enumerate() {
            let (low, high, code) = (pair[0], pair[1], code as u8);
            let middle = low + (high - low) / 2.0;
            let even = code + code % 2;
            let (below, above) = (middle.next_down(), middle.next_up());
            let expected = [(low, code), (below, code), (middle, even), (above, code + 1)];
            for (x, expected) in expected {
                assert_eq!(format.encode(x), expected, "{x} between {low} and {high}");
                assert_eq!(format.encode(-x), expected | 0x80, "-{x}");
            }
        }
        let largest = format.largest;
        for x in [format.max(), format.max() * 1.5, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!([format.encode(x), format.encode(-x)], [largest, largest | 0x80], "{x}");
        }
        assert!(format.decode(format.encode(f32::NAN)).is_nan());
        for tiny in [f32::MIN_POSITIVE, 1e-45, 0.0] {
            assert_eq!(format.encode(tiny), 0);
        }
    }
}
