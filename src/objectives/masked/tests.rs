//! The records of the masked objective, held against the text that they come from.

use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use octet_actors::contract::{ProgramId, Purpose, Record, Workload};

use crate::config::Config;
use crate::data::prepare;
use crate::experiment::Experiment;
use crate::text::Text;

const TEXT: &str = "\
[run]
steps = 9
[batch]
micro = 4
global = 8
sequence_length = 24
[model]
family = \"encoder\"
layers = 1
heads = 1
width = 8
";

/// Documents that name themselves in every word.
fn experiment(folder: &Path, sets: &[&str]) -> Experiment {
    let mut lines = String::new();
    for document in 0..26u8 {
        let words: String =
            (0..30).map(|word| format!("{}{word} ", char::from(b'a' + document))).collect();
        writeln!(lines, "{{\"text\": \"{words}\"}}").unwrap();
    }
    fs::write(folder.join("text.jsonl"), lines).unwrap();
    let paths = [
        format!("data.text={}", folder.join("text.jsonl").display()),
        format!("data.cache={}", folder.join("cache").display()),
    ];
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).chain(paths).collect();
    let config = Config::parse(TEXT, Path::new("a.toml"), &sets).unwrap();
    let prepared = prepare(&config.data, None, &mut |_| ControlFlow::Continue(())).unwrap();
    let vocabulary = config.padded_vocabulary(&prepared.tokenizer);
    assert_eq!(vocabulary, 257 + config.special_tokens().len());
    let text = Text::open(&config, prepared).unwrap();
    Experiment::new(&config, vocabulary, Some(text)).unwrap()
}

struct Filled(Vec<u64>, usize);

impl Filled {
    fn of(experiment: &Experiment, purpose: Purpose) -> Self {
        let id = usize::from(matches!(purpose, Purpose::Evaluate { .. }));
        let program = &experiment.programs()[id];
        let mut words = vec![u64::MAX; program.input_bytes.div_ceil(8)];
        let mut record = Record::new(bytemuck::cast_slice_mut(&mut words));
        experiment.fill(purpose, ProgramId(id), &mut record).unwrap();
        Self(words, id)
    }

    fn integers(&mut self, experiment: &Experiment, name: &str) -> Vec<i32> {
        let program = &experiment.programs()[self.1];
        Record::new(bytemuck::cast_slice_mut(&mut self.0)).field::<i32>(program, name).to_vec()
    }

    fn scale(&mut self, experiment: &Experiment, name: &str) -> f32 {
        let program = &experiment.programs()[self.1];
        Record::new(bytemuck::cast_slice_mut(&mut self.0)).field::<f32>(program, name)[0]
    }
}

fn train(micro_batch: usize) -> Purpose {
    Purpose::Train { step: 3, attempt: 0, micro_batch }
}

#[test]
fn windows_hide_tokens_and_labels_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let e = experiment(folder.path(), &["objective.kind=masked", "objective.random_share=0"]);
    let mut filled = Filled::of(&e, train(0));
    let (tokens, hidden) = (filled.integers(&e, "tokens"), filled.integers(&e, "hidden"));
    let labels = filled.integers(&e, "labels");
    // round(0.15 · 24) of each of four windows.
    assert_eq!(hidden.len(), 4 * 4);
    for (&row, &label) in hidden.iter().zip(&labels) {
        let seen = tokens[row as usize];
        assert!(seen == 257 || seen == label, "{seen} {label}");
    }
    let masks = tokens.iter().filter(|&&token| token == 257).count();
    assert!((8..=16).contains(&masks), "{masks}");
    // Scales count the whole step: two micro-batches of four windows.
    assert_eq!(filled.scale(&e, "scale"), 1.0 / 32.0);
    assert_ne!(Filled::of(&e, train(1)).integers(&e, "tokens"), tokens);
    assert_eq!(Filled::of(&e, train(0)).integers(&e, "tokens"), tokens);
}

#[test]
fn pairs_stand_between_special_tokens_and_say_whether_they_follow() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["objective.kind=masked", "objective.next_sentence=true"];
    let e = experiment(folder.path(), &sets);
    let (mask, begin, end) = (257, 258, 259);
    let (mut follow, mut apart) = (0, 0);
    for step in 0..40 {
        let purpose = Purpose::Train { step, attempt: 0, micro_batch: 0 };
        let mut filled = Filled::of(&e, purpose);
        let [tokens, types, segments, hidden, labels, follows] =
            ["tokens", "types", "segments", "hidden", "labels", "follows"]
                .map(|name| filled.integers(&e, name));
        let mut whole = tokens.clone();
        for (&row, &label) in hidden.iter().zip(&labels).filter(|(row, _)| **row >= 0) {
            whole[row as usize] = label;
        }
        for (row, &follow_on) in follows.iter().enumerate() {
            let part = row * 24..(row + 1) * 24;
            let used = segments[part.clone()].iter().filter(|&&segment| segment == 0).count();
            let (text, kinds) = (&whole[part.clone()][..used], &types[part][..used]);
            let ends: Vec<usize> = (0..used).filter(|&at| text[at] == end).collect();
            let [middle, last] = ends[..] else { panic!("{text:?}") };
            assert_eq!((text[0], last), (begin, used - 1));
            assert!(kinds[..=middle].iter().all(|&kind| kind == 0));
            assert!(kinds[middle + 1..].iter().all(|&kind| kind == 1));
            let letters = |range: &[i32]| -> std::collections::BTreeSet<i32> {
                range.iter().copied().filter(|&t| (97..=122).contains(&t)).collect()
            };
            let (first, second) = (letters(&text[1..middle]), letters(&text[middle + 1..last]));
            assert!(first.len() <= 1 && second.len() <= 1, "each from one document");
            match follow_on {
                1 => {
                    follow += 1;
                    assert!(first.is_empty() || second.is_empty() || first == second);
                }
                0 => {
                    apart += 1;
                    assert!(first.is_empty() || second.is_empty() || first != second);
                }
                other => panic!("{other}"),
            }
        }
        assert!(hidden.iter().all(|&row| row < 0 || tokens[row as usize] != begin));
        let told = hidden.iter().filter(|&&row| row >= 0).count();
        let masks = tokens.iter().filter(|&&token| token == mask).count();
        assert!(masks <= told && told >= 4);
    }
    assert!(follow > 40 && apart > 40, "{follow} {apart}");
}

#[test]
fn held_out_samples_are_always_the_same_and_rows_behind_the_last_have_no_targets() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["objective.kind=masked", "objective.next_sentence=true"];
    let e = experiment(folder.path(), &sets);
    let task = e.evaluations()[0].clone();
    assert_eq!(task.sums.len(), 6);
    let (mut pairs, last) = (0, task.parts - 1);
    for part in 0..task.parts {
        let purpose = Purpose::Evaluate { task: 0, part };
        let mut filled = Filled::of(&e, purpose);
        let follows = filled.integers(&e, "follows");
        pairs += follows.iter().filter(|&&follows| follows >= 0).count();
        assert!(part == last || follows.iter().all(|&follows| follows >= 0));
        let again = Filled::of(&e, purpose).integers(&e, "tokens");
        assert_eq!(again, filled.integers(&e, "tokens"));
    }
    assert_eq!((pairs as u64).div_ceil(4), task.parts);
    let reading = task.reading.read(&[6.0, 3.0, 1.0, 2.0, 3.0, 2.0]);
    assert_eq!((reading.loss, reading.targets), (2.0, 3));
    let measures: Vec<f64> = reading.measures.iter().map(|(_, value)| *value).collect();
    assert_eq!(measures, [0.5, 0.5]);
}

#[test]
fn unusable_shares_are_named() {
    let load = |objective: &str| {
        let text = format!("[objective]\nkind = \"masked\"\n{objective}\n");
        let read = Config::parse(&text, Path::new("a.toml"), &[]);
        read.map(drop).unwrap_err().to_string()
    };
    for (objective, expected) in [
        ("mask_share = 0", "a.toml:3: objective.mask_share: expected a number above 0 and at most"),
        ("keep_share = -1", "a.toml:3: objective.keep_share: expected a number from 0 to 1"),
        ("random_share = 0.95", "a.toml:3: objective.random_share: expected at most 1 together"),
    ] {
        let error = load(objective);
        assert!(error.starts_with(expected), "{error}");
    }
}
