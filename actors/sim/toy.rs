//! A tiny workload for tests of the control plane: two parameters, one saved state, one program
//! that trains and one for held-out data. Records are a pure function of their purpose.

use octet_kernels::dtype::DType;
use octet_kernels::graph::{
    Goal, Granularity, Graph, Init, Layout, Ownership, Parameter, Policy, Program, State, StateUse,
    Variables,
};
use octet_kernels::ops::cross_entropy::cross_entropy;
use octet_kernels::ops::embedding::embedding;
use octet_kernels::ops::linear::linear;

use crate::contract::{
    Batch, EvaluationTask, Phase, ProgramId, Purpose, Reading, Record, StepShape, Workload,
};
use crate::testing::{Toy, adamw};

/// Rows of a micro-batch.
const ROWS: usize = 4;
/// Different symbols in a record.
const SYMBOLS: usize = 5;
/// Words of the saved state.
pub(crate) const STATE_WORDS: usize = 5;

/// What can be chosen.
#[derive(Debug, Clone)]
pub(crate) struct Tiny {
    /// Lanes of the batch.
    pub lanes: usize,
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// Parts of each held-out task.
    pub tasks: Vec<u64>,
    /// Attempts of a step.
    pub attempts: usize,
}

impl Default for Tiny {
    fn default() -> Self {
        Self { lanes: 4, micro_batches: 4, tasks: vec![5], attempts: 2 }
    }
}

/// The workload.
pub(crate) fn tiny(options: &Tiny) -> Toy {
    let variables = variables();
    let layout = Layout::new(&variables, Granularity { block: 16, bucket: 48 });
    let programs = vec![
        program("train", &variables, &layout, true),
        program("held_out", &variables, &layout, false),
    ];
    let micro_batches = options.micro_batches;
    let task = |(i, &parts): (usize, &u64)| EvaluationTask {
        name: format!("task {i}"),
        program: ProgramId(1),
        parts,
        every: None,
        sums: ["loss_sum", "targets"].map(str::to_string).to_vec(),
        reading: Reading::mean(),
    };
    Toy {
        variables,
        layout,
        programs,
        batch: Batch { micro: ROWS, global: ROWS * micro_batches, lanes: options.lanes },
        shape: Box::new(move |_, _| StepShape {
            micro_batches,
            phases: vec![Phase::Each {
                micro_batches: 0..micro_batches,
                programs: vec![ProgramId(0); micro_batches],
            }],
            finally: vec![],
        }),
        fill: Box::new(fill),
        evaluations: options.tasks.iter().enumerate().map(task).collect(),
        attempts: options.attempts,
        talk: Box::new(|_| None),
        learning_rate: 0.1,
        optimizer: adamw(),
        ownership: Ownership::even,
    }
}

fn variables() -> Variables {
    let mut variables = Variables::new();
    for name in ["table", "head"] {
        variables.parameter(Parameter {
            name: name.to_string(),
            shape: vec![SYMBOLS, 7],
            dtype: DType::F32,
            trainable: true,
            decay: true,
            init: Init::Constant(0.0),
        });
    }
    variables.state(State {
        name: "chain".to_string(),
        shape: vec![STATE_WORDS],
        dtype: DType::I64,
        usage: StateUse::Replicated,
        init: 0.0,
    });
    variables
}

fn program(name: &str, variables: &Variables, layout: &Layout, trains: bool) -> Program {
    let mut g = Graph::new(variables);
    let x = g.input("x", &[ROWS], DType::I32);
    let y = g.input("y", &[ROWS], DType::I32);
    let scale = g.input("scale", &[], DType::F32);
    let [table, head] = [0, 1].map(|i| g.parameter(octet_kernels::graph::ParameterId(i)));
    let h = embedding(&mut g, x, table).expect("shapes fit");
    let scores = linear(&mut g, h, head, None).expect("shapes fit");
    let (loss, sum, targets) = cross_entropy(&mut g, scores, y, scale).expect("shapes fit");
    for (name, tensor) in [("loss", loss), ("loss_sum", sum), ("targets", targets)] {
        g.fetch(name, tensor);
    }
    let goal = if trains { Goal::Train { loss } } else { Goal::Forward };
    Program::compile(name, g, &goal, Policy::default(), layout).expect("it compiles")
}

fn fill(purpose: Purpose, program: &Program, record: &mut Record<'_>) {
    // An attempt sees what the one before it saw.
    let seed = match purpose {
        Purpose::Train { step, micro_batch, .. } => 1 + (step << 8 | micro_batch as u64),
        Purpose::Evaluate { task, part } => 1 << 40 | (task as u64) << 32 | part,
    };
    let mut random = Random::new(seed);
    for name in ["x", "y"] {
        for cell in record.field::<i32>(program, name) {
            *cell = random.below(SYMBOLS as u64) as i32;
        }
    }
    record.field::<f32>(program, "scale")[0] = 1.0 / ROWS as f32;
}

/// A rank's records of a step, as a loader must fill them, by micro-batch.
pub(crate) fn expected(workload: &dyn Workload, purpose: Purpose, program: ProgramId) -> Vec<u8> {
    let bytes = workload.programs()[program.0].input_bytes.next_multiple_of(64);
    let mut lines = vec![[0u64; 8]; bytes / 64];
    let mut record = Record::new(bytemuck::cast_slice_mut(&mut lines));
    workload.fill(purpose, program, &mut record).expect("it fills");
    bytemuck::cast_slice(&lines).to_vec()
}

/// SplitMix64: all chance in a simulation comes from one of these.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
