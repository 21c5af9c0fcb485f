//! The tree's arithmetic, and that its sums are the plain recursive tree's, bit for bit.

use std::ops::Range;

use proptest::prelude::{ProptestConfig, any, proptest};

use crate::collectives::tree::{Fold, JoinTree, LaneTree, Piece, Subtree};

/// Every valid number of lanes and ranks up to 16 lanes.
fn trees() -> impl Iterator<Item = LaneTree> {
    let sizes = [1, 2, 4, 8, 16].into_iter();
    sizes.flat_map(|lanes| (1..=lanes).map(move |ranks| LaneTree::new(lanes, ranks).unwrap()))
}

/// The definition: halves, added.
fn recursive(values: &[f32]) -> f32 {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = values.split_at(values.len() / 2);
            recursive(left) + recursive(right)
        }
    }
}

/// Does what a rank does with its lanes; returns its buffers.
fn fold_lanes(tree: &LaneTree, rank: usize, values: &[f32]) -> Vec<f32> {
    let mut buffers = vec![f32::NAN; tree.buffers(rank)];
    for step in tree.steps_of(rank) {
        buffers[step.buffer] = values[step.lane];
        for Fold { into, from } in step.folds {
            buffers[into] += buffers[from];
            buffers[from] = f32::NAN;
        }
    }
    buffers
}

/// The sum over all ranks by the fold lists alone.
fn sum(tree: &LaneTree, values: &[f32]) -> f32 {
    let buffers: Vec<_> = (0..tree.ranks()).map(|rank| fold_lanes(tree, rank, values)).collect();
    let piece = |piece: &Piece| buffers[piece.rank][piece.buffer];
    let mut pieces: Vec<f32> = tree.pieces().iter().map(piece).collect();
    for Fold { into, from } in tree.join_tree().folds() {
        pieces[into] += pieces[from];
        pieces[from] = f32::NAN;
    }
    pieces[0]
}

#[test]
fn lanes_are_dealt_contiguously_and_evenly() {
    for tree in trees() {
        let mut next = 0;
        let counts: Vec<usize> = (0..tree.ranks())
            .map(|rank| {
                let lanes = tree.lanes_of(rank);
                assert_eq!(lanes.start, next, "{tree:?}");
                next = lanes.end;
                lanes.len()
            })
            .collect();
        assert_eq!(next, tree.lanes());
        assert!(counts.is_sorted_by(|a, b| a >= b), "{tree:?} {counts:?}");
        assert!(counts[0] - counts[counts.len() - 1] <= 1, "{tree:?} {counts:?}");
    }
    let three = LaneTree::new(8, 3).unwrap();
    assert_eq!([0, 1, 2].map(|rank| three.lanes_of(rank)), [0..3, 3..6, 6..8]);
}

#[test]
fn subtrees_are_the_maximal_ones() {
    let inside = |inner: &Range<usize>, outer: &Range<usize>| {
        outer.start <= inner.start && inner.end <= outer.end
    };
    for tree in trees() {
        for rank in 0..tree.ranks() {
            let lanes = tree.lanes_of(rank);
            let subtrees = tree.subtrees_of(rank);
            let covered: Vec<usize> = subtrees.iter().flat_map(|s| s.lanes()).collect();
            assert_eq!(covered, lanes.clone().collect::<Vec<_>>(), "{tree:?}");
            for subtree in subtrees {
                let parent = Subtree { level: subtree.level + 1, index: subtree.index / 2 };
                assert!(!inside(&parent.lanes(), &lanes), "{tree:?} {subtree:?}");
            }
        }
    }
    let subtree = |level, index| Subtree { level, index };
    let three = LaneTree::new(8, 3).unwrap();
    assert_eq!(three.subtrees_of(0), [subtree(1, 0), subtree(0, 2)]);
    assert_eq!(three.subtrees_of(1), [subtree(0, 3), subtree(1, 2)]);
    assert_eq!(three.subtrees_of(2), [subtree(1, 3)]);
}

#[test]
fn buffers_are_as_many_as_the_design_says() {
    let buffers = |lanes, ranks| LaneTree::new(lanes, ranks).unwrap().max_buffers();
    assert_eq!([1, 2, 4, 8].map(|ranks| buffers(8, ranks)), [4, 3, 2, 1]);
    assert_eq!([1, 2, 4, 8].map(|lanes| buffers(lanes, 1)), [1, 2, 3, 4]);
    // Lane 3 has no sibling among 3, 4, 5 and waits below the two others.
    assert_eq!(buffers(8, 3), 3);
}

#[test]
fn one_rank_counts_in_binary() {
    let fold = |into, from| Fold { into, from };
    let tree = LaneTree::new(4, 1).unwrap();
    let steps = tree.steps_of(0);
    assert_eq!(
        steps.iter().map(|s| (s.lane, s.buffer)).collect::<Vec<_>>(),
        [(0, 0), (1, 1), (2, 1), (3, 2)]
    );
    assert_eq!(steps[1].folds, [fold(0, 1)]);
    assert!(steps[0].folds.is_empty() && steps[2].folds.is_empty());
    assert_eq!(steps[3].folds, [fold(1, 2), fold(0, 1)]);
    assert!(tree.join_tree().folds().is_empty());
}

#[test]
fn the_join_adds_pieces_in_tree_order() {
    let fold = |into, from| Fold { into, from };
    // Pieces of 3 ranks: 0 = lanes 0-1, 1 = lane 2, 2 = lane 3, 3 = lanes 4-5, 4 = lanes 6-7.
    let three = LaneTree::new(8, 3).unwrap();
    let places: Vec<_> = three.pieces().iter().map(|p| (p.rank, p.buffer)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]);
    let order = [fold(1, 2), fold(0, 1), fold(3, 4), fold(0, 3)];
    assert_eq!(three.join_tree().folds(), order);
    assert_eq!(three.rounds(), 2);
    assert_eq!([1, 2, 4, 8].map(|ranks| LaneTree::new(8, ranks).unwrap().rounds()), [1; 4]);
}

#[test]
fn the_tree_of_ranks_is_the_lane_tree_with_gaps() {
    let fold = |into, from| Fold { into, from };
    assert_eq!(JoinTree::of_ranks(1).folds(), []);
    assert_eq!(JoinTree::of_ranks(3).folds(), [fold(0, 1), fold(0, 2)]);
    let five = [fold(0, 1), fold(2, 3), fold(0, 2), fold(0, 4)];
    assert_eq!(JoinTree::of_ranks(5).folds(), five);
    let six = [fold(0, 1), fold(2, 3), fold(0, 2), fold(4, 5), fold(0, 4)];
    assert_eq!(JoinTree::of_ranks(6).folds(), six);
    let seven = [fold(0, 1), fold(2, 3), fold(0, 2), fold(4, 5), fold(4, 6), fold(0, 4)];
    assert_eq!(JoinTree::of_ranks(7).folds(), seven);
    for ranks in [1, 2, 4, 8, 16, 64] {
        let lanes = LaneTree::new(ranks, ranks).unwrap();
        assert_eq!(JoinTree::of_ranks(ranks), lanes.join_tree());
    }
}

#[test]
fn impossible_trees_are_refused() {
    for (lanes, ranks) in [(0, 1), (3, 1), (128, 1), (8, 0), (8, 9)] {
        let error = LaneTree::new(lanes, ranks).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn the_order_matters_for_the_data_of_these_tests() {
    let values: [f32; 8] = [1e8, 1.0, -1e8, 1.0, 3.0, 0.25, 7.0, -5.0];
    let in_line = values.iter().copied().reduce(|a, b| a + b).unwrap();
    assert_ne!(in_line.to_bits(), recursive(&values).to_bits());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_ranks_gives_the_bits_of_the_recursive_tree(
        mantissas in any::<[f32; 16]>(),
        exponents in any::<[u8; 16]>(),
    ) {
        let scaled = |(m, e): (&f32, &u8)| {
            let m = if m.is_finite() { m.to_bits() & 0x807f_ffff } else { 0 };
            f32::from_bits(m | (100 + u32::from(*e) / 8) << 23)
        };
        let values: Vec<f32> = mantissas.iter().zip(&exponents).map(scaled).collect();
        for tree in trees() {
            let values = &values[..tree.lanes()];
            assert_eq!(sum(&tree, values).to_bits(), recursive(values).to_bits(), "{tree:?}");
        }
    }
}
