//! A small corpus, and runs of a configuration on plain threads.

use std::fmt::Write;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use octet::config::Config;
use octet::data::prepare;
use octet::experiment::Experiment;
use octet::text::Text;
use octet_actors::contract::Workload;
use octet_actors::rank_memory::Zero;
use octet_actors::testing::{Leg, Trial, train_in_legs};

/// What all runs have in common.
const COMMON: &str = "\
[run]
steps = 40
[batch]
micro = 2
global = 8
lanes = 4
sequence_length = 16
[schedule]
learning_rate = 0.01
warmup = 4
[optimizer]
weight_decay = 0.0
[data]
tokenizer = \"characters\"
validation_fraction = 0.2
";

/// Documents of one letter each: what is hidden is what stands everywhere else.
fn corpus() -> String {
    let mut lines = String::new();
    for letter in "abcdef".repeat(4).chars() {
        let text: String = std::iter::repeat_n(letter, 40).collect();
        writeln!(lines, "{{\"text\": \"{text}\"}}").unwrap();
    }
    lines
}

/// The workload of a configuration over the corpus.
pub(crate) fn experiment(folder: &Path, own: &str) -> Arc<Experiment> {
    experiment_on(folder, &corpus(), own)
}

/// The same over another one.
pub(crate) fn experiment_on(folder: &Path, corpus: &str, own: &str) -> Arc<Experiment> {
    let text = folder.join("text.jsonl");
    fs::write(&text, corpus).unwrap();
    let sets = [
        format!("data.text={}", text.display()),
        format!("data.cache={}", folder.join("cache").display()),
    ];
    let config = Config::parse(&format!("{COMMON}{own}"), Path::new("a.toml"), &sets);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let prepared = prepare(&config.data, None, &mut |_| ControlFlow::Continue(())).unwrap();
    let vocabulary = config.padded_vocabulary(&prepared.tokenizer);
    let text = Text::open(&config, prepared).unwrap();
    Arc::new(Experiment::new(&config, vocabulary, Some(text)).unwrap())
}

/// Trains to the end on one rank.
pub(crate) fn run(experiment: &Arc<Experiment>) -> Trial {
    legs(experiment, &[(1, 40)])
}

/// Trains so many steps on so many ranks, and on from there.
pub(crate) fn legs(experiment: &Arc<Experiment>, legs: &[(usize, u64)]) -> Trial {
    let workload: Arc<dyn Workload> = experiment.clone();
    let leg = |&(ranks, steps): &(usize, u64)| Leg { ranks, zero: Zero::Zero1, steps };
    let legs: Vec<Leg> = legs.iter().map(leg).collect();
    train_in_legs(&workload, &legs).unwrap_or_else(|fault| panic!("{fault}"))
}

/// One digest on one rank, and stopped and resumed on four, two and one.
pub(crate) fn one_digest(experiment: &Arc<Experiment>) -> Trial {
    let whole = run(experiment);
    let torn = legs(experiment, &[(4, 7), (2, 12), (1, 21)]);
    assert_eq!(whole.digest, torn.digest);
    for (a, b) in whole.reports.iter().zip(&torn.reports) {
        assert_eq!((a.loss.to_bits(), &a.losses), (b.loss.to_bits(), &b.losses));
    }
    whole
}

/// Means of a named loss over five steps at either end.
pub(crate) fn ends(trial: &Trial, name: &str) -> (f64, f64) {
    let value = |i: usize| {
        let losses = &trial.reports[i].losses;
        losses.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{losses:?}")).1
    };
    let mean = |range: std::ops::Range<usize>| range.map(value).sum::<f64>() / 5.0;
    (mean(0..5), mean(trial.reports.len() - 5..trial.reports.len()))
}
