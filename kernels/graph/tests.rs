//! Differentiation, recompute and planning, on small graphs.

use std::collections::BTreeSet;

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::plan::{Lifetime, pack};
use crate::graph::{
    Goal, Granularity, Graph, Init, Layout, Mix, Ownership, Parameter, ParameterId, Policy,
    Program, Recompute, Region, State, StateUse, StepBuffer, Variables,
};
use crate::ops::add::add;
use crate::ops::concat_columns::concat_columns;
use crate::ops::copy::{add_into, copy_into};
use crate::ops::exponential_average::exponential_average;
use crate::ops::gather_rows::gather_rows;
use crate::ops::scatter_rows::scatter_rows;
use crate::testing::{Array, forward, gradients, noise};

fn parameter(name: &str, shape: &[usize]) -> Parameter {
    Parameter {
        name: name.to_string(),
        shape: shape.to_vec(),
        dtype: DType::F32,
        trainable: true,
        decay: true,
        init: Init::Normal { std: 0.02 },
    }
}

#[test]
fn a_tensor_used_several_times_gathers_all_its_gradients() {
    let inputs = [Array::f32(&[5], noise(1, 5)), Array::f32(&[5], noise(2, 5))];
    let seed = [Array::f32(&[5], noise(3, 5))];
    // y = (a + b) + a, then z = y + y: dz/da = 4, dz/db = 2.
    let got = gradients(&inputs, &seed, &|g, x| {
        let y = add(g, x[0], x[1])?;
        let y = add(g, y, x[0])?;
        Ok(vec![add(g, y, y)?])
    })
    .unwrap();
    for (i, s) in seed[0].floats().iter().enumerate() {
        assert_eq!(got[0].floats()[i], s + s + (s + s));
        assert_eq!(got[1].floats()[i], s + s);
    }
}

#[test]
fn a_shared_gradient_is_not_changed_under_its_other_reader() {
    // x -> y = x + x (shares dy), and x is also read later: in-place sums must not leak into dy.
    let inputs = [Array::f32(&[3], vec![1.0, 2.0, 3.0]), Array::f32(&[3], vec![4.0, 5.0, 6.0])];
    let seed = [Array::f32(&[3], vec![1.0, 10.0, 100.0])];
    let got = gradients(&inputs, &seed, &|g, x| {
        let s = add(g, x[0], x[1])?;
        let t = add(g, s, x[1])?;
        let u = add(g, t, s)?;
        Ok(vec![add(g, u, t)?])
    })
    .unwrap();
    assert_eq!(got[0].floats(), [3.0, 30.0, 300.0]);
    assert_eq!(got[1].floats(), [5.0, 50.0, 500.0]);
}

#[test]
fn nothing_flows_through_stop_gradient() {
    let inputs = [Array::f32(&[2], vec![1.0, 2.0])];
    let seed = [Array::f32(&[2], vec![1.0, 1.0])];
    let got = gradients(&inputs, &seed, &|g, x| {
        let frozen = g.stop_gradient(x[0]);
        Ok(vec![add(g, frozen, x[0])?])
    })
    .unwrap();
    assert_eq!(got[0].floats(), [1.0, 1.0]);
}

#[test]
fn bf16_is_rounded_where_it_is_stored() {
    let stored = Array::Float(vec![3], vec![1.0, 256.0, -3.0], DType::Bf16);
    let small = Array::Float(vec![3], vec![2f32.powi(-9), 0.5, 0.001], DType::Bf16);
    let got = forward(&[stored, small], &|g, x| Ok(vec![add(g, x[0], x[1])?])).unwrap();
    assert_eq!(got[0].floats(), [1.0, 256.0, -3.0]);
}

#[test]
fn shapes_are_refused_while_building_with_path_and_op() {
    let variables = Variables::new();
    let mut g = Graph::new(&variables);
    let a = g.input("a", &[2, 3], DType::F32);
    let b = g.input("b", &[3, 2], DType::F32);
    let error = g.scoped("block", |g| g.scoped("0", |g| add(g, a, b))).unwrap_err();
    assert_eq!(error.to_string(), "add at block.0: f32[2, 3] + f32[3, 2]");
}

#[test]
fn lifetimes_that_meet_never_overlap_and_others_share() {
    let life = |first, last, bytes| Some(Lifetime { first, last, bytes });
    let lives = vec![
        life(0, 3, 1000),
        life(1, 2, 300),
        life(3, 5, 5000),
        None,
        life(4, 9, 700),
        life(6, 9, 4000),
        life(0, 9, 10),
    ];
    let (offsets, total) = pack(&lives);
    for (i, a) in lives.iter().enumerate() {
        for (j, b) in lives.iter().enumerate().skip(i + 1) {
            let (Some(a), Some(b)) = (a, b) else { continue };
            let meet = a.first <= b.last && b.first <= a.last;
            let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
            assert!(!meet || apart, "{i} and {j}");
        }
    }
    assert!(total < 1000 + 300 + 5000 + 700 + 4000, "nothing was reused: {total}");
}

#[test]
fn the_layout_is_whole_blocks_in_reverse_order_and_shards_cover_it() {
    let mut variables = Variables::new();
    for i in 0..7 {
        variables.parameter(parameter(&format!("w{i}"), &[10 + i, 7]));
    }
    variables.parameter(Parameter { trainable: false, ..parameter("frozen", &[9]) });
    let layout = Layout::new(&variables, Granularity { block: 128, bucket: 300 });
    assert!(layout.buckets.len() > 1);
    assert_eq!(layout.buckets[0].parameters[0], ParameterId(6));
    assert!(layout.buckets_of(ParameterId(7)).is_empty());
    let mut covered = BTreeSet::new();
    for ranks in [1, 2, 3, 4, 8] {
        let owners = Ownership::even(&layout, ranks);
        for bucket in 0..layout.buckets.len() {
            let mut next = layout.buckets[bucket].elements.start;
            for rank in 0..ranks {
                let shard = owners.shard(bucket, rank);
                assert_eq!(shard.start, next);
                assert_eq!(shard.len() % layout.block, 0);
                next = shard.end;
            }
            assert_eq!(next, layout.buckets[bucket].elements.end);
            covered.insert(next);
        }
    }
    assert_eq!(covered.last(), Some(&layout.elements));
}

#[test]
fn every_element_has_one_owner() {
    let mut variables = Variables::new();
    for i in 0..9 {
        variables.parameter(parameter(&format!("w{i}"), &[40 + i, 7]));
    }
    let layout = Layout::new(&variables, Granularity { block: 64, bucket: 256 });
    let table = |owners: &Ownership, ranks: usize| -> Vec<Vec<_>> {
        let shards = |bucket| (0..ranks).map(|rank| owners.shard(bucket, rank)).collect();
        (0..layout.buckets.len()).map(shards).collect()
    };
    for ranks in [1, 2, 3, 8] {
        for owners in [Ownership::even(&layout, ranks), Ownership::by_unit(&layout, ranks)] {
            let mut all = table(&owners, ranks);
            assert_eq!(Ownership::new(&layout, all.clone()).unwrap(), owners);
            let sum: usize = (0..ranks).map(|rank| owners.elements(rank)).sum();
            assert_eq!(sum, layout.elements);
            let taken = all[1].iter_mut().find(|shard| shard.start < shard.end).unwrap();
            taken.end -= layout.block;
            assert!(Ownership::new(&layout, all.clone()).is_err(), "nobody owns a block");
            all[1].iter_mut().for_each(|shard| *shard = layout.buckets[1].elements.clone());
            assert_eq!(Ownership::new(&layout, all.clone()).is_err(), ranks > 1, "two own one");
            all.pop();
            assert!(Ownership::new(&layout, all).is_err(), "a bucket is left out");
        }
    }
    let owners = Ownership::by_unit(&layout, 3);
    for unit in &layout.units {
        let owner = |bucket: usize| {
            let mut ranks = (0..3).filter(|&rank| !owners.shard(bucket, rank).is_empty());
            (ranks.next(), ranks.next())
        };
        let owners: BTreeSet<_> = unit.buckets.clone().map(owner).collect();
        assert!(owners.len() <= 1 && owners.iter().all(|(_, second)| second.is_none()));
    }
    assert!((0..3).all(|rank| owners.elements(rank) > 0), "somebody has nothing");
}

#[test]
fn a_large_parameter_is_cut_into_buckets_and_keeps_one_address() {
    let mut variables = Variables::new();
    for (name, shape) in [("large", [100, 70]), ("small", [3, 5]), ("other", [9, 9])] {
        variables.parameter(parameter(name, &shape));
    }
    let layout = Layout::new(&variables, Granularity { block: 64, bucket: 256 });
    let (large, small) = (ParameterId(0), ParameterId(1));
    assert!(layout.buckets.iter().all(|bucket| bucket.elements.len() <= 256));
    assert!(layout.buckets_of(large).len() > 20);
    for id in (0..3).map(ParameterId) {
        let place = layout.placements[id.0];
        let unit = &layout.units[place.unit];
        assert!(unit.elements.contains(&place.start));
        assert!(place.start + place.elements <= unit.elements.end, "it leaves its unit");
        let buckets = layout.buckets_of(id);
        let (first, last) = (&layout.buckets[buckets.start], &layout.buckets[buckets.end - 1]);
        assert!(first.elements.contains(&place.start));
        assert!(last.elements.contains(&(place.start + place.elements - 1)));
        // The bytes of an element are the same by parameter, by bucket and by unit.
        let bytes = layout.parameter_span(buckets.start, &(place.start..place.start + 1));
        assert_eq!(bytes.start, place.byte);
        let in_unit = (place.start - unit.elements.start) * 4;
        assert_eq!(unit.bytes.start + in_unit, place.byte);
    }
    let edges = layout.units.iter().map(|u| u.buckets.clone());
    assert!(edges.flatten().eq(0..layout.buckets.len()), "every bucket in one unit, in order");
    assert!(layout.buckets_of(small).len() == 1);
}

#[test]
fn a_recompute_policy_changes_memory_but_not_the_nodes_that_write_gradients() {
    let mut variables = Variables::new();
    let ids: Vec<_> =
        (0..6).map(|i| variables.parameter(parameter(&format!("w{i}"), &[4, 64]))).collect();
    let layout = Layout::new(&variables, Granularity::default());
    let compile = |recompute| {
        let mut g = Graph::new(&variables);
        let mut x = g.input("x", &[4, 64], DType::F32);
        for &id in &ids {
            x = g.region(Region::Block, |g| {
                let w = g.parameter(id);
                let y = add(g, x, w).unwrap();
                add(g, y, w).unwrap()
            });
        }
        let seed = g.input("seed", &[4, 64], DType::F32);
        let goal = Goal::Vjp { outputs: vec![(x, seed)] };
        Program::compile(
            "p",
            g,
            &goal,
            Policy { recompute: Mix::from(recompute), ..Policy::default() },
            &layout,
        )
        .unwrap()
    };
    let kept = compile(Recompute::None);
    let rebuilt = compile(Recompute::Block);
    // A sum needs nothing from forward, so nothing is rebuilt and both plans are the same.
    assert_eq!(kept.nodes(), rebuilt.nodes());
    assert_eq!(kept.gradient_writes().len(), 6);
}

#[test]
fn a_gradient_of_other_dtype_keeps_its_own() {
    // The seed is f32, the tensor bf16: the gradient's memory must be read as what it is.
    let narrow = |seed| Array::Float(vec![6], noise(seed, 6), DType::Bf16);
    let seed = [Array::f32(&[6], noise(9, 6))];
    let got = gradients(&[narrow(1), narrow(2)], &seed, &|g, x| Ok(vec![add(g, x[0], x[1])?]));
    for gradient in got.unwrap() {
        assert_eq!(gradient.floats(), seed[0].floats());
    }
}

#[test]
fn a_gradient_that_leaves_rows_undefined_is_refused() {
    let inputs = [Array::f32(&[4, 2], noise(1, 8)), Array::i32(&[], vec![3])];
    let seed = [Array::f32(&[4, 2], noise(2, 8))];
    let refused = gradients(&inputs, &seed, &|g, x| {
        let part = g.with_live(x[0], x[1]);
        let whole = add(g, x[0], x[0])?;
        // `part + whole` is live on three rows, so its gradient cannot be that of `whole`.
        Ok(vec![add(g, part, whole)?])
    });
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("cannot be the gradient of"), "{said}");
}

#[test]
fn a_node_that_would_write_what_it_reads_is_refused() {
    let mut variables = Variables::new();
    let state = |name: &str, shape: &[usize], dtype| State {
        name: name.to_string(),
        shape: shape.to_vec(),
        dtype,
        usage: StateUse::Local,
        init: 0.0,
    };
    let load = variables.state(state("load", &[4], DType::F32));
    let extent = variables.state(state("extent", &[], DType::I32));
    let rows = variables.step_buffer(StepBuffer {
        name: "rows".to_string(),
        slice: vec![2],
        micro_batches: 1,
        dtype: DType::F32,
    });
    let mut g = Graph::new(&variables);
    let (load, extent) = (g.state(load), g.state(extent));
    let view = g.reshape(load, &[2, 2]).unwrap();
    let refused = |result: Result<()>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("which it also reads or writes"), "{error}");
    };
    refused(add_into(&mut g, load, load));
    refused(add_into(&mut g, view, load));
    refused(copy_into(&mut g, load, view));
    refused(exponential_average(&mut g, load, load, 0.5));
    let (slice, whole) = (g.step_slice(rows), g.step_whole(rows));
    refused(copy_into(&mut g, whole, slice));
    // How many elements there are is read beside them.
    let counted = g.input("counted", &[1], DType::I32);
    let counted = g.with_live(counted, extent);
    refused(copy_into(&mut g, counted, extent));
    // Dtypes that an op reads as other words.
    let wide = g.input("wide", &[4], DType::F64);
    let bytes = g.input("bytes", &[4], DType::U8);
    let index = g.input("index", &[2], DType::I32);
    for x in [wide, bytes] {
        assert!(gather_rows(&mut g, x, index).is_err());
        assert!(scatter_rows(&mut g, x, x, index).is_err());
        assert!(copy_into(&mut g, x, load).is_err());
        assert!(concat_columns(&mut g, &[x, x]).is_err());
        assert!(add(&mut g, x, x).is_err());
    }
    assert!(copy_into(&mut g, load, wide).is_err(), "an f32 written into f64");
}
