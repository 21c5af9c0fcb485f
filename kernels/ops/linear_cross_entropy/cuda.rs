//! What the loss head asks of a GPU, chunk by chunk of rows: the product that makes logits, a
//! kernel over their rows, and the products that gradients are. Logits are `f32`; their gradients
//! are stored as the operands are, so that products run on tensor cores, but a bias sums them in
//! `f32`.

use std::ops::Range;

use crate::dtype::DType;
use crate::launch::{
    Accumulate, Argument, Epilogue, Extent, Factor, Grid, Kernel, Launch, Launches, Matmul, Memory,
    element,
};
use crate::ops::Io;
use crate::ops::column_sum;
use crate::ops::linear_cross_entropy::{LinearCrossEntropy, Wanted};
use crate::ops::loss::live_of;

/// Bytes of what forward notes about a row: three `f64`.
const RECORD_BYTES: usize = 24;

/// Scratch begins where 16 bytes do.
const ALIGNMENT: usize = 256;

/// The head over its operands.
struct Head<'a> {
    io: &'a Io,
    op: &'a LinearCrossEntropy,
    dtype: DType,
    rows: usize,
    columns: usize,
    classes: usize,
    /// Whose live rows these are.
    live: Memory,
}

/// The scratch so far.
#[derive(Default)]
struct Scratch(usize);

impl Scratch {
    fn take(&mut self, bytes: usize) -> Memory {
        let memory = Memory::Workspace { offset: self.0, bytes };
        self.0 += bytes.next_multiple_of(ALIGNMENT);
        memory
    }
}

/// Where gradients of logits go.
struct Made {
    /// As the operands are stored.
    narrow: Memory,
    /// In `f32`, if somebody sums them and `narrow` is not.
    wide: Option<Memory>,
    /// Sums over blocks of rows, for the bias.
    sums: Option<Memory>,
    wanted: Wanted,
    /// The output that is the gradient of `hidden`; the others follow.
    first: usize,
}

impl<'a> Head<'a> {
    fn new(io: &'a Io, op: &'a LinearCrossEntropy) -> Option<Self> {
        let dtype = element(&io.inputs[..2 + usize::from(op.bias)])?;
        let live = live_of(io, 0, op.labels())?;
        let [rows, columns] = [io.inputs[0].leading(), io.inputs[0].columns()];
        let classes = io.inputs[1].leading();
        Some(Self { io, op, dtype, rows, columns, classes, live })
    }

    /// As many as options ask for, or all that there are.
    fn chunk_rows(&self) -> usize {
        self.rows.min(self.op.options.chunk_rows.saturating_mul(self.op.options.gpu_chunks))
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (size, rows) = (self.chunk_rows().max(1), self.rows);
        (0..rows).step_by(size).map(move |start| start..rows.min(start + size))
    }

    /// Scratch for an item of each logit of a chunk.
    fn logits(&self, scratch: &mut Scratch, dtype: DType) -> Memory {
        scratch.take(self.chunk_rows() * self.classes * dtype.bytes())
    }

    /// Where gradients go, if the logits themselves lie in `logits` and may be overwritten.
    fn made(
        &self,
        scratch: &mut Scratch,
        logits: Option<Memory>,
        wanted: Wanted,
        first: usize,
    ) -> Made {
        let f32s =
            |scratch: &mut Scratch| logits.unwrap_or_else(|| self.logits(scratch, DType::F32));
        let (narrow, wide) = match self.dtype {
            DType::F32 => (f32s(scratch), None),
            dtype => (self.logits(scratch, dtype), wanted.bias.then(|| f32s(scratch))),
        };
        let blocks = self.chunk_rows().div_ceil(column_sum::cuda::ROWS);
        let sums = wanted.bias.then(|| scratch.take(blocks * self.classes * size_of::<f32>()));
        Made { narrow, wide, sums, wanted, first }
    }

    fn extent(&self, rows: &Range<usize>) -> Extent {
        Extent::rows(self.io, self.live.rows(rows.clone()))
    }

    fn factor(&self, memory: Memory, transposed: bool) -> Factor {
        Factor { memory, dtype: self.dtype, transposed, scale: None }
    }

    /// `logits = hidden wᵀ + bias`.
    fn product(&self, rows: &Range<usize>, logits: Memory) -> Launch {
        let bias = || Epilogue::Bias(Memory::Input(2));
        Launch::Matmul(Matmul {
            m: self.extent(rows),
            n: self.classes,
            k: self.columns.into(),
            a: self.factor(Memory::Input(0).rows(rows.clone()), false),
            b: self.factor(Memory::Input(1), true),
            c: logits,
            c_dtype: DType::F32,
            accumulate: Accumulate::Never,
            epilogue: if self.op.bias { bias() } else { Epilogue::None },
        })
    }

    /// A kernel with a block for each row of a chunk. Behind arguments of its own it is given the
    /// rows, the classes, and settings.
    fn over(
        &self,
        function: String,
        rows: &Range<usize>,
        own: &[Argument],
        settings: &[Argument],
    ) -> Launch {
        let grid = Grid::Fixed([rows.len() as u32, 1, 1]);
        let of = Memory::Input(0);
        let kernel = Kernel { grid, ..Kernel::over_rows("linear_cross_entropy", function, of, 1) };
        let sizes = [rows.start, rows.len(), self.classes].map(|size| Argument::U32(size as u32));
        kernel.with(
            own.iter()
                .copied()
                .chain([Argument::Live(self.live)])
                .chain(sizes)
                .chain(settings.to_vec()),
        )
    }

    fn settings(&self) -> [Argument; 3] {
        let options = self.op.options;
        let settings = [options.z_loss, options.label_smoothing, options.softcap.unwrap_or(0.0)];
        settings.map(Argument::F32)
    }

    /// The gradients that a chunk's gradients of logits make.
    fn gradients(&self, rows: &Range<usize>, made: &Made) -> Vec<Launch> {
        let is_first = rows.start == 0;
        let accumulate = |output: usize| match is_first {
            true => Accumulate::As(output),
            false => Accumulate::Always,
        };
        let hidden = Matmul {
            m: self.extent(rows),
            n: self.columns,
            k: self.classes.into(),
            a: self.factor(made.narrow, false),
            b: self.factor(Memory::Input(1), false),
            c: Memory::Output(made.first).rows(rows.clone()),
            c_dtype: self.dtype,
            accumulate: Accumulate::As(made.first),
            epilogue: Epilogue::None,
        };
        let mut list = vec![Launch::Matmul(hidden)];
        let mut output = made.first + 1;
        if made.wanted.weight {
            list.push(Launch::Matmul(Matmul {
                m: self.classes.into(),
                n: self.columns,
                k: self.extent(rows),
                a: self.factor(made.narrow, true),
                b: self.factor(Memory::Input(0).rows(rows.clone()), false),
                c: Memory::Output(output),
                c_dtype: DType::F32,
                accumulate: accumulate(output),
                epilogue: Epilogue::None,
            }));
            output += 1;
        }
        if let Some(sums) = made.sums {
            let adds = if is_first { Argument::Accumulate(output) } else { Argument::U32(1) };
            // Dead rows are zeros there.
            let from = made.wide.unwrap_or(made.narrow);
            let to = (Memory::Output(output), adds);
            list.extend(column_sum::cuda::of_scratch(from, sums, [rows.len(), self.classes], to));
        }
        list
    }
}

pub(super) fn forward(io: &Io, op: &LinearCrossEntropy) -> Option<Launches> {
    let head = Head::new(io, op)?;
    let mut scratch = Scratch::default();
    let pointer = |memory: Option<Memory>| memory.map_or(Argument::Null, Argument::Pointer);
    let records = scratch.take(head.rows * RECORD_BYTES);
    let kept = op.keeps_logits(&io.inputs[0], &io.inputs[1]);
    let logits = if kept { Memory::Output(4) } else { head.logits(&mut scratch, DType::F32) };
    let made = op.makes.map(|wanted| head.made(&mut scratch, Some(logits), wanted, 4));
    let labels = Memory::Input(op.labels());
    let scale = Argument::Pointer(Memory::Input(op.operands() - 1));
    let mut list = Vec::new();
    for rows in head.chunks() {
        list.push(head.product(&rows, logits));
        let own = [
            Argument::Pointer(logits),
            Argument::Pointer(labels),
            Argument::Pointer(records),
            Argument::Pointer(Memory::Output(3)),
            pointer(made.as_ref().map(|made| made.narrow)),
            pointer(made.as_ref().and_then(|made| made.wide)),
            scale,
        ];
        let function = format!("loss_rows_{}", head.dtype);
        list.push(head.over(function, &rows, &own, &head.settings()));
        list.extend(made.iter().flat_map(|made| head.gradients(&rows, made)));
    }
    let marks = op.marks.then(|| Memory::Input(op.labels() + 1));
    let marked = op.marks.then(|| Memory::Output(4 + usize::from(kept)));
    let [loss, loss_sum, targets] = [0, 1, 2].map(|i| Argument::Pointer(Memory::Output(i)));
    let totals = Kernel {
        grid: Grid::Fixed([1, 1, 1]),
        ..Kernel::over_rows("linear_cross_entropy", "totals".to_string(), labels, 1)
    };
    list.push(totals.with([
        Argument::Pointer(records),
        Argument::Pointer(labels),
        pointer(marks),
        scale,
        loss,
        loss_sum,
        targets,
        pointer(marked),
        Argument::Live(head.live),
        Argument::U32(head.rows as u32),
    ]));
    Some(Launches { workspace_bytes: scratch.0, ..Launches::new(list) })
}

pub(super) fn gradient((op, wanted): &(LinearCrossEntropy, Wanted), io: &Io) -> Option<Launches> {
    let head = Head::new(io, op)?;
    let mut scratch = Scratch::default();
    let saved = op.operands();
    let kept = (io.inputs.len() > saved + 2).then_some(Memory::Input(saved + 2));
    let logits = kept.unwrap_or_else(|| head.logits(&mut scratch, DType::F32));
    let made = head.made(&mut scratch, Some(logits).filter(|_| kept.is_none()), *wanted, 0);
    let [labels, scale] = [op.labels(), saved - 1].map(|i| Argument::Pointer(Memory::Input(i)));
    let [logsumexp, dloss] = [saved, saved + 1].map(|i| Argument::Pointer(Memory::Input(i)));
    let mut list = Vec::new();
    for rows in head.chunks() {
        if kept.is_none() {
            list.push(head.product(&rows, logits));
            if let Some(cap) = op.options.softcap {
                let (own, cap) = ([Argument::Pointer(logits)], [Argument::F32(cap)]);
                list.push(head.over("cap_logits".to_string(), &rows, &own, &cap));
            }
        }
        let wide = made.wide.map_or(Argument::Null, Argument::Pointer);
        let (from, narrow) = (Argument::Pointer(logits), Argument::Pointer(made.narrow));
        let own = [from, labels, logsumexp, narrow, wide, scale, dloss];
        let function = format!("gradient_rows_{}", head.dtype);
        list.push(head.over(function, &rows, &own, &head.settings()));
        list.extend(head.gradients(&rows, &made));
    }
    Some(Launches { workspace_bytes: scratch.0, ..Launches::new(list) })
}
