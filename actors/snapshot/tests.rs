//! Layout, digest and slots: padding never counts, a torn slot is never good.

use std::process::Command;
use std::sync::Arc;
use std::thread;

use octet_kernels::dtype::DType;
use octet_kernels::graph::variables::{Init, Parameter, State};
use octet_kernels::graph::{Granularity, Layout, StateUse, Variables};
use octet_kernels::memory::Span;
use octet_kernels::update::{OptimizerSpec, Plane, Storage};
use serde_json::{Value, json};

use crate::snapshot::digest::{combine, digest, tensor_hashes};
use crate::snapshot::{
    CURSOR_BYTES_MAX, FACTS_BYTES_MAX, HEADER_BYTES, LogicalTensor, Region, SLOTS, Slot, SlotFacts,
    SnapshotError, SnapshotLayout, SnapshotSlots, TensorKind,
};
use crate::units::size;

mod few;

/// A small run with every kind of variable: f32 and bf16 parameters, a frozen one, three states.
pub(crate) fn variables() -> Variables {
    let mut variables = Variables::new();
    for (name, shape, dtype, trainable) in [
        ("embedding", vec![50, 16], DType::F32, true),
        ("block.0.w", vec![16, 48], DType::Bf16, true),
        ("block.0.b", vec![3], DType::F32, true),
        ("table", vec![7, 5], DType::Bf16, false),
        ("scale", vec![], DType::F32, true),
    ] {
        let init = Init::Constant(0.0);
        let name = name.to_string();
        variables.parameter(Parameter { name, shape, dtype, trainable, decay: true, init });
    }
    for (name, usage, dtype) in [
        ("counts", StateUse::StepSum, DType::I32),
        ("bias", StateUse::Replicated, DType::F32),
        ("cache", StateUse::Local, DType::Bf16),
        ("seen", StateUse::Replicated, DType::I64),
    ] {
        let name = name.to_string();
        variables.state(State { name, shape: vec![5], dtype, usage, init: 0.0 });
    }
    variables
}

/// The layout of [`variables`] cut into blocks of `block` elements.
pub(crate) fn layout(block: usize) -> Arc<SnapshotLayout> {
    let variables = variables();
    let layout = Layout::new(&variables, Granularity { block, bucket: 4 * block });
    Arc::new(SnapshotLayout::new(&variables, &layout, &planes()))
}

/// Slot `index` of new memory, empty.
pub(crate) fn empty_slot(layout: &Arc<SnapshotLayout>, index: usize) -> Slot {
    SnapshotSlots::create(layout.bytes()).expect("memory").slot(index, layout)
}

/// Fills every byte of the slot's regions: tensors by name and `seed`, padding with `padding`.
pub(crate) fn fill(slot: &Slot, seed: u8, padding: u8) {
    slot.invalidate();
    for region in slot.layout().regions() {
        // SAFETY: the test alone knows the slot.
        unsafe { slot.region(region).as_mut_slice::<u8>() }.fill(padding);
    }
    for tensor in slot.layout().tensors() {
        // SAFETY: as above.
        let bytes = unsafe { slot.tensor(tensor).as_mut_slice::<u8>() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).update(tensor.name.as_bytes()).finalize_xof().fill(bytes);
    }
}

/// A slot filled and committed, never with sequence 0, which marks an empty one.
pub(crate) fn filled_slot(layout: &Arc<SnapshotLayout>, step: u64, seed: u8) -> Slot {
    let slot = empty_slot(layout, 0);
    fill(&slot, seed, 0);
    slot.commit(step, &cursor(step), step.max(1)).expect("commit");
    slot
}

/// A cursor with nesting.
pub(crate) fn cursor(step: u64) -> Value {
    json!({"samples": step * 8, "sources": [{"name": "a", "epoch": 1.5}, null], "b": true})
}

/// What AdamW stores in f32.
fn planes() -> Vec<Plane> {
    crate::testing::adamw().planes()
}

fn flip(slot: &Slot, region: Region, byte: usize) {
    // SAFETY: the test alone knows the slot.
    let bytes = unsafe { slot.region(region).as_mut_slice::<u8>() };
    bytes[byte] ^= 4;
}

#[test]
fn the_layout_names_every_saved_tensor() {
    let layout = layout(256);
    let names: Vec<&str> = layout.tensors().iter().map(|t| t.name.as_str()).collect();
    let expected = [
        "block.0.b",
        "block.0.b.exp_avg",
        "block.0.b.exp_avg_sq",
        "block.0.w",
        "block.0.w.exp_avg",
        "block.0.w.exp_avg_sq",
        "embedding",
        "embedding.exp_avg",
        "embedding.exp_avg_sq",
        "scale",
        "scale.exp_avg",
        "scale.exp_avg_sq",
        "state.bias",
        "state.seen",
        "table",
    ];
    assert_eq!(names, expected);
    for tensor in layout.tensors() {
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(tensor.span.bytes, elements * tensor.dtype.bytes(), "{}", tensor.name);
        let moment = tensor.name.contains("exp_avg");
        assert_eq!(tensor.kind == TensorKind::Optimizer, moment, "{}", tensor.name);
        let stored = matches!(tensor.name.as_str(), "table" | "state.seen");
        assert_eq!(tensor.dtype == DType::F32, !stored, "{}: masters are f32", tensor.name);
    }
}

#[test]
fn eight_bits_and_their_scales_are_tensors_of_their_own() {
    let variables = variables();
    let flat = Layout::new(&variables, Granularity { block: 256, bucket: 1024 });
    let optimizer = OptimizerSpec { storage: Storage::Blocks8, ..crate::testing::adamw() };
    let layout = SnapshotLayout::new(&variables, &flat, &optimizer.planes());
    let of = |name: &str| layout.tensors().iter().find(|t| t.name == name).unwrap().clone();
    let (weight, codes) = (of("block.0.w"), of("block.0.w.exp_avg_sq"));
    let scales = of("block.0.w.exp_avg_sq.scale");
    assert_eq!((codes.dtype, &codes.shape), (DType::U8, &weight.shape));
    let elements: usize = weight.shape.iter().product();
    assert_eq!((scales.dtype, scales.shape), (DType::U8, vec![elements.div_ceil(64)]));
    assert_eq!((codes.span.bytes, scales.span.bytes), (elements, elements.div_ceil(64)));
}

#[test]
fn tensors_and_regions_never_overlap() {
    for block in [64, 256, 4096] {
        let layout = layout(block);
        let mut spans: Vec<_> = layout.tensors().iter().map(|t| t.span).collect();
        spans.sort_unstable_by_key(|s| s.offset);
        for pair in spans.windows(2) {
            assert!(pair[0].offset + pair[0].bytes <= pair[1].offset, "{pair:?}");
        }
        let spans = layout.regions().map(|r| layout.region(r));
        let ends: Vec<_> = spans.map(|s| (s.offset, s.offset + s.bytes)).collect();
        assert!(ends.windows(2).all(|p| p[0].1 <= p[1].0 && p[1].0.is_multiple_of(4096)));
        assert!(ends[4].1 <= layout.bytes() && layout.bytes().is_multiple_of(4096));
    }
}

#[test]
fn frozen_parameters_and_states_mirror_the_device() {
    let variables = variables();
    let flat = Layout::new(&variables, Granularity { block: 256, bucket: 1024 });
    let snapshot = SnapshotLayout::new(&variables, &flat, &planes());
    assert_eq!(snapshot.frozen().start, flat.placements[3].byte);
    assert_eq!(snapshot.frozen().end, flat.parameter_bytes);
    let saved: Vec<usize> = snapshot.saved_states().iter().map(|s| s.state.0).collect();
    assert_eq!(saved, [1, 3]);
    let last = &snapshot.saved_states()[1];
    assert_eq!(last.device, flat.states[3]..flat.states[3] + 40);
    assert_eq!(last.slot, 256..296);
}

#[test]
#[should_panic(expected = "two saved tensors named w.exp_avg")]
fn two_tensors_never_share_a_name() {
    let mut variables = Variables::new();
    for name in ["w", "w.exp_avg"] {
        variables.parameter(Parameter {
            name: name.into(),
            shape: vec![2],
            dtype: DType::F32,
            trainable: true,
            decay: true,
            init: Init::Constant(0.0),
        });
    }
    let layout = Layout::new(&variables, Granularity::default());
    SnapshotLayout::new(&variables, &layout, &planes());
}

#[test]
fn the_digest_follows_its_rule() {
    let slot = filled_slot(&layout(256), 3, 1);
    let text = |h: &mut blake3::Hasher, text: &str| {
        h.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    let mut whole = blake3::Hasher::new();
    text(&mut whole, "octet state 1");
    whole.update(&15u64.to_le_bytes());
    for tensor in slot.layout().tensors() {
        let mut one = blake3::Hasher::new();
        text(&mut one, "octet tensor 1");
        text(&mut one, &tensor.name);
        text(&mut one, tensor.dtype.name());
        one.update(&(tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|d| {
            one.update(&(*d as u64).to_le_bytes());
        });
        one.update(blake3::hash(slot.view().expect("view").bytes(tensor)).as_bytes());
        whole.update(one.finalize().as_bytes());
    }
    text(&mut whole, r#"{"b":true,"samples":24,"sources":[{"epoch":1.5,"name":"a"},null]}"#);
    assert_eq!(digest(&slot.view().expect("view")), whole.finalize().to_hex().to_string());
}

#[test]
fn the_digest_ignores_padding_layout_threads_and_key_order() {
    let reference = digest(&filled_slot(&layout(256), 3, 1).view().expect("view"));
    for (block, padding) in [(256, 0xff), (64, 7), (4096, 0)] {
        let slot = empty_slot(&layout(block), 1);
        fill(&slot, 1, padding);
        let reordered = json!({
            "b": true, "sources": [{"epoch": 1.5, "name": "a"}, null], "samples": 24
        });
        slot.commit(3, &reordered, 99).expect("commit");
        let view = slot.view().expect("view");
        assert_eq!(digest(&view), reference, "block {block}");
        for threads in [1, 3, 100] {
            let hashes = tensor_hashes(&view, threads);
            let combined = combine(hashes.iter(), &view.head().cursor);
            assert_eq!(combined.to_hex().to_string(), reference, "{threads} threads");
        }
    }
}

#[test]
fn the_digest_sees_every_tensor_and_the_cursor() {
    let layout = layout(256);
    let slot = filled_slot(&layout, 3, 1);
    let mut seen = vec![digest(&slot.view().expect("view"))];
    for tensor in layout.tensors() {
        for byte in [0, tensor.span.bytes - 1] {
            // SAFETY: the test alone knows the slot.
            let bytes = unsafe { slot.tensor(tensor).as_mut_slice::<u8>() };
            bytes[byte] ^= 1;
            seen.push(digest(&slot.view().expect("view")));
            bytes[byte] ^= 1;
        }
    }
    slot.commit(3, &cursor(4), 4).expect("commit");
    seen.push(digest(&slot.view().expect("view")));
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "every change gives another digest");
}

#[test]
fn long_tensors_have_several_chunks() {
    let mut variables = Variables::new();
    variables.parameter(Parameter {
        name: "w".into(),
        shape: vec![600, 1000],
        dtype: DType::F32,
        trainable: false,
        decay: true,
        init: Init::Constant(0.0),
    });
    let flat = Layout::new(&variables, Granularity::default());
    let layout = Arc::new(SnapshotLayout::new(&variables, &flat, &planes()));
    let slot = filled_slot(&layout, 1, 1);
    let view = slot.view().expect("view");
    let bytes = view.bytes(&layout.tensors()[0]);
    let mut hasher = crate::snapshot::digest::TensorHasher::new("w", DType::F32, &[600, 1000]);
    for chunk in [&bytes[..1 << 20], &bytes[1 << 20..2 << 20], &bytes[2 << 20..]] {
        hasher.chunk(chunk);
    }
    assert_eq!(tensor_hashes(&view, 2), [hasher.finish()]);
}

#[test]
fn the_newest_committed_slot_is_good() {
    let layout = layout(256);
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory");
    let (a, b) = (slots.slot(0, &layout), slots.slot(1, &layout));
    assert!(slots.newest_good(&layout).good.is_none());
    for (slot, sequence) in [(&a, 1), (&b, 2), (&a, 3)] {
        fill(slot, sequence as u8, 0);
        slot.commit(sequence * 10, &cursor(sequence), sequence).expect("commit");
        let good = slots.newest_good(&layout).good.expect("one is good");
        assert_eq!((good.slot, good.head.step), (slot.index(), sequence * 10));
        assert_eq!(good.head.cursor, cursor(sequence));
    }
    // The engine dies while it fills the older slot, at any moment: the newer one stays.
    fill(&b, 9, 9);
    let found = slots.newest_good(&layout);
    assert_eq!(found.good.expect("the other").slot, 0);
    assert!(found.rejected.is_empty() && matches!(b.view(), Err(SnapshotError::Empty { slot: 1 })));
    // And in the newer one: it was given up before the first write, so nothing is left.
    a.invalidate();
    assert!(slots.newest_good(&layout).good.is_none());
}

#[test]
fn a_sealed_slot_that_changed_is_rejected() {
    let layout = layout(256);
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory");
    let (a, b) = (slots.slot(0, &layout), slots.slot(1, &layout));
    for (slot, sequence) in [(&a, 1), (&b, 2)] {
        fill(slot, 1, 0);
        slot.commit(sequence, &cursor(sequence), sequence).expect("commit");
        let sealed = slot.seal().expect("seal");
        assert_eq!(slot.head().expect("head").digest, Some(sealed.clone()));
        slot.seal_with(&sealed).expect("the same again");
    }
    flip(&b, Region::Plane(1), 1);
    let found = slots.newest_good(&layout);
    assert_eq!(found.good.expect("the older one").slot, 0);
    assert_eq!(found.rejected[0].to_string(), "snapshot slot 1: its digest is wrong");
    assert!(b.seal().is_err(), "a changed slot is not sealed anew");
    // A new commit takes the old seal away.
    b.invalidate();
    b.commit(3, &cursor(3), 3).expect("commit");
    assert_eq!(b.head().expect("head").digest, None);
}

#[test]
fn every_header_bit_counts() {
    let layout = layout(256);
    let slot = filled_slot(&layout, 3, 1);
    let cursor_bytes = cursor(3).to_string().len();
    let fields = (128..128 + 104).chain(4096..4096 + cursor_bytes).chain(0..8);
    for byte in fields {
        for bit in 0..8 {
            let start = slot.region(Region::Masters).pointer();
            let offset = layout.region(Region::Masters).offset;
            // SAFETY: the header lies before the regions; the test alone knows the slot.
            let target = unsafe { &mut *start.sub(offset).add(byte) };
            *target ^= 1 << bit;
            let damaged = slot.head();
            assert!(damaged.is_err(), "byte {byte} bit {bit}: {damaged:?}");
            *target ^= 1 << bit;
        }
    }
    slot.head().expect("as it was");
}

#[test]
fn another_size_or_too_long_a_cursor_is_refused() {
    let mine = layout(256);
    let slots = SnapshotSlots::create(mine.bytes()).expect("memory");
    let slot = slots.slot(0, &mine);
    let long = Value::String("x".repeat(CURSOR_BYTES_MAX));
    let refused = slot.commit(1, &long, 1).expect_err("too long");
    assert!(refused.to_string().contains("12288"), "{refused}");
    assert!(matches!(slot.head(), Err(SnapshotError::Empty { .. })));

    let size = SnapshotSlots::from_fd(slots.fd(), mine.bytes() + 4096, SLOTS).expect_err("size");
    assert!(matches!(size, SnapshotError::Size { .. }), "{size}");
    let none = SnapshotSlots::from_fd(-1, mine.bytes(), SLOTS).expect_err("no descriptor");
    assert!(matches!(none, SnapshotError::Memory { .. }), "{none}");
}

#[test]
fn a_slot_of_other_tensors_is_refused() {
    let layout_of = |name: &str| {
        let mut variables = Variables::new();
        variables.parameter(Parameter {
            name: name.into(),
            shape: vec![8],
            dtype: DType::F32,
            trainable: true,
            decay: true,
            init: Init::Constant(0.0),
        });
        let flat = Layout::new(&variables, Granularity { block: 64, bucket: 64 });
        Arc::new(SnapshotLayout::new(&variables, &flat, &planes()))
    };
    let (a, b) = (layout_of("a"), layout_of("b"));
    let slots = SnapshotSlots::create(a.bytes()).expect("memory");
    slots.slot(0, &a).commit(1, &Value::Null, 1).expect("commit");
    let found = slots.newest_good(&b);
    assert!(found.good.is_none());
    assert!(found.rejected[0].to_string().contains("other tensors"), "{:?}", found.rejected);
}

#[test]
fn ranks_fill_disjoint_ranges_at_once() {
    let layout = layout(64);
    let slot = empty_slot(&layout, 0);
    let elements = layout.region(Region::Masters).bytes / 4;
    thread::scope(|scope| {
        for rank in 0..4 {
            let slot = slot.clone();
            scope.spawn(move || {
                let mine = rank * elements / 4..(rank + 1) * elements / 4;
                // SAFETY: ranges of different ranks are disjoint.
                let values = unsafe { slot.elements(Region::Masters, &mine).as_mut_slice::<f32>() };
                values.iter_mut().zip(mine).for_each(|(value, i)| *value = i as f32);
            });
        }
    });
    slot.commit(1, &cursor(1), 1).expect("commit");
    // SAFETY: committed.
    let all = unsafe { slot.region(Region::Masters).as_slice::<f32>() };
    assert!(all.iter().enumerate().all(|(i, value)| *value == i as f32));
}

/// Runs this very test again as a child process, which fills a slot and is killed in the other.
#[test]
fn a_child_fills_slots_that_outlive_it() {
    const VARIABLE: &str = "OCTET_TEST_SNAPSHOT_FD";
    let layout = layout(256);
    if let Ok(number) = std::env::var(VARIABLE) {
        let number = number.parse().expect("a number");
        let slots = SnapshotSlots::from_fd(number, layout.bytes(), SLOTS).expect("inherited");
        let (a, b) = (slots.slot(0, &layout), slots.slot(1, &layout));
        fill(&a, 5, 5);
        a.commit(50, &cursor(5), 5).expect("commit");
        fill(&b, 6, 6);
        std::process::abort();
    }
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory");
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "snapshot::tests::a_child_fills_slots_that_outlive_it"])
        .env(VARIABLE, slots.fd().to_string())
        .status()
        .expect("the child ran");
    assert!(!status.success(), "the child was to die");
    let good = slots.newest_good(&layout).good.expect("the committed one");
    assert_eq!((good.slot, good.head.step, good.head.sequence), (0, 50, 5));
    let here = empty_slot(&layout, 0);
    fill(&here, 5, 0);
    here.commit(50, &cursor(5), 1).expect("commit");
    let there = slots.slot(0, &layout);
    assert_eq!(
        digest(&there.view().expect("view")),
        digest(&here.view().expect("view")),
        "the child's bytes"
    );
}

#[test]
fn pages_are_taken_at_once_or_not_at_all() {
    let layout = layout(256);
    let slots = SnapshotSlots::create(layout.bytes()).expect("memory");
    let bytes = (layout.bytes() * SLOTS) as u64;
    let taken = || {
        let path = format!("/proc/self/fd/{}", slots.fd());
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).expect("a file")) * 512
    };
    let refused = slots.take_pages(Some(bytes - 1)).expect_err("too little");
    assert!(matches!(refused, SnapshotError::Host { .. }), "{refused}");
    let said = format!("takes {} and the host has {} left", size(bytes), size(bytes - 1));
    assert!(refused.to_string().contains(&said), "{refused}");
    assert_eq!(taken(), 0);
    slots.take_pages(Some(bytes)).expect("enough");
    assert_eq!(taken(), bytes);
    // What is taken already need not be there once more.
    slots.take_pages(Some(0)).expect("nothing is needed");
}

#[test]
fn facts_come_back_and_are_covered_by_the_header() {
    let layout = layout(256);
    let slot = filled_slot(&layout, 3, 1);
    let digest = slot.seal().expect("seal");
    let facts = SlotFacts {
        recovery: json!({ "bad": 2 }),
        identity: [("lanes".to_string(), "4".to_string())].into(),
    };
    slot.commit_with(3, &cursor(3), &facts, 4).expect("commit");
    assert_eq!(slot.head().expect("good").facts, facts);
    assert_eq!(slot.seal().expect("seal"), digest, "facts are no part of the state");
    let span = Span { offset: HEADER_BYTES - FACTS_BYTES_MAX, bytes: 16 };
    let tensor = LogicalTensor { span, ..layout.tensors()[0].clone() };
    // SAFETY: the test alone knows the slot.
    let bytes: &mut [u8] = unsafe { slot.tensor(&tensor).as_mut_slice() };
    bytes[9] ^= 1;
    assert!(matches!(slot.head(), Err(SnapshotError::Damaged { .. })));
    let long = SlotFacts { recovery: Value::String("x".repeat(FACTS_BYTES_MAX)), ..facts };
    let refused = slot.commit_with(3, &cursor(3), &long, 5).expect_err("too long");
    assert!(matches!(refused, SnapshotError::Facts { .. }), "{refused}");
}
