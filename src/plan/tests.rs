//! The plan of known shapes.

use std::path::Path;

use crate::config::Config;
use crate::plan::machine::Machine;
use crate::plan::{DISK_BYTES_PER_S, Plan, plan};
use octet_kernels::graph::Target;

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
