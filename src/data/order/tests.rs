//! Tests of the sample order: bijective, pure, sensitive to its inputs, and complete.

use std::collections::BTreeSet;

use proptest::prelude::{prop_assert, proptest};

use super::{SampleOrder, Windows, mix, permute};
use crate::data::DataError;

fn shuffled(seed: u64, identity: &str, tokens: u64, length: usize) -> SampleOrder {
    SampleOrder::new(seed, identity, tokens, length, Windows::Shuffled).unwrap()
}

fn starts(order: &SampleOrder, epoch: u64) -> Vec<u64> {
    let count = order.windows_per_epoch();
    (epoch * count..(epoch + 1) * count).map(|sample| order.start(sample)).collect()
}

#[test]
fn the_mixer_is_splitmix64() {
    // First outputs of the reference implementation for seed 1234567 (prng.di.unimi.it).
    assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    assert_eq!(mix(1_234_567u64.wrapping_add(0x9e37_79b9_7f4a_7c15)), 3_203_168_211_198_807_973);
}

#[test]
fn permutations_hit_everything_once() {
    for length in (1..70).chain([255, 256, 257, 1000, 4097]) {
        for key in 0..3 {
            let hit: BTreeSet<u64> = (0..length).map(|i| permute(i, length, mix(key))).collect();
            assert_eq!(hit.len() as u64, length);
            assert_eq!(hit.last(), Some(&(length - 1)));
        }
    }
    // The largest domains end, too.
    assert!(permute(5, u64::MAX, 1) < u64::MAX);
    assert!(permute(0, (1 << 62) + 1, 1) <= 1 << 62);
}

#[test]
fn permutations_are_not_trivially_ordered() {
    let length = 10_000u64;
    let image: Vec<u64> = (0..length).map(|i| permute(i, length, 42)).collect();
    let rising = image.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((4700..5300).contains(&rising), "{rising}");
    // The mean distance of a random permutation is a third of its length.
    let distance: u64 = (0..length).map(|i| i.abs_diff(image[i as usize])).sum();
    let mean = distance as f64 / length as f64 / length as f64;
    assert!((mean - 1.0 / 3.0).abs() < 0.01, "{mean}");
    // Two epochs share about one place.
    let same = (0..length).filter(|&i| permute(i, length, 43) == image[i as usize]).count();
    assert!(same < 10, "{same}");
}

#[test]
fn an_epoch_visits_every_window_once() {
    let order = shuffled(1, "data", 1003, 10);
    assert_eq!(order.windows_per_epoch(), 99);
    let mut offsets = BTreeSet::new();
    for epoch in 0..50 {
        let mut starts = starts(&order, epoch);
        assert!(!starts.is_sorted());
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 10));
        assert!(starts[98] + 10 < 1003);
        offsets.insert(starts[0] % 10);
    }
    assert_eq!(offsets.len(), 10, "borders move everywhere");
}

#[test]
fn every_token_and_label_is_used_in_time() {
    for (tokens, length) in [(1000u64, 64usize), (129, 64), (65, 64), (100, 64), (2, 1), (40, 3)] {
        let order = shuffled(3, "data", tokens, length);
        let mut used = vec![false; tokens as usize];
        for sample in 0..2000 * order.windows_per_epoch() {
            let start = order.start(sample) as usize;
            used[start..=start + length].fill(true);
        }
        assert!(used.iter().all(|&one| one), "{tokens} {length}");
    }
}

#[test]
fn the_order_depends_on_seed_and_data_only() {
    let first = shuffled(1, "data", 5000, 16);
    let again = shuffled(1, "data", 5000, 16);
    let samples = || [0u64, 1, 7, 310, 311, 100_000, u64::MAX];
    assert_eq!(samples().map(|i| first.start(i)), samples().map(|i| again.start(i)));
    for other in [shuffled(2, "data", 5000, 16), shuffled(1, "date", 5000, 16)] {
        let same = (0..300).filter(|&i| first.start(i) == other.start(i)).count();
        assert!(same < 10, "{same}");
    }
    assert_ne!(starts(&first, 0), starts(&first, 1));
    assert_eq!((first.epoch(310), first.epoch(311)), (0, 1));
}

#[test]
fn the_order_of_today_is_the_order_of_tomorrow() {
    // Changing these numbers changes every resumed run.
    let order = shuffled(1337, "identity", 1_003_854, 256);
    let found: Vec<u64> = (0..4).map(|i| order.start(i)).collect();
    assert_eq!(found, [717_703, 441_479, 1_671, 189_575]);
}

#[test]
fn sequential_windows_follow_each_other() {
    let order = SampleOrder::new(9, "x", 111_540, 64, Windows::Sequential).unwrap();
    // The last one is shorter: 52 tokens with a next one.
    assert_eq!(order.windows_per_epoch(), 1743);
    assert_eq!([0, 1, 1742, 1743].map(|i| order.start(i)), [0, 64, 111_488, 0]);
}

#[test]
fn too_little_text_is_said_clearly() {
    let error = SampleOrder::new(1, "x", 64, 64, Windows::Shuffled).unwrap_err();
    assert!(matches!(error, DataError::TooShort { .. }) && error.is_user_error());
    let text = error.to_string();
    assert!(text.contains("less than the 64 tokens") && text.contains("got 64;"), "{text}");
    SampleOrder::new(1, "x", 65, 64, Windows::Shuffled).unwrap();
    // What is measured may be shorter than a window.
    let error = SampleOrder::new(1, "x", 1, 64, Windows::Sequential).unwrap_err();
    assert!(matches!(error, DataError::TooShort { tokens: 1, .. }), "{error}");
    let order = SampleOrder::new(1, "x", 2, 64, Windows::Sequential).unwrap();
    assert_eq!(order.windows_per_epoch(), 1);
}

proptest! {
    #[test]
    fn windows_stay_inside(
        seed: u64,
        sample: u64,
        tokens in 2u64..1_000_000_000_000,
        length in 1usize..100_000,
    ) {
        if let Ok(order) = SampleOrder::new(seed, "x", tokens, length, Windows::Shuffled) {
            prop_assert!(order.start(sample) + (length as u64) < tokens);
        }
    }
}
