//! Whether texts share bands as often as theory says.

use super::{MinHash, MinHashConfig, Scratch};
use crate::data::dedupe::words::mixed;

const PAIRS: usize = 4000;
const SHINGLES: usize = 200;

/// A word that stands nowhere else.
fn word(number: &mut u64, text: &mut String) {
    *number += 1;
    let mut hash = mixed(*number);
    for _ in 0..9 {
        text.push(char::from(b'a' + (hash % 26) as u8));
        hash /= 26;
    }
    text.push(' ');
}

/// Two texts of [`SHINGLES`] shingles each, of which they share so many.
fn pair(shared: usize, words: usize, number: &mut u64) -> [String; 2] {
    let mut front = String::new();
    (0..shared + words - 1).for_each(|_| word(number, &mut front));
    let mut end = || {
        let mut text = front.clone();
        (0..SHINGLES - shared).for_each(|_| word(number, &mut text));
        text
    };
    [end(), end()]
}

#[test]
fn recall_follows_the_curve_of_the_bands() {
    let (mut scratch, mut number) = (Scratch::default(), 1 << 32);
    for config in
        [MinHashConfig::default(), MinHashConfig { bands: 9, rows: 13, ..Default::default() }]
    {
        let minhash = MinHash::new(config);
        for shared in [100, 134, 150, 160, 167, 178, 190] {
            let similarity = shared as f64 / (2 * SHINGLES - shared) as f64;
            let band = similarity.powi(config.rows as i32);
            let expected = 1.0 - (1.0 - band).powi(config.bands as i32);
            if (expected * PAIRS as f64) < 20.0 || ((1.0 - expected) * PAIRS as f64) < 20.0 {
                // Too rare to be told from chance.
                continue;
            }
            let mut found = 0;
            for _ in 0..PAIRS {
                let [one, other] = pair(shared, config.words, &mut number).map(|text| {
                    let mut keys = Vec::new();
                    minhash.keys(&text, &mut scratch, &mut keys);
                    assert_eq!(keys.len(), config.bands);
                    keys
                });
                found += usize::from(one.iter().zip(&other).any(|(one, other)| one == other));
            }
            let deviation = (expected * (1.0 - expected) / PAIRS as f64).sqrt();
            let got = found as f64 / PAIRS as f64;
            assert!(
                (got - expected).abs() <= 2.0 * deviation,
                "{config:?}, {similarity:.3}: {got:.4}, expected {expected:.4} +- {deviation:.4}"
            );
        }
    }
}

#[test]
fn short_texts_have_no_keys_and_seeds_have_others() {
    let keys = |seed, text| {
        let minhash = MinHash::new(MinHashConfig { seed, ..MinHashConfig::default() });
        let mut keys = Vec::new();
        minhash.keys(text, &mut Scratch::default(), &mut keys);
        keys
    };
    assert!(keys(1, "one two three four").is_empty());
    let text = "one two three four five six";
    assert_eq!(keys(1, text), keys(1, "One, two, three: four five... SIX"));
    assert!(keys(1, text).iter().all(|key| !keys(2, text).contains(key)));
}

#[test]
fn every_width_of_vectors_gives_the_same() {
    let minhash = MinHash::new(MinHashConfig::default());
    let shingles: Vec<[u32; 2]> =
        (0..1000).map(|number| [mixed(number) as u32, mixed(!number) as u32]).collect();
    for functions in &minhash.functions {
        let (mut one, mut other) = ([u32::MAX; 16], [u32::MAX; 16]);
        super::lower(functions, &shingles, &mut one);
        super::lower_any(functions, &shingles, &mut other);
        assert_eq!(one, other);
    }
}
