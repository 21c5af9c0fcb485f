//! Pairs against their definition: how many follow, where they are cut, whom they come from.

use octet_kernels::random::{RandomStream, Site};

use super::{Pair, Pairs};
use crate::data::DataError;
use crate::data::stream::tests::stream;

const NOISE: RandomStream = RandomStream { seed: 3, site: Site::new("pairs") };

fn pairs(lengths: &[u64], most: usize, ends: bool) -> Result<Pairs, DataError> {
    let folder = tempfile::tempdir().unwrap();
    Pairs::new(&stream(folder.path(), lengths, 1000), most, ends)
}

fn likely(count: u64, of: u64, probability: f64) -> bool {
    let mean = of as f64 * probability;
    (count as f64 - mean).abs() < 5.0 * (mean * (1.0 - probability)).sqrt()
}

#[test]
fn documents_are_cut_into_chunks_by_hand() {
    let all = pairs(&[10, 1, 3, 7], 4, false).unwrap();
    let chunks: Vec<_> = all.chunks.iter().map(|c| (c.start, c.tokens, c.document)).collect();
    // The document of one token and rests of one token give none.
    let expected = [(0, 4, 0), (4, 4, 0), (8, 2, 0), (11, 3, 2), (14, 4, 3), (18, 3, 3)];
    assert_eq!(chunks, expected);
    // Without what ends each document.
    let all = pairs(&[10, 1, 3, 7], 4, true).unwrap();
    let chunks: Vec<_> = all.chunks.iter().map(|c| (c.start, c.tokens, c.document)).collect();
    assert_eq!(chunks, [(0, 4, 0), (4, 4, 0), (11, 2, 2), (14, 4, 3), (18, 2, 3)]);
    for (lengths, most) in [(&[50u64][..], 8), (&[1, 1, 9], 8), (&[9, 9], 1)] {
        let error = pairs(lengths, most, false).unwrap_err().to_string();
        assert!(error.contains("at least 2 documents of at least 2 tokens"), "{error}");
    }
}

#[test]
fn half_follow_and_the_others_come_from_other_documents() {
    let lengths = [400, 30, 90, 250, 61, 8];
    let most = 29;
    let all = pairs(&lengths, most, false).unwrap();
    let starts: Vec<u64> =
        lengths.iter().scan(0, |at, length| Some(std::mem::replace(at, *at + length))).collect();
    let document = |at: u64| starts.partition_point(|&start| start <= at) - 1;
    let samples = 20_000;
    let (mut follow, mut short, mut full) = (0, 0, 0);
    let mut cut_at = vec![0u64; most];
    let mut others = [0u64; 6];
    for sample in 0..samples {
        let number = sample % all.chunks();
        let Pair { first, second, follows } = all.place(number, sample, &NOISE);
        let chunk = all.chunks[number as usize];
        assert_eq!(first.0, chunk.start);
        assert!(first.1 >= 1 && second.1 >= 1);
        assert!(first.1 + second.1 <= chunk.tokens as usize);
        let (begin, end) = (document(second.0), document(second.0 + second.1 as u64 - 1));
        assert_eq!(begin, end, "a part lies in one document");
        if follows {
            assert_eq!(second.0, first.0 + first.1 as u64);
            follow += 1;
            if chunk.tokens as usize == most {
                full += 1;
                short += u64::from(first.1 + second.1 < most);
                if first.1 + second.1 == most {
                    cut_at[first.1] += 1;
                }
            }
        } else {
            assert_ne!(begin, document(first.0));
            others[begin] += 1;
        }
    }
    assert!(likely(follow, samples, 0.5), "{follow}");
    // One in ten is shorter, of which one in 28 is as long as it can be all the same.
    assert!(likely(short, full, 0.1 * 27.0 / 28.0), "{short} of {full}");
    let whole: u64 = cut_at.iter().sum();
    assert!(cut_at[1..].iter().all(|&times| likely(times, whole, 1.0 / 28.0)), "{cut_at:?}");
    assert!(others.iter().all(|&times| times > 0), "{others:?}");
}

#[test]
fn a_pair_depends_on_its_sample_only() {
    let all = pairs(&[100, 100], 20, false).unwrap();
    let other = RandomStream { seed: 4, ..NOISE };
    let places =
        |noise: &RandomStream| (0..50).map(|n| all.place(n % 10, n, noise)).collect::<Vec<_>>();
    assert_eq!(places(&NOISE), places(&NOISE));
    assert_ne!(places(&NOISE), places(&other));
}
