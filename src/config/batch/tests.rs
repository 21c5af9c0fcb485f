//! Tests of the ramp: what a step has, what came before it, and what is refused.

use super::BatchConfig;
use crate::config::Config;

fn load(batch: &str) -> Result<Config, String> {
    let text = format!("[batch]\nmicro = 2\nglobal = 24\n{batch}\n");
    let path = std::path::Path::new("a.toml");
    Config::parse(&text, path, &[]).map_err(|error| error.to_string())
}

#[test]
fn samples_before_a_step_are_the_sum_of_all_steps_before() {
    let BatchConfig { ramp, .. } = load("ramp = [[3, 4], [7, 12]]").unwrap().batch;
    assert_eq!(ramp, [(3, 4), (7, 12)]);
    let batch = load("ramp = [[3, 4], [7, 12]]").unwrap().batch;
    let sizes: Vec<usize> = batch.sizes().collect();
    assert_eq!(sizes, [4, 12, 24]);
    let mut samples = 0;
    for step in 0..20 {
        assert_eq!(batch.samples_before(step), samples, "{step}");
        let expected = [4, 4, 4, 12, 12, 12, 12].get(step as usize).copied().unwrap_or(24);
        assert_eq!(sizes[batch.size_of(step)], expected, "{step}");
        samples += expected as u64;
    }
    let plain = load("").unwrap().batch;
    assert_eq!((plain.samples_before(5), plain.size_of(5)), (120, 0));
}

#[test]
fn lanes_divide_every_step() {
    assert_eq!(load("").unwrap().batch.lanes, Some(4));
    assert_eq!(load("ramp = [[3, 4]]").unwrap().batch.lanes, Some(2));
    assert_eq!(load("ramp = [[3, 6]]").unwrap().batch.lanes, Some(1));
    let refused = load("ramp = [[3, 4]]\nlanes = 4").unwrap_err();
    assert!(
        refused.starts_with("a.toml:5: batch.lanes: expected a power of two up to"),
        "{refused}"
    );
    assert!(refused.ends_with("divides batch.ramp's 4 / batch.micro = 2, got 4"), "{refused}");
    assert!(load("lanes = 0").unwrap_err().contains("batch.lanes: "));
}

#[test]
fn what_is_no_ramp_is_refused() {
    for (ramp, says) in [
        ("[[3, 4], [3, 6]]", "both growing, got [3, 6] after [3, 4]"),
        ("[[3, 6], [5, 4]]", "both growing, got [5, 4] after [3, 6]"),
        ("[[0, 4]]", "both growing, got [0, 4] after [0, 0]"),
        ("[[3, 0]]", "both growing, got [3, 0] after [0, 0]"),
        ("[[3, 24]]", "multiples of batch.micro = 2 below batch.global = 24, got 24"),
        ("[[3, 5]]", "multiples of batch.micro = 2 below batch.global = 24, got 5"),
        ("[[3]]", "batch.ramp: "),
        ("3", "batch.ramp: "),
    ] {
        let refused = load(&format!("ramp = {ramp}")).unwrap_err();
        assert!(refused.starts_with("a.toml:4: batch.ramp: "), "{refused}");
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn the_ramp_is_part_of_the_identity() {
    let (plain, ramp) = (load("lanes = 2").unwrap(), load("lanes = 2\nramp = [[3, 4]]").unwrap());
    assert_ne!(plain.digest(), ramp.digest());
    let path = std::path::Path::new("b.toml");
    assert_eq!(Config::parse(&ramp.to_toml(), path, &[]).unwrap(), ramp);
}
