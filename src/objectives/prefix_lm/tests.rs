//! Splits against their definition, a window by hand, and what a model may see of it.

use octet_kernels::graph::{Goal, Policy, Variables};
use octet_kernels::random::{RandomStream, Site};

use super::{PrefixLm, split};
use crate::data::IGNORED;
use crate::models::testing::{Bench, Field};
use crate::models::{DenseConfig, Extras, Family, ModelSize, Part, Scope};
use crate::objectives::BatchShape;

const NOISE: RandomStream = RandomStream { seed: 7, site: Site::new("prefixes") };

/// Labels and extents of a window whose labels are 0, 1, 2, ...
fn window(sample: u64, segments: &[i32]) -> (Vec<i32>, Vec<i32>) {
    let mut labels: Vec<i32> = (0..segments.len() as i32).collect();
    let mut extents = vec![-7; segments.len()];
    split((&NOISE, sample), segments, &mut labels, &mut extents);
    (labels, extents)
}

#[test]
fn every_length_of_a_prefix_is_as_likely_as_any_other() {
    // Two documents of 9 and 5 tokens: their splits are apart from each other.
    let segments = [vec![0; 9], vec![1; 5]].concat();
    let samples = 20_000;
    let mut counts = vec![vec![0u64; 5]; 9];
    for sample in 0..samples {
        let (labels, extents) = window(sample, &segments);
        let (first, second) = (extents[0] as usize, extents[9] as usize - 9);
        counts[first - 1][second - 1] += 1;
        let targets = labels.iter().filter(|&&label| label != IGNORED).count();
        assert_eq!(targets, (9 - first + 1) + (5 - second + 1));
    }
    let expected = samples as f64 / 45.0;
    let each = counts.iter().flatten();
    let chi2: f64 = each.map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    // 44 degrees of freedom: mean 44, standard deviation 9.4.
    assert!(chi2 < 44.0 + 5.0 * 9.4, "{chi2}: {counts:?}");
}

#[test]
fn a_window_by_hand() {
    let segments = [4, 4, 4, 4, 5, 6, 6];
    let lengths = [(0, 4), (4, 1), (5, 2)];
    let prefixes = lengths.map(|(first, tokens)| {
        let share = f64::from(NOISE.word(0, 3, first)) / 2f64.powi(32);
        1 + (share * f64::from(tokens)).floor() as i32
    });
    let (labels, extents) = window(3, &segments);
    for ((first, tokens), prefix) in lengths.into_iter().zip(prefixes) {
        for t in 0..tokens {
            let row = first as usize + t as usize;
            // Tokens 0..prefix see each other, the others what lies before them.
            assert_eq!(extents[row], first as i32 + prefix.max(t + 1), "{row}");
            let target = t + 1 >= prefix;
            assert_eq!(labels[row], if target { row as i32 } else { IGNORED }, "{row}");
        }
    }
    assert_eq!(window(3, &segments), (labels, extents));
    assert!((4..20).any(|sample| window(sample, &segments) != window(3, &segments)));
}

#[test]
fn what_lies_in_a_prefix_is_seen_and_what_is_told_is_not() {
    const SHAPE: BatchShape = BatchShape { sequences: 1, sequence_length: 6 };
    let mut variables = Variables::new();
    let config = DenseConfig { layers: 2, heads: 2, width: 16, ..DenseConfig::default() };
    let size = ModelSize { vocabulary: 11, max_positions: 6 };
    let model = Part::new("", config.build(size, &mut Scope::new(&mut variables)).unwrap());
    let mut bench = Bench::new(variables);
    let program = bench.compile(Policy::default(), |g| {
        let loss =
            PrefixLm::default().loss(g, &model, SHAPE, &mut Extras::default(), true).unwrap();
        g.fetch("loss", loss);
        Goal::Train { loss }
    });
    // A prefix of three tokens; one target, that of row `told`.
    let mut loss = |tokens: [i32; 6], told: usize| {
        let mut labels = vec![IGNORED; 6];
        labels[told] = 9;
        let results = bench.run(
            &program,
            &[
                ("tokens", Field::Integers(tokens.to_vec())),
                ("labels", Field::Integers(labels)),
                ("positions", Field::Integers((0..6).collect())),
                ("segments", Field::Integers(vec![0; 6])),
                ("extents", Field::Integers(vec![3, 3, 3, 4, 5, 6])),
                ("scale", Field::Floats(vec![1.0])),
            ],
        );
        results["loss"][0].to_bits()
    };
    let text = [1, 2, 3, 4, 5, 6];
    let with = |at: usize| {
        let mut other = text;
        other[at] = 8;
        other
    };
    // Row 0 sees the whole prefix, and nothing behind it.
    assert_ne!(loss(with(2), 0), loss(text, 0));
    assert_eq!(loss(with(3), 0), loss(text, 0));
    // Row 2, the last of the prefix, does not see the token that it tells.
    assert_eq!(loss(with(3), 2), loss(text, 2));
    // Row 4 sees everything before it and itself.
    assert_ne!(loss(with(0), 4), loss(text, 4));
    assert_ne!(loss(with(4), 4), loss(text, 4));
    assert_eq!(loss(with(5), 4), loss(text, 4));
}
