//! Records from text: every window once, targets counted, nothing beyond the last window.

use std::fs;
use std::path::Path;

use octet_actors::contract::{Purpose, Record, Workload};

use crate::config::Config;
use crate::data::prepare;
use crate::experiment::Experiment;
use crate::text::Text;

const SETTINGS: &str = "
[run]
steps = 4
[batch]
micro = 2
global = 8
sequence_length = 16
[model]
layers = 1
heads = 2
width = 16
[data]
tokenizer = \"bytes\"
validation_fraction = 0.2
";

/// Two documents of known bytes, prepared under `folder`.
fn open(folder: &Path) -> (Config, Text) {
    let text = folder.join("text");
    fs::create_dir_all(&text).unwrap();
    fs::write(text.join("a.txt"), "abcdefghijklmnopqrstuvwxyz".repeat(20)).unwrap();
    fs::write(text.join("b.txt"), "0123456789".repeat(30)).unwrap();
    let sets = [
        format!("data.text={}", text.display()),
        format!("data.cache={}", folder.join("cache").display()),
    ];
    let config = Config::parse(SETTINGS, Path::new("a.toml"), &sets).unwrap();
    let prepared =
        prepare(&config.data, None, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let text = Text::open(&config, prepared).unwrap();
    (config, text)
}

fn experiment(folder: &Path) -> Experiment {
    let (config, text) = open(folder);
    Experiment::new(&config, 257, Some(text)).unwrap()
}

/// Fills one record and returns tokens, labels and scale (0 without one).
fn fill(experiment: &Experiment, purpose: Purpose) -> (Vec<i32>, Vec<i32>, f32) {
    let evaluates = matches!(purpose, Purpose::Evaluate { .. });
    let program = experiment.programs().iter().position(|p| {
        p.field("tokens").is_some()
            && p.field("labels").is_some()
            && p.field("scale").is_none() == evaluates
    });
    let id = octet_actors::contract::ProgramId(program.expect("it is compiled"));
    let program = &experiment.programs()[id.0];
    let mut bytes = vec![[0xA5u8; 64]; program.input_bytes.div_ceil(64)];
    let bytes = bytemuck::cast_slice_mut(&mut bytes);
    let mut record = Record::new(bytes);
    experiment.fill(purpose, id, &mut record).unwrap();
    let tokens = record.field::<i32>(program, "tokens").to_vec();
    let labels = record.field::<i32>(program, "labels").to_vec();
    let scale = if evaluates { 0.0 } else { record.field::<f32>(program, "scale")[0] };
    (tokens, labels, scale)
}

#[test]
fn a_label_is_the_next_token_and_the_scale_counts_the_whole_step() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = experiment(folder.path());
    let mut targets = 0;
    let mut scales = Vec::new();
    for micro_batch in 0..4 {
        let purpose = Purpose::Train { step: 0, attempt: 0, micro_batch };
        let (tokens, labels, scale) = fill(&experiment, purpose);
        for row in 0..2 {
            for t in 0..15 {
                let at = row * 16 + t;
                let (label, next) = (labels[at], tokens[at + 1]);
                assert!(label == next || label == -1, "row {row}, token {t}");
            }
        }
        targets += labels.iter().filter(|&&label| label >= 0).count();
        scales.push(scale);
    }
    assert!(scales.iter().all(|&scale| scale == 1.0 / targets as f32), "{scales:?}, {targets}");
    assert!(targets > 100);
}

#[test]
fn steps_and_micro_batches_see_different_windows_and_the_same_ones_again() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = experiment(folder.path());
    let at =
        |step, micro_batch| fill(&experiment, Purpose::Train { step, attempt: 0, micro_batch }).0;
    assert_ne!(at(0, 0), at(0, 1));
    assert_ne!(at(0, 0), at(1, 0));
    assert_eq!(at(1, 3), at(1, 3));
}

#[test]
fn held_out_parts_cover_the_split_once_and_end_without_targets() {
    let folder = tempfile::tempdir().unwrap();
    let (config, text) = open(folder.path());
    let windows = text.held_out(0)[0].windows;
    let experiment = Experiment::new(&config, 257, Some(text)).unwrap();
    let task = &experiment.evaluations()[0];
    assert_eq!(task.parts, windows.div_ceil(2));
    let mut rows = 0;
    for part in 0..task.parts {
        let (_, labels, _) = fill(&experiment, Purpose::Evaluate { task: 0, part });
        rows += labels.chunks(16).filter(|row| row.iter().any(|&label| label >= 0)).count();
    }
    assert_eq!(rows as u64, windows);
}

#[test]
fn fewer_windows_are_spread_over_the_split() {
    let numbers = |measured, windows| -> Vec<u64> {
        (0..measured).map(|number| super::spread(number, measured, windows)).collect()
    };
    assert_eq!(numbers(4, 4), [0, 1, 2, 3]);
    assert_eq!(numbers(4, 10), [0, 2, 5, 7]);
    assert_eq!(numbers(1, 10), [0]);
    let many = numbers(1000, u64::MAX);
    assert!(many.is_sorted() && many[999] > u64::MAX / 1000 * 998);
}

#[test]
fn held_out_targets_know_the_bytes_of_their_text() {
    let folder = tempfile::tempdir().unwrap();
    let experiment = experiment(folder.path());
    let program = &experiment.programs()[1];
    let mut lines = vec![[0xA5u8; 64]; program.input_bytes.div_ceil(64)];
    let mut record = Record::new(bytemuck::cast_slice_mut(&mut lines));
    let parts = experiment.evaluations()[0].parts;
    let mut seen = [0; 3];
    for part in 0..parts {
        let purpose = Purpose::Evaluate { task: 0, part };
        experiment.fill(purpose, octet_actors::contract::ProgramId(1), &mut record).unwrap();
        let [labels, bytes] = record.fields::<i32, 2>(program, ["labels", "bytes"]);
        for (&label, &bytes) in labels.iter().zip(&*bytes) {
            let (kind, expected) = match label {
                -1 => (0, 0),
                256 => (1, 0),
                _ => (2, 1),
            };
            seen[kind] += 1;
            assert_eq!(bytes, expected, "label {label}");
        }
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

#[test]
fn a_run_goes_on_with_the_next_sample_whatever_batches_were_before() {
    let folder = tempfile::tempdir().unwrap();
    let (config, text) = open(folder.path());
    let fresh = Experiment::new(&config, 257, Some(text)).unwrap();
    // Two steps of four samples each were done where there are eight now.
    let mut changed = experiment(folder.path());
    assert!(changed.go_on_with(2, 8));
    let at = |experiment, step, micro_batch| {
        fill(experiment, Purpose::Train { step, attempt: 0, micro_batch })
    };
    assert_eq!(changed.first_sample(2, 0), 8);
    for micro_batch in 0..4 {
        let (tokens, labels, scale) = at(&changed, 2, micro_batch);
        assert_eq!((tokens, labels, scale), at(&fresh, 1, micro_batch));
    }
}
