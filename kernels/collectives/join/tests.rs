//! The sum is the tree's, at every length, and touches nothing but its output.

use crate::collectives::join::{BLOCK, join};
use crate::collectives::tree::{JoinTree, LaneTree};
use crate::dtype::DType;
use crate::memory::DeviceSlice;

const LENGTHS: [usize; 8] = [0, 1, 3, 17, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5];

/// Numbers whose sum depends on the order of additions.
fn rough(seed: usize, i: usize) -> f32 {
    let bits = (seed * 7919 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let scale = [1e-3, 1.0, 3e4, 1e8][bits % 4];
    ((bits >> 2 & 0xffff) as f32 - 32768.0) / 32768.0 * scale
}

/// Sums one element of all pieces by the tree's list of additions.
fn by_folds<T: Copy>(tree: &JoinTree, mut pieces: Vec<T>, add: impl Fn(T, T) -> T) -> T {
    for fold in tree.folds() {
        pieces[fold.into] = add(pieces[fold.into], pieces[fold.from]);
    }
    pieces[0]
}

fn trees() -> Vec<JoinTree> {
    let lanes = (1..=8).map(|ranks| LaneTree::new(8, ranks).unwrap().join_tree());
    lanes.chain((1..=9).chain([64]).map(JoinTree::of_ranks)).collect()
}

/// Joins `pieces` at one dtype into a separate output with a guard element on either side.
fn joined<T: bytemuck::Pod>(
    tree: &JoinTree,
    dtype: DType,
    pieces: &mut [Vec<T>],
    guard: T,
) -> Vec<T> {
    let length = pieces[0].len();
    let mut output = vec![guard; length + 2];
    let slices: Vec<_> = pieces.iter_mut().map(|p| DeviceSlice::from_host(p)).collect();
    let to = DeviceSlice::from_host(&mut output[1..=length]);
    // SAFETY: the vectors are alive and only this thread uses them.
    unsafe { join(tree, dtype, &slices, to) }.unwrap();
    assert_eq!(bytemuck::bytes_of(&output[0]), bytemuck::bytes_of(&guard));
    assert_eq!(bytemuck::bytes_of(&output[length + 1]), bytemuck::bytes_of(&guard));
    output[1..=length].to_vec()
}

#[test]
fn floats_sum_in_tree_order_and_pieces_stay() {
    for tree in trees() {
        for length in LENGTHS {
            let piece = |p| (0..length).map(|i| rough(p, i)).collect::<Vec<f32>>();
            let pieces: Vec<_> = (0..tree.pieces()).map(piece).collect();
            let wide = |p: &Vec<f32>| p.iter().map(|&x| f64::from(x) * 1.1).collect();
            let pieces64: Vec<Vec<f64>> = pieces.iter().map(wide).collect();
            let (mut given, mut given64) = (pieces.clone(), pieces64.clone());
            let sums = joined(&tree, DType::F32, &mut given, f32::NAN);
            let sums64 = joined(&tree, DType::F64, &mut given64, f64::NAN);
            assert!(given == pieces && given64 == pieces64);
            for i in 0..length {
                let column = pieces.iter().map(|p| p[i]).collect();
                let expected = by_folds(&tree, column, |a: f32, b| a + b);
                assert_eq!(sums[i].to_bits(), expected.to_bits(), "{tree:?} {length} {i}");
                let column = pieces64.iter().map(|p| p[i]).collect();
                let expected = by_folds(&tree, column, |a: f64, b| a + b);
                assert_eq!(sums64[i].to_bits(), expected.to_bits(), "{tree:?} {length} {i}");
            }
        }
    }
}

#[test]
fn integers_wrap() {
    let tree = JoinTree::of_ranks(3);
    let mut pieces = vec![vec![i32::MAX, 5], vec![1, -7], vec![3, 0]];
    assert_eq!(joined(&tree, DType::I32, &mut pieces, 9), [i32::MIN + 3, -2]);
    let mut pieces = vec![vec![i64::MAX, 1 << 40], vec![1, 1], vec![3, 0]];
    assert_eq!(joined(&tree, DType::I64, &mut pieces, 9), [i64::MIN + 3, (1 << 40) + 1]);
}

#[test]
fn the_output_may_be_any_piece() {
    for tree in trees() {
        let length = BLOCK + 7;
        let piece = |p| (0..length).map(|i| rough(p, i)).collect::<Vec<f32>>();
        let pieces: Vec<_> = (0..tree.pieces()).map(piece).collect();
        let expected = joined(&tree, DType::F32, &mut pieces.clone(), 0.0);
        for into in 0..tree.pieces() {
            let mut given = pieces.clone();
            let slices: Vec<_> = given.iter_mut().map(|p| DeviceSlice::from_host(p)).collect();
            // SAFETY: the vectors are alive and only this thread uses them.
            unsafe { join(&tree, DType::F32, &slices, slices[into]) }.unwrap();
            assert!(given[into] == expected, "{tree:?} into {into}");
            let others = (0..tree.pieces()).filter(|&p| p != into);
            others.for_each(|p| assert!(given[p] == pieces[p]));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let mut memory = [7u64; 8];
    let all = DeviceSlice::from_host(&mut memory);
    let (a, b, c) = (all.part(0, 8), all.part(8, 8), all.part(16, 8));
    let two = JoinTree::of_ranks(2);
    let cases: [(DType, &[DeviceSlice], DeviceSlice); 6] = [
        (DType::F32, &[a], c),
        (DType::F32, &[a, b, b], c),
        (DType::F32, &[a, b.part(0, 4)], c),
        (DType::F32, &[a.part(0, 6), b.part(0, 6)], c.part(0, 6)),
        (DType::F32, &[a.part(1, 4), b.part(0, 4)], c.part(0, 4)),
        (DType::Bf16, &[a, b], c),
    ];
    for (dtype, pieces, output) in cases {
        // SAFETY: the array is alive and only this thread uses it.
        let refused = unsafe { join(&two, dtype, pieces, output) };
        assert!(refused.unwrap_err().to_string().contains("a join of"));
    }
    assert_eq!(memory, [7; 8]);
}
