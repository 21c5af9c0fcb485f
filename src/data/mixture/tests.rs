//! Tests of the mixture: shares, limits, and that any sample can be found without the others.

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::Mixture;

fn sources(mixture: &Mixture, samples: std::ops::Range<u64>) -> Vec<usize> {
    samples.map(|sample| mixture.at(sample).unwrap().0).collect()
}

#[test]
fn one_source_gives_everything() {
    let mixture = Mixture::new(&[(0.3, None)]);
    for sample in [0, 1, 7, u64::MAX - 1] {
        assert_eq!(mixture.at(sample), Some((0, sample)));
    }
    assert_eq!((mixture.samples(), mixture.counts(9)), (None, vec![9]));
}

#[test]
fn weights_by_hand() {
    let mixture = Mixture::new(&[(1.0, None), (1.0, None)]);
    assert_eq!(sources(&mixture, 0..6), [0, 1, 0, 1, 0, 1]);
    let mixture = Mixture::new(&[(2.0, None), (1.0, None), (1.0, None)]);
    assert_eq!(sources(&mixture, 0..8), [0, 1, 0, 2, 0, 1, 0, 2]);
}

#[test]
fn a_source_at_its_limit_leaves_its_place_to_the_others() {
    let mixture = Mixture::new(&[(1.0, Some(3)), (1.0, None), (2.0, Some(10))]);
    let order = sources(&mixture, 0..1000);
    let count = |source: usize| order.iter().filter(|&&one| one == source).count();
    assert_eq!((count(0), count(1), count(2)), (3, 987, 10));
    assert!(order[..10].contains(&0) && order[20..].iter().all(|&one| one == 1));
    assert_eq!(mixture.samples(), None);
}

#[test]
fn when_every_source_ends_there_is_an_end() {
    let mixture = Mixture::new(&[(5.0, Some(7)), (0.1, Some(4))]);
    assert_eq!(mixture.samples(), Some(11));
    assert!(mixture.at(10).is_some() && mixture.at(11).is_none());
    assert_eq!(mixture.counts(500), [7, 4]);
}

#[test]
fn shares_are_exact_in_the_long_run() {
    let weights = [0.7, 0.2, 0.07, 0.03];
    let mixture = Mixture::new(&weights.map(|weight| (weight, None)));
    for samples in [1000, 1_000_003, 1 << 40] {
        for (count, weight) in mixture.counts(samples).into_iter().zip(weights) {
            let wanted = weight * samples as f64;
            assert!((count as f64 - wanted).abs() < 2.5, "{count} of {wanted}");
        }
    }
}

proptest! {
    /// Every source counts its samples from 0 without a gap, and never strays from its share.
    #[test]
    fn samples_of_a_source_follow_each_other(
        given in proptest::collection::vec((0.01f64..9.0, proptest::option::of(1u64..60)), 1..6),
    ) {
        let mixture = Mixture::new(&given);
        let mut counts = vec![0u64; given.len()];
        let samples = mixture.samples().unwrap_or(400);
        let sum: f64 = given.iter().map(|&(weight, _)| weight).sum();
        let endless = given.iter().all(|(_, limit)| limit.is_none());
        for sample in 0..samples {
            let (source, number) = mixture.at(sample).unwrap();
            prop_assert_eq!(number, counts[source]);
            counts[source] += 1;
            prop_assert_eq!(mixture.counts(sample + 1), counts.clone());
            for ((&(weight, limit), &count), _) in given.iter().zip(&counts).zip(0..) {
                prop_assert!(limit.is_none_or(|limit| count <= limit));
                let wanted = weight / sum * (sample + 1) as f64;
                prop_assert!(!endless || (count as f64 - wanted).abs() < 3.0);
            }
        }
        for (&(_, limit), count) in given.iter().zip(counts) {
            prop_assert!(mixture.samples().is_none() || Some(count) == limit);
        }
    }
}
