//! What a run trains, made once from the configuration by models and objectives; nothing else in
//! `src/` knows their kinds.
//!
//! Duty: variables, drafts of programs, *tracks* (an objective with a weight over a stream of
//! samples) and what follows an update. Prohibition: reads no data and holds no compiled program.

use std::ops::Range;
use std::sync::Arc;

use octet_actors::contract::{Phase, ProgramId, Reading};
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{
    Goal, Graph, Layout, Parameter, ParameterId, Policy, Program, StepBufferId, Tensor, Variables,
};
use octet_kernels::ops::exponential_average::exponential_average;

use crate::config::{Config, Weight};
use crate::models::{Extras, KvCaches, ModelSize, Part, Parts, Scope};
use crate::objectives::{BatchShape, Writes};

#[cfg(test)]
mod tests;

/// Traces a program.
pub type Trace = Box<dyn Fn(&mut Graph<'_>) -> Result<Goal> + Send + Sync>;

/// A program that is not compiled yet.
pub struct Draft {
    /// Its name in reports.
    pub name: String,
    /// It is run in steps, backward too: recompute policies are about it.
    pub trains: bool,
    trace: Trace,
}

impl Draft {
    /// Compiles it.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile(
        &self,
        variables: &Variables,
        layout: &Layout,
        policy: Policy,
    ) -> Result<Program> {
        let mut g = Graph::new(variables);
        let goal = (self.trace)(&mut g)?;
        Program::compile(&self.name, g, &goal, policy, layout)
    }
}

/// What a track does with its micro-batches, group by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Each micro-batch runs it.
    Each(ProgramId),
    /// Every rank gets all slices of the buffer.
    Gather(StepBufferId),
    /// It runs once for the group.
    Once(ProgramId),
    /// Every rank gets the buffer of the rank that ran once.
    Broadcast(StepBufferId),
}

impl Stage {
    fn over(self, micro_batches: Range<usize>) -> Phase {
        match self {
            Self::Each(program) => {
                Phase::Each { programs: vec![program; micro_batches.len()], micro_batches }
            }
            Self::Gather(buffer) => Phase::Gather { buffer, micro_batches },
            Self::Once(program) => Phase::Once { program, micro_batches },
            Self::Broadcast(buffer) => Phase::Broadcast { buffer, micro_batches },
        }
    }
}

/// One loss of an objective: a mean over targets that are counted over the whole step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// The input that it is multiplied by: weights over the number of targets, `f32[]`.
    pub scale: &'static str,
    /// Its weight among the losses of the objective.
    pub weight: f64,
}

/// How a track is measured on held-out data.
#[derive(Debug, Clone)]
pub struct HeldOutProgram {
    /// A forward program.
    pub program: ProgramId,
    /// What it fetches that is added up.
    pub sums: Vec<String>,
    /// What the sums mean.
    pub reading: Reading,
}

/// What an objective has made of a track.
#[derive(Debug, Clone)]
pub struct Built {
    /// By attempt: what happens in a step, and again with larger programs if that overflowed.
    pub attempts: Vec<Vec<Stage>>,
    /// Micro-batches that belong together.
    pub group: usize,
    /// In the order in which its inputs count targets.
    pub losses: Vec<Loss>,
    /// How it is measured.
    pub held_out: HeldOutProgram,
    /// FLOPs of a sample, recompute not counted.
    pub flops_per_sample: f64,
}

/// An objective with a weight over a stream of samples.
#[derive(Debug, Clone)]
pub struct Track {
    /// Its name; empty for a run's only one.
    pub name: String,
    /// What its loss is multiplied by.
    pub weight: Weight,
    /// What the objective made of it.
    pub built: Built,
}

/// What text is drawn from.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The model.
    pub part: Arc<Part>,
    /// How.
    pub writes: Writes,
    /// Where it keeps what it has read, if it is to write while it is trained.
    pub caches: Option<KvCaches>,
}

/// Everything that a run trains.
pub struct Composition {
    /// Parameters, states and step buffers.
    pub variables: Variables,
    /// The models.
    pub parts: Parts,
    /// The programs, in the order of their numbers.
    pub drafts: Vec<Draft>,
    /// At least one.
    pub tracks: Vec<Track>,
    /// What runs after every update.
    pub finally: Vec<ProgramId>,
    /// The model of the first track that learns to write, if it can.
    pub writer: Option<Writer>,
}

impl Composition {
    /// Makes everything that a configuration names, for an embedding of so many rows.
    ///
    /// # Errors
    /// [`Error`] when models, objectives and batch do not fit together.
    pub fn new(config: &Config, size: ModelSize) -> Result<Self> {
        let tracks = config.tracks();
        let named = tracks.iter().flat_map(|track| {
            let others = track.objective.get().parts();
            [track.model.as_str()].into_iter().chain(others)
        });
        let mut variables = Variables::new();
        let parts = Parts::build(&config.model, &named.collect::<Vec<_>>(), size, &mut variables)?;
        let mut made = Self {
            variables,
            parts,
            drafts: Vec::new(),
            tracks: Vec::new(),
            finally: Vec::new(),
            writer: None,
        };
        let shape = BatchShape {
            sequences: config.batch.micro,
            sequence_length: config.batch.sequence_length,
        };
        for track in tracks.iter() {
            let missing = || Error::Plan(format!("model.parts: there is no \"{}\"", track.model));
            let model = made.parts.get(&track.model).cloned().ok_or_else(missing)?;
            let objective = track.objective.get();
            let mut builder = Builder {
                name: &track.name,
                model: model.clone(),
                parts: &made.parts,
                shape,
                vocabulary: size.vocabulary,
                variables: &mut made.variables,
                drafts: &mut made.drafts,
            };
            let built = objective.build(&mut builder)?;
            let (name, weight) = (track.name.clone(), track.weight.clone());
            made.tracks.push(Track { name, weight, built });
            if made.writer.is_none()
                && let Some(writes) = objective.writes()
                && model.model().writer().is_some()
            {
                made.writer = Some(Writer { part: model, writes, caches: None });
            }
        }
        made.follow();
        made.after_updates();
        if config.sample.every > 0 {
            made.add_caches(config.sample.sequences, size.max_positions);
        }
        Ok(made)
    }

    /// Drafts what keeps moving averages.
    fn follow(&mut self) {
        for (number, average) in self.parts.averages().iter().cloned().enumerate() {
            let trace = move |g: &mut Graph<'_>| {
                for &(follower, leader) in &average.pairs {
                    let [follower, leader] = [follower, leader].map(|id| g.parameter(id));
                    exponential_average(g, follower, leader, average.decay)?;
                }
                Ok(Goal::Forward)
            };
            let name = format!("average {number}");
            self.finally.push(ProgramId(self.drafts.len()));
            self.drafts.push(Draft { name, trains: false, trace: Box::new(trace) });
        }
    }

    /// Drafts what models do after updates.
    fn after_updates(&mut self) {
        let acts = |part: &&Arc<Part>| part.model().after_update().is_some();
        for part in self.parts.iter().filter(acts) {
            let (name, part) = (format!("after update of {}", part.shown()), part.clone());
            let trace = move |g: &mut Graph<'_>| {
                part.after_update(g)?;
                Ok(Goal::Forward)
            };
            self.finally.push(ProgramId(self.drafts.len()));
            self.drafts.push(Draft { name, trains: false, trace: Box::new(trace) });
        }
    }

    fn add_caches(&mut self, sequences: usize, positions: usize) {
        let Some(writer) = &mut self.writer else { return };
        let mut scope = Scope::new(&mut self.variables).named(writer.part.name());
        let able = writer.part.model().writer();
        writer.caches = able.map(|able| able.caches(&mut scope, sequences, positions));
    }

    /// How often a step may overflow and be done again, and once more.
    pub fn attempts(&self) -> usize {
        self.tracks.iter().map(|track| track.built.attempts.len()).max().unwrap_or(1)
    }

    /// Micro-batches of all tracks that belong together: so many of each track follow each other.
    pub fn group(&self) -> usize {
        self.tracks.iter().map(|track| track.built.group).max().unwrap_or(1)
    }

    /// The phases of a step in which these tracks have `micro_batches` each: by turns, a group of
    /// the first track, one of the second, and so on.
    pub fn phases(&self, tracks: &[usize], micro_batches: usize, attempt: usize) -> Vec<Phase> {
        let mut phases: Vec<Phase> = Vec::new();
        let turn = self.group();
        let (mut next, mut alone_before) = (0, false);
        for _ in 0..micro_batches / turn {
            for &track in tracks {
                let Built { attempts, group, .. } = &self.tracks[track].built;
                let stages = &attempts[attempt.min(attempts.len() - 1)];
                let alone = matches!(stages[..], [Stage::Each(_)]);
                for _ in 0..turn / group {
                    let range = next..next + group;
                    next = range.end;
                    for phase in stages.iter().map(|stage| stage.over(range.clone())) {
                        match (phases.last_mut(), phase) {
                            // Who stands alone shares a phase with those before.
                            (Some(last), phase) if alone && alone_before => join(last, phase),
                            (_, phase) => phases.push(phase),
                        }
                        alone_before = alone;
                    }
                }
            }
        }
        phases
    }
}

/// Adds the micro-batches of the next phase to a phase.
fn join(last: &mut Phase, next: Phase) {
    let (
        Phase::Each { micro_batches, programs },
        Phase::Each { micro_batches: more, programs: others },
    ) = (last, next)
    else {
        unreachable!("only phases in which each micro-batch is on its own are joined");
    };
    micro_batches.end = more.end;
    programs.extend(others);
}

/// What an objective builds a track with.
pub struct Builder<'a> {
    name: &'a str,
    model: Arc<Part>,
    parts: &'a Parts,
    shape: BatchShape,
    vocabulary: usize,
    variables: &'a mut Variables,
    drafts: &'a mut Vec<Draft>,
}

impl Builder<'_> {
    /// The track's model.
    pub fn model(&self) -> Arc<Part> {
        self.model.clone()
    }

    /// A model that the objective names.
    ///
    /// # Errors
    /// [`Error::Plan`] for one that its `parts` do not name.
    pub fn part(&self, name: &str) -> Result<Arc<Part>> {
        let missing = || Error::Plan(format!("objective: there is no model \"{name}\""));
        self.parts.get(name).cloned().ok_or_else(missing)
    }

    /// Whether any parameter of a model is trained.
    pub fn is_trained(&self, part: &Part) -> bool {
        let prefix = format!("{}.", part.name());
        let own = |name: &str| part.name().is_empty() || name.starts_with(&prefix);
        self.variables.parameters().iter().any(|p| p.trainable && own(&p.name))
    }

    /// What one run of a program computes.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Rows of the embedding.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Registers what the objective trains beside its models; the track's name is put in front.
    pub fn parameters(&mut self, own: Vec<Parameter>) -> Vec<ParameterId> {
        let mut scope = Scope::new(self.variables).named(self.name);
        own.into_iter().map(|parameter| scope.parameter(parameter)).collect()
    }

    /// How reports call one of several losses.
    pub fn label(&self, loss: &str) -> String {
        if self.name.is_empty() { loss.to_owned() } else { format!("{}/{loss}", self.name) }
    }

    /// A program of the step, which gives the loss of the objective; those of models are added.
    pub fn train(
        &mut self,
        trace: impl Fn(&mut Graph<'_>, &mut Extras) -> Result<Tensor> + Send + Sync + 'static,
    ) -> ProgramId {
        let name = if self.name.is_empty() { "train" } else { self.name };
        let whole = move |g: &mut Graph<'_>| {
            let mut extras = Extras::training();
            let loss = trace(g, &mut extras)?;
            let loss = extras.added_to(g, loss)?;
            g.fetch("loss", loss);
            Ok(Goal::Train { loss })
        };
        self.draft(name.to_owned(), true, Box::new(whole))
    }

    /// A program over held-out data.
    pub fn held_out<R>(
        &mut self,
        trace: impl Fn(&mut Graph<'_>, &mut Extras) -> Result<R> + Send + Sync + 'static,
    ) -> ProgramId {
        let name = self.label("evaluate");
        let whole = move |g: &mut Graph<'_>| {
            trace(g, &mut Extras::default())?;
            Ok(Goal::Forward)
        };
        self.draft(name, false, Box::new(whole))
    }

    fn draft(&mut self, name: String, trains: bool, trace: Trace) -> ProgramId {
        self.drafts.push(Draft { name, trains, trace });
        ProgramId(self.drafts.len() - 1)
    }
}
