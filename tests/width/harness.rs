//! What the nine graphs share: short ways to declare and fill things, and the check that every
//! number of ranks gives one digest.
//!
//! Duty: to keep a graph's file to the graph. Prohibition: no special case for any of them.

pub(crate) use std::ops::Range;
use std::sync::Arc;

use octet_actors::contract::{Drive, Purpose, Results, Turn};
use octet_actors::fault::Fault;
use octet_actors::testing::{Leg, adamw, train, train_in_legs};
use octet_kernels::error::Result;
use octet_kernels::graph::{Granularity, Init, Layout, Ownership, Parameter, Policy, Program};
use octet_kernels::ops::attention::{AttentionSpec, Mask};
use octet_kernels::ops::attention_cached::CacheSpec;
use octet_kernels::ops::route::{Route, Score};

// What graphs are made of, under one roof.
pub(crate) use octet_actors::contract::{Batch, Phase, ProgramId, Record, StepShape, Workload};
pub(crate) use octet_actors::rank_memory::Zero;
pub(crate) use octet_actors::testing::{Toy, Trial};
pub(crate) use octet_kernels::dtype::DType;
pub(crate) use octet_kernels::graph::{
    Goal, Graph, ParameterId, Recompute, Region, State, StateId, StateUse, StepBuffer,
    StepBufferId, Tensor, Variables,
};
pub(crate) use octet_kernels::ops::activation::gelu;
pub(crate) use octet_kernels::ops::add::add;
pub(crate) use octet_kernels::ops::attention::attention;
pub(crate) use octet_kernels::ops::attention_cached::{Caches, Places, attention_cached};
pub(crate) use octet_kernels::ops::binary_cross_entropy::binary_cross_entropy;
pub(crate) use octet_kernels::ops::combine::combine;
pub(crate) use octet_kernels::ops::compact::compact;
pub(crate) use octet_kernels::ops::contrastive_loss::contrastive_loss;
pub(crate) use octet_kernels::ops::copy::{add_into, copy_into};
pub(crate) use octet_kernels::ops::cross_entropy::cross_entropy;
pub(crate) use octet_kernels::ops::dispatch::dispatch;
pub(crate) use octet_kernels::ops::dropout::dropout;
pub(crate) use octet_kernels::ops::embedding::embedding;
pub(crate) use octet_kernels::ops::exponential_average::exponential_average;
pub(crate) use octet_kernels::ops::gather_rows::gather_rows;
pub(crate) use octet_kernels::ops::group_by_expert::group_by_expert;
pub(crate) use octet_kernels::ops::grouped_linear::grouped_linear;
pub(crate) use octet_kernels::ops::integers::{keep_or, less_than, not_equal};
pub(crate) use octet_kernels::ops::kl_divergence::kl_divergence;
pub(crate) use octet_kernels::ops::l2_normalize::l2_normalize;
pub(crate) use octet_kernels::ops::linear::linear;
pub(crate) use octet_kernels::ops::load_balance_loss::load_balance_loss;
pub(crate) use octet_kernels::ops::route::route;
pub(crate) use octet_kernels::ops::sample::sample;
pub(crate) use octet_kernels::ops::scatter_rows::scatter_rows;
pub(crate) use octet_kernels::ops::update_bias::update_bias;

/// Two samples per micro-batch, two micro-batches per lane, four lanes.
pub(crate) const BATCH: Batch = Batch { micro: 2, global: 16, lanes: 4 };

/// Two experts for each token.
pub(crate) const TOP_2: Route = Route { top_k: 2, score: Score::Softmax, normalize: true };

/// Symbols of the toy language: after x comes 3 x + 1.
pub(crate) const SYMBOLS: usize = 11;
/// Elements of a hidden row.
pub(crate) const WIDTH: usize = 16;

/// One element of an input that is to be filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'a> {
    /// The input.
    pub(crate) field: &'a str,
    /// The step.
    pub(crate) step: u64,
    /// Number of the micro-batch's first sample within the run.
    pub(crate) first: u64,
    /// Number of the element's sample within the run, if samples share the input evenly.
    pub(crate) sample: u64,
    /// Position of the element within its sample.
    pub(crate) at: usize,
    /// Position of the element within the input.
    pub(crate) flat: usize,
    /// The micro-batch within the step.
    pub(crate) micro_batch: usize,
}

/// A trained matrix, or a vector.
pub(crate) fn weight(variables: &mut Variables, name: &str, shape: &[usize]) -> ParameterId {
    variables.parameter(Parameter {
        name: name.to_string(),
        shape: shape.to_vec(),
        dtype: DType::F32,
        trainable: true,
        decay: shape.len() > 1,
        init: Init::Normal { std: 0.3 },
    })
}

/// A weight that is never trained.
pub(crate) fn frozen(variables: &mut Variables, name: &str, shape: &[usize]) -> ParameterId {
    variables.parameter(Parameter {
        name: name.to_string(),
        shape: shape.to_vec(),
        dtype: DType::F32,
        trainable: false,
        decay: false,
        init: Init::Normal { std: 0.3 },
    })
}

/// A weight that is never trained and begins as another one.
pub(crate) fn twin(variables: &mut Variables, of: ParameterId) -> ParameterId {
    let other = variables.parameters()[of.0].clone();
    let (name, init) = (format!("teacher.{}", other.name), Init::SameAs(of));
    variables.parameter(Parameter { name, init, trainable: false, ..other })
}

/// A step buffer of slices of this shape.
pub(crate) fn buffer(
    variables: &mut Variables,
    name: &str,
    slice: &[usize],
    micro_batches: usize,
) -> StepBufferId {
    let (name, slice) = (name.to_string(), slice.to_vec());
    variables.step_buffer(StepBuffer { name, slice, micro_batches, dtype: DType::F32 })
}

/// A state that starts at 0: integers if it is a sum, else floats.
pub(crate) fn state(
    variables: &mut Variables,
    name: &str,
    shape: &[usize],
    usage: StateUse,
) -> StateId {
    let dtype = if usage == StateUse::StepSum { DType::I32 } else { DType::F32 };
    let (name, shape) = (name.to_string(), shape.to_vec());
    variables.state(State { name, shape, dtype, usage, init: 0.0 })
}

/// A table and the two weights of a block.
pub(crate) type Tower = [ParameterId; 3];

/// The weights of a tower, by a function such as [`weight`] or [`frozen`].
pub(crate) fn tower(
    variables: &mut Variables,
    name: &str,
    make: fn(&mut Variables, &str, &[usize]) -> ParameterId,
) -> Tower {
    let shapes = [("table", [SYMBOLS + 1, WIDTH]), ("up", [32, WIDTH]), ("down", [WIDTH, 32])];
    shapes.map(|(part, shape)| make(variables, &format!("{name}.{part}"), &shape))
}

/// What a tower makes of symbols: their rows, through its block.
pub(crate) fn encode(g: &mut Graph<'_>, symbols: Tensor, tower: Tower) -> Result<Tensor> {
    let table = g.parameter(tower[0]);
    let x = embedding(g, symbols, table)?;
    block(g, x, tower)
}

/// `x + down gelu(up x)` as a block that recompute policies may drop.
pub(crate) fn block(g: &mut Graph<'_>, x: Tensor, tower: Tower) -> Result<Tensor> {
    g.region(Region::Block, |g| {
        let (up, down) = (g.parameter(tower[1]), g.parameter(tower[2]));
        let y = g.region(Region::FeedForward, |g| {
            let h = linear(g, x, up, None)?;
            let h = gelu(g, h)?;
            linear(g, h, down, None)
        })?;
        add(g, x, y)
    })
}

/// Integer inputs of one length.
pub(crate) fn integers<const N: usize>(
    g: &mut Graph<'_>,
    names: [&str; N],
    rows: usize,
) -> [Tensor; N] {
    names.map(|name| g.input(name, &[rows], DType::I32))
}

/// Scalar inputs: what sums of losses are multiplied by.
pub(crate) fn scales<const N: usize>(g: &mut Graph<'_>, names: [&str; N]) -> [Tensor; N] {
    names.map(|name| g.input(name, &[], DType::F32))
}

/// Causal attention of two heads over sequences of `length` rows.
pub(crate) fn causal(length: usize) -> AttentionSpec {
    AttentionSpec {
        heads: 2,
        kv_heads: 2,
        head_dim: WIDTH / 2,
        sequence_length: length,
        mask: Mask::Causal,
        window: None,
        scale: None,
    }
}

/// The cache of one sequence for that attention.
pub(crate) fn cache(positions: usize) -> CacheSpec {
    let AttentionSpec { heads, kv_heads, head_dim, window, scale, .. } = causal(positions);
    CacheSpec { heads, kv_heads, head_dim, sequences: 1, positions, window, scale }
}

/// The symbol at a position of a sample, and so what the data is.
pub(crate) fn symbol(sample: u64, at: usize) -> usize {
    (0..at).fold((sample as usize * 7) % SYMBOLS, |x, _| (3 * x + 1) % SYMBOLS)
}

/// Fetches what a step report reads.
pub(crate) fn report(g: &mut Graph<'_>, loss: (Tensor, Tensor, Tensor)) -> Tensor {
    let (loss, sum, targets) = loss;
    for (name, tensor) in [("loss", loss), ("loss_sum", sum), ("targets", targets)] {
        g.fetch(name, tensor);
    }
    loss
}

/// Variables and the programs over them.
pub(crate) struct Study {
    variables: Variables,
    layout: Layout,
    recompute: Recompute,
    programs: Vec<Program>,
}

impl Study {
    /// No programs yet. Blocks are small, and every parameter is a bucket of its own.
    pub(crate) fn new(variables: Variables, recompute: Recompute) -> Self {
        let layout = Layout::new(&variables, Granularity { block: 64, bucket: 64 });
        Self { variables, layout, recompute, programs: Vec::new() }
    }

    /// Compiles one more program.
    pub(crate) fn program(
        &mut self,
        name: &str,
        trace: impl FnOnce(&mut Graph<'_>) -> Result<Goal>,
    ) -> ProgramId {
        let mut g = Graph::new(&self.variables);
        let goal = trace(&mut g).unwrap();
        let policy = Policy { recompute: self.recompute.into(), ..Policy::default() };
        self.programs.push(Program::compile(name, g, &goal, policy, &self.layout).unwrap());
        ProgramId(self.programs.len() - 1)
    }

    /// Compiles one more program, forward only.
    pub(crate) fn forward(
        &mut self,
        name: &str,
        trace: impl FnOnce(&mut Graph<'_>) -> Result<()>,
    ) -> ProgramId {
        self.program(name, |g| trace(g).map(|()| Goal::Forward))
    }

    /// The workload whose steps and attempts have this shape and whose inputs `data` fills.
    pub(crate) fn toy(
        self,
        batch: Batch,
        shape: impl Fn(u64, usize) -> StepShape + Send + Sync + 'static,
        data: impl Fn(Cell<'_>) -> f64 + Send + Sync + 'static,
    ) -> Toy {
        Toy {
            variables: self.variables,
            layout: self.layout,
            programs: self.programs,
            batch,
            shape: Box::new(shape),
            fill: Box::new(move |purpose, program, record| {
                fill(batch, &data, purpose, program, record);
            }),
            evaluations: vec![],
            attempts: 1,
            talk: Box::new(|_| None),
            learning_rate: 0.02,
            optimizer: adamw(),
            ownership: Ownership::even,
        }
    }
}

/// A step in which every micro-batch runs the program that is named for it.
pub(crate) fn each(batch: Batch, program: impl Fn(usize) -> ProgramId) -> StepShape {
    let micro_batches = batch.micro_batches();
    let phases = vec![phase(0..micro_batches, program)];
    StepShape { micro_batches, phases, finally: vec![] }
}

/// A phase in which each of these micro-batches runs the program that is named for it.
pub(crate) fn phase(micro_batches: Range<usize>, program: impl Fn(usize) -> ProgramId) -> Phase {
    Phase::Each { programs: micro_batches.clone().map(program).collect(), micro_batches }
}

/// What most graphs are fed: symbols `x`, their successors `y`, and the `scale` of a mean over this
/// many targets. Other inputs are 0.
pub(crate) fn successors(targets: usize) -> impl Fn(Cell<'_>) -> f64 {
    move |cell| match cell.field {
        "x" => symbol(cell.sample, cell.at) as f64,
        "y" => symbol(cell.sample, cell.at + 1) as f64,
        "scale" => 1.0 / targets as f64,
        _ => 0.0,
    }
}

/// The position of the largest value in the last row of logits, if there is one.
pub(crate) fn likeliest(logits: &[f32]) -> Option<i32> {
    let row = logits.chunks_exact(SYMBOLS).last()?;
    (0..SYMBOLS).max_by(|&a, &b| row[a].total_cmp(&row[b])).map(|symbol| symbol as i32)
}

/// What a group of micro-batches runs, in phases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// Forward over every micro-batch, into the buffers that are then gathered.
    pub(crate) forward: ProgramId,
    /// Gathered.
    pub(crate) made: [StepBufferId; 2],
    /// Over all that was gathered.
    pub(crate) once: ProgramId,
    /// Broadcast: the gradients of what was made.
    pub(crate) sent: [StepBufferId; 2],
    /// Backward over every micro-batch.
    pub(crate) backward: ProgramId,
}

impl Group {
    /// The phases of the group of these micro-batches.
    pub(crate) fn phases(self, micro_batches: Range<usize>) -> [Phase; 7] {
        let group = || micro_batches.clone();
        let gather = |buffer| Phase::Gather { buffer, micro_batches: group() };
        let broadcast = |buffer| Phase::Broadcast { buffer, micro_batches: group() };
        [
            phase(group(), |_| self.forward),
            gather(self.made[0]),
            gather(self.made[1]),
            Phase::Once { program: self.once, micro_batches: group() },
            broadcast(self.sent[0]),
            broadcast(self.sent[1]),
            phase(group(), |_| self.backward),
        ]
    }
}

/// The next program and its integer inputs; none at the end.
pub(crate) type Said = Option<(ProgramId, Vec<(&'static str, Vec<i32>)>)>;

/// A conversation by a function: given the last `logits`, at first none, what to run next.
pub(crate) fn converse(next: impl FnMut(&[f32]) -> Said + Send + 'static) -> Box<dyn Drive> {
    Box::new(Conversation(next))
}

struct Conversation<F>(F);

impl<F: FnMut(&[f32]) -> Said + Send> Drive for Conversation<F> {
    fn next(
        &mut self,
        programs: &[Program],
        last: Option<&dyn Results>,
        record: &mut Record<'_>,
    ) -> std::result::Result<Turn, Fault> {
        let mut logits = Vec::new();
        if let Some(results) = last {
            results.read("logits", &mut logits)?;
        }
        let Some((program, inputs)) = (self.0)(&logits) else { return Ok(Turn::End) };
        for (name, values) in inputs {
            record.field::<i32>(&programs[program.0], name).copy_from_slice(&values);
        }
        Ok(Turn::Run(program))
    }
}

fn fill(
    batch: Batch,
    data: &dyn Fn(Cell<'_>) -> f64,
    purpose: Purpose,
    program: &Program,
    record: &mut Record<'_>,
) {
    let Purpose::Train { step, micro_batch, .. } = purpose else { panic!("there are no tasks") };
    let first = batch.first_sample(step, micro_batch);
    for input in program.fields() {
        let (field, spec) = (&*input.name, &input.spec);
        let per_sample = (spec.elements() / batch.micro).max(1);
        let value = |flat: usize| {
            let (sample, at) = (first + (flat / per_sample) as u64, flat % per_sample);
            data(Cell { field, step, first, sample, at, flat, micro_batch })
        };
        if spec.dtype == DType::I32 {
            let cells = record.field::<i32>(program, field).iter_mut().enumerate();
            cells.for_each(|(i, cell)| *cell = value(i) as i32);
        } else {
            let cells = record.field::<f32>(program, field).iter_mut().enumerate();
            cells.for_each(|(i, cell)| *cell = value(i) as f32);
        }
    }
}

/// Plans and trains a graph on 1, 2 and 4 ranks, sharded and not, in one go and moved between
/// ranks, with every recompute policy. Asserts one digest, and returns what one rank gave.
pub(crate) fn one_digest(steps: u64, make: impl Fn(Recompute) -> Toy) -> Trial {
    let workload: Arc<dyn Workload> = Arc::new(make(Recompute::None));
    let alone = train(&workload, 1, Zero::Zero0, steps).unwrap();
    assert!(alone.reports.iter().all(|r| r.loss.is_finite()), "{:?}", alone.reports);
    for ranks in [1, 2, 4] {
        for zero in [Zero::Zero0, Zero::Zero1] {
            let other = train(&workload, ranks, zero, steps).unwrap();
            assert_eq!(other, alone, "{ranks} ranks, {zero:?}");
        }
    }
    let leg = |ranks, zero, steps| Leg { ranks, zero, steps };
    let moved = [
        leg(4, Zero::Zero1, 1),
        leg(1, Zero::Zero0, steps / 2 - 1),
        leg(2, Zero::Zero1, steps - steps / 2),
    ];
    assert_eq!(train_in_legs(&workload, &moved).unwrap(), alone, "moved between ranks");
    for policy in Recompute::ALL {
        let workload: Arc<dyn Workload> = Arc::new(make(policy));
        let other = train(&workload, 2, Zero::Zero1, steps).unwrap();
        assert_eq!((&other.digest, losses(&other)), (&alone.digest, losses(&alone)), "{policy:?}");
    }
    alone
}

/// Trains a toy for some steps on this many ranks.
pub(crate) fn run(toy: Toy, ranks: usize, steps: u64) -> Trial {
    let workload: Arc<dyn Workload> = Arc::new(toy);
    train(&workload, ranks, Zero::Zero1, steps).unwrap()
}

/// The loss of every step.
pub(crate) fn losses(trial: &Trial) -> Vec<f64> {
    trial.reports.iter().map(|r| r.loss).collect()
}

/// Asserts that the last loss is below this share of the first.
pub(crate) fn learns(trial: &Trial, share: f64) {
    let losses = losses(trial);
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < share * first, "it does not learn: {losses:?}");
}
