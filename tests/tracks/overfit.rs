//! One batch of text without any order, again and again: every objective must learn it by heart.

use std::fmt::Write;
use std::sync::Arc;

use octet::experiment::Experiment;
use octet_actors::contract::{
    Batch, ProgramId, Purpose, Record, StepShape, UpdateGroup, UpdateSettings, Workload,
};
use octet_actors::fault::Fault;
use octet_actors::rank_memory::Zero;
use octet_actors::testing::train;
use octet_kernels::graph::{Layout, ParameterId, Program, Variables};
use octet_kernels::update::OptimizerSpec;

use crate::harness::experiment_on;

/// An experiment whose every step is the first one, at a rate that does not change.
#[derive(Debug)]
struct OneBatch(Arc<Experiment>);

impl Workload for OneBatch {
    fn variables(&self) -> &Variables {
        self.0.variables()
    }

    fn layout(&self) -> &Layout {
        self.0.layout()
    }

    fn programs(&self) -> &[Program] {
        self.0.programs()
    }

    fn batch(&self) -> Batch {
        self.0.batch()
    }

    fn seed(&self) -> u64 {
        self.0.seed()
    }

    fn shape(&self, _step: u64, attempt: usize) -> Arc<StepShape> {
        self.0.shape(0, attempt)
    }

    fn update(&self, _step: u64) -> UpdateSettings {
        UpdateSettings { learning_rate: 0.005, ..self.0.update(0) }
    }

    fn optimizer(&self) -> &OptimizerSpec {
        self.0.optimizer()
    }

    fn update_group(&self, parameter: ParameterId) -> UpdateGroup {
        self.0.update_group(parameter)
    }

    fn fill(
        &self,
        purpose: Purpose,
        program: ProgramId,
        record: &mut Record<'_>,
    ) -> Result<(), Fault> {
        let Purpose::Train { attempt, micro_batch, .. } = purpose else {
            panic!("nothing is evaluated");
        };
        self.0.fill(Purpose::Train { step: 0, attempt, micro_batch }, program, record)
    }

    fn tokens_per_sample(&self) -> u64 {
        self.0.tokens_per_sample()
    }

    fn flops_per_sample(&self) -> f64 {
        self.0.flops_per_sample()
    }
}

/// Documents of letters in no order.
fn corpus() -> String {
    let (mut lines, mut state) = (String::new(), 7u32);
    for _ in 0..24 {
        let letters = (0..40).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 28) as u8)
        });
        let text: String = letters.collect();
        writeln!(lines, "{{\"text\": \"{text}\"}}").unwrap();
    }
    lines
}

const DENSE: &str = "\
[model]
layers = 2
heads = 2
width = 64
init_std = 0.1
";

const ENCODER: &str = "\
[model]
family = \"encoder\"
layers = 2
heads = 2
width = 64
init_std = 0.1
dropout = 0.0
";

/// Trains on one batch; the named losses begin above the first number and end below the second.
fn overfits(own: &str, wanted: &[(&str, f64, f64)]) {
    let folder = tempfile::tempdir().unwrap();
    let experiment = experiment_on(folder.path(), &corpus(), own);
    let workload: Arc<dyn Workload> = Arc::new(OneBatch(experiment));
    let trial = train(&workload, 1, Zero::Zero1, 200).unwrap_or_else(|fault| panic!("{fault}"));
    let value = |step: usize, name: &str| {
        let report = &trial.reports[step];
        let named = report.losses.iter().find(|(known, _)| known == name);
        named.map_or(report.loss, |named| named.1)
    };
    for &(name, above, below) in wanted {
        let (first, last) = (value(0, name), value(199, name));
        assert!(first > above && last < below, "{name}: {first} to {last}");
    }
}

#[test]
fn next_token_learns_a_batch_by_heart() {
    overfits(DENSE, &[("loss", 2.5, 0.1)]);
}

#[test]
fn prefix_lm_learns_a_batch_by_heart() {
    overfits(&format!("{DENSE}[objective]\nkind = \"prefix_lm\"\n"), &[("loss", 2.5, 0.15)]);
}

#[test]
fn bert_learns_a_batch_by_heart() {
    let own = format!("{ENCODER}[objective]\nkind = \"masked\"\nnext_sentence = true\n");
    overfits(&own, &[("masked", 2.5, 0.01), ("next_sentence", 0.5, 0.01)]);
}

#[test]
fn electra_learns_a_batch_by_heart() {
    let generator = ENCODER.replace("[model]", "[model.parts.generator]");
    let own = format!("{ENCODER}head = false\npooler = false\n{generator}pooler = false\n");
    let own = format!("{own}[objective]\nkind = \"replaced_token\"\n");
    overfits(&own, &[("generator", 2.5, 0.05), ("verdict", 0.3, 0.05)]);
}

#[test]
fn a_student_learns_what_its_teacher_says_of_a_batch() {
    let teacher = DENSE.replace("[model]", "[model.parts.teacher]").replace("0.1", "0.5");
    let own = format!("{DENSE}{teacher}frozen = true\n[objective]\nkind = \"distillation\"\n");
    overfits(&format!("{own}share = 1.0\n"), &[("teacher", 0.5, 0.1)]);
}
