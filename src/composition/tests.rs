//! How the micro-batches of several tracks follow each other.

use std::path::Path;

use octet_actors::contract::{Phase, ProgramId};

use super::{Composition, Stage};
use crate::config::Config;
use crate::models::ModelSize;

mod extras;

const SIZE: ModelSize = ModelSize { vocabulary: 11, max_positions: 256 };

fn composition(text: &str) -> Composition {
    let config = Config::parse(text, Path::new("a.toml"), &[]).unwrap();
    Composition::new(&config, SIZE).unwrap()
}

fn each(range: std::ops::Range<usize>, programs: &[usize]) -> Phase {
    let programs = programs.iter().map(|&program| ProgramId(program)).collect();
    Phase::Each { micro_batches: range, programs }
}

const TWO: &str = "[model]\nlayers = 1\n[[tracks]]\nname = \"a\"\n[[tracks]]\nname = \"b\"\n";

#[test]
fn one_track_is_one_phase() {
    let one = composition("[model]\nlayers = 1\n");
    assert_eq!(one.phases(&[0], 4, 0), [each(0..4, &[0, 0, 0, 0])]);
    let names: Vec<&str> = one.drafts.iter().map(|draft| draft.name.as_str()).collect();
    assert_eq!(names, ["train", "evaluate"]);
}

#[test]
fn tracks_take_turns() {
    let two = composition(TWO);
    // Programs: a, its evaluation, b, its evaluation.
    assert_eq!(two.phases(&[0, 1], 2, 0), [each(0..4, &[0, 2, 0, 2])]);
    assert_eq!(two.phases(&[1], 2, 0), [each(0..2, &[2, 2])]);
    let names: Vec<&str> = two.drafts.iter().map(|draft| draft.name.as_str()).collect();
    assert_eq!(names, ["a", "a/evaluate", "b", "b/evaluate"]);
}

#[test]
fn groups_stay_together_and_attempts_have_their_own_programs() {
    let mut two = composition(TWO);
    let (each_of, once) = (|program| Stage::Each(ProgramId(program)), Stage::Once(ProgramId(7)));
    two.tracks[1].built.group = 2;
    two.tracks[1].built.attempts = vec![vec![each_of(2), once], vec![each_of(8), once]];
    let once = |range| Phase::Once { program: ProgramId(7), micro_batches: range };
    assert_eq!(
        two.phases(&[0, 1], 4, 0),
        [
            each(0..2, &[0, 0]),
            each(2..4, &[2, 2]),
            once(2..4),
            each(4..6, &[0, 0]),
            each(6..8, &[2, 2]),
            once(6..8),
        ]
    );
    assert_eq!(two.attempts(), 2);
    assert_eq!(two.phases(&[0, 1], 2, 1)[1], each(2..4, &[8, 8]));
    // A track that is alone in its attempts keeps them.
    assert_eq!(two.phases(&[0], 2, 1), [each(0..2, &[0, 0])]);
}

#[test]
fn a_track_whose_micro_batches_depend_on_each_other_is_not_torn_apart() {
    let mut two = composition(TWO);
    let stages = [1, 2].map(|program| Stage::Each(ProgramId(program))).to_vec();
    two.tracks[1].built.attempts = vec![stages];
    let apart = [each(0..1, &[1]), each(0..1, &[2]), each(1..2, &[1]), each(1..2, &[2])];
    assert_eq!(two.phases(&[1], 2, 0), apart);
}
