//! What is hidden, against its definition: shares over many samples, and a sample by hand.

use octet_kernels::random::{RandomStream, Site};

use super::Shares;

const NOISE: RandomStream = RandomStream { seed: 7, site: Site::new("masked tokens") };
const BERT: Shares = Shares { chosen: 0.15, kept: 0.1, replaced: 0.1 };
const MASK: i32 = 1000;

/// Whether a count of a binomial variable is within five standard deviations.
fn likely(count: u64, of: u64, probability: f64) -> bool {
    let mean = of as f64 * probability;
    (count as f64 - mean).abs() < 5.0 * (mean * (1.0 - probability)).sqrt()
}

#[test]
fn counts_are_rounded_and_at_least_one() {
    let counts = [0, 1, 3, 10, 16, 30, 128].map(|tokens| BERT.count(tokens));
    assert_eq!(counts, [0, 1, 1, 2, 2, 5, 19]);
}

#[test]
fn eighty_of_a_hundred_are_hidden_ten_replaced_ten_kept() {
    let (length, samples, any) = (128, 4000, 1000);
    let count = BERT.count(length);
    let candidates: Vec<usize> = (0..length).collect();
    let mut chosen_at = vec![0u64; length];
    let (mut hidden, mut kept, mut replaced, mut sum) = (0u64, 0u64, 0u64, 0.0);
    for sample in 0..samples {
        // No token is drawn in a place that already has it, but for 1 in 1,000.
        let mut tokens = vec![-1; length];
        let (of, words) = ((&NOISE, sample), (MASK, any));
        let chosen = BERT.hide(of, &candidates, count, &mut tokens, words);
        assert_eq!(chosen.len(), count);
        assert!(chosen.is_sorted_by(|a, b| a < b));
        for at in chosen {
            chosen_at[at] += 1;
            match tokens[at] {
                MASK => hidden += 1,
                -1 => kept += 1,
                token => {
                    assert!((0..any as i32).contains(&token));
                    replaced += 1;
                    sum += f64::from(token);
                }
            }
            tokens[at] = -1;
        }
        assert!(tokens.iter().all(|&token| token == -1), "nothing else is changed");
    }
    let all = samples * count as u64;
    assert!(likely(hidden, all, 0.8) && likely(kept, all, 0.1) && likely(replaced, all, 0.1));
    // Every place is as likely as any other, and so is every token.
    let share = count as f64 / length as f64;
    assert!(chosen_at.iter().all(|&times| likely(times, samples, share)), "{chosen_at:?}");
    let mean = sum / replaced as f64;
    let deviation = any as f64 / (12.0 * replaced as f64).sqrt();
    assert!((mean - (any - 1) as f64 / 2.0).abs() < 5.0 * deviation, "{mean}");
}

#[test]
fn a_sample_by_hand() {
    // Candidates are 1, 2, 4 and 5; two of them have the smallest first words.
    let candidates = [1, 2, 4, 5];
    let words = |element: usize| NOISE.block(0, 9, element as u64);
    let mut expected = candidates;
    expected.sort_by_key(|&element| words(element)[0]);
    let mut expected = expected[..2].to_vec();
    expected.sort_unstable();
    let mut tokens = [10, 11, 12, 13, 14, 15];
    let chosen = BERT.hide((&NOISE, 9), &candidates, 2, &mut tokens, (MASK, 8));
    assert_eq!(chosen, expected);
    for (at, &token) in tokens.iter().enumerate() {
        let (tenths, any) = (f64::from(words(at)[1]) / 2f64.powi(32), f64::from(words(at)[2]));
        let wanted = match tenths {
            _ if !chosen.contains(&at) => 10 + at as i32,
            x if x < 0.1 => 10 + at as i32,
            x if x < 0.2 => (any / 2f64.powi(32) * 8.0).floor() as i32,
            _ => MASK,
        };
        assert_eq!(token, wanted, "{at}");
    }
    // The same again, and another sample is another choice sooner or later.
    let again = |sample| BERT.hide((&NOISE, sample), &candidates, 2, &mut [0; 6], (MASK, 8));
    assert_eq!(again(9), chosen);
    assert!((10..30).any(|sample| again(sample) != chosen));
}
