//! A configuration made runnable: variables, programs, and records filled from text.
//!
//! Implements the runtime's contract for language models. Order, targets and scales are pure
//! functions of step and micro-batch; nothing here knows a rank.

use std::sync::{Arc, Mutex};

use octet_actors::contract::{
    Batch, Drive, EvaluationTask, Phase, ProgramId, Purpose, Reading, Record, StepShape,
    UpdateGroup, UpdateSettings, Workload,
};
use octet_actors::fault::{ActorName, Fault};
use octet_kernels::error::Result;
use octet_kernels::graph::{
    Granularity, Graph, Layout, Mix, ParameterId, Policy, Program, Target, Variables,
};

use crate::config::Config;
use crate::models::{LanguageModel, ModelSize, RecomputeConfig};
use crate::objectives::BatchShape;
use crate::sampling::Decoder;
use crate::text::{Consumed, HeldOut, Text};

pub mod recompute;

/// The training program.
const TRAIN: ProgramId = ProgramId(0);
/// The held-out program.
const EVALUATE: ProgramId = ProgramId(1);

/// Makes the conversation that is due after a step.
pub type Talk = Box<dyn Fn(u64) -> Option<Box<dyn Drive>> + Send + Sync>;

/// Everything that a run trains, and the text it trains on.
pub struct Experiment {
    config: Config,
    target: Target,
    variables: Variables,
    layout: Layout,
    programs: Vec<Program>,
    batch: Batch,
    /// By size of a step; see [`crate::config::BatchConfig::sizes`].
    shapes: Vec<Arc<StepShape>>,
    tasks: Vec<EvaluationTask>,
    model: Box<dyn LanguageModel>,
    decoder: Option<Decoder>,
    text: Option<Text>,
    talk: Option<Talk>,
    /// The last step asked for and its number of targets: every micro-batch of a step needs it.
    targets: Mutex<Option<(u64, u64)>>,
}

impl std::fmt::Debug for Experiment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Experiment").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Experiment {
    /// Builds and compiles everything for an embedding of `vocabulary` rows. Without text it can be
    /// planned and write text, but not be trained. Programs that write text are compiled only if
    /// `sample.every` is not 0: the arena is that of the run.
    ///
    /// # Errors
    /// [`octet_kernels::error::Error`] when model and batch do not fit together.
    pub fn new(config: &Config, vocabulary: usize, text: Option<Text>) -> Result<Self> {
        Self::for_target(config, vocabulary, text, Target::Cpu)
    }

    /// As [`Self::new`], compiled for a device that need not be there. `recompute = "auto"` is
    /// settled here: [`Self::config`] says what it became, and with which budget.
    ///
    /// # Errors
    /// As [`Self::new`], and when no recompute policy fits the budget.
    pub fn for_target(
        config: &Config,
        vocabulary: usize,
        text: Option<Text>,
        target: Target,
    ) -> Result<Self> {
        let max_positions = config.batch.sequence_length;
        let mut variables = Variables::new();
        let model = config.model.build(ModelSize { vocabulary, max_positions }, &mut variables)?;
        let sampled = config.sample.every > 0;
        let caches = sampled.then(|| model.caches(&mut variables, 1, max_positions));
        let layout = Layout::new(&variables, Granularity::default());
        let shape = BatchShape {
            sequences: config.batch.micro,
            sequence_length: config.batch.sequence_length,
        };
        let objective = config.objective.get();
        let recompute = match config.model.recompute {
            RecomputeConfig::Fixed(mix) => mix,
            RecomputeConfig::Auto => Mix::default(),
        };
        let mut g = Graph::new(&variables);
        let goal = objective.train(&mut g, &*model, shape)?;
        let plain = Policy { target, matmul: config.model.matmul.into(), ..Policy::default() };
        let policy = Policy { recompute, ..plain };
        let train = Program::compile("train", g, &goal, policy, &layout)?;
        let mut g = Graph::new(&variables);
        let goal = objective.evaluate(&mut g, &*model, shape)?;
        let evaluate = Program::compile("evaluate", g, &goal, plain, &layout)?;
        let mut all = vec![train, evaluate];
        let mut decoder = None;
        if let Some(caches) = caches {
            let first = all.len();
            let made = Decoder::compile(&*model, &caches, &variables, &layout, plain, first)?;
            let (found, decode) = made;
            all.extend(decode);
            decoder = Some(Decoder { softcap: objective.logit_softcap(), ..found });
        }
        let batch = Batch {
            micro: config.batch.micro,
            global: config.batch.global,
            lanes: config.batch.lanes(),
        };
        let tasks = text.as_ref().map_or(vec![], |text| validation(config, text));
        let sizes = config.batch.sizes();
        let mut experiment = Self {
            config: config.clone(),
            target,
            variables,
            layout,
            programs: all,
            batch,
            shapes: sizes.map(|size| Arc::new(shape_of(size / batch.micro))).collect(),
            tasks,
            model,
            decoder,
            text,
            talk: None,
            targets: Mutex::new(None),
        };
        recompute::settle(&mut experiment)?;
        Ok(experiment)
    }

    /// The training program under another recompute policy.
    fn compile_train(&self, recompute: Mix) -> Result<Program> {
        let shape = BatchShape {
            sequences: self.config.batch.micro,
            sequence_length: self.config.batch.sequence_length,
        };
        let mut g = Graph::new(&self.variables);
        let goal = self.config.objective.get().train(&mut g, &*self.model, shape)?;
        let matmul = self.config.model.matmul.into();
        let policy = Policy { recompute, target: self.target, matmul, ..Policy::default() };
        Program::compile("train", g, &goal, policy, &self.layout)
    }

    /// The programs that write text, if `sample.every` asks for any.
    pub fn decoder(&self) -> Option<Decoder> {
        self.decoder
    }

    /// Holds these conversations.
    pub fn with_talk(mut self, talk: Talk) -> Self {
        self.talk = Some(talk);
        self
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// blake3 of tokens and tokenizer; empty without text.
    pub fn data_identity(&self) -> &str {
        self.text.as_ref().map_or("", Text::identity)
    }

    /// What each source of text has given to the first `step` steps; nothing without text.
    pub fn consumed(&self, step: u64) -> Vec<Consumed> {
        let samples = self.samples_before(step);
        self.text.as_ref().map_or(vec![], |text| text.consumed(samples))
    }

    /// The model.
    pub fn model(&self) -> &dyn LanguageModel {
        &*self.model
    }

    /// Targets of a whole step, which every micro-batch's loss is divided by.
    fn targets_of(&self, text: &Text, step: u64) -> std::result::Result<u64, Fault> {
        let mut memo = self.targets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((known, targets)) = *memo
            && known == step
        {
            return Ok(targets);
        }
        let mut targets = 0;
        for sample in self.samples_before(step)..self.samples_before(step + 1) {
            targets += text.train_targets(sample).map_err(damaged)?;
        }
        *memo = Some((step, targets));
        Ok(targets)
    }
}

/// A step in which every micro-batch runs the training program.
fn shape_of(micro_batches: usize) -> StepShape {
    let programs = vec![TRAIN; micro_batches];
    let phases = vec![Phase::Each { micro_batches: 0..micro_batches, programs }];
    StepShape { micro_batches, phases, finally: vec![] }
}

/// A shard that cannot be read any more.
fn damaged(error: crate::data::DataError) -> Fault {
    Fault::world(ActorName::Loader(0), error)
}

/// The held-out splits as tasks.
fn validation(config: &Config, text: &Text) -> Vec<EvaluationTask> {
    if config.evaluate.every == 0 {
        return vec![];
    }
    let task = |split: &HeldOut| {
        let parts = split.windows.div_ceil(config.batch.micro as u64);
        EvaluationTask {
            name: match split.name.as_str() {
                "" => "validation".to_string(),
                name => format!("validation/{name}"),
            },
            program: EVALUATE,
            parts,
            every: None,
            sums: ["loss_sum", "targets", "text_loss_sum", "bytes"].map(str::to_owned).to_vec(),
            reading: Reading::of_text(),
        }
    };
    text.held_out().map(task).collect()
}

impl Workload for Experiment {
    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn programs(&self) -> &[Program] {
        &self.programs
    }

    fn batch(&self) -> Batch {
        self.batch
    }

    fn seed(&self) -> u64 {
        self.config.run.seed
    }

    fn shape(&self, step: u64, _attempt: usize) -> Arc<StepShape> {
        self.shapes[self.config.batch.size_of(step)].clone()
    }

    /// The last step is the largest.
    fn shapes(&self) -> Vec<Arc<StepShape>> {
        self.shapes.last().cloned().into_iter().collect()
    }

    fn samples_before(&self, step: u64) -> u64 {
        self.config.batch.samples_before(step)
    }

    fn update(&self, step: u64) -> UpdateSettings {
        let optimizer = &self.config.optimizer;
        UpdateSettings {
            learning_rate: self.config.schedule.rate(step, self.config.run.steps),
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            clip_norm: optimizer.clip_norm,
        }
    }

    fn update_group(&self, parameter: ParameterId) -> UpdateGroup {
        self.config.optimizer.group_of(&self.variables.parameters()[parameter.0])
    }

    fn fill(
        &self,
        purpose: Purpose,
        program: ProgramId,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), Fault> {
        let nothing = || Fault::ours(ActorName::Loader(0), "this experiment has no text");
        let text = self.text.as_ref().ok_or_else(nothing)?;
        let program = &self.programs[program.0];
        let rows = self.batch.micro;
        match purpose {
            Purpose::Train { step, micro_batch, .. } => {
                let first = self.first_sample(step, micro_batch);
                text.fill_train(first, rows, program, record).map_err(damaged)?;
                let targets = self.targets_of(text, step)?;
                let scale = if targets == 0 { 0.0 } else { 1.0 / targets as f64 };
                record.field::<f32>(program, "scale")[0] = scale as f32;
                Ok(())
            }
            Purpose::Evaluate { task, part } => {
                let first = part * rows as u64;
                text.fill_validation(task, first, rows, program, record).map_err(damaged)
            }
        }
    }

    fn evaluations(&self) -> &[EvaluationTask] {
        &self.tasks
    }

    fn drive(&self, step: u64) -> Option<Box<dyn Drive>> {
        self.talk.as_ref().and_then(|talk| talk(step))
    }

    fn tokens_per_sample(&self) -> u64 {
        self.config.batch.sequence_length as u64
    }

    fn flops_per_sample(&self) -> f64 {
        let length = self.config.batch.sequence_length;
        length as f64 * self.model.flops_per_token(length)
    }
}
