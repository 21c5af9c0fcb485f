//! A composition made runnable: compiled programs, and records filled from text.
//!
//! Implements the runtime's contract. Order, targets and scales are pure functions of step and
//! micro-batch; nothing here knows a rank, nor what an objective is.

use std::collections::BTreeMap;
use std::sync::Arc;

use octet_actors::contract::{
    Batch, Drive, EvaluationTask, ProgramId, Purpose, Record, StepShape, UpdateGroup,
    UpdateSettings, Workload,
};
use octet_actors::fault::{ActorName, Fault};
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Init, Layout, Mix, ParameterId, Policy, Program, Target, Variables};
use octet_kernels::update::OptimizerSpec;

use crate::composition::{Composition, Track};
use crate::config::tracks::samples_before;
use crate::config::{BatchConfig, Config};
use crate::data::DataError;
use crate::failure::Failure;
use crate::models::extras::EXTRA_SCALE;
use crate::models::{ModelSize, RecomputeConfig};
use crate::objectives::Inputs;
use crate::sampling::Decoder;
use crate::text::{Consumed, Text};
use targets::Targets;
use tasks::Task;

pub mod recompute;
mod targets;
mod tasks;

/// Makes the conversation that is due after a step.
pub type Talk = Box<dyn Fn(u64) -> Option<Box<dyn Drive>> + Send + Sync>;

/// Everything that a run trains, and the text it trains on.
pub struct Experiment {
    config: Config,
    target: Target,
    composition: Composition,
    layout: Layout,
    optimizer: OptimizerSpec,
    programs: Vec<Program>,
    batch: Batch,
    /// By size of a step, tracks that are in it and attempt.
    shapes: BTreeMap<(usize, Vec<usize>, usize), Arc<StepShape>>,
    streams: Vec<TrackStream>,
    tasks: Vec<EvaluationTask>,
    /// What fills the records of each task.
    task_inputs: Vec<Task>,
    decoder: Option<Decoder>,
    text: Option<Text>,
    talk: Option<Talk>,
    /// First values that come from elsewhere, by name.
    given: BTreeMap<String, Vec<f32>>,
}

/// Where a track stands in its samples, and what fills its records.
struct TrackStream {
    /// Steps that leave it out.
    zeros: Vec<(u64, u64)>,
    /// Numbers of samples are later by so many than the batches before them say: some of those were
    /// cut otherwise.
    shift: i64,
    /// `None` without text.
    inputs: Option<Box<dyn Inputs>>,
    targets: Targets,
}

impl TrackStream {
    fn samples_before(&self, batch: &BatchConfig, step: u64) -> u64 {
        samples_before(&self.zeros, batch, step).saturating_add_signed(self.shift)
    }

    fn is_in(&self, step: u64) -> bool {
        !self.zeros.iter().any(|&(from, to)| (from..to).contains(&step))
    }
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
    /// [`Failure`] when parts of the configuration, or text, do not fit together.
    pub fn new(
        config: &Config,
        vocabulary: usize,
        text: Option<Text>,
    ) -> std::result::Result<Self, Failure> {
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
    ) -> std::result::Result<Self, Failure> {
        let max_positions = config.batch.sequence_length;
        let composition = Composition::new(config, ModelSize { vocabulary, max_positions })?;
        let granularity = config.run.granularity(&composition.variables);
        let layout = Layout::new(&composition.variables, granularity);
        let mut experiment = Self {
            config: config.clone(),
            target,
            composition,
            layout,
            optimizer: config.optimizer.spec(),
            programs: Vec::new(),
            batch: Batch { micro: config.batch.micro, global: 0, lanes: config.batch.lanes() },
            shapes: BTreeMap::new(),
            streams: Vec::new(),
            tasks: Vec::new(),
            task_inputs: Vec::new(),
            decoder: None,
            text,
            talk: None,
            given: BTreeMap::new(),
        };
        experiment.compile()?;
        experiment.open_streams()?;
        experiment.cut_steps()?;
        experiment.open_tasks()?;
        recompute::settle(&mut experiment)?;
        Ok(experiment)
    }

    /// Compiles all programs.
    fn compile(&mut self) -> Result<()> {
        let recompute = match self.config.model.recompute {
            RecomputeConfig::Fixed(mix) => mix,
            RecomputeConfig::Auto => Mix::default(),
        };
        let Composition { variables, drafts, writer, .. } = &self.composition;
        let plain = self.policy(Mix::default());
        for draft in drafts {
            let policy = if draft.trains { self.policy(recompute) } else { plain };
            self.programs.push(draft.compile(variables, &self.layout, policy)?);
        }
        if let Some(writer) = writer
            && let Some(caches) = &writer.caches
        {
            let number = ProgramId(self.programs.len());
            let (decoder, program) =
                Decoder::compile(writer, caches, variables, &self.layout, plain, number)?;
            self.programs.push(program);
            self.decoder = Some(decoder);
        }
        Ok(())
    }

    fn policy(&self, recompute: Mix) -> Policy {
        let matmul = self.config.model.matmul.into();
        Policy { recompute, target: self.target, matmul, ..Policy::default() }
    }

    /// Opens every track's samples.
    fn open_streams(&mut self) -> std::result::Result<(), Failure> {
        let config = self.config.clone();
        for (number, track) in config.tracks().iter().enumerate() {
            let source = self.text.as_ref().and_then(|text| text.training(number));
            let inputs = source.map(|source| track.objective.get().inputs(source)).transpose()?;
            let (zeros, targets) = (track.weight.zeros(), Targets::default());
            self.streams.push(TrackStream { zeros, shift: 0, inputs, targets });
        }
        Ok(())
    }

    /// Makes the shape of every kind of step.
    fn cut_steps(&mut self) -> Result<()> {
        let batch = &self.config.batch;
        let turn = self.composition.group();
        let ramp = batch.ramp.iter().map(|&(until, _)| until);
        let zeros = self.streams.iter().flat_map(|stream| &stream.zeros);
        let changes = zeros.flat_map(|&(from, to)| [from, to]).chain(ramp).chain([0]);
        // What lasts for ever has no step behind it.
        for step in changes.filter(|&step| step < u64::MAX).collect::<Vec<_>>() {
            let (size, tracks) = (batch.size_of(step), self.tracks_in(step));
            let micro_batches = batch.sizes().nth(size).unwrap_or(batch.global) / batch.micro;
            if !micro_batches.is_multiple_of(turn) {
                return Err(Error::Plan(format!(
                    "batch.global: expected groups of {turn} micro-batches, got {micro_batches}"
                )));
            }
            for attempt in 0..self.composition.attempts() {
                let phases = self.composition.phases(&tracks, micro_batches, attempt);
                let finally = self.composition.finally.clone();
                let micro_batches = micro_batches * tracks.len();
                let shape = Arc::new(StepShape { micro_batches, phases, finally });
                self.batch.global = self.batch.global.max(micro_batches * batch.micro);
                self.shapes.insert((size, tracks.clone(), attempt), shape);
            }
        }
        Ok(())
    }

    fn open_tasks(&mut self) -> std::result::Result<(), Failure> {
        let Some(text) = &self.text else { return Ok(()) };
        for (task, inputs) in tasks::all(&self.config, &self.composition, text)? {
            self.tasks.push(task);
            self.task_inputs.push(inputs);
        }
        Ok(())
    }

    /// The tracks that are in a step.
    fn tracks_in(&self, step: u64) -> Vec<usize> {
        let streams = self.streams.iter().enumerate();
        streams.filter(|(_, stream)| stream.is_in(step)).map(|(track, _)| track).collect()
    }

    /// The training programs under another recompute policy, with their numbers.
    fn compile_training(&self, recompute: Mix) -> Result<Vec<(ProgramId, Program)>> {
        let Composition { variables, drafts, .. } = &self.composition;
        let training = drafts.iter().enumerate().filter(|(_, draft)| draft.trains);
        let compile = |(number, draft): (usize, &crate::composition::Draft)| {
            let program = draft.compile(variables, &self.layout, self.policy(recompute))?;
            Ok((ProgramId(number), program))
        };
        training.map(compile).collect()
    }

    /// Whether a program is run in steps.
    fn trains(&self, program: usize) -> bool {
        self.composition.drafts.get(program).is_some_and(|draft| draft.trains)
    }

    /// The programs that steps are made of.
    pub fn training(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().enumerate().filter(|(i, _)| self.trains(*i)).map(|(_, p)| p)
    }

    /// What is trained.
    pub fn composition(&self) -> &Composition {
        &self.composition
    }

    /// The program that writes text, if `sample.every` asks for any and a model can.
    pub fn decoder(&self) -> Option<Decoder> {
        self.decoder
    }

    /// Holds these conversations.
    pub fn with_talk(mut self, talk: Talk) -> Self {
        self.talk = Some(talk);
        self
    }

    /// Begins with these values of parameters, by name.
    ///
    /// # Errors
    /// A sentence about a parameter that is not there or has another size.
    pub fn with_first_values(
        mut self,
        values: BTreeMap<String, Vec<f32>>,
    ) -> std::result::Result<Self, String> {
        for (name, values) in &values {
            let found = self.variables().parameters().iter().find(|p| p.name == *name);
            let own = found.map(|parameter| parameter.elements());
            if own != Some(values.len()) {
                let own =
                    own.map_or("none of that name".to_owned(), |own| format!("{own} elements"));
                return Err(format!("{name} has {} elements there, and {own} here", values.len()));
            }
        }
        self.given = values;
        Ok(self)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// blake3 of tokens and tokenizer; empty without text.
    pub fn data_identity(&self) -> &str {
        self.text.as_ref().map_or("", Text::identity)
    }

    /// Goes on where a state says that sample number `sample` is the first of batch number `batch`:
    /// batches before may have been cut otherwise. False if it cannot, as one number says nothing
    /// of several tracks: then samples are numbered as if all batches had been cut like this.
    pub fn go_on_with(&mut self, batch: u64, sample: u64) -> bool {
        let shift = sample.wrapping_sub(self.samples_before(batch)).cast_signed();
        match &mut self.streams[..] {
            [stream] => stream.shift += shift,
            _ => return shift == 0,
        }
        true
    }

    /// What each source of text gives to the batches before this one; nothing without text.
    pub fn consumed(&self, batch: u64) -> Vec<Consumed> {
        let samples = |stream: &TrackStream| stream.samples_before(&self.config.batch, batch);
        let samples: Vec<u64> = self.streams.iter().map(samples).collect();
        self.text.as_ref().map_or(vec![], |text| text.consumed(&samples))
    }

    /// The track that a micro-batch of a step belongs to, and its number within the track.
    fn place(&self, step: u64, micro_batch: usize) -> (usize, usize) {
        let (turn, tracks) = (self.composition.group(), self.tracks_in(step));
        let (round, within) =
            (micro_batch / (turn * tracks.len()), micro_batch % (turn * tracks.len()));
        (tracks[within / turn], round * turn + within % turn)
    }

    fn fill_step(
        &self,
        step: u64,
        micro_batch: usize,
        program: &Program,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), Fault> {
        let (track, number) = self.place(step, micro_batch);
        let TrackStream { inputs, targets, .. } = &self.streams[track];
        let nothing = || Fault::ours(ActorName::Loader(0), "this experiment has no text");
        let inputs = inputs.as_deref().ok_or_else(nothing)?;
        let samples = |step| self.streams[track].samples_before(&self.config.batch, step);
        let rows = self.batch.micro as u64;
        let first = samples(step) + number as u64 * rows;
        inputs.fill(first..first + rows, program, record).map_err(damaged)?;
        let of_step = samples(step)..samples(step + 1);
        let counts = targets.of(step, of_step, inputs).map_err(damaged)?;
        let Track { weight, built, .. } = &self.composition.tracks[track];
        for (loss, targets) in built.losses.iter().zip(counts) {
            if program.field(loss.scale).is_none() {
                continue;
            }
            let weight = weight.at(step) * loss.weight;
            let scale = if targets == 0 { 0.0 } else { weight / targets as f64 };
            record.field::<f32>(program, loss.scale)[0] = scale as f32;
        }
        if program.field(EXTRA_SCALE).is_some() {
            let micro_batches = (samples(step + 1) - samples(step)) / rows;
            let scale = weight.at(step) / micro_batches as f64;
            record.field::<f32>(program, EXTRA_SCALE)[0] = scale as f32;
        }
        Ok(())
    }
}

/// A shard that cannot be read any more: the next engine makes its data again.
fn damaged(error: DataError) -> Fault {
    Fault::world(ActorName::Loader(0), error)
}

impl Workload for Experiment {
    fn variables(&self) -> &Variables {
        &self.composition.variables
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

    fn first_values(&self, parameter: ParameterId) -> Vec<f32> {
        let own = &self.variables().parameters()[parameter.0];
        match (self.given.get(&own.name), own.init) {
            (Some(given), _) => given.clone(),
            (None, Init::SameAs(other)) => self.first_values(other),
            (None, _) => self.variables().first_values(parameter, self.seed()),
        }
    }

    fn shape(&self, step: u64, attempt: usize) -> Arc<StepShape> {
        let (size, tracks) = (self.config.batch.size_of(step), self.tracks_in(step));
        let attempt = attempt.min(self.attempts() - 1);
        self.shapes[&(size, tracks, attempt)].clone()
    }

    /// All, the largest first: a smaller one may have more to wait for.
    fn shapes(&self) -> Vec<Arc<StepShape>> {
        let mut shapes: Vec<_> = self.shapes.values().cloned().collect();
        shapes.sort_by_key(|shape| std::cmp::Reverse(shape.micro_batches));
        shapes
    }

    fn attempts(&self) -> usize {
        self.composition.attempts()
    }

    fn samples_before(&self, step: u64) -> u64 {
        let samples = |stream: &TrackStream| stream.samples_before(&self.config.batch, step);
        self.streams.iter().map(samples).sum()
    }

    fn update(&self, step: u64) -> UpdateSettings {
        UpdateSettings {
            learning_rate: self.config.schedule.rate(step, self.config.run.steps),
            clip_norm: self.config.optimizer.clip_norm,
        }
    }

    fn optimizer(&self) -> &OptimizerSpec {
        &self.optimizer
    }

    fn update_group(&self, parameter: ParameterId) -> UpdateGroup {
        self.config.optimizer.group_of(&self.variables().parameters()[parameter.0])
    }

    fn fill(
        &self,
        purpose: Purpose,
        program: ProgramId,
        record: &mut Record<'_>,
    ) -> std::result::Result<(), Fault> {
        let program = &self.programs[program.0];
        match purpose {
            Purpose::Train { step, micro_batch, .. } => {
                self.fill_step(step, micro_batch, program, record)
            }
            Purpose::Evaluate { task, part } => {
                let Task { inputs, samples } = &self.task_inputs[task];
                let first = part * self.batch.micro as u64;
                let last = (*samples).min(first + self.batch.micro as u64);
                inputs.fill(first..last, program, record).map_err(damaged)
            }
        }
    }

    fn evaluations(&self) -> &[EvaluationTask] {
        &self.tasks
    }

    fn begins_elsewhere(&self) -> bool {
        let parts = self.config.model.parts.iter();
        let mut from = parts.filter(|(_, part)| part.from.is_some());
        from.any(|(name, _)| self.composition.parts.get(name).is_some())
    }

    fn drive(&self, step: u64) -> Option<Box<dyn Drive>> {
        self.talk.as_ref().and_then(|talk| talk(step))
    }

    fn tokens_per_sample(&self) -> u64 {
        self.config.batch.sequence_length as u64
    }

    /// The mean over all tracks.
    fn flops_per_sample(&self) -> f64 {
        let tracks = &self.composition.tracks;
        let sum: f64 = tracks.iter().map(|track| track.built.flops_per_sample).sum();
        sum / tracks.len() as f64
    }
}
