//! Tests of windows of whole documents: nothing cut that fits, nothing lost, nothing twice.

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::WholeDocuments;
use crate::data::TokenStream;
use crate::data::stream::tests::stream;
use crate::data::window::{IGNORED, WindowLayout, WindowRows};

const PADDING: i32 = -7;
const OPENER: u32 = 40_000;

struct Rows {
    tokens: Vec<i32>,
    labels: Vec<i32>,
    segments: Vec<i32>,
    positions: Vec<i32>,
    targets: u64,
}

/// All windows of documents of these lengths; token number i is i.
fn windows(lengths: &[u64], length: usize, masks: bool, shard_tokens: u64) -> Vec<Rows> {
    let folder = tempfile::tempdir().unwrap();
    windows_of(&stream(folder.path(), lengths, shard_tokens), length, masks, false)
}

/// The same where the token before a document opens it, and [`OPENER`] the first.
fn opened_windows(lengths: &[u64], length: usize, shard_tokens: u64) -> Vec<Rows> {
    let folder = tempfile::tempdir().unwrap();
    let stream = stream(folder.path(), lengths, shard_tokens).opened_by(OPENER).unwrap();
    windows_of(&stream, length, true, true)
}

fn windows_of(stream: &TokenStream, length: usize, masks: bool, opened: bool) -> Vec<Rows> {
    let packed = WholeDocuments::new(stream, length, opened).unwrap();
    let layout = WindowLayout {
        sequence_length: length,
        document_masks: masks,
        opened,
        reset_positions: true,
    };
    let fill = |window| {
        let row = || vec![i32::MIN; length];
        let mut rows =
            Rows { tokens: row(), labels: row(), segments: row(), positions: row(), targets: 0 };
        let into = WindowRows {
            tokens: &mut rows.tokens,
            labels: &mut rows.labels,
            segments: &mut rows.segments,
            positions: &mut rows.positions,
        };
        rows.targets = packed.fill(stream, window, &layout, PADDING, into).unwrap();
        assert_eq!(rows.targets, packed.targets(window));
        rows
    };
    (0..packed.windows()).map(fill).collect()
}

#[test]
fn windows_by_hand() {
    // Documents begin at 0, 4, 7 and 16.
    let all = windows(&[4, 3, 9, 2], 5, true, 100);
    // Nine tokens are eight places: five, and three that share with the two of the second.
    assert_eq!(all.len(), 3);
    assert_eq!(all[0].tokens, [7, 8, 9, 10, 11]);
    assert_eq!(all[0].labels, [8, 9, 10, 11, 12]);
    assert_eq!(all[1].tokens, [0, 1, 2, 16, PADDING]);
    assert_eq!(all[1].labels, [1, 2, 3, 17, IGNORED]);
    assert_eq!(all[1].segments, [0, 0, 0, 1, 2]);
    assert_eq!(all[1].positions, [0, 1, 2, 0, 0]);
    assert_eq!(all[2].tokens, [4, 5, 12, 13, 14]);
    assert_eq!(all[2].labels, [5, 6, 13, 14, 15]);
    assert_eq!(all[2].segments, [0, 0, 1, 1, 1]);
    assert_eq!(all[2].positions, [0, 1, 0, 1, 2]);
    assert_eq!(all.iter().map(|rows| rows.targets).collect::<Vec<_>>(), [5, 4, 5]);
    let open = windows(&[4, 3, 9, 2], 5, false, 100);
    assert_eq!((&open[1].segments, &open[1].positions), (&vec![0; 5], &vec![0, 1, 2, 3, 4]));
    assert_eq!(open[1].labels, all[1].labels);
}

#[test]
fn opened_documents_by_hand() {
    // Documents begin at 0, 4, 7 and 16; each takes a place for what opens it.
    let all = opened_windows(&[4, 3, 9, 2], 5, 100);
    assert_eq!(all.len(), 4);
    assert_eq!(all[0].tokens, [6, 7, 8, 9, 10]);
    assert_eq!(all[0].labels, [7, 8, 9, 10, 11]);
    assert_eq!(all[1].tokens, [OPENER as i32, 0, 1, 2, PADDING]);
    assert_eq!(all[1].labels, [0, 1, 2, 3, IGNORED]);
    assert_eq!(all[2].tokens, [11, 12, 13, 14, PADDING]);
    assert_eq!(all[3].tokens, [3, 4, 5, 15, 16]);
    assert_eq!(all[3].labels, [4, 5, 6, 16, 17]);
    assert_eq!(all[3].segments, [0, 0, 0, 1, 1]);
    assert_eq!(all[3].positions, [0, 1, 2, 0, 1]);
}

#[test]
fn short_documents_fill_their_windows() {
    let lengths: Vec<u64> = (0..4000).map(|i| 2 + i * 7919 % 200).collect();
    let all = windows(&lengths, 256, true, 1 << 20);
    let targets: u64 = all.iter().map(|rows| rows.targets).sum();
    let used = targets as f64 / (all.len() * 256) as f64;
    assert!(used > 0.99, "{used}");
}

proptest! {
    #[test]
    fn every_target_stands_once_and_what_fits_is_whole(
        lengths in proptest::collection::vec(1u64..40, 1..30),
        length in 1usize..20,
        shard_tokens in 5u64..60,
    ) {
        let all = windows(&lengths, length, true, shard_tokens);
        let mut begins = 0;
        let mut wanted = Vec::new();
        let mut window_of = std::collections::HashMap::new();
        for (number, rows) in all.iter().enumerate() {
            for at in 0..length {
                if rows.labels[at] != IGNORED {
                    prop_assert_eq!(rows.labels[at], rows.tokens[at] + 1);
                    let place = (number, rows.segments[at]);
                    prop_assert!(window_of.insert(rows.labels[at], place).is_none());
                }
            }
        }
        for document in lengths {
            let labels: Vec<i32> = (begins + 1..begins + document).map(|at| at as i32).collect();
            if labels.len() <= length {
                let places: std::collections::HashSet<_> =
                    labels.iter().map(|label| window_of[label]).collect();
                prop_assert!(places.len() <= 1, "cut: {places:?}");
            }
            wanted.extend(labels);
            begins += document;
        }
        prop_assert_eq!(window_of.len(), wanted.len());
        prop_assert!(wanted.iter().all(|label| window_of.contains_key(label)));
    }

    #[test]
    fn opened_documents_have_every_token_as_a_label_once(
        lengths in proptest::collection::vec(1u64..40, 1..30),
        length in 1usize..20,
        shard_tokens in 5u64..60,
    ) {
        let mut window_of = std::collections::BTreeMap::new();
        for (number, rows) in opened_windows(&lengths, length, shard_tokens).iter().enumerate() {
            for (at, &label) in rows.labels.iter().enumerate() {
                if label != IGNORED {
                    let before = if label == 0 { OPENER as i32 } else { label - 1 };
                    prop_assert_eq!(rows.tokens[at], before);
                    let place = (number, rows.segments[at]);
                    prop_assert!(window_of.insert(label, place).is_none());
                }
            }
        }
        let tokens: u64 = lengths.iter().sum();
        let seen: Vec<i32> = window_of.keys().copied().collect();
        prop_assert_eq!(seen, (0..tokens as i32).collect::<Vec<_>>());
        let mut begins = 0;
        for document in lengths {
            let places: std::collections::HashSet<_> =
                (begins..begins + document as i32).map(|label| window_of[&label]).collect();
            prop_assert!(document > length as u64 || places.len() == 1, "cut: {places:?}");
            begins += document as i32;
        }
    }
}
