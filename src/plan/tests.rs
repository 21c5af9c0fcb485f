//! The plan of known shapes.

use std::path::Path;

use octet_kernels::dtype::Precision;
use octet_kernels::graph::{Layout, Target};

use crate::composition::Composition;
use crate::config::Config;
use crate::models::ModelSize;
use crate::plan::machine::Machine;
use crate::plan::search::search;
use crate::plan::{DISK_BYTES_PER_S, Plan, plan};

fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_string()).collect();
    let text = "[batch]\nmicro = 2\nglobal = 32\nsequence_length = 64\n[model]\nlayers = 2\n";
    Config::parse(text, Path::new("a.toml"), &sets).unwrap()
}

fn planned(sets: &[&str]) -> Plan {
    plan(&config(sets), 512, &Machine::gpus(Target::H200), 1, DISK_BYTES_PER_S).unwrap()
}

fn arena(sets: &[&str], name: &str) -> usize {
    let plan = planned(sets);
    plan.arena.iter().filter(|part| part.name.starts_with(name)).map(|part| part.bytes).sum()
}

#[test]
fn ranks_need_fewer_gradient_buffers_and_shard_the_moments() {
    // 16 micro-batches, 8 lanes: log2(8) + 1 buffers on one rank, one fewer on two, one on eight.
    let buffers = |ranks: &str| planned(&[ranks]);
    assert_eq!(buffers("run.ranks=1").gradient_buffers, 4);
    assert_eq!(buffers("run.ranks=2").gradient_buffers, 3);
    assert_eq!(buffers("run.ranks=8").gradient_buffers, 1);
    let whole = arena(&["run.ranks=4", "run.zero=0"], "first moment");
    let shard = arena(&["run.ranks=4", "run.zero=1"], "first moment");
    assert!(shard < whole && shard * 4 >= whole, "{shard} of {whole}");
}

#[test]
fn large_models_have_larger_buckets_and_a_setting_decides() {
    let buckets = |config: &Config| {
        let size = ModelSize { vocabulary: 512, max_positions: 64 };
        let Composition { variables, .. } = Composition::new(config, size).unwrap();
        let granularity = config.run.granularity(&variables);
        (granularity.bucket, Layout::new(&variables, granularity).buckets.len())
    };
    let small = config(&[]);
    assert_eq!(buckets(&small).0, 4 << 20);
    let (elements, count) = buckets(&config(&["run.bucket=256 KiB"]));
    assert!(elements == 64 << 10 && count > buckets(&small).1, "{elements} in {count}");
    let large = ["model.layers=32", "model.width=4096", "model.heads=32"];
    let (elements, count) = buckets(&config(&large));
    assert!(elements == 16 << 20 && count < 600, "{elements} in {count}");
    // The same numbers by configuration: what a bucket comes to stands in the manifest.
    assert_eq!(small.digest(), config(&["run.bucket=256 KiB"]).digest());
    let sets = ["run.bucket=255 KiB".to_owned()];
    let refusal = Config::parse("", Path::new("a.toml"), &sets).unwrap_err().to_string();
    assert!(refusal.contains("run.bucket: expected a size from \"256 KiB\""), "{refusal}");
}

#[test]
fn narrow_state_and_one_vector_take_less() {
    let of = |set: &str, name| arena(&[set], name);
    let (f32, bf16) = ("optimizer.moments=f32", "optimizer.moments=bf16");
    let first = of(f32, "first moment");
    assert_eq!(first, of(f32, "second moment"));
    assert_eq!(2 * of(bf16, "first moment"), first);
    // With their scales.
    assert_eq!(of("optimizer.moments=8bit", "first moment"), first / 4 + first / 256);
    let lion = planned(&["optimizer.rule=lion"]);
    let names = |name: &str| lion.arena.iter().filter(|part| part.name.contains(name)).count();
    assert_eq!((names("moment"), names("momentum")), (1, 1));
    assert_eq!(lion.checkpoint.bytes, 8 * lion.parameters);
    let part = |plan: &Plan, name| plan.step.iter().find(|p| p.name == name).unwrap().bytes;
    let (wide, narrow) = (planned(&[f32]), planned(&[bf16]));
    assert_eq!(part(&wide, "AdamW") - part(&narrow, "AdamW"), 2.0 * first as f64);
    assert_eq!(part(&wide, "AdamW") - part(&lion, "Lion"), 2.0 * first as f64);
}

#[test]
fn host_memory_of_snapshots_is_that_of_the_slots() {
    let bytes = |sets: &[&str]| {
        let plan = planned(sets);
        plan.host.iter().find(|part| part.name == "snapshot slots").unwrap().bytes
    };
    let one = bytes(&["run.snapshots=1"]);
    assert!(one > 0);
    assert_eq!(bytes(&["run.snapshots=2"]), 2 * one);
    assert_eq!(bytes(&["run.snapshots=0"]), 0);
    assert_eq!(bytes(&[]), 2 * one, "this machine has memory for two of them");
}

#[test]
fn recompute_trades_activations_for_time() {
    let of = |policy: &str| {
        let set = format!("model.recompute={policy}");
        let plan = planned(&[&set]);
        let activations = plan.arena.iter().find(|part| part.name == "activations").unwrap().bytes;
        (activations, plan.seconds_per_step)
    };
    let (kept, fast) = of("none");
    let (rebuilt, slow) = of("block");
    assert!(rebuilt < kept, "{rebuilt} against {kept} bytes");
    assert!(slow > fast, "{slow} against {fast} s");
}

#[test]
fn the_arena_is_the_sum_of_its_regions() {
    let plan = planned(&[]);
    let sum: usize = plan.arena.iter().map(|part| part.bytes.next_multiple_of(256)).sum();
    assert_eq!(plan.arena_bytes, sum);
    assert_eq!(plan.fits, Some(true));
}

#[test]
fn sampling_takes_its_caches_and_nothing_else() {
    // Caches that are larger than what ranks send of a bucket.
    let long = ["run.ranks=8", "batch.sequence_length=4096"];
    let with = [long[0], long[1], "sample.every=5"];
    let of = |sets: &[&str]| planned(sets).arena_bytes;
    let caches = arena(&with, "states");
    assert_eq!(arena(&long, "states"), 0);
    // Keys and values of two layers, width 128, in f32.
    assert_eq!(caches, 2 * 2 * 4096 * 128 * 4);
    assert_eq!(of(&with), of(&long) + caches);
}

#[test]
fn every_row_of_a_search_is_what_its_arguments_plan() {
    let base = ["model.dtype=bf16", "run.ranks=2"];
    let machine = Machine::gpus(Target::H200);
    let rows = search(&config(&base), 512, &machine, 1).unwrap();
    let sorted = rows.is_sorted_by(|a, b| a.seconds_per_step <= b.seconds_per_step);
    assert!(rows.len() > 20 && sorted, "{} rows", rows.len());
    let identity = config(&base).identity();
    let (mut same, mut other) = (0, 0);
    for row in &rows {
        let sets: Vec<&str> = base.into_iter().chain(row.sets.iter().map(String::as_str)).collect();
        let plan = planned(&sets);
        assert_eq!(plan.arena_bytes, row.arena_bytes, "{:?}", row.sets);
        assert_eq!(plan.recompute, row.recompute);
        let off = (plan.seconds_per_step / row.seconds_per_step - 1.0).abs();
        assert!(off < 1e-9, "{:?}: {off}", row.sets);
        // Only micro-batch and lanes make another run.
        assert_eq!(row.same_run, config(&sets).identity() == identity);
        assert_eq!(row.same_run, row.micro == 2 && row.lanes == 8, "{:?}", row.sets);
        if row.same_run { same += 1 } else { other += 1 }
    }
    assert!(same >= 4 && other >= 4, "{same} and {other}");
    assert!(rows.iter().any(|row| row.sets.is_empty()), "the configuration itself is there");
}

#[test]
fn a_search_stays_within_the_budget() {
    let machine = Machine::gpus(Target::H200);
    let rows = |sets: &[&str]| search(&config(sets), 512, &machine, 1).unwrap();
    let all = rows(&["model.dtype=bf16"]);
    let median = all[all.len() / 2].arena_bytes;
    let budget = format!("model.recompute_budget={median}");
    let fitting = rows(&["model.dtype=bf16", &budget]);
    assert!(!fitting.is_empty());
    assert!(fitting.iter().all(|row| row.arena_bytes <= median));
    assert!(all.iter().any(|row| row.arena_bytes > median));
}

#[test]
fn a_gpu_needs_no_room_to_widen_operands() {
    let machine = |target| match target {
        Target::Cpu => Machine::this_cpu(Precision::F32),
        gpu => Machine::gpus(gpu),
    };
    let of = |target, dtype: &str| {
        let config = config(&[&format!("model.dtype={dtype}")]);
        plan(&config, 512, &machine(target), 1, DISK_BYTES_PER_S).unwrap()
    };
    let activations =
        |plan: &Plan| plan.arena.iter().find(|part| part.name == "activations").unwrap().bytes;
    let (cpu, gpu) = (of(Target::Cpu, "bf16"), of(Target::H200, "bf16"));
    assert!(activations(&gpu) < activations(&cpu));
    // The libraries' budgets lie in the arena, what drivers take does not.
    let budget = |plan: &Plan| plan.libraries.iter().map(|part| part.bytes).sum::<usize>();
    let region = gpu.arena.iter().find(|part| part.name == "library workspace").unwrap().bytes;
    assert_eq!((budget(&cpu), budget(&gpu)), (0, region));
    assert_eq!(gpu.capacity_bytes, gpu.memory_bytes.map(|bytes| bytes - gpu.outside_bytes));
    assert_eq!(gpu.target, "h200");
}

#[test]
fn times_follow_the_formulas() {
    let plan = planned(&["model.dtype=bf16", "run.ranks=4", "batch.micro=1"]);
    let part = |name| plan.step.iter().find(|part| part.name == name).unwrap();
    // 32 micro-batches, 8 lanes: each rank runs 8 and folds two lanes into one piece of E elements.
    let bytes = |name| plan.arena.iter().find(|part| part.name == name).unwrap().bytes as f64;
    let elements = bytes("gradients 0") / 4.0;
    let shard = bytes("first moment") / 4.0;
    assert_eq!(part("gradients between ranks").bytes, (elements - shard).max(3.0 * shard) * 4.0);
    assert_eq!(part("gather between ranks").bytes, (elements - shard) * 2.0);
    assert_eq!(part("AdamW").bytes, shard * 30.0);
    assert_eq!(part("norm").bytes, shard * 4.0);
    assert_eq!(part("sums of lanes").bytes, (elements + 3.0 * shard) * 12.0);
    let ops: f64 = plan.ops.iter().map(|op| op.seconds).sum();
    assert!((part("ops").seconds / (8.0 * ops) - 1.0).abs() < 1e-12);
    let link = plan.speeds.link_bytes_per_s.unwrap();
    assert_eq!(part("gather between ranks").seconds, (elements - shard) * 2.0 / link);
    let exposed: f64 = plan.step.iter().map(|part| part.exposed_seconds).sum();
    assert_eq!(plan.seconds_per_step, exposed);
    let mfu = plan.flops_per_step / exposed / (4.0 * 989.4e12);
    assert!((plan.mfu / mfu - 1.0).abs() < 1e-12);
    // Master weights and both moments, without padding.
    assert_eq!(plan.checkpoint.bytes, 12 * plan.parameters);
}

#[test]
fn a_plan_says_how_many_blocks_fit_of_what_does_not() {
    // Each block takes some 0.4 GB of parameters alone.
    let wide = ["model.width=8192", "model.heads=64", "model.dtype=bf16", "run.ranks=8"];
    let with = |layers: &'static str| planned(&[&wide[..], &[layers]].concat());
    let plan = with("model.layers=200");
    let blocks = plan.blocks.unwrap();
    assert!(blocks.of == 200 && (2..100).contains(&blocks.fit), "{blocks:?}");
    assert_eq!(blocks.wanted_bytes, 8 * plan.arena_bytes);
    assert_eq!(blocks.there_bytes, 8 * plan.capacity_bytes.unwrap());
    let fits = |layers: usize| {
        let layers = format!("model.layers={layers}");
        planned(&[&wide[..], &[&layers]].concat()).fits
    };
    assert_eq!((fits(blocks.fit), fits(blocks.fit + 1)), (Some(true), Some(false)));
    assert_eq!(with("model.layers=2").blocks, None);
}
