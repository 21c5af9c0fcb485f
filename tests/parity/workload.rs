//! A real experiment whose records come from a formula instead of text.

use std::path::Path;
use std::sync::Arc;

use octet::config::Config;
use octet::experiment::Experiment;
use octet_actors::contract::{
    Batch, ProgramId, Purpose, Record, StepShape, UpdateGroup, UpdateSettings, Workload,
};
use octet_actors::fault::Fault;
use octet_kernels::graph::{Layout, ParameterId, Program, Variables};
use octet_kernels::update::OptimizerSpec;

use crate::encoders;
use crate::formula::{border, token};

/// What PyTorch clips to.
pub(crate) const CLIP_NORM: f64 = 1.0;

pub(crate) const VOCABULARY: usize = 61;

/// What the cases have in common: two micro-batches, each with a lane of its own.
const COMMON: &str = r#"
[run]
steps = 10
[batch]
micro = 2
global = 4
sequence_length = 16
[optimizer]
beta1 = 0.9
beta2 = 0.95
epsilon = 1e-8
weight_decay = 0.1
[schedule]
shape = "cosine"
learning_rate = 1e-2
minimum = 1e-3
warmup = 3
"#;

/// What decoders have in common.
const DECODER: &str = r#"
[objective]
kind = "next_token"
chunk_rows = 24
[model]
family = "dense"
layers = 2
width = 32
heads = 4
norm_epsilon = 1e-5
dtype = "f32"
"#;

const GPT2: &str = r#"
feed_forward = 128
norm = "layer_norm"
positions = "learned"
activation = "gelu"
bias = true
tied = true
"#;

const LLAMA: &str = r#"
kv_heads = 2
feed_forward = 64
norm = "rms_norm"
positions = "rope"
rope_theta = 100.0
activation = "swiglu"
tied = false
[model.rope_scaling]
factor = 8.0
low_frequency = 1.0
high_frequency = 4.0
original_positions = 32
"#;

const QWEN: &str = r#"
kv_heads = 1
head_dim = 16
feed_forward = 64
norm = "rms_norm"
positions = "rope"
rope_theta = 1000.0
activation = "swiglu"
qkv_bias = true
qk_norm = true
tied = false
[data]
document_masks = true
reset_positions = true
"#;

const GEMMA: &str = r#"
kv_heads = 2
feed_forward = 64
norm = "rms_norm"
positions = "rope"
rope_theta = 100.0
activation = "swiglu"
qk_norm = true
tied = true
window = 3
full_attention_every = 2
[data]
document_masks = true
reset_positions = true
"#;

const PALM: &str = r#"
kv_heads = 1
head_dim = 16
feed_forward = 64
norm = "rms_norm"
positions = "rope"
rope_theta = 100.0
activation = "swiglu"
parallel = true
tied = true
[data]
document_masks = true
reset_positions = true
"#;

const GPT3: &str = r#"
feed_forward = 128
norm = "layer_norm"
positions = "learned"
activation = "gelu"
bias = true
tied = true
window = 4
full_attention_every = 2
"#;

/// GPT-2 with everything that a recipe can add.
const RECIPE: &str = r#"
feed_forward = 128
norm = "layer_norm"
positions = "learned"
activation = "gelu"
bias = true
tied = false
[data]
document_masks = true
reset_positions = true
[[optimizer.groups]]
parameters = ["head"]
learning_rate = 0.5
weight_decay = 0.3
[[optimizer.groups]]
parameters = ["norms"]
learning_rate = 2.0
weight_decay = 0.2
[[optimizer.groups]]
parameters = ["blocks.1.*.weight"]
learning_rate = 1.5
weight_decay = 0.0
[[optimizer.groups]]
parameters = ["positions"]
learning_rate = 0.1
"#;

/// The keys of an encoder.
const ENCODER: &str = r#"
family = "encoder"
layers = 2
width = 32
heads = 4
norm_epsilon = 1e-5
dropout = 0.0
"#;

const BERT: &str = r#"
[objective]
kind = "masked"
next_sentence = true
"#;

const ELECTRA: &str = r#"
embedding_width = 16
head = false
pooler = false
[model.parts.generator]
family = "encoder"
layers = 2
width = 16
heads = 2
norm_epsilon = 1e-5
dropout = 0.0
pooler = false
shared_with = "model"
shared = ["embedding.*", "positions.*"]
[objective]
kind = "replaced_token"
temperature = 0.0
"#;

/// The configuration of a case.
pub(crate) fn config(name: &str, clip_norm: f64) -> Config {
    let encoder = |own: &str| format!("[model]{ENCODER}{own}[data]\ndocument_masks = false\n");
    let (own, loss): (String, &[&str]) = match name {
        "gpt2" => (GPT2.to_owned(), &[]),
        "llama" => (LLAMA.to_owned(), &[]),
        "qwen" => (QWEN.to_owned(), &[]),
        "gemma" => (GEMMA.to_owned(), &["logit_softcap=0.5"]),
        "recipe" => (RECIPE.to_owned(), &["logit_softcap=2", "z_loss=0.02", "label_smoothing=0.1"]),
        "palm" => (PALM.to_owned(), &["z_loss=0.01"]),
        "gpt3" => (GPT3.to_owned(), &[]),
        "bert" => (encoder(BERT), &[]),
        "electra" => (encoder(ELECTRA), &[]),
        other => panic!("no case {other}"),
    };
    let decoder = if own.contains(ENCODER) { "" } else { DECODER };
    let clip_norm = format!("optimizer.clip_norm={clip_norm}");
    let mut sets = vec![clip_norm, "evaluate.every=0".to_owned()];
    sets.extend(loss.iter().map(|set| format!("objective.{set}")));
    let documents = if own.contains("[data]") { "" } else { "\n[data]\ndocument_masks = false\n" };
    let text = format!("{COMMON}{decoder}{own}{documents}");
    Config::parse(&text, Path::new(name), &sets).unwrap()
}

/// An experiment without text.
#[derive(Debug)]
pub(crate) struct Fixed {
    experiment: Experiment,
    documents: bool,
    sequence_length: usize,
}

impl Fixed {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            experiment: Experiment::new(config, VOCABULARY, None).unwrap(),
            documents: config.data.document_masks,
            sequence_length: config.batch.sequence_length,
        }
    }

    /// Whether a document begins at place `t` of a row; one begins with each row.
    fn begins(&self, step: u64, row: usize, t: usize) -> bool {
        t == 0 || (self.documents && border(step, row * (self.sequence_length + 1) + t))
    }

    /// One over the targets of a step.
    fn scale(&self, step: u64) -> f32 {
        let labels = 1..=self.sequence_length;
        let targets = |row| labels.clone().filter(|&t| !self.begins(step, row, t)).count();
        let all: usize = (0..self.experiment.batch().global).map(targets).sum();
        (1.0 / all as f64) as f32
    }
}

impl Workload for Fixed {
    fn variables(&self) -> &Variables {
        self.experiment.variables()
    }

    fn layout(&self) -> &Layout {
        self.experiment.layout()
    }

    fn programs(&self) -> &[Program] {
        self.experiment.programs()
    }

    fn batch(&self) -> Batch {
        self.experiment.batch()
    }

    fn seed(&self) -> u64 {
        self.experiment.seed()
    }

    fn shape(&self, step: u64, attempt: usize) -> Arc<StepShape> {
        self.experiment.shape(step, attempt)
    }

    fn update(&self, step: u64) -> UpdateSettings {
        self.experiment.update(step)
    }

    fn optimizer(&self) -> &OptimizerSpec {
        self.experiment.optimizer()
    }

    fn update_group(&self, parameter: ParameterId) -> UpdateGroup {
        self.experiment.update_group(parameter)
    }

    fn fill(
        &self,
        purpose: Purpose,
        program: ProgramId,
        record: &mut Record<'_>,
    ) -> Result<(), Fault> {
        let Purpose::Train { step, micro_batch, .. } = purpose else {
            panic!("nothing is evaluated");
        };
        let program = &self.programs()[program.0];
        if program.field("hidden").is_some() {
            encoders::fill(program, record, step, micro_batch * self.batch().micro);
            return Ok(());
        }
        let (length, micro) = (self.sequence_length, self.batch().micro);
        let names = ["tokens", "labels", "segments", "positions"];
        let [tokens, labels, segments, positions] = record.fields::<i32, 4>(program, names);
        for row in 0..micro {
            let global = micro_batch * micro + row;
            let token = |t| token(step, global * (length + 1) + t, VOCABULARY);
            let (mut segment, mut first) = (0, 0);
            for t in 0..length {
                if t > 0 && self.begins(step, global, t) {
                    (segment, first) = (segment + 1, t);
                }
                let at = row * length + t;
                tokens[at] = token(t);
                let last = self.begins(step, global, t + 1);
                labels[at] = if last { -1 } else { token(t + 1) };
                segments[at] = segment;
                positions[at] = (t - first) as i32;
            }
        }
        record.field::<f32>(program, "scale")[0] = self.scale(step);
        Ok(())
    }

    fn tokens_per_sample(&self) -> u64 {
        self.experiment.tokens_per_sample()
    }

    fn flops_per_sample(&self) -> f64 {
        self.experiment.flops_per_sample()
    }
}
