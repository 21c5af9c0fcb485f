//! Known answers, independence of the coordinates, moments.

use std::collections::HashSet;

use crate::random::{PART_ELEMENTS, RandomStream, Site, philox};

const STREAM: RandomStream = RandomStream { seed: 17, site: Site::new("block.3.dropout") };

#[test]
fn philox_gives_the_known_answers() {
    // Random123, examples/kat_vectors, philox4x32-10.
    let zeros = philox([0; 4], [0; 2]);
    assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
    assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi =
        philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn site_is_fnv_1a() {
    assert_eq!(Site::new("").value(), 0xcbf2_9ce4_8422_2325);
    assert_eq!(Site::new("a").value(), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(Site::new("foobar").value(), 0x8594_4171_f739_67e8);
}

#[test]
fn every_coordinate_matters() {
    let mut seen = HashSet::new();
    for seed in [0, 1, 1 << 40] {
        for site in ["a", "b"].map(Site::new) {
            for (step, sample) in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 1 << 32), (1 << 31, 0)] {
                for block in [0, 1, u64::from(u32::MAX)] {
                    seen.insert(RandomStream { seed, site }.block(step, sample, block));
                }
            }
        }
    }
    assert_eq!(seen.len(), 3 * 2 * 6 * 3);
}

#[test]
fn a_filled_value_depends_on_its_element_only() {
    let (mut uniform, mut normal) = ([0.0; 41], [0.0; 41]);
    STREAM.fill_uniform(5, 9, 0, &mut uniform);
    STREAM.fill_normal(0, &mut normal, 0.02);
    for first in 0..12 {
        for length in 0..=29 {
            let (mut u, mut n) = (vec![-1.0; length], vec![-1.0; length]);
            STREAM.fill_uniform(5, 9, first as u64, &mut u);
            STREAM.fill_normal(first as u64, &mut n, 0.02);
            assert_eq!(u, uniform[first..first + length]);
            assert_eq!(n, normal[first..first + length]);
        }
    }
    for (element, &value) in uniform.iter().enumerate() {
        assert_eq!(value, STREAM.uniform(5, 9, element as u64));
    }
}

#[test]
fn uniform_and_normal_have_their_moments() {
    const COUNT: usize = 1 << 18;
    let (mut uniform, mut normal) = (vec![0.0f32; COUNT], vec![0.0f32; COUNT]);
    STREAM.fill_uniform(0, 0, 0, &mut uniform);
    STREAM.fill_normal(0, &mut normal, 3.0);
    assert!(uniform.iter().all(|&u| (0.0..1.0).contains(&u)));
    let moment = |values: &[f32], power: i32| {
        values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / COUNT as f64
    };
    assert!((moment(&uniform, 1) - 0.5).abs() < 0.003);
    assert!((moment(&uniform, 2) - 1.0 / 3.0).abs() < 0.003);
    assert!(moment(&normal, 1).abs() < 0.03);
    assert!((moment(&normal, 2) / 9.0 - 1.0).abs() < 0.02);
    assert!((moment(&normal, 4) / 81.0 - 3.0).abs() < 0.1);
    let neighbours = normal.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum::<f64>();
    assert!((neighbours / COUNT as f64 / 9.0).abs() < 0.01);
}

#[test]
fn numbers_do_not_repeat_beyond_the_philox_counter() {
    let far: Vec<u64> = vec![0, 1, 2, 3, 1 << 20];
    let first: HashSet<_> = far.iter().map(|round| STREAM.block(3, 4, round << 32 | 5)).collect();
    assert_eq!(first.len(), far.len());
    // What is filled across the border is what is asked for one by one.
    let border = (1 << 34) - 6;
    let mut filled = [0.0; 13];
    STREAM.fill_uniform(1, 2, border, &mut filled);
    for (element, &value) in (border..).zip(&filled) {
        assert_eq!(value, STREAM.uniform(1, 2, element));
    }
    assert_ne!(STREAM.word(0, 0, 7), STREAM.word(0, 0, (1 << 34) + 7));
}

/// Whoever makes which part of many values on whichever thread, they are those of the one stream.
#[test]
fn many_normal_values_are_made_in_parts_and_are_the_same() {
    let (first, count) = (3, 3 * PART_ELEMENTS + 5);
    let mut whole = vec![0.0; count];
    STREAM.fill_normal(first, &mut whole, 0.02);
    let mut pieces = vec![0.0; count];
    for (i, piece) in pieces.chunks_mut(PART_ELEMENTS / 7).enumerate() {
        STREAM.fill_normal(first + (i * (PART_ELEMENTS / 7)) as u64, piece, 0.02);
    }
    assert!(whole == pieces);
}
