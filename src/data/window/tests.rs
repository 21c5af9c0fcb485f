//! Tests of the rows of a window, by hand and against a slow definition.

use super::{IGNORED, WindowLayout, WindowRows, count_targets, fill_window};
use crate::data::stream::tests::stream;
use crate::data::{DataError, TokenStream};

const PADDING: i32 = -7;

#[derive(Debug, PartialEq)]
struct Rows {
    tokens: Vec<i32>,
    labels: Vec<i32>,
    segments: Vec<i32>,
    positions: Vec<i32>,
}

fn layout(length: usize, document_masks: bool, reset_positions: bool) -> WindowLayout {
    WindowLayout { sequence_length: length, document_masks, opened: false, reset_positions }
}

fn fill(stream: &TokenStream, start: u64, layout: &WindowLayout) -> Result<(Rows, u64), DataError> {
    let poison = || vec![i32::MIN; layout.sequence_length];
    let mut rows =
        Rows { tokens: poison(), labels: poison(), segments: poison(), positions: poison() };
    let into = WindowRows {
        tokens: &mut rows.tokens,
        labels: &mut rows.labels,
        segments: &mut rows.segments,
        positions: &mut rows.positions,
    };
    let targets = fill_window(stream, start, layout, PADDING, into)?;
    assert_eq!(count_targets(stream, start, layout)?, targets);
    Ok((rows, targets))
}

#[test]
fn a_window_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    // Documents begin at 0, 3, 4 and 9.
    let stream = stream(folder.path(), &[3, 1, 5, 20], 100);
    let (rows, targets) = fill(&stream, 1, &layout(8, true, true)).unwrap();
    assert_eq!(rows.tokens, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(rows.labels, [2, IGNORED, IGNORED, 5, 6, 7, 8, IGNORED]);
    assert_eq!(rows.segments, [0, 0, 1, 2, 2, 2, 2, 2]);
    assert_eq!(rows.positions, [0, 1, 0, 0, 1, 2, 3, 4]);
    assert_eq!(targets, 5);
    let (rows, _) = fill(&stream, 1, &layout(8, true, false)).unwrap();
    assert_eq!(rows.segments, [0, 0, 1, 2, 2, 2, 2, 2]);
    assert_eq!(rows.positions, [0, 1, 2, 3, 4, 5, 6, 7]);
    let (rows, targets) = fill(&stream, 1, &layout(8, false, true)).unwrap();
    assert_eq!(rows.labels, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(rows.segments, [0; 8]);
    assert_eq!(rows.positions, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(targets, 8);
}

#[test]
fn what_ends_a_document_opens_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    // Documents begin at 0, 3, 4 and 9; token 77 stands before them.
    let stream = stream(folder.path(), &[3, 1, 5, 20], 100).opened_by(77).unwrap();
    let opened = |masks, reset| WindowLayout { opened: true, ..layout(8, masks, reset) };
    let (rows, targets) = fill(&stream, 0, &opened(true, true)).unwrap();
    assert_eq!(rows.tokens, [77, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(rows.labels, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(rows.segments, [0, 0, 0, 1, 2, 2, 2, 2]);
    assert_eq!(rows.positions, [0, 1, 2, 0, 0, 1, 2, 3]);
    assert_eq!(targets, 8);
    // A window that begins with what opens a document begins with its segment.
    let (rows, _) = fill(&stream, 3, &opened(true, false)).unwrap();
    assert_eq!((rows.tokens[0], rows.labels[0]), (2, 3));
    assert_eq!(rows.segments, [0, 1, 1, 1, 1, 1, 2, 2]);
    assert_eq!(rows.positions, [0, 1, 2, 3, 4, 5, 6, 7]);
    let (rows, _) = fill(&stream, 3, &opened(false, true)).unwrap();
    assert_eq!((rows.labels, rows.segments), ((3..11).collect(), vec![0; 8]));
}

#[test]
fn the_last_window_ends_with_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let stream = stream(folder.path(), &[4, 3], 100);
    let (rows, targets) = fill(&stream, 2, &layout(8, true, true)).unwrap();
    assert_eq!(rows.tokens, [2, 3, 4, 5, PADDING, PADDING, PADDING, PADDING]);
    assert_eq!(rows.labels, [3, -1, 5, 6, -1, -1, -1, -1]);
    assert_eq!(rows.segments, [0, 0, 1, 1, 2, 2, 2, 2]);
    assert_eq!(rows.positions, [0, 1, 0, 1, 0, 1, 2, 3]);
    assert_eq!(targets, 3);
}

#[test]
fn every_window_agrees_with_the_definition() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [10u64, 25, 1, 1, 12, 51];
    let document: Vec<i32> = (0..).zip(lengths).flat_map(|(d, n)| vec![d; n as usize]).collect();
    for shard_tokens in [7, 35, 1000] {
        let stream = stream(folder.path(), &lengths, shard_tokens);
        for length in [1, 2, 16, 99] {
            for start in 0..100 - length {
                let (rows, targets) =
                    fill(&stream, start as u64, &layout(length, true, true)).unwrap();
                let mut place = 0;
                for i in 0..length {
                    let at = start + i;
                    let new = i > 0 && document[at] != document[at - 1];
                    place = if i == 0 || new { 0 } else { place + 1 };
                    assert_eq!(rows.tokens[i], at as i32);
                    assert_eq!(rows.segments[i], document[at] - document[start]);
                    assert_eq!(rows.positions[i], place);
                    let inside = document[at + 1] == document[at];
                    assert_eq!(rows.labels[i], if inside { at as i32 + 1 } else { IGNORED });
                }
                let valid = rows.labels.iter().filter(|&&label| label != IGNORED).count();
                assert_eq!(targets, valid as u64);
            }
        }
    }
}

#[test]
fn a_window_needs_a_label() {
    let folder = tempfile::tempdir().unwrap();
    let stream = stream(folder.path(), &[20], 100);
    assert_eq!(fill(&stream, 18, &layout(10, true, true)).unwrap().1, 1);
    let error = fill(&stream, 19, &layout(10, true, true)).unwrap_err();
    assert!(matches!(error, DataError::OutOfRange { start: 19, end: 21, tokens: 20 }), "{error}");
    assert!(count_targets(&stream, 19, &layout(10, true, true)).is_err());
}
