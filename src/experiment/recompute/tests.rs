//! What "auto" chooses, and that a choice never reaches the numbers' plan: only memory and time.

use std::path::Path;

use octet_actors::contract::Workload;
use octet_kernels::graph::Target;

use crate::config::Config;
use crate::experiment::Experiment;
use crate::models::RecomputeConfig;
use crate::plan::memory::Memory;

const TEXT: &str = "[batch]\nmicro = 2\nglobal = 8\nsequence_length = 64\n[model]\nlayers = 8\n";

fn compile(sets: &[&str]) -> Result<Experiment, String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_string()).collect();
    let config = Config::parse(TEXT, Path::new("a.toml"), &sets).unwrap();
    Experiment::for_target(&config, 300, None, Target::Cpu).map_err(|error| error.to_string())
}

fn arena(experiment: &Experiment) -> usize {
    let run = &experiment.config().run;
    Memory::of(experiment, run).unwrap().arena_bytes()
}

fn seconds(experiment: &Experiment) -> f64 {
    let peaks = super::CPU_PEAKS;
    experiment.programs()[0].costs().map(|node| node.cost.seconds(&peaks)).sum()
}

fn uniform(name: &str) -> Experiment {
    compile(&[&format!("model.recompute={name}")]).unwrap()
}

fn auto(budget: usize) -> Result<Experiment, String> {
    compile(&["model.recompute=auto", &format!("model.recompute_budget={budget}")])
}

#[test]
fn a_large_budget_keeps_everything_and_a_small_one_is_refused_with_what_it_takes() {
    let kept = uniform("none");
    let all = auto(arena(&kept)).unwrap();
    assert_eq!(all.config().model.recompute.to_string(), "none");
    // Nothing takes less than this; the sentence says so, and exactly so much is enough.
    let refused = auto(1000).unwrap_err();
    assert!(
        refused.starts_with("model.recompute: ") && refused.contains("1000 bytes"),
        "{refused}"
    );
    let least = refused.split("at least ").nth(1).unwrap().split(' ').next().unwrap();
    let least: usize = least.parse().unwrap();
    assert_eq!(arena(&auto(least).unwrap()), least);
    assert!(auto(least - 1).is_err());
}

#[test]
fn between_them_blocks_differ_and_no_single_policy_that_fits_is_faster() {
    let (most, least) = (arena(&uniform("none")), arena(&uniform("block")));
    assert!(least < most);
    let mut mixed = 0;
    for share in 1..10 {
        let budget = least + (most - least) * share / 10;
        let chosen = auto(budget).unwrap();
        assert!(arena(&chosen) <= budget, "{share}");
        for name in ["none", "norm_activation", "feed_forward", "block"] {
            let other = uniform(name);
            let faster = arena(&other) <= budget && seconds(&other) < seconds(&chosen);
            assert!(!faster, "{name} at {budget}: {}", chosen.config().model.recompute);
        }
        let RecomputeConfig::Fixed(mix) = chosen.config().model.recompute else { panic!() };
        mixed += usize::from(mix.blocks > 0);
        // Given as it was written down, it is the same plan.
        let again = uniform(&chosen.config().model.recompute.to_string());
        assert_eq!(arena(&again), arena(&chosen));
        // The stored form reads back, budget and all.
        let stored = chosen.config().to_toml();
        let read = Config::parse(&stored, Path::new("b.toml"), &[]).unwrap();
        assert_eq!(&read, chosen.config());
    }
    assert!(mixed >= 5, "{mixed} of 9");
}

#[test]
fn a_policy_that_is_given_is_held_to_the_budget_that_is_given() {
    let arena = arena(&uniform("block"));
    let check = |budget: usize| {
        compile(&["model.recompute=block", &format!("model.recompute_budget={budget}")])
    };
    assert!(check(arena).is_ok());
    let refused = check(arena - 1).unwrap_err();
    assert!(refused.contains("\"block\"") && refused.contains(&arena.to_string()), "{refused}");
}

#[test]
fn without_a_budget_the_machine_decides_and_it_is_written_down() {
    let chosen = compile(&["model.recompute=auto"]).unwrap();
    assert_eq!(chosen.config().model.recompute.to_string(), "none");
    assert!(chosen.config().model.recompute_budget.is_some());
}
