//! What is built on the primitives: reduce-scatter, all-reduce, and a whole step's lane tree.

use std::time::Duration;

use crate::collectives::{
    Communicator, JoinTree, LaneTree, LocalCommunicator, LocalGroup, all_reduce_staging,
    reduce_scatter_staging,
};
use crate::dtype::DType;
use crate::memory::DeviceSlice;

/// Runs one thread per rank, each with the trait only; results in rank order.
fn on_ranks<T: Send>(ranks: usize, body: impl Fn(&mut dyn Communicator) -> T + Sync) -> Vec<T> {
    let group = LocalGroup::new(ranks, Duration::from_secs(60));
    std::thread::scope(|scope| {
        let body = &body;
        let start = |mut rank: LocalCommunicator| scope.spawn(move || body(&mut rank));
        let threads: Vec<_> = group.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Numbers whose sum depends on the order of additions.
fn rough(seed: usize, i: usize) -> f32 {
    let bits = (seed * 7919 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let scale = [1e-3, 1.0, 3e4, 1e8][bits % 4];
    ((bits >> 2 & 0xffff) as f32 - 32768.0) / 32768.0 * scale
}

/// Element `i` of the sum over ranks, in the tree of ranks.
fn sum_of_ranks(ranks: usize, i: usize) -> f32 {
    let mut values: Vec<f32> = (0..ranks).map(|rank| rough(rank, i)).collect();
    for fold in JoinTree::of_ranks(ranks).folds() {
        values[fold.into] += values[fold.from];
    }
    values[0]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn all_reduce_sums_in_rank_order_everywhere() {
    for ranks in [1, 2, 3, 4, 8] {
        for elements in [0, 1, 2, 7, 1023] {
            let expected: Vec<f32> = (0..elements).map(|i| sum_of_ranks(ranks, i)).collect();
            let sums = on_ranks(ranks, |group| {
                let rank = group.rank();
                let mut buffer: Vec<f32> = (0..elements).map(|i| rough(rank, i)).collect();
                let staged = all_reduce_staging(elements * 4, DType::F32, ranks) / 4;
                let mut staging = vec![f32::NAN; staged];
                let slices = [&mut buffer, &mut staging].map(|v| DeviceSlice::from_host(v));
                // SAFETY: the vectors are this rank's own and outlive the call.
                unsafe { group.all_reduce(DType::F32, slices[0], slices[1]) }.unwrap();
                buffer
            });
            sums.iter().for_each(|sum| assert_eq!(bits(sum), bits(&expected), "{ranks} ranks"));
        }
    }
}

#[test]
fn all_reduce_knows_four_dtypes() {
    fn sum<T: bytemuck::Pod>(
        group: &mut dyn Communicator,
        dtype: DType,
        mut data: [T; 3],
    ) -> [T; 3] {
        let mut staging = [data[0]; 8];
        let slices = (DeviceSlice::from_host(&mut data), DeviceSlice::from_host(&mut staging));
        // SAFETY: the arrays are this rank's own and outlive the call.
        unsafe { group.all_reduce(dtype, slices.0, slices.1) }.unwrap();
        data
    }
    on_ranks(3, |group| {
        let rank = group.rank();
        assert_eq!(sum(group, DType::I32, [rank as i32, 10, -5]), [3, 30, -15]);
        assert_eq!(sum(group, DType::I64, [1 << 40, rank as i64, -1]), [3 << 40, 3, -3]);
        assert_eq!(sum(group, DType::F32, [0.5, rank as f32, -1.0]), [1.5, 3.0, -3.0]);
        assert_eq!(sum(group, DType::F64, [0.5, rank as f64, -1.0]), [1.5, 3.0, -3.0]);
    });
}

#[test]
fn reduce_scatter_gives_each_rank_its_part() {
    for ranks in [1, 2, 3, 4, 8] {
        // Parts of odd and different lengths; the first is empty.
        let lengths: Vec<usize> = (0..ranks).map(|rank| rank * 37).collect();
        let start = |rank: usize| lengths[..rank].iter().sum::<usize>();
        for in_place in [false, true] {
            on_ranks(ranks, |group| {
                let rank = group.rank();
                let mut data: Vec<f32> = (0..start(ranks)).map(|i| rough(rank, i)).collect();
                let staged = reduce_scatter_staging(lengths[rank] * 4, ranks) / 4;
                let mut staging = vec![f32::NAN; staged];
                let mut output = vec![f32::NAN; lengths[rank]];
                let all = DeviceSlice::from_host(&mut data);
                let part = |q: usize| all.part(start(q) * 4, lengths[q] * 4);
                let send: Vec<_> = (0..ranks).map(part).collect();
                let separate = DeviceSlice::from_host(&mut output);
                let to = if in_place { send[rank] } else { separate };
                let staging = DeviceSlice::from_host(&mut staging);
                // SAFETY: the vectors are this rank's own and outlive the call.
                unsafe { group.reduce_scatter(DType::F32, &send, staging, to) }.unwrap();
                let first = start(rank);
                let result = if in_place { &data[first..first + lengths[rank]] } else { &output };
                let expected: Vec<f32> =
                    (0..lengths[rank]).map(|i| sum_of_ranks(ranks, first + i)).collect();
                assert_eq!(bits(result), bits(&expected), "{ranks} ranks");
            });
        }
    }
}

#[test]
fn bad_arguments_end_the_group_by_name() {
    let errors = on_ranks(3, |group| {
        let mut data = [0f32; 16];
        let all = DeviceSlice::from_host(&mut data);
        let short = if group.rank() == 1 { 4 } else { 16 };
        // SAFETY: the array is this rank's own and outlives the call.
        let reduced = unsafe { group.all_reduce(DType::F32, all.part(0, 24), all.part(32, short)) };
        reduced.unwrap_err().to_string()
    });
    for error in errors {
        assert!(error.contains("rank 1"), "{error}");
        assert!(error.contains("staging of 4 where 16 are needed"), "{error}");
    }
    let errors = on_ranks(2, |group| {
        let mut data = [0u16; 16];
        let all = DeviceSlice::from_host(&mut data);
        // SAFETY: the array is this rank's own and outlives the call.
        unsafe { group.all_reduce(DType::Bf16, all.part(0, 8), all.part(16, 8)) }.unwrap_err()
    });
    assert!(errors.iter().all(|error| error.to_string().contains("bf16: too narrow")));
}

/// A rank's part of a step: fold the lanes, send the pieces' shards, join, gather.
fn step(group: &mut dyn Communicator, tree: &LaneTree, elements: usize) -> Vec<f32> {
    let (rank, ranks) = (group.rank(), group.size());
    let mut buffers = vec![vec![f32::NAN; elements]; tree.buffers(rank)];
    let buffers: Vec<_> = buffers.iter_mut().map(|b| DeviceSlice::from_host(b)).collect();
    for step in tree.steps_of(rank) {
        let mut lane: Vec<f32> = (0..elements).map(|i| rough(step.lane, i)).collect();
        let lane = DeviceSlice::from_host(&mut lane);
        // SAFETY: all vectors are this rank's own and alive.
        unsafe {
            group.join(&JoinTree::of_ranks(1), DType::F32, &[lane], buffers[step.buffer]).unwrap();
            for fold in &step.folds {
                let pair = [buffers[fold.into], buffers[fold.from]];
                group.join(&JoinTree::of_ranks(2), DType::F32, &pair, pair[0]).unwrap();
            }
        }
    }
    let shard = |of: DeviceSlice, q: usize| {
        let (start, end) = (q * elements / ranks * 4, (q + 1) * elements / ranks * 4);
        of.part(start, end - start)
    };
    let mut output = vec![f32::NAN; elements];
    let all = DeviceSlice::from_host(&mut output);
    let (pieces, own) = (tree.pieces(), shard(all, rank));
    let mut staging = vec![f32::NAN; pieces.len() * own.bytes() / 4];
    let staging = DeviceSlice::from_host(&mut staging);
    let staged: Vec<_> =
        (0..pieces.len()).map(|piece| staging.part(piece * own.bytes(), own.bytes())).collect();
    for round in 0..tree.rounds() {
        let piece = buffers.get(round).filter(|_| round < tree.subtrees_of(rank).len());
        let send = |q| piece.map_or(all.part(0, 0), |&piece| shard(piece, q));
        let of = |q| pieces.iter().position(|piece| (piece.rank, piece.buffer) == (q, round));
        let receive = |q| of(q).map_or(all.part(0, 0), |piece| staged[piece]);
        let send: Vec<_> = (0..ranks).map(send).collect();
        let receive: Vec<_> = (0..ranks).map(receive).collect();
        // SAFETY: all vectors are this rank's own and alive.
        unsafe { group.all_to_all(&send, &receive) }.unwrap();
    }
    let parts: Vec<_> = (0..ranks).map(|q| shard(all, q)).collect();
    // SAFETY: all vectors are this rank's own and alive.
    unsafe {
        group.join(&tree.join_tree(), DType::F32, &staged, own).unwrap();
        group.all_gather(own, &parts).unwrap();
    }
    output
}

#[test]
fn a_step_has_the_same_bits_on_any_number_of_ranks() {
    let elements = 777;
    for lanes in [1, 2, 4, 8] {
        let plain: Vec<f32> = (0..elements).map(|i| sum_of_ranks(lanes, i)).collect();
        for ranks in 1..=lanes {
            let tree = LaneTree::new(lanes, ranks).unwrap();
            for sum in on_ranks(ranks, |group| step(group, &tree, elements)) {
                assert_eq!(bits(&sum), bits(&plain), "{lanes} lanes on {ranks} ranks");
            }
        }
    }
}
